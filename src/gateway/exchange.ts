import { type Fields, onlyValue } from '../http/fields.ts'
import type { Duplex } from 'node:stream'
import type { Subscription } from '../time/cancellation.ts'
import type { Timer } from '../time/clock.ts'
import type { Scrub } from '../credentials/scrub.ts'
import { retryAfterOf } from '../http/retry-after.ts'
import type { BreakerFailure } from '../resilience/breaker.ts'
import { BodyError } from '../upstream/body.ts'
import { codeOf } from '../upstream/error-code.ts'
import { responseHeaders, responseTrailers } from '../upstream/headers.ts'
import { CONTINUE } from '../upstream/interim.ts'
import { isMisuse } from '../upstream/misuse.ts'
import type { OutgoingRequest, ResponseControl, ResponseHandler } from '../upstream/transport.ts'
import type { AttemptOptions, AttemptResult } from './attempt.ts'
import type { Try, TryEnd } from '../observe/log.ts'
import type { Call, Target } from './call.ts'
import type { Ending } from './decide.ts'
import { applyFeedback } from './upstream-feedback.ts'
import { ownHeaders } from './own-headers.ts'
import type { Race, Runner } from './race.ts'
import type { Upgrade } from './upgrade.ts'

/** How long to wait at least before looking again whether a client has sent more: of the call's own time next to nothing may be left. */
const LOOK_AGAIN_MS = 1_000
/** What of a vendor's id goes into the log as it is. */
const REQUEST_ID = /^[\x21-\x7e]{1,128}$/
/** A response that is not delivered is read to its end, so that the connection can be used again, unless it is longer. */
const DRAIN_BYTES = 65_536

/**
 * One request and its response, which is passed on as it comes. Tells its permit and the breaker what it learns, as soon as
 * it knows. Ends once: with a result, or where a mistake of the gateway throws in one of its callbacks with that exception.
 * undici would take it for a failure of the upstream, and the call might be sent again; a timer would end the process.
 */
export class Exchange implements ResponseHandler, Runner {
  readonly #call: Call
  readonly #target: Target
  readonly #options: AttemptOptions
  readonly #resolve: (result: AttemptResult) => void
  readonly #reject: (error: unknown) => void
  readonly #startedAt: number
  #controller: ResponseControl | undefined
  /** Ends the attempt when its client has gone, or, where others wait for the response, the last of those. */
  #cancellation: Subscription | undefined
  #phase: 'unsent' | 'sent' | 'delivering' | 'draining' | 'over' = 'unsent'
  /** Of the time to the response's headers, then of the time that a client takes none of the body. */
  #timer: Timer | undefined
  #drainedBytes = 0
  /** The status of the interim response that came last. */
  #interim: number | undefined
  /** Its headers are no failure, as far as the breaker is concerned. */
  #isGood = false
  /** Until the end of the turn in which the head came, it and the first piece of the body wait for each other. */
  #isHeadHeld = true
  #firstChunk: Buffer | undefined
  /** The client has gone, and the response goes on for others. */
  #isWithoutClient = false
  readonly #race: Race | undefined
  /** What the log line of the call says of it. */
  #try: Try | undefined
  /** Another attempt of the call goes on in its place. */
  #isSuperseded = false

  constructor(
    call: Call,
    target: Target,
    options: AttemptOptions,
    resolve: (result: AttemptResult) => void,
    reject: (error: unknown) => void,
    race?: Race,
  ) {
    this.#race = race
    this.#call = call
    this.#target = target
    this.#options = options
    this.#resolve = resolve
    this.#reject = reject
    this.#startedAt = call.clock.now()
    this.#timer = call.clock.schedule(options.headersMs, () => this.#onTimeout())
  }

  start(request: OutgoingRequest): void {
    try {
      this.#race?.join(this)
      this.#cancellation = this.#call.gone.subscribe(() => this.#cancelSafely())
      if (!this.#call.isGone) this.#target.upstream.transport.dispatch(request, this)
    } catch (error) {
      this.#crash(error)
    }
  }

  get #elapsedMs(): number {
    return this.#call.clock.now() - this.#startedAt
  }

  #cancelSafely(): void {
    try {
      this.#cancel()
    } catch (error) {
      this.#crash(error)
    }
  }

  /** The client has gone: nothing of this call is of use to anyone. */
  #cancel(): void {
    const { permit, breakerPermit, observer } = this.#options
    if (observer?.isAwaited === true && (this.#phase === 'sent' || this.#phase === 'delivering')) {
      this.#isWithoutClient = true
      this.#cancellation = observer.lastWaiterGone()?.subscribe(() => this.#cancelSafely())
      return
    }
    if (this.#phase === 'unsent' || this.#phase === 'sent') {
      permit.giveUp()
      this.#countTime()
      breakerPermit.abandoned()
    }
    this.#end({ kind: 'gone' })
  }

  lose(): void {
    this.#isSuperseded = true
    const { permit, breakerPermit } = this.#options
    permit.giveUp()
    breakerPermit.abandoned()
    this.#end({ kind: 'gone' })
  }

  /** Of two attempts at once, only the last that is left counts, from the beginning of the first. */
  #countTime(): void {
    const race = this.#race
    if (race === undefined) this.#call.upstreamMs += this.#elapsedMs
    else if (race.runners === 1) this.#call.upstreamMs += this.#call.clock.now() - race.startedAt
  }

  onRequestStart(controller: ResponseControl): void {
    this.#controller = controller
    if (this.#phase === 'over') return controller.abort(ENDED)
    try {
      this.#options.permit.sent()
      this.#phase = 'sent'
    } catch (error) {
      this.#crash(error)
    }
  }

  onResponseStart(_: unknown, status: number, fields: Fields, statusMessage?: string): void {
    try {
      this.#start(status, fields, statusMessage)
    } catch (error) {
      this.#crash(error)
    }
  }

  #start(status: number, fields: Fields, statusMessage?: string): void {
    if (this.#phase !== 'sent') return
    this.#options.scrub?.head(fields)
    if (status < 100) return this.#break(new StatusError())
    if (status < 200) return this.#inform(status, fields)
    const coding = fields['transfer-encoding']
    if (coding !== undefined && coding !== 'chunked' && !isChunkedOnly(coding))
      return this.#break(new TransferCodingError())
    // It has no body that could have a length, and HTTP/1.1 forbids the field (RFC 9110 §8.6).
    if (status === 204) delete fields['content-length']
    this.#timer?.cancel()
    const { permit, judge, observer, hasOthers } = this.#options
    const tookMs = this.#elapsedMs
    const pauseMs = applyFeedback(this.#call, this.#target, permit, { status, fields, tookMs, hasOthers })
    permit.commit()
    this.#note({ status, requestId: this.#requestIdIn(fields) })
    const call = this.#call
    const now = call.clock.now()
    this.#tellBreaker(status, now)
    if (this.#race?.claims(this, status === 429 || status >= 500) === false) {
      this.#phase = 'draining'
      this.#isSuperseded = true
      this.#conclude({ kind: 'retry', delayMs: 0 })
      return
    }
    this.#countTime()
    const retryAfterMs = status === 429 || status >= 500 ? retryAfterOf(fields, call.clock.wall()) : undefined
    const delayMs = judge(
      pauseMs === undefined ? { kind: 'response', status, retryAfterMs } : { kind: 'throttled', status, pauseMs },
    )
    if (delayMs !== undefined) {
      this.#phase = 'draining'
      this.#conclude({ kind: 'retry', delayMs })
      return
    }
    if (observer?.intercepts(status, fields) === true) {
      this.#phase = 'draining'
      this.#conclude({ kind: 'intercepted', status, fields })
      return
    }
    this.#phase = 'delivering'
    call.onHead?.()
    const headers = responseHeaders(fields, call.usage.length > 0)
    const reason = reasonOf(statusMessage, this.#options.scrub)
    observer?.begin(status, reason, fields, headers)
    if (this.#isWithoutClient) return
    ownHeaders(call, headers)
    call.response.writeHead(status, reason, headers)
    // What is here already goes out with the head; what is not may be long in coming, and the head must not wait for it.
    process.nextTick(flush, this)
  }

  /** The upstream agreed to a WebSocket: the call has been answered, and what follows is in flight for no limit. */
  onRequestUpgrade(_: unknown, status: number, fields: Fields, socket: Duplex): void {
    const { upgrade } = this.#call
    if (this.#phase !== 'sent' || upgrade === undefined) return void socket.destroy()
    try {
      this.#switch(upgrade, status, fields, socket)
    } catch (error) {
      socket.destroy()
      this.#crash(error)
    }
  }

  #switch(upgrade: Upgrade, status: number, fields: Fields, socket: Duplex): void {
    const call = this.#call
    this.#phase = 'over'
    this.#timer?.cancel()
    const { permit, breakerPermit } = this.#options
    permit.commit()
    permit.leave()
    call.onHead?.()
    breakerPermit.answered()
    breakerPermit.completed()
    this.#options.scrub?.head(fields)
    this.#note({ status, requestId: this.#requestIdIn(fields) })
    call.upstreamMs += this.#elapsedMs
    this.#cancellation?.[Symbol.dispose]()
    const headers = responseHeaders(fields, call.usage.length > 0)
    headers.push('Connection', 'Upgrade', 'Upgrade', 'websocket')
    ownHeaders(call, headers)
    call.response.writeHead(status, headers)
    call.response.flushHeaders()
    upgrade.tunnelTo(socket, call.clock, call.target!.upstream.config.timeouts.idle, (end, error) => {
      if (error !== undefined) this.#reject(error)
      else {
        const result: AttemptResult = end === 'client_gone' ? { kind: 'gone' } : { kind: end, cause: undefined }
        this.#noteEnd(result)
        this.#resolve(result)
      }
    })
  }

  /** Interim responses are passed on (RFC 9110 §15.2), to clients that know them. */
  #inform(status: number, fields: Fields): void {
    const { request, response } = this.#call
    this.#interim = status === CONTINUE ? 100 : status
    // Whoever waits for 100 Continue got it when the body was asked for, and nobody else wants it; 101 says nothing to a
    // client that did not ask for another protocol.
    if (status === 100 || status === CONTINUE || status === 101) return
    if (request.httpVersion === '1.0' || this.#isWithoutClient) return
    response.writeInformation(status, responseHeaders(fields, false))
  }

  onResponseData(controller: ResponseControl, chunk: Buffer): void {
    try {
      this.#take(controller, chunk)
    } catch (error) {
      this.#crash(error)
    }
  }

  #take(controller: ResponseControl, chunk: Buffer): void {
    if (this.#phase === 'delivering') {
      const { observer, scrub } = this.#options
      const piece = scrub === undefined ? chunk : scrub.piece(chunk)
      if (piece !== undefined && !this.#pass(piece) && observer?.isAwaited !== true) this.#awaitClient(controller)
    } else if (this.#phase === 'draining') {
      this.#drainedBytes += chunk.length
      if (this.#drainedBytes > DRAIN_BYTES) controller.abort(ENDED)
    }
  }

  /** Gives a piece of the body to whoever wants it; returns whether the client takes more. */
  #pass(piece: Buffer): boolean {
    const { observer } = this.#options
    observer?.piece(piece)
    if (this.#isWithoutClient) {
      if (observer?.isAwaited !== true) this.#end({ kind: 'gone' })
      return true
    }
    this.#call.responseBytes += piece.length
    if (!this.#isHeadHeld || this.#firstChunk !== undefined) return this.#write(piece)
    this.#firstChunk = piece
    return true
  }

  onResponseEnd(_: unknown, trailers: Fields): void {
    try {
      this.#finish(trailers)
    } catch (error) {
      this.#crash(error)
    }
  }

  #finish(trailers: Fields): void {
    if (this.#isGood) this.#options.breakerPermit.completed()
    if (this.#phase !== 'delivering') return
    const { observer, scrub } = this.#options
    const rest = scrub?.rest()
    if (rest !== undefined) this.#pass(rest)
    observer?.end()
    scrub?.trailers(trailers)
    if (this.#isWithoutClient) {
      this.#phase = 'over'
      return this.#conclude({ kind: 'gone' })
    }
    addTrailers(this.#call, trailers)
    this.#call.response.end(this.#takeFirstChunk())
    this.#end({ kind: 'delivered' })
  }

  onResponseError(_: unknown, error: Error): void {
    try {
      this.#break(error)
    } catch (mistake) {
      this.#crash(mistake)
    }
  }

  #break(error: Error): void {
    const { permit, breakerPermit, body } = this.#options
    // Not the upstream's, nor the client's: what reads the body threw.
    if (body?.mistake !== undefined) throw body.mistake
    switch (this.#phase) {
      case 'unsent':
        permit.giveUp()
        if (isMisuse(error)) {
          breakerPermit.abandoned()
          return this.#end({ kind: 'unsendable', cause: error })
        }
        return this.#fail({ kind: 'unreachable' }, error)
      case 'sent':
        permit.giveUp()
        if (error instanceof BodyError) {
          breakerPermit.abandoned()
          this.#call.receivingMs += this.#elapsedMs
          return this.#end({ kind: 'body_failed', error })
        }
        return this.#fail({ kind: 'interrupted', interim: this.#interim }, error)
      case 'delivering':
        if (this.#isGood) breakerPermit.failed(this.#failure(`the body broke off${codeOf(error)}`))
        // An end here would look like the whole body.
        this.#call.response.destroy()
        return this.#end({ kind: 'broken_off', cause: error })
      case 'draining':
      case 'over':
        return undefined
    }
  }

  /** Of a call with a body the upstream's time begins when it has all of it. */
  #tellBreaker(status: number, now: number): void {
    const { breakerPermit, slowMs, body } = this.#options
    const tookMs = now - Math.max(this.#startedAt, body?.progressAt ?? 0)
    this.#isGood = status < 500 && tookMs <= slowMs
    if (this.#isGood) breakerPermit.answered()
    else {
      const late = tookMs > slowMs ? ` after ${Math.round(tookMs)} ms, which is longer than breaker.slow` : ''
      breakerPermit.failed(this.#failure(`status ${status}${late}`))
    }
  }

  #failure(because: string): BreakerFailure {
    return { because, correlationId: this.#call.id }
  }

  #note(result: Pick<Try, 'status' | 'error'> & { readonly requestId?: string | undefined }): void {
    const { status, error, requestId } = result
    const startedMs = rounded(this.#startedAt - this.#call.startedAt)
    const credential = this.#target.credential?.name
    const { credentialVersion } = this.#options
    const ms = rounded(this.#elapsedMs)
    this.#try = { status, error, startedMs, ms, end: undefined, credential, credentialVersion, requestId }
    this.#call.tries.push(this.#try)
  }

  /** An attempt that had neither response nor failure is known only by its end. */
  #noteEnd({ kind }: AttemptResult): void {
    if (this.#try === undefined) this.#note(kind === 'gone' ? {} : { error: kind })
    this.#try!.end ??= this.#isSuperseded ? 'superseded' : END_OF[kind]
  }

  #requestIdIn(fields: Fields): string | undefined {
    for (const name of this.#target.upstream.requestIdHeaders) {
      const value = onlyValue(fields[name])
      if (value !== undefined && REQUEST_ID.test(value)) return value
    }
    return undefined
  }

  #onTimeout(): void {
    try {
      this.#endInTime()
    } catch (error) {
      this.#crash(error)
    }
  }

  #endInTime(): void {
    const { permit, body, headersMs, until, limitedBy } = this.#options
    const { clock } = this.#call
    const now = clock.now()
    // While the upstream, too, waits for more of the body, the time is the client's, and the body keeps it.
    const ownMs =
      body?.isAwaitingClient === true ? Math.max(headersMs, LOOK_AGAIN_MS) : (body?.progressAt ?? 0) + headersMs - now
    const leftMs = Math.min(ownMs, until - now)
    if (leftMs > 0) {
      this.#timer = clock.schedule(leftMs, () => this.#onTimeout())
      return
    }
    const phase = until <= now ? 'total' : limitedBy
    permit.giveUp()
    this.#fail({ kind: 'timeout', phase }, undefined)
  }

  #fail(ending: Ending, cause: unknown): void {
    const phase = ending.kind === 'timeout' ? ` (${ending.phase})` : codeOf(cause)
    this.#options.breakerPermit.failed(this.#failure(`${ending.kind}${phase}`))
    this.#note({ error: `${ending.kind}${phase}` })
    this.#countTime()
    this.#end({ kind: 'failed', ending, cause })
  }

  /** Ends the attempt and whatever the upstream is still doing for it. */
  #end(result: AttemptResult): void {
    if (this.#phase === 'over') return
    this.#phase = 'over'
    if (result.kind !== 'delivered') this.#controller?.abort(ENDED)
    this.#conclude(result)
  }

  #conclude(result: AttemptResult): void {
    this.#noteEnd(result)
    this.#timer?.cancel()
    this.#options.permit.leave()
    this.#cancellation?.[Symbol.dispose]()
    this.#race?.leaves(this)
    this.#resolve(result)
  }

  /** The gateway made a mistake: ends what it left half done. Whoever made the attempt gives back what it still holds. */
  #crash(error: unknown): void {
    this.#reject(error)
    this.#phase = 'over'
    this.#timer?.cancel()
    this.#controller?.abort(ENDED)
    this.#cancellation?.[Symbol.dispose]()
    this.#race?.crash(this)
  }

  /** Sends the head and what came with it, unless the whole response has gone out meanwhile. */
  flush(): void {
    try {
      this.#flush()
    } catch (error) {
      this.#crash(error)
    }
  }

  #flush(): void {
    if (this.#phase !== 'delivering' || !this.#isHeadHeld || this.#isWithoutClient) return
    const chunk = this.#takeFirstChunk()
    if (chunk === undefined) this.#call.response.flushHeaders()
    // What is more of the body than the client takes now waits in the response's buffer until the next piece.
    else this.#call.response.write(chunk)
  }

  #write(chunk: Buffer): boolean {
    const { response } = this.#call
    const first = this.#takeFirstChunk()
    if (first !== undefined) response.write(first)
    return response.write(chunk)
  }

  #takeFirstChunk(): Buffer | undefined {
    const chunk = this.#firstChunk
    this.#firstChunk = undefined
    this.#isHeadHeld = false
    return chunk
  }

  /** Stops reading until the client has taken what was written; for as long as it may be idle. */
  #awaitClient(controller: ResponseControl): void {
    const { response, clock } = this.#call
    this.#options.observer?.slow()
    controller.pause()
    this.#timer = clock.schedule(this.#call.target!.upstream.config.timeouts.idle, () => response.destroy())
    response.once('drain', () => this.#goOn(controller))
  }

  #goOn(controller: ResponseControl): void {
    try {
      this.#timer?.cancel()
      controller.resume()
    } catch (error) {
      this.#crash(error)
    }
  }
}

/** A body that was coded for the transfer as nobody asked for: only the chunks are undone, and the rest would be no body. */
class TransferCodingError extends Error {
  readonly code = 'UNASKED_TRANSFER_CODING'
}

/** Three digits that are no status (RFC 9110 §15), and that Node would not send. */
class StatusError extends Error {
  readonly code = 'INVALID_STATUS'
}

function isChunkedOnly(coding: string | string[]): boolean {
  return coding.toString().trim().toLowerCase() === 'chunked'
}

/** A reason phrase may hold bytes that Node does not send; nobody needs it (RFC 9112 §4). */
function reasonOf(phrase = '', scrub?: Scrub): string {
  if (/[^\t -~]/.test(phrase)) return ''
  return scrub === undefined ? phrase : scrub.text(phrase, 'header')
}

const END_OF = {
  delivered: 'delivered',
  retry: 'retried',
  failed: 'failed',
  body_failed: 'failed',
  unsendable: 'failed',
  broken_off: 'broken_off',
  gone: 'client_gone',
  intercepted: 'from_cache',
} satisfies Record<AttemptResult['kind'], TryEnd>

function rounded(ms: number): number {
  return Math.round(ms * 100) / 100
}

const ENDED = new Error('the attempt is over')

function flush(exchange: Exchange): void {
  exchange.flush()
}

/** Passes trailers on; Node leaves them out where the client's response is not chunked. */
function addTrailers({ response, usage }: Call, fields: Fields): void {
  const trailers = responseTrailers(fields, usage.length > 0)
  if (trailers.length > 0) response.addTrailers(trailers)
}
