import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Clock } from '../time/clock.ts'

/** Up to this declared size a body is collected even if it is never replayed: a whole body is cheaper to send. */
const CHEAP_BYTES = 16_384
/**
 * So many bytes of bodies a process keeps at most. Beyond that, bodies stream, and their calls are not sent again. Bodies of at most
 * `CHEAP_BYTES` are always kept and not counted: they take no more than their connections.
 */
const MOST_KEPT_BYTES = 128 * 1_048_576
const NOTHING = Buffer.alloc(0)

/** How many are kept now, by all calls. */
let keptBytes = 0

export type BodyErrorKind = 'too_large' | 'stalled' | 'slow' | 'gone'

/** Why the rest of a client's body will not come. */
export class BodyError extends Error {
  readonly kind: BodyErrorKind

  constructor(kind: BodyErrorKind) {
    super(`the request body is ${kind.replace('_', ' ')}`)
    this.name = 'BodyError'
    this.kind = kind
  }
}

export interface BodyOptions {
  readonly clock: Clock
  /** Whether the call may have to be sent again. */
  readonly mayRetry: boolean
  /** The largest body that is kept in memory for a retry, in bytes. */
  readonly keepBytes: number
  readonly maxBytes: number
  /** The longest time between two pieces, in milliseconds. */
  readonly idleMs: number
  /** The least average rate at which a client must send, not counting the first `idleMs`; 0 for any. */
  readonly minBytesPerSecond: number
}

/** Whether a request has a body: of a declared length, or chunked. */
export function hasBody({ headers }: IncomingMessage): boolean {
  const { 'content-length': length, 'transfer-encoding': encoding } = headers
  return encoding !== undefined || (length !== undefined && length !== '0')
}

/**
 * The body of a client's request. A body that declares a small length is collected before the call is admitted, unless too much is
 * kept already: then what came of it is sent first, and the rest streams. Any other body streams through, as fast as the upstream
 * takes it, and is not read before it is sent. If a chunked body turns out to be small, and the call may be retried, the body is kept,
 * so that it can be replayed once all of it has arrived.
 */
export class RequestBody {
  /** Whether `prepare` has finished. */
  isPrepared = false
  /** Whether a streamed body waits for its client now. */
  isAwaitingClient = false
  /** When the client last sent a piece of a streamed body, or its end; 0 until then. */
  progressAt = 0
  /** A mistake of the gateway that was thrown while the body streamed. */
  mistake: unknown
  readonly #request: IncomingMessage
  readonly #response: ServerResponse
  readonly #options: BodyOptions
  /** Undefined for a chunked body, which declares no length. */
  readonly #declaredBytes: number | undefined
  /** The pieces that are kept: the whole body once `#isWhole`. */
  #pieces: Buffer[] = []
  /** Bytes that were received so far. */
  receivedBytes = 0
  #awaitedMs = 0
  #isWhole: boolean
  #isStreaming = false
  /** How many of its bytes are counted as kept. */
  #keptBytes = 0
  #isReleased = false
  #isInvited = false

  constructor(request: IncomingMessage, response: ServerResponse, options: BodyOptions) {
    this.#request = request
    this.#response = response
    this.#options = options
    const { 'content-length': length, 'transfer-encoding': encoding } = request.headers
    this.#declaredBytes = encoding === undefined ? Number(length ?? 0) : undefined
    this.#isWhole = this.#declaredBytes === 0
  }

  /** The whole body; undefined if it is not kept, or has not all arrived. */
  get whole(): Buffer | undefined {
    return this.#isWhole ? ((this.content() as Buffer | null) ?? NOTHING) : undefined
  }

  /** Whether the body can be sent, or sent again, from its beginning. */
  get isReplayable(): boolean {
    return this.#isWhole || !this.#isStreaming
  }

  /** The Content-Length for a body that is streamed; undefined if the client declared none, or if the whole body is here. */
  get streamedLength(): number | undefined {
    return this.#isWhole ? undefined : this.#declaredBytes
  }

  /**
   * Collects a body that declares a small length; any other body is not read yet. Throws a `BodyError` if the declared length is
   * above `maxBytes`, or if a body that is collected does not arrive.
   */
  async prepare(): Promise<void> {
    const { mayRetry, keepBytes, maxBytes } = this.#options
    const bytes = this.#declaredBytes
    if (bytes !== undefined && bytes > maxBytes) throw new BodyError('too_large')
    if (bytes !== undefined && bytes <= (mayRetry ? keepBytes : Math.min(keepBytes, CHEAP_BYTES))) await this.#collect()
    this.isPrepared = true
  }

  /** The body for the transport; null if it is empty. Call it only once for a streamed body. */
  content(): Buffer | AsyncIterable<Buffer> | null {
    if (!this.#isWhole) return this.#watched()
    if (this.#pieces.length > 1) this.#pieces = [Buffer.concat(this.#pieces)]
    return this.#pieces[0] ?? null
  }

  /** It will not be sent again. It is kept no longer. */
  release(): void {
    this.#isReleased = true
    this.#pieces = []
    this.#giveBack()
  }

  #giveBack(): void {
    keptBytes -= this.#keptBytes
    this.#keptBytes = 0
  }

  /** Counts so many more bytes as kept; returns false if there is no room for them. */
  #take(bytes: number): boolean {
    if (this.#declaredBytes !== undefined && this.#declaredBytes <= CHEAP_BYTES) return true
    if (this.#isReleased || keptBytes + bytes > MOST_KEPT_BYTES) return false
    keptBytes += bytes
    this.#keptBytes += bytes
    return true
  }

  /** The longest wait for the next piece, in milliseconds: `idleMs`, and less if the client sends too slowly. */
  get #patienceMs(): number {
    const { idleMs, minBytesPerSecond } = this.#options
    if (minBytesPerSecond === 0) return idleMs
    return Math.min(idleMs, idleMs + (this.receivedBytes / minBytesPerSecond) * 1_000 - this.#awaitedMs)
  }

  #received(bytes: number, afterMs: number): void {
    this.receivedBytes += bytes
    this.#awaitedMs += afterMs
  }

  #stall(): BodyError {
    return new BodyError(this.#patienceMs < this.#options.idleMs ? 'slow' : 'stalled')
  }

  #collect(): Promise<void> {
    const { clock } = this.#options
    return new Promise((resolve, reject) => {
      const request = this.#request
      // The client has gone, and no event comes any more. An HTTP/2 request is then not destroyed: it has ended unread.
      if (request.destroyed || request.readableEnded) return reject(new BodyError('gone'))
      this.#invite()
      const stop = (): void => {
        request.off('data', onData).off('end', onEnd).off('close', onClose).off('error', onClose)
        idle.cancel()
      }
      const onStall = (): void => {
        stop()
        reject(this.#stall())
      }
      const onData = (chunk: Buffer): void => {
        this.#pieces.push(chunk)
        this.#received(chunk.length, clock.now() - since)
        since = clock.now()
        if (!this.#take(chunk.length)) {
          stop()
          request.pause()
          return resolve()
        }
        idle.cancel()
        idle = clock.schedule(this.#patienceMs, onStall)
      }
      const onEnd = (): void => {
        stop()
        this.#isWhole = true
        resolve()
      }
      const onClose = (): void => {
        stop()
        reject(new BodyError('gone'))
      }
      let since = clock.now()
      let idle = clock.schedule(this.#patienceMs, onStall)
      request.on('data', onData).on('end', onEnd).on('close', onClose).on('error', onClose)
    })
  }

  async *#watched(): AsyncGenerator<Buffer> {
    try {
      yield* this.#stream()
    } catch (error) {
      if (!(error instanceof BodyError)) this.mistake = error
      throw error
    }
  }

  async *#stream(): AsyncGenerator<Buffer> {
    const { clock, mayRetry, keepBytes, maxBytes } = this.#options
    this.#isStreaming = true
    this.#invite()
    if (this.#pieces.length > 0) yield* this.#collected()
    let isKept = mayRetry && this.#declaredBytes === undefined
    const chunks = this.#request.iterator({ destroyOnReturn: false })[Symbol.asyncIterator]()
    for (;;) {
      this.isAwaitingClient = true
      const since = clock.now()
      const next: IteratorResult<Buffer> = await this.#inTime(chunks.next())
      this.isAwaitingClient = false
      this.progressAt = clock.now()
      if (next.done === true) break
      this.#received(next.value.length, this.progressAt - since)
      if (this.receivedBytes > maxBytes) throw new BodyError('too_large')
      if (isKept && this.receivedBytes <= keepBytes && this.#take(next.value.length)) {
        this.#pieces.push(next.value)
      } else if (isKept) {
        isKept = false
        this.#pieces = []
        this.#giveBack()
      }
      yield next.value
    }
    this.#isWhole = isKept
  }

  /** What was collected before too much was kept. */
  *#collected(): Generator<Buffer> {
    const pieces = this.#pieces
    this.#pieces = []
    for (let piece = pieces.shift(); piece !== undefined; piece = pieces.shift()) yield piece
    this.#giveBack()
  }

  #inTime<T>(next: Promise<T>): Promise<T> {
    const { clock } = this.#options
    return new Promise((resolve, reject) => {
      const idle = clock.schedule(this.#patienceMs, () => reject(this.#stall()))
      next.then(
        (value) => {
          idle.cancel()
          resolve(value)
        },
        () => {
          idle.cancel()
          reject(new BodyError('gone'))
        },
      )
    })
  }

  /** Answers `Expect: 100-continue` now that the body is wanted. In HTTP/1.0 it is to be ignored (RFC 9110 §10.1.1). */
  #invite(): void {
    const { headers, httpVersion } = this.#request
    if (this.#isInvited || httpVersion === '1.0' || !/\b100-continue\b/i.test(headers.expect ?? '')) return
    this.#isInvited = true
    this.#response.writeContinue()
  }
}
