import type { Registry } from '@prometheus-io/client'
import { counterFamily, type CounterSeries, type Family } from '../observe/series.ts'

/** Counts what became of messages. With several workers, the first process sends them for all. */
export class WebhookCounts {
  readonly #messages: Family<CounterSeries>

  constructor(registry: Registry) {
    this.#messages = counterFamily(registry, 'webhook_messages', 'Messages to webhooks, by what became of them.')
  }

  of(webhook: string): Record<'sent' | 'failed' | 'dropped', CounterSeries> {
    const of = (result: string): CounterSeries => this.#messages.of({ webhook, result })
    return { sent: of('sent'), failed: of('failed'), dropped: of('dropped') }
  }
}
