import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Timer } from '../clock.ts'
import type { Permit } from '../quota/permit.ts'
import { parseRetryAfter } from '../resilience/backoff.ts'
import type { Scrub } from '../credentials/scrub.ts'
import type { BreakerPermit } from '../resilience/breaker.ts'
import { AddressError } from '../upstream/guarded-lookup.ts'
import { BodyError, type RequestBody } from '../upstream/body.ts'
import { responseHeaders } from '../upstream/headers.ts'
import type { OutgoingRequest, ResponseControl, ResponseHandler } from '../upstream/transport.ts'
import type { Call, Target } from './call.ts'
import type { Ending } from './decide.ts'
import { heed } from './heed.ts'
import { ownHeaders } from './own-headers.ts'
import { Race, type Runner } from './race.ts'
import { Tunnel } from './tunnel.ts'

/** The response is not for the client; the call is to be sent once more. */
export type Repeat = { readonly kind: 'repeat'; readonly delayMs: number }

/** How an attempt ended, for the loop that made it. */
export type AttemptResult =
  /** The whole response was passed to the client. */
  | { readonly kind: 'delivered' }
  | Repeat
  | { readonly kind: 'failed'; readonly ending: Ending; readonly cause: unknown }
  /** The client's own body ended the attempt. */
  | { readonly kind: 'body_failed'; readonly error: BodyError }
  /** The response broke off after its headers had been passed on, and with it the client's connection. */
  | { readonly kind: 'broken_off'; readonly cause: unknown }
  | { readonly kind: 'gone' }
  | Taken
  /** The transport does not take the request. */
  | { readonly kind: 'unsendable'; readonly cause: unknown }

/** The response is not for the client, for which something else is at hand. */
export interface Taken {
  readonly kind: 'taken'
  readonly status: number
  readonly fields: IncomingHttpHeaders
}

/** Sees every response that goes to the client, as it goes. */
export interface Onlooker {
  /** Names and values in turn that go upstream in the place of the client's own conditions. */
  readonly conditions: readonly string[] | undefined
  /** The request goes out. */
  sent(): void
  /** Whether it takes a response that would be delivered in the client's place. */
  takes(status: number, fields: IncomingHttpHeaders): boolean
  /** A response begins; to its headers, those of the gateway itself not among them, it may add. */
  begin(status: number, reason: string, fields: IncomingHttpHeaders, headers: string[]): void
  piece(chunk: Buffer): void
  /** It was whole. */
  end(): void
  /** The client takes it slowly. */
  slow(): void
  /** Whether others wait for it, so that it goes on without its client, and as fast as it can. */
  readonly isAwaited: boolean
  /** Calls `end` when nobody waits for it any more. */
  whenForsaken(end: () => void): void
}

export interface AttemptOptions {
  readonly permit: Permit
  readonly breakerPermit: BreakerPermit
  /** A response whose headers take longer is a failure to the breaker. */
  readonly slowMs: number
  readonly body: RequestBody | undefined
  /** The account has other credentials than the call's. */
  readonly hasOthers?: boolean
  /** Longest time to the response's headers, from the dispatch or from the client's last piece of a streamed body. */
  readonly headersMs: number
  /** When the whole call must have response headers, whatever its client still sends; Infinity if it did not say so. */
  readonly until: number
  /** What it is that is over after `headersMs`. */
  readonly limitedBy: 'headers' | 'total'
  /** Decides at the response's headers: a delay to repeat the call after, or undefined to deliver the response. */
  judge(ending: Ending): number | undefined
  readonly onlooker: Onlooker | undefined
  /** Removes from the response what the upstream repeats of the request's credential. */
  readonly scrub: Scrub | undefined
}

/** How long to wait at least before looking again whether a client has sent more: of the call's own time next to nothing may be left. */
const LOOK_AGAIN_MS = 1_000
/** A response that is not delivered is read to its end, so that the connection can be used again, unless it is longer. */
const DRAIN_BYTES = 65_536

/**
 * Sends a call once and passes the response on as it comes. Settles, abandons or refunds its permit, tells the breaker, and leaves
 * the waiting room, exactly once each, whatever happens.
 */
export function attempt(
  call: Call,
  target: Target,
  request: OutgoingRequest,
  options: AttemptOptions,
  hedge?: Hedge,
): Promise<AttemptResult> {
  if (hedge !== undefined) return raced(call, target, { request, options }, hedge)
  return new Promise((resolve) => {
    const exchange = new Exchange(call, target, options, resolve)
    call.onGone(() => exchange.cancel())
    if (!call.isGone) target.upstream.transport.dispatch(request, exchange)
  })
}

export interface Sending {
  readonly request: OutgoingRequest
  readonly options: AttemptOptions
}

/** A second attempt beside the first. */
export interface Hedge {
  /** How long after the first, unless that has response headers by then. */
  readonly afterMs: number
  /** What to send; undefined if it may not be. */
  prepare(): Promise<Sending | undefined>
}

/** The same with a second attempt beside it, if the first is late. */
function raced(call: Call, target: Target, first: Sending, hedge: Hedge): Promise<AttemptResult> {
  const race = new Race(call)
  return new Promise((resolve, reject) => {
    const start = ({ request, options }: Sending): void => {
      const exchange = new Exchange(call, target, options, resolve, race)
      race.join(exchange)
      if (!call.isGone) target.upstream.transport.dispatch(request, exchange)
    }
    const late = async (): Promise<void> => {
      if (!race.isOpen) return
      const second = await hedge.prepare()
      if (second === undefined) return
      if (race.isOpen) return start(second)
      // Meanwhile the first has been answered.
      const { permit, breakerPermit } = second.options
      permit.refund()
      permit.leave()
      breakerPermit.abandoned()
    }
    const timer = call.clock.schedule(hedge.afterMs, () => void late().catch(reject))
    race.onOver = () => timer.cancel()
    start(first)
  })
}

class Exchange implements ResponseHandler, Runner {
  readonly #call: Call
  readonly #target: Target
  readonly #options: AttemptOptions
  readonly #resolve: (result: AttemptResult) => void
  readonly #startedAt: number
  #controller: ResponseControl | undefined
  #phase: 'unsent' | 'sent' | 'delivering' | 'draining' | 'over' = 'unsent'
  /** Of the time to the response's headers, then of the time that a client takes none of the body. */
  #timer: Timer | undefined
  #drainedBytes = 0
  /** Its headers are no failure, as far as the breaker is concerned. */
  #isGood = false
  /** Until the end of the turn in which the head came, it and the first piece of the body wait for each other. */
  #isHeadHeld = true
  #firstChunk: Buffer | undefined
  /** The client has gone, and the response goes on for others. */
  #isWithoutClient = false
  readonly #race: Race | undefined

  constructor(
    call: Call,
    target: Target,
    options: AttemptOptions,
    resolve: (result: AttemptResult) => void,
    race?: Race,
  ) {
    this.#race = race
    this.#call = call
    this.#target = target
    this.#options = options
    this.#resolve = resolve
    this.#startedAt = call.clock.now()
    this.#timer = call.clock.schedule(options.headersMs, () => this.#onTimeout())
  }

  get #elapsedMs(): number {
    return this.#call.clock.now() - this.#startedAt
  }

  /** The client has gone: nothing of this call is of use to anyone. */
  cancel(): void {
    const { permit, breakerPermit, onlooker } = this.#options
    if (onlooker?.isAwaited === true && (this.#phase === 'sent' || this.#phase === 'delivering')) {
      this.#isWithoutClient = true
      onlooker.whenForsaken(() => this.cancel())
      return
    }
    if (this.#phase === 'unsent' || this.#phase === 'sent') {
      if (this.#phase === 'unsent') permit.refund()
      else permit.abandon()
      this.#countTime()
      breakerPermit.abandoned()
    }
    this.#end({ kind: 'gone' })
  }

  lose(): void {
    const { permit, breakerPermit } = this.#options
    if (this.#phase === 'unsent') permit.refund()
    else permit.abandon()
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
    if (this.#phase === 'over') controller.abort(ENDED)
    else this.#phase = 'sent'
  }

  onResponseStart(_: unknown, status: number, fields: IncomingHttpHeaders, statusMessage?: string): void {
    if (this.#phase !== 'sent') return
    this.#options.scrub?.head(fields)
    if (status < 200) return this.#inform(status, fields)
    const coding = fields['transfer-encoding']
    if (coding !== undefined && coding !== 'chunked' && !isChunkedOnly(coding))
      return this.onResponseError(undefined, new TransferCodingError())
    // It has no body that could have a length, and HTTP/1.1 forbids the field (RFC 9110 §8.6).
    if (status === 204) delete fields['content-length']
    this.#timer?.cancel()
    const { permit, judge, onlooker, hasOthers = false } = this.#options
    const tookMs = this.#elapsedMs
    const pauseMs = heed(this.#call, this.#target, permit, { status, fields, tookMs, hasOthers })
    permit.settle()
    const call = this.#call
    const now = call.clock.now()
    this.#tellBreaker(status, now)
    if (this.#race?.claims(this, status === 429 || status >= 500) === false) {
      this.#phase = 'draining'
      this.#conclude({ kind: 'repeat', delayMs: 0 })
      return
    }
    this.#countTime()
    const retryAfter = status === 429 || status >= 500 ? fields['retry-after'] : undefined
    const retryAfterMs = typeof retryAfter === 'string' ? parseRetryAfter(retryAfter, now) : undefined
    const delayMs = judge(
      pauseMs === undefined ? { kind: 'response', status, retryAfterMs } : { kind: 'throttled', status, pauseMs },
    )
    if (delayMs !== undefined) {
      this.#phase = 'draining'
      this.#conclude({ kind: 'repeat', delayMs })
      return
    }
    if (onlooker?.takes(status, fields) === true) {
      this.#phase = 'draining'
      this.#conclude({ kind: 'taken', status, fields })
      return
    }
    this.#phase = 'delivering'
    call.onHead?.()
    const headers = responseHeaders(fields, call.usage.length > 0)
    const reason = reasonOf(statusMessage, this.#options.scrub)
    onlooker?.begin(status, reason, fields, headers)
    if (this.#isWithoutClient) return
    ownHeaders(call, headers)
    call.response.writeHead(status, reason, headers)
    // What is here already goes out with the head; what is not may be long in coming, and the head must not wait for it.
    process.nextTick(flush, this)
  }

  /** The upstream agreed to a WebSocket: the call has been answered, and what follows is in flight for no limit. */
  onRequestUpgrade(_: unknown, status: number, fields: IncomingHttpHeaders, socket: Duplex): void {
    const call = this.#call
    const { upgrade } = call
    if (this.#phase !== 'sent' || upgrade === undefined) return void socket.destroy()
    this.#phase = 'over'
    this.#timer?.cancel()
    const { permit, breakerPermit } = this.#options
    permit.settle()
    permit.leave()
    breakerPermit.answered()
    breakerPermit.completed()
    this.#options.scrub?.head(fields)
    call.upstreamMs += this.#elapsedMs
    call.onGone(undefined)
    const headers = responseHeaders(fields, call.usage.length > 0)
    headers.push('Connection', 'Upgrade', 'Upgrade', 'websocket')
    ownHeaders(call, headers)
    call.response.writeHead(status, headers)
    call.response.flushHeaders()
    const tunnel: Tunnel = new Tunnel({
      client: upgrade.socket,
      upstream: socket,
      early: upgrade.takeOver(),
      clock: call.clock,
      idleMs: call.target!.upstream.config.timeouts.idle,
      onEnd: (end) => {
        upgrade.tunnels.delete(tunnel)
        this.#resolve(end === 'client_gone' ? { kind: 'gone' } : { kind: end, cause: undefined })
      },
    })
    upgrade.tunnels.add(tunnel)
  }

  /** Interim responses are passed on (RFC 9110 §15.2), to clients that know them. */
  #inform(status: number, fields: IncomingHttpHeaders): void {
    const { request, response } = this.#call
    // Whoever waits for 100 Continue got it when the body was asked for.
    if (status === 100 || request.httpVersion === '1.0' || this.#isWithoutClient) return
    response.writeInformation(status, responseHeaders(fields, false))
  }

  onResponseData(controller: ResponseControl, chunk: Buffer): void {
    if (this.#phase === 'delivering') {
      const { onlooker, scrub } = this.#options
      const piece = scrub === undefined ? chunk : scrub.piece(chunk)
      if (piece !== undefined && !this.#pass(piece) && onlooker?.isAwaited !== true) this.#awaitClient(controller)
    } else if (this.#phase === 'draining') {
      this.#drainedBytes += chunk.length
      if (this.#drainedBytes > DRAIN_BYTES) controller.abort(ENDED)
    }
  }

  /** Gives a piece of the body to whoever wants it; returns whether the client takes more. */
  #pass(piece: Buffer): boolean {
    const { onlooker } = this.#options
    onlooker?.piece(piece)
    if (this.#isWithoutClient) {
      if (onlooker?.isAwaited !== true) this.#end({ kind: 'gone' })
      return true
    }
    if (!this.#isHeadHeld || this.#firstChunk !== undefined) return this.#write(piece)
    this.#firstChunk = piece
    return true
  }

  onResponseEnd(_: unknown, trailers: IncomingHttpHeaders): void {
    if (this.#isGood) this.#options.breakerPermit.completed()
    if (this.#phase !== 'delivering') return
    const { onlooker, scrub } = this.#options
    const rest = scrub?.rest()
    if (rest !== undefined) this.#pass(rest)
    onlooker?.end()
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
    const { permit, breakerPermit } = this.#options
    switch (this.#phase) {
      case 'unsent':
        permit.refund()
        if (isMisuse(error)) {
          breakerPermit.abandoned()
          return this.#end({ kind: 'unsendable', cause: error })
        }
        return this.#fail({ kind: 'unreachable' }, error)
      case 'sent':
        permit.abandon()
        if (error instanceof BodyError) {
          breakerPermit.abandoned()
          this.#call.receivingMs += this.#elapsedMs
          return this.#end({ kind: 'body_failed', error })
        }
        return this.#fail({ kind: 'interrupted' }, error)
      case 'delivering':
        if (this.#isGood) breakerPermit.failed()
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
    else breakerPermit.failed()
  }

  #onTimeout(): void {
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
    if (this.#phase === 'unsent') permit.refund()
    else permit.abandon()
    this.#fail({ kind: 'timeout', phase }, undefined)
  }

  #fail(ending: Ending, cause: unknown): void {
    this.#options.breakerPermit.failed()
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
    this.#timer?.cancel()
    this.#options.permit.leave()
    if (this.#race?.leaves(this) === false) return
    this.#call.onGone(undefined)
    this.#resolve(result)
  }

  /** Sends the head and what came with it, unless the whole response has gone out meanwhile. */
  flush(): void {
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
    this.#options.onlooker?.slow()
    controller.pause()
    this.#timer = clock.schedule(this.#call.target!.upstream.config.timeouts.idle, () => response.destroy())
    response.once('drain', () => {
      this.#timer?.cancel()
      controller.resume()
    })
  }
}

/** A body that was coded for the transfer as nobody asked for: only the chunks are undone, and the rest would be no body. */
class TransferCodingError extends Error {
  readonly code = 'UNASKED_TRANSFER_CODING'
}

function isChunkedOnly(coding: string | string[]): boolean {
  return coding.toString().trim().toLowerCase() === 'chunked'
}

/** Errors about what was asked for, rather than about the upstream: of undici, or that its address is not to be reached. */
function isMisuse(error: Error): boolean {
  const { code } = error as { code?: string }
  return (
    error instanceof AddressError ||
    code === 'UND_ERR_INVALID_ARG' ||
    code === 'UND_ERR_NOT_SUPPORTED' ||
    code === 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH'
  )
}

/** A reason phrase may hold bytes that Node does not send; nobody needs it (RFC 9112 §4). */
function reasonOf(phrase = '', scrub?: Scrub): string {
  if (/[^\t -~]/.test(phrase)) return ''
  return scrub === undefined ? phrase : scrub.text(phrase, 'header')
}

const ENDED = new Error('the attempt is over')

function flush(exchange: Exchange): void {
  exchange.flush()
}

/** Passes trailers on; Node leaves them out where the client's response is not chunked. */
function addTrailers({ response }: Call, fields: IncomingHttpHeaders): void {
  const trailers: [string, string][] = []
  for (const name in fields) trailers.push([name, String(fields[name])])
  if (trailers.length > 0) response.addTrailers(trailers)
}
