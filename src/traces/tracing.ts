/*
 * src/traces: spans of calls and their attempts, made of what a call has left when it has ended, and their export.
 * It imports what .oxlintrc.ts lists. OpenTelemetry is loaded by exporter.ts alone, and that only when traces are on.
 * A change here must prove what a receiver of another's making reads, that no secret is in it, and that it costs nothing when
 * it is off (test/traces, npm run bench:observe).
 */

import type { IncomingHttpHeaders } from 'node:http'
import type { Call } from '../gateway/call.ts'
import { TraceContext } from '../http/trace-context.ts'
import type { Logger } from '../observe/log.ts'
import type { CounterSeries } from '../observe/series.ts'
import type { RequestRecord } from '../requests/story.ts'
import type { TracesConfig } from '../schema/schema.ts'
import type { Export } from './exporter.ts'
import { spansOf } from './spans.ts'

export interface TracingParts {
  readonly logger: Logger
  readonly dropped: CounterSeries
  /** Tells this process from all others. */
  readonly instanceId: string
}

/** The export of a configuration; none if there are to be no traces. */
interface Opened {
  readonly config: TracesConfig | undefined
  readonly export: Export | undefined
}

/** How long the spans of a configuration that is no longer in force may take. */
const FLUSH_MS = 5_000

/** The traces of one process: on, off or elsewhere after a reload. */
export class Tracing {
  readonly #parts: TracingParts
  #config: TracesConfig | undefined
  #export: Export | undefined
  /** Where the latest spans go. The log is about it alone, also while it closes. */
  #latest: TracesConfig | undefined
  /** Whether the latest export to it failed. */
  #isFailing = false

  constructor(parts: TracingParts) {
    this.#parts = parts
  }

  /** Opens what another configuration needs. Then `take` it, or `drop` it. */
  async open(config: TracesConfig | undefined): Promise<Opened> {
    if (config === this.#config) return { config, export: this.#export }
    if (config === undefined) return { config, export: undefined }
    return { config, export: (await import('./exporter.ts')).openExport(this.#exportParts(config)) }
  }

  /** Puts another configuration in force; without one there are no traces. Spans that wait still go where they were to go. */
  take({ config, export: opened }: Opened): void {
    if (config === this.#config) return
    const before = this.#export
    this.#config = this.#latest = config
    this.#export = opened
    this.#isFailing = false
    void before?.close(FLUSH_MS)
  }

  async drop({ export: opened }: Opened): Promise<void> {
    if (opened !== this.#export) await opened?.close(0)
  }

  /** The trace of a call that comes; undefined while there are none. */
  begin(headers: IncomingHttpHeaders): TraceContext | undefined {
    return this.#config && new TraceContext(headers, this.#config)
  }

  /** To be called of a call whose trace is kept. */
  end(call: Call, record: RequestRecord, trace: TraceContext): void {
    this.#export?.add(trace, spansOf(call, record, trace))
  }

  /** Sends what waits, for at most this long; where the collector does not answer anyway, not even that long. */
  async close(withinMs: number): Promise<void> {
    const before = this.#export
    this.#config = this.#export = undefined
    await before?.close(this.#isFailing ? Math.min(withinMs, LAST_TRY_MS) : withinMs)
  }

  #exportParts(config: TracesConfig) {
    const { logger, dropped, instanceId } = this.#parts
    return {
      config,
      instanceId,
      onProblem: (message: string) => logger.warn(message),
      onTaken: () => {
        if (this.#latest !== config) return
        if (this.#isFailing) logger.info('spans are exported again')
        this.#isFailing = false
      },
      onDropped: (spans: number, error: Error | undefined) => {
        dropped.increment(undefined, spans)
        if (error === undefined || this.#isFailing || this.#latest !== config) return
        this.#isFailing = true
        const { message, code } = error as Error & { code?: unknown }
        logger.warn({ error: message, code }, 'spans can not be exported, and are dropped until they can')
      },
    }
  }
}

const LAST_TRY_MS = 1_000
