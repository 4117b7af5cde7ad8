import type { Fields } from '../http/fields.ts'
import type { Clock, Timer } from '../time/clock.ts'
import type { ResponseControl } from '../upstream/transport.ts'

/** Takes the body of a response as it comes. Ends with exactly one of `end`, `breakOff` and `fail`. */
export interface BodyReceiver {
  piece(chunk: Buffer): void
  /** The body was whole. */
  end(trailers: Fields): void
  /** The connection broke before that. */
  breakOff(error: Error): void
  /** The gateway made a mistake. */
  fail(mistake: unknown): void
}

/** A response that is not delivered is read to its end, so that the connection can be used again, unless it is longer or takes longer. */
const DRAIN_BYTES = 65_536
const DRAIN_MS = 1_000
/** The most of a body that is taken before anybody wants it, but for its last piece. A body that is drained is broken off before. */
const EARLY_BYTES = 262_144
const NOT_WANTED = new Error('the response is not wanted')

type Ending = (receiver: BodyReceiver) => void

/**
 * A response whose headers are here and of which nobody has decided yet what becomes of it: it is passed to a receiver, drained
 * or aborted. What comes of its body before that is kept, which is rarely more than what was read together with the headers, because
 * the decision falls in the same turn of the event loop. Of a body that comes faster the rest is left with the upstream until then.
 */
export class UpstreamResponse {
  readonly status: number
  readonly fields: Fields
  /** The reason phrase, which HTTP/2 has none of. */
  readonly phrase: string
  /** Whether it refuses the call for rate with another status: then it is judged as a 429, and passed on as it is. */
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

  /** Whether it matters how it ends: somebody has it, or it may break off before anybody has decided. */
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
    // Last, since what has come already goes before what comes now.
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

  /** Breaks it off, unless it is being drained or has ended: its connection is closed, or its stream of HTTP/2. */
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

  /** Also if what threw is the receiver itself, at the end of the body. */
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
