import type { Logger } from '../observe/log.ts'
import { backoffMs } from '../resilience/backoff.ts'
import type { Random, Timer } from '../time/clock.ts'
import type { WebhookCounts } from './counts.ts'
import { type Message, slackBody } from './message.ts'
import { Receiver, type ReceiverOptions } from './receiver.ts'

/** Messages that wait; the oldest make way. */
const MOST_QUEUED = 100
/** So many messages go at once, and then one in so long: a storm must not lock us out of a chat. */
const BURST = 10
const EVERY_MS = 6_000
const MOST_ATTEMPTS = 8
const BACKOFF = { baseDelayMs: 1_000, maxDelayMs: 300_000, jitter: 'equal' } as const

export interface DeliveryOptions extends ReceiverOptions {
  readonly name: string
  readonly logger: Logger
  readonly random: Random
  readonly counts: WebhookCounts
}

/** Sends the messages of one webhook, one after the other in their order. What fails for a while is sent again, at most seven times. */
export class Delivery {
  readonly #options: DeliveryOptions
  readonly #receiver: Receiver
  readonly #counts: ReturnType<WebhookCounts['of']>
  readonly #queue: Message[] = []
  /** The keys of messages that the receiver may have been told are firing, and not yet that they are over. */
  readonly #told = new Set<string>()
  #dropped = 0
  #sending: Promise<void> | undefined
  #timer: Timer | undefined
  #wake: (() => void) | undefined
  #isClosed = false
  /** When the last of a burst may be sent, if the others went as early as they may. */
  #freeAt = -Infinity

  constructor(options: DeliveryOptions) {
    this.#options = options
    this.#receiver = new Receiver(options)
    this.#counts = options.counts.of(options.name)
  }

  /** Never waits, and never throws. */
  add(message: Message): void {
    if (this.#isClosed) return
    if (message.status === 'resolved') {
      this.#forget(message.key)
      // What came and went before anybody could be told is not told.
      if (!this.#told.has(message.key)) return
      if (this.#queue.some(({ key, status }) => key === message.key && status === 'resolved')) return
    }
    if (this.#queue.length >= MOST_QUEUED) {
      this.#queue.splice(1, 1)
      this.#dropped++
      this.#counts.dropped.increment()
    }
    this.#queue.push(message)
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = undefined
    })
  }

  /** Takes out what waits to be told of it. The first message is under way. */
  #forget(about: string): void {
    const [first, ...waiting] = this.#queue
    if (first === undefined) return
    const left = waiting.filter(({ key, status }) => key !== about || status !== 'firing')
    this.#queue.splice(0, Infinity, first, ...left)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#timer?.cancel()
    this.#wake?.()
    await this.#receiver.close()
    await this.#sending
    const left = this.#queue.length
    if (left > 0)
      this.#options.logger.warn({ webhook: this.#options.name, messages: left }, 'messages to a webhook are given up')
  }

  async #sendAll(): Promise<void> {
    const { clock } = this.#options
    for (let message = this.#queue[0]; message !== undefined && !this.#isClosed; message = this.#queue[0]) {
      if (message.status === 'firing') this.#told.add(message.key)
      else this.#told.delete(message.key)
      const now = clock.now()
      this.#freeAt = Math.max(this.#freeAt, now - BURST * EVERY_MS) + EVERY_MS
      if (this.#freeAt > now) await this.#pause(this.#freeAt - now)
      const isOver = await this.#send(message)
      if (!isOver) return
      this.#queue.splice(this.#queue.indexOf(message), 1)
    }
  }

  /** Whether the message is sent, or given up; not if this is closed before. */
  async #send(message: Message): Promise<boolean> {
    const { name, config, logger, random } = this.#options
    const dropped = this.#dropped
    const body = JSON.stringify(config.format === 'slack' ? slackBody(message, dropped) : { ...message, dropped })
    let previousMs = 0
    for (let attempt = 1; !this.#isClosed; attempt++) {
      const outcome = await this.#receiver.send(body)
      if (this.#isClosed) return outcome.kind === 'sent'
      if (outcome.kind === 'sent') {
        this.#dropped -= dropped
        this.#counts.sent.increment()
        return true
      }
      const { because, isPassing, retryAfterMs } = outcome
      if (!isPassing || attempt === MOST_ATTEMPTS) {
        this.#counts.failed.increment()
        const { event, key } = message
        logger.error({ webhook: name, event, key, attempts: attempt, because }, 'a webhook could not be told')
        return true
      }
      const wantedMs = retryAfterMs === undefined ? undefined : Math.min(retryAfterMs, BACKOFF.maxDelayMs)
      previousMs = backoffMs(BACKOFF, { retry: attempt, previousMs, retryAfterMs: wantedMs }, random)
      await this.#pause(previousMs)
    }
    return false
  }

  #pause(ms: number): Promise<void> {
    if (this.#isClosed) return Promise.resolve()
    return new Promise((resolve) => {
      this.#wake = resolve
      this.#timer = this.#options.clock.schedule(ms, resolve)
    })
  }
}
