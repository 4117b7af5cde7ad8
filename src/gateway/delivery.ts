import type { Scrub } from '../credentials/scrub.ts'
import type { Fields } from '../http/fields.ts'
import type { Cancellation, Subscription } from '../time/cancellation.ts'
import type { Timer } from '../time/clock.ts'
import { responseHeaders, responseTrailers } from '../upstream/headers.ts'
import type { AnswerPrice } from './answer-price.ts'
import { breakOff, breakOffWhenIdle } from './break-off.ts'
import type { Answering } from './call.ts'
import { type Delivered, DELIVERED, GONE } from './forwarded.ts'
import { ownHeaders, tightestOf } from './own-headers.ts'
import { leadToGateway } from './own-links.ts'
import type { ResponseObserver } from './response-observer.ts'
import type { BodyReceiver, UpstreamResponse } from './upstream-response.ts'

export interface DeliveryOptions {
  /** How long the client may take nothing while data waits for it, in milliseconds. Then the response is broken off. */
  readonly idleMs: number
  /** Removes from the response what the upstream echoes of the request's credential. */
  readonly scrub: Scrub | undefined
  /** Sees all of the response on its way. While other calls wait for the response, it goes on after its own client has left. */
  readonly observer: ResponseObserver | undefined
  /** Reads what the call costs from the body, as the upstream sent it. */
  readonly price: AnswerPrice | undefined
  /** Says how long the response is read on for its price after its client has left. */
  readonly worth: Pick<AnswerPrice, 'finishMs' | 'finishBy'> | undefined
  /** Cancelled when the gateway stops: then no response is read for its price alone. */
  readonly drain: Cancellation
}

/** How many bytes of an answer are read for its price at most, after its client has left. */
const FINISH_BYTES = 16 * 1_048_576

/** A response whose body is passed on as it comes; see `UpstreamResponse`. */
export type Deliverable = Pick<
  UpstreamResponse,
  'status' | 'meaning' | 'fields' | 'phrase' | 'passTo' | 'pause' | 'resume' | 'abort'
>

/** A body up to this length is sent together with its head, which takes less time. With a longer one it takes more, see docs/decisions.md. */
const SHORT_BYTES = 1_024

/**
 * Passes a response on as it comes, no faster than the client takes it, unless other calls wait for it. Resolves with how it ended, also
 * if it broke off or its client left. Rejects only on a mistake of the gateway.
 */
export function deliver(call: Answering, response: Deliverable, options: DeliveryOptions): Promise<Delivered> {
  return new Promise((resolve, reject) => {
    const delivery = new Delivery(call, response, options, resolve, reject)
    try {
      delivery.begin()
    } catch (mistake) {
      delivery.fail(mistake)
    }
  })
}

class Delivery implements BodyReceiver {
  readonly #call: Answering
  readonly #response: Deliverable
  readonly #options: DeliveryOptions
  readonly #resolve: (end: Delivered) => void
  readonly #reject: (mistake: unknown) => void
  /** The client has gone, and the response goes on for other calls or for its price. */
  #isWithoutClient = false
  /** How many more bytes are read for the price alone. */
  #finishBytes = 0
  #isOver = false
  /** Whether the client is told what is left of the gateway's limits, in place of what the upstream says of its own. */
  #hasOwnQuota = false
  /** True while the pieces that came with the headers are taken in. The last one is held: if the end came, too, both go out together. */
  #isBeginning = true
  #heldPiece: Buffer | undefined
  #cancellation: Subscription | undefined
  /** Ends the call if the client takes nothing for too long. */
  #idle: Timer | undefined

  constructor(
    call: Answering,
    response: Deliverable,
    options: DeliveryOptions,
    resolve: (end: Delivered) => void,
    reject: (mistake: unknown) => void,
  ) {
    this.#call = call
    this.#response = response
    this.#options = options
    this.#resolve = resolve
    this.#reject = reject
  }

  begin(): void {
    const { scrub, observer } = this.#options
    const call = this.#call
    const { status, meaning, fields, phrase } = this.#response
    if (call.isGone) this.#onGone()
    else this.#cancellation = call.gone.subscribe(this.#onGone)
    if (this.#isOver) return
    call.onHead?.()
    const tightest = tightestOf(call)
    this.#hasOwnQuota = tightest !== undefined
    const headers = responseHeaders(fields, this.#hasOwnQuota)
    const reason = reasonOf(phrase, scrub)
    observer?.begin(meaning, reason, fields, headers)
    if (!this.#isWithoutClient) {
      leadToGateway(call, headers)
      ownHeaders(call, headers, tightest)
      call.response.writeHead(status, reason, headers)
    }
    this.#response.passTo(this)
    this.#isBeginning = false
    if (this.#isOver || this.#isWithoutClient) return
    // A piece that is here already goes out with the head. If there is none, the head does not wait: the body may be long in coming.
    if (this.#heldPiece === undefined) call.response.flushHeaders()
    // If the client does not take all of it, the rest waits in the response's buffer. Only the next piece pauses the upstream.
    else this.#write(this.#heldPiece)
  }

  piece(chunk: Buffer): void {
    const { observer, scrub, price } = this.#options
    price?.piece(chunk)
    const piece = scrub === undefined ? chunk : scrub.piece(chunk)
    if (piece !== undefined && !this.#pass(piece) && observer?.isAwaited !== true) this.#awaitClient()
  }

  end(trailers: Fields): void {
    const { observer, scrub, price } = this.#options
    price?.whole(trailers)
    const { response } = this.#call
    const rest = scrub?.rest()
    if (rest !== undefined) this.#pass(rest)
    observer?.end()
    scrub?.trailers(trailers)
    if (this.#isWithoutClient) return this.#finish(GONE)
    const passedOn = responseTrailers(trailers, this.#hasOwnQuota)
    // Node leaves trailers out if its response to the client is not chunked.
    if (passedOn.length > 0) response.addTrailers(passedOn)
    const last = this.#heldPiece
    // Node sends a head and a body in one piece only if both are strings.
    if (last !== undefined && last.length <= SHORT_BYTES) response.end(last.toString('latin1'), 'latin1')
    else response.end(last)
    if (response.writableLength > 0) breakOffWhenIdle(this.#call, this.#options.idleMs)
    this.#finish(DELIVERED)
  }

  breakOff(cause: Error): void {
    // An end here would look like the whole body.
    breakOff(this.#call)
    this.#finish({ kind: 'broken_off', cause })
  }

  fail(mistake: unknown): void {
    this.#stop()
    this.#reject(mistake)
  }

  /** Gives a piece to whoever wants it; returns whether the client takes more. */
  #pass(piece: Buffer): boolean {
    const { observer } = this.#options
    observer?.piece(piece)
    if (this.#isWithoutClient) {
      this.#finishBytes -= piece.length
      if (observer?.isAwaited !== true && this.#finishBytes < 0) this.#abort()
      return true
    }
    this.#call.responseBytes += piece.length
    if (!this.#isBeginning) return this.#write(piece)
    if (this.#heldPiece !== undefined) this.#write(this.#heldPiece)
    this.#heldPiece = piece
    return true
  }

  #write(piece: Buffer): boolean {
    this.#heldPiece = undefined
    return this.#call.response.write(piece)
  }

  /**
   * Stops reading until the client has taken all that was written, and breaks the response off if that takes longer than `idleMs`. A
   * client that takes only a part of it counts as idle: Node does not see what leaves the system's buffer between two drains.
   */
  #awaitClient(): void {
    const { response, clock } = this.#call
    const { observer, idleMs } = this.#options
    observer?.slow()
    this.#response.pause()
    this.#idle = clock.schedule(idleMs, () => breakOff(this.#call))
    response.once('drain', this.#onDrain)
  }

  readonly #onDrain = (): void => {
    try {
      this.#idle?.cancel()
      if (!this.#isOver) this.#response.resume()
    } catch (mistake) {
      this.#abort(mistake)
    }
  }

  readonly #onGone = (): void => {
    try {
      const { observer } = this.#options
      const lastWaiterGone = observer?.isAwaited === true ? observer.lastWaiterGone() : undefined
      if (lastWaiterGone === undefined) return this.#finishForPrice()
      this.#isWithoutClient = true
      this.#cancellation = lastWaiterGone.subscribe(this.#onGone)
    } catch (mistake) {
      this.#abort(mistake)
    }
  }

  /** Nobody waits for the response any more. Reads on if the rest tells what the call costs, else gives it up. */
  #finishForPrice(): void {
    const { worth, drain } = this.#options
    const { clock } = this.#call
    const leftMs = worth === undefined ? 0 : Math.min(worth.finishMs, worth.finishBy - clock.now())
    if (leftMs <= 0 || drain.isCancelled) return this.#abort()
    this.#isWithoutClient = true
    this.#finishBytes = FINISH_BYTES
    this.#idle?.cancel()
    this.#idle = clock.schedule(leftMs, this.#onFinishedTooLate)
    this.#cancellation = drain.subscribe(this.#onFinishedTooLate)
    this.#response.resume()
  }

  readonly #onFinishedTooLate = (): void => {
    try {
      this.#abort()
    } catch (mistake) {
      this.fail(mistake)
    }
  }

  /** Gives the rest up: nobody wants it, or the gateway made a mistake. */
  #abort(mistake?: unknown): void {
    this.#response.abort()
    if (mistake === undefined) this.#finish(GONE)
    else this.fail(mistake)
  }

  #finish(end: Delivered): void {
    this.#stop()
    this.#resolve(end)
  }

  #stop(): void {
    this.#isOver = true
    this.#idle?.cancel()
    this.#cancellation?.[Symbol.dispose]()
  }
}

/** The reason phrase; empty if it holds bytes that Node does not send. Nobody needs it (RFC 9112 §4). */
function reasonOf(phrase: string, scrub: Scrub | undefined): string {
  if (/[^\t -~]/.test(phrase)) return ''
  return scrub === undefined ? phrase : scrub.text(phrase, 'header')
}
