import type { Fields } from '../http/fields.ts'
import type { Clock, Timer } from '../time/clock.ts'
import type { ResponseControl } from '../upstream/transport.ts'

/** Takes the body of a response as it comes. Ends with exactly one of `end`, `breakOff` and `fail`. */
export interface BodyReceiver {
  piece(chunk: Buffer): void
  /** The body was whole. */
  end(trailers: Fields): void
  /** The connection broke before the end of the body. */
  breakOff(error: Error): void
  /** The gateway made a mistake. */
  fail(mistake: unknown): void
}

/**
 * A response that is not delivered is read to its end, so that the connection can be used again. It is broken off if it is longer, or
 * takes longer, than this.
 */
const DRAIN_BYTES = 65_536
const DRAIN_MS = 1_000
/**
 * How much of a body is kept before it is wanted; the last piece may exceed it. A drain breaks off a longer body, since `DRAIN_BYTES`
 * is less.
 */
const EARLY_BYTES = 262_144
const NOT_WANTED = new Error('the response is not wanted')

type Ending = (receiver: BodyReceiver) => void

/**
 * A response whose headers are here. It is passed to a receiver, drained or aborted. Until that is decided, what comes of its body is
 * kept. That is rarely more than was read together with the headers, because the decision falls in the same turn of the event loop.
 * If more comes than `EARLY_BYTES`, the rest is left with the upstream until then.
 */
export class UpstreamResponse {
  readonly status: number
  readonly fields: Fields
  /** The reason phrase; empty in HTTP/2, which has none. */
  readonly phrase: string
  /** Whether it refuses the call for rate with a status other than 429. It is then judged as a 429, but passed on as it is. */
  isDisguised = false
  readonly #control: ResponseControl
  #state: 'undecided' | 'passed' | 'draining' | 'over' = 'undecided'
  #receiver: BodyReceiver | undefined
  #early: Buffer[] | undefined
  #earlyBytes = 0
  #isPaused = false
  #ending: Ending | undefined
  #drainedBytes = 0
  #overdue: Timer | undefined

  constructor(control: ResponseControl, status: number, fields: Fields, phrase = '') {
    this.#control = control
    this.status = status
    this.fields = fields
    this.phrase = phrase
  }

  /** Whether it matters how the response ends: a receiver has it, or nobody has decided yet. */
  get isWanted(): boolean {
    return this.#state === 'passed' || this.#state === 'undecided'
  }

  /** The status by which it is judged. */
  get meaning(): number {
    return this.isDisguised ? 429 : this.status
  }

  passTo(receiver: BodyReceiver): void {
    this.#state = 'passed'
    this.#receiver = receiver
    for (const chunk of this.#early ?? []) receiver.piece(chunk)
    this.#early = undefined
    if (this.#ending !== undefined) this.#end(this.#ending)
    // The upstream goes on last, so that the kept pieces come before new ones.
    else if (this.#earlyBytes > EARLY_BYTES && !this.#isPaused) this.#control.resume()
  }

  /** Reads the rest, up to a bound, and throws it away. */
  drain(clock: Clock): void {
    if (this.#ending !== undefined) return
    this.#state = 'draining'
    this.#overdue = clock.schedule(DRAIN_MS, () => this.#breakOff())
    for (const chunk of this.#early ?? []) this.#throwAway(chunk)
    this.#early = undefined
  }

  /** Breaks the response off: closes its connection, or its HTTP/2 stream. Does nothing if it is being drained or has ended. */
  abort(): void {
    if (this.#state === 'draining' || this.#state === 'over') return
    this.#state = 'over'
    if (this.#ending === undefined) this.#control.abort(NOT_WANTED)
  }

  pause(): void {
    this.#isPaused = true
    this.#control.pause()
  }

  resume(): void {
    this.#isPaused = false
    this.#control.resume()
  }

  onData(chunk: Buffer): void {
    // A 205 has no content (RFC 9110 §15.3.6), and Node ends it in HTTP/2 with its head.
    if (this.status === 205) return
    if (this.#state === 'passed') this.#receiver!.piece(chunk)
    else if (this.#state === 'draining') this.#throwAway(chunk)
    else if (this.#state === 'undecided') this.#keep(chunk)
  }

  onEnd(trailers: Fields): void {
    this.#end((receiver) => receiver.end(trailers))
  }

  onError(error: Error): void {
    this.#end((receiver) => receiver.breakOff(error))
  }

  /** Fails the receiver, even if the receiver itself threw at the end of the body. */
  onMistake(mistake: unknown): void {
    if (this.#receiver === undefined) return this.#end((receiver) => receiver.fail(mistake))
    this.#state = 'over'
    this.#receiver.fail(mistake)
  }

  #keep(chunk: Buffer): void {
    ;(this.#early ??= []).push(chunk)
    this.#earlyBytes += chunk.length
    if (this.#earlyBytes > EARLY_BYTES) this.#control.pause()
  }

  #end(ending: Ending): void {
    this.#ending ??= ending
    this.#overdue?.cancel()
    if (this.#state !== 'passed') return
    this.#state = 'over'
    ending(this.#receiver!)
  }

  #throwAway(chunk: Buffer): void {
    this.#drainedBytes += chunk.length
    if (this.#drainedBytes > DRAIN_BYTES) this.#breakOff()
  }

  #breakOff(): void {
    this.#state = 'over'
    this.#control.abort(NOT_WANTED)
  }
}
