import type { Duplex } from 'node:stream'
import type { Scrub } from '../credentials/scrub.ts'
import type { BodyLook } from '../answers/disguise.ts'
import { type Fields, onlyValue } from '../http/fields.ts'
import { isRequestId } from '../http/request-id.ts'
import { retryAfterOf } from '../http/retry-after.ts'
import type { Try, TryEnd } from '../observe/log.ts'
import type { Permit } from '../queue/permit.ts'
import { flatCopy } from '../schema/flat-copy.ts'
import type { Breaker, BreakerFailure, BreakerPermit } from '../resilience/breaker.ts'
import type { Cancellation, Subscription } from '../time/cancellation.ts'
import type { Timer } from '../time/clock.ts'
import { BodyError, type RequestBody } from '../upstream/body.ts'
import { isRefusedStream } from '../upstream/cancel-streams.ts'
import { codeOf } from '../upstream/error-code.ts'
import { responseHeaders } from '../upstream/headers.ts'
import { MalformedResponse } from '../upstream/malformed.ts'
import { CONTINUE } from '../upstream/response-parser.ts'
import { isMisuse } from '../upstream/misuse.ts'
import {
  ConnectionsTaken,
  isHeadTooLarge,
  type OutgoingRequest,
  type ResponseControl,
  type ResponseHandler,
} from '../upstream/transport.ts'
import { type AnswerPrice, countSpent, finishMsOf, settleHead } from './answer-price.ts'
import type { Call, Target } from './call.ts'
import type { Ending, Unanswered } from './decide.ts'
import { leadToGateway } from './own-links.ts'
import type { RequestCredential } from './request-credential.ts'
import type { ResponseObserver } from './response-observer.ts'
import { applyFeedback } from './upstream-feedback.ts'
import { UpstreamResponse } from './upstream-response.ts'

/** The headers of a response are here. What becomes of the response is not decided yet. `tookMs` is the time since the dispatch. */
export interface Answered {
  readonly kind: 'response'
  readonly ending: Ending
  readonly response: UpstreamResponse
  /** Removes from the response what the upstream echoes of the request's credential. */
  readonly scrub: Scrub | undefined
  /** Reads from the body what the call costs, and settles it at the end; undefined if that is known already. */
  readonly price: AnswerPrice | undefined
  /** The attempt as the log tells it. Whoever decides what becomes of the response must set `record.end`. */
  readonly record: Try
  readonly tookMs: number
}

/** The upstream agreed to a WebSocket. From now on the connection serves this client alone. */
export interface Switched {
  readonly kind: 'switched'
  readonly status: number
  readonly fields: Fields
  readonly socket: Duplex
  readonly record: Try
  readonly tookMs: number
}

/** How an attempt ended: at the headers of its response, or without one. */
export type Outcome =
  | Answered
  | Switched
  | { readonly kind: 'failed'; readonly ending: Unanswered; readonly cause: unknown; readonly tookMs: number }
  /** The request body failed: it was too large or too slow, or its client left. */
  | { readonly kind: 'body_failed'; readonly error: BodyError; readonly tookMs: number }
  | { readonly kind: 'gone'; readonly tookMs: number }
  /** The transport does not take the request. */
  | { readonly kind: 'unsendable'; readonly cause: unknown; readonly tookMs: number }

export interface AttemptOptions {
  readonly body: RequestBody | undefined
  readonly credential: RequestCredential | undefined
  /** When the attempt must have response headers, unless its client is late with its body. */
  readonly deadline: number
  /** When the whole call must have response headers, even if its client is late with its body; Infinity if the client set no timeout. */
  readonly until: number
  readonly observer: ResponseObserver | undefined
  /** Removes from the response what the upstream echoes of the request's credential. */
  readonly scrub: Scrub | undefined
  /** Cancelled when the gateway stops: from then on no attempt waits for an answer for its price alone. */
  readonly drain: Cancellation
}

/**
 * The shortest pause before an attempt checks again whether its client has sent more, in milliseconds. Without it, an attempt with next to
 * no time left would check all the time.
 */
const CHECK_AGAIN_MS = 1_000
/** An attempt ends if more interim responses than this come soon after one another: an upstream could send them for ever. */
const MOST_INTERIMS = 100
/** One that comes more than so many milliseconds after the last does not count: it may say that the upstream is still busy (102). */
const RARELY_MS = 1_000
/** How long the head of a response waits at most for the body to tell whether it is a refusal, in milliseconds. */
const LOOK_MS = 1_000
const OVER = new Error('the attempt is over')

/**
 * One request, up to the headers of its response. It holds a permit of the quota, one of the breaker and the use of a credential;
 * disposed of, it gives back all three and ends whatever the upstream still does for it, unless its response is being drained.
 * It tells the permit and the breaker what it learns, as soon as it knows.
 * The file is longer than others: whoever changes one of the ways in which an attempt ends has to see all of them.
 *
 * undici and timers call its methods, and neither may see a mistake of the gateway. undici would take an exception for a failure
 * of the upstream, and the call might be sent again. In a timer an exception would end the process. So each of these methods
 * catches a mistake, and rejects the promise that the call waits for.
 */
export class Attempt implements ResponseHandler, Disposable {
  readonly permit: Permit
  readonly #call: Call
  readonly #target: Target
  #breakerPermit: BreakerPermit | undefined
  #credentialUse: Disposable | undefined
  #options!: AttemptOptions
  #startedAt = 0
  /** When it got a connection. The upstream is not to blame for the time before that. */
  #sentAt = 0
  /** Whether it has to wait for a connection. */
  #isWaiting = false
  /** Whether `send` was called, and what the attempt cost is not counted yet. */
  #hasUncountedCost = false
  #phase: 'unsent' | 'sent' | 'looking' | 'answered' | 'over' = 'unsent'
  /** The response of which only the body can say whether it is a refusal. */
  #look: { readonly response: UpstreamResponse; readonly body: BodyLook; readonly tookMs: number } | undefined
  #control: ResponseControl | undefined
  #response: UpstreamResponse | undefined
  /** The connection of a WebSocket that is the call's. */
  #socket: Duplex | undefined
  /** The status of the interim response that came last. */
  #interim: number | undefined
  /** How many interim responses came soon after one another, and when the last of them did. */
  #interims = 0
  #interimAt = -Infinity
  /** Whether the headers of the response count as a success for the breaker, and its body has not broken off. */
  #isGood = false
  /** Whether a part of the body of a good response came. */
  #hasData = false
  /** From when on a body that still comes makes the response a success: a stream may go on for months. */
  #steadyAt = Infinity
  /**
   * Ends the attempt when its client has gone. If other calls wait for the response, it ends when the last of them has gone; if it goes
   * on for its price alone, when the gateway stops.
   */
  #cancellation: Subscription | undefined
  #timer: Timer | undefined
  /** By when the attempt must be over once its client has gone, by the call's clock. */
  #finishBy = Infinity
  /** What the log line of the call says of it. */
  #try: Try | undefined
  #resolve: ((outcome: Outcome) => void) | undefined
  #reject: ((mistake: unknown) => void) | undefined

  constructor(call: Call, target: Target, permit: Permit) {
    this.#call = call
    this.#target = target
    this.permit = permit
  }

  /** Asks the breaker; returns false if that does not let the attempt pass. */
  enter(breaker: Breaker, isRetry: boolean): boolean {
    this.#breakerPermit = breaker.enter({ isRetry })
    return this.#breakerPermit !== undefined
  }

  /** Whether the breaker lets it pass to find out how the upstream is. */
  get isProbe(): boolean {
    return this.#breakerPermit?.isProbe === true
  }

  use(credential: RequestCredential): void {
    this.#credentialUse = credential.take()
  }

  /** Sends the request. Resolves with how the attempt ended, also if it failed. Rejects only on a mistake of the gateway. */
  send(request: OutgoingRequest, options: AttemptOptions): Promise<Outcome> {
    const { clock, gone } = this.#call
    const { timeouts } = this.#target.upstream.config
    this.#options = options
    this.#hasUncountedCost = true
    this.#startedAt = this.#sentAt = clock.now()
    return new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
      this.#timer = clock.schedule(Math.min(timeouts.headers, options.deadline - this.#startedAt), this.#onTimeout)
      if (gone.isCancelled) return this.#onGone()
      this.#cancellation = gone.subscribe(this.#onGone)
      this.#target.upstream.transport.dispatch(request, this)
      this.#isWaiting = this.#phase === 'unsent'
    })
  }

  /** Gives it up, because another attempt of the call goes on in its place. */
  supersede(): void {
    try {
      const record = this.#try ?? this.#note({})
      record.end ??= 'superseded'
    } finally {
      this[Symbol.dispose]()
    }
  }

  [Symbol.dispose](): void {
    this.#stop()
    this.#socket?.destroy()
    if (this.#response === undefined) this.#control?.abort(OVER)
    else this.#response.abort()
    this.#resolve?.({ kind: 'gone', tookMs: this.#elapsedMs() })
    try {
      this.#credentialUse?.[Symbol.dispose]()
      this.#credentialUse = undefined
    } finally {
      try {
        // Many a stream of events ends only with its client. Up to then the upstream did well.
        if (this.#hasData && this.#isGood && this.#call.isGone) this.#breakerPermit?.completed()
        this.#breakerPermit?.[Symbol.dispose]()
      } finally {
        this.permit[Symbol.dispose]()
        this.#countSpent()
      }
    }
  }

  /** Counts what the attempt cost, if that can differ from its charge. Called at the end, when no more will become known of it. */
  #countSpent(): void {
    if (!this.#hasUncountedCost || !this.permit.isSettled) return
    this.#hasUncountedCost = false
    const { client, admissionPolicy } = this.#target
    countSpent(this.permit, admissionPolicy, client, this.#call.id)
  }

  onRequestStart(control: ResponseControl): void {
    this.#control = control
    // If this throws, undici drops the request alone. An abort would also close the connection, for which others wait.
    if (this.#phase === 'over') throw OVER
    this.#safely(() => {
      this.permit.sent()
      if (this.#phase === 'unsent') this.#call.spend?.sent()
      if (this.#isWaiting) this.#sentAt = this.#call.clock.now()
      this.#phase = 'sent'
    })
  }

  onResponseStart(control: ResponseControl, status: number, fields: Fields, phrase?: string): void {
    if (this.#phase === 'sent') this.#safely(() => this.#start(control, status, fields, phrase))
  }

  onRequestUpgrade(_: unknown, status: number, fields: Fields, socket: Duplex): void {
    if (this.#phase === 'sent') this.#safely(() => this.#switch(status, fields, socket))
    if (this.#socket !== socket) socket.destroy()
  }

  onResponseData(_: unknown, chunk: Buffer): void {
    this.#safely(() => {
      if (this.#isGood) this.#noteSteady()
      const look = this.#look
      if (look === undefined) return this.#response?.onData(chunk)
      look.response.onData(chunk)
      if (!look.body.piece(chunk)) this.#endLook(false)
    })
  }

  onResponseEnd(_: unknown, trailers: Fields): void {
    this.#safely(() => {
      if (this.#look !== undefined) this.#endLook(this.#look.body.matches())
      if (this.#isGood) this.#breakerPermit?.completed()
      this.#response?.onEnd(trailers)
    })
  }

  onResponseError(_: unknown, error: Error): void {
    this.#safely(() => this.#break(error))
  }

  #noteSteady(): void {
    this.#hasData = true
    if (this.#steadyAt === Infinity || this.#call.clock.now() < this.#steadyAt) return
    this.#breakerPermit?.completed()
    this.#steadyAt = Infinity
  }

  readonly #onGone = (): void => this.#safely(() => this.#leave())

  readonly #onTimeout = (): void => this.#safely(() => this.#endInTime())

  #safely(run: () => void): void {
    try {
      run()
    } catch (mistake) {
      this.#crash(mistake)
    }
  }

  #elapsedMs(): number {
    return this.#call.clock.now() - this.#startedAt
  }

  #start(control: ResponseControl, status: number, fields: Fields, phrase: string | undefined): void {
    this.#options.scrub?.head(fields)
    if (status < 100) return this.#break(new MalformedResponse('INVALID_STATUS'))
    if (status < 200) return this.#inform(status, fields)
    const coding = fields['transfer-encoding']
    if (coding !== undefined && coding !== 'chunked' && !isChunkedOnly(coding))
      return this.#break(new MalformedResponse('UNASKED_TRANSFER_CODING'))
    // A 204 has no body, and HTTP/1.1 forbids it a length (RFC 9110 §8.6). A 205 has no content, which HTTP/1.1 has to frame.
    if (status === 204 || status === 205) delete fields['content-length']
    const { upstream, route } = this.#target
    // For the cache: in HTTP/1 a body without a length ends with its connection, and in HTTP/2 it ends by itself.
    // undici gives the raw headers as a list only in HTTP/1.
    if (upstream.config.http2 && Array.isArray(control.rawHeaders)) fields['connection'] ??= 'close'
    const response = new UpstreamResponse(control, status, fields, phrase)
    const tookMs = this.#elapsedMs()
    const judged = upstream.disguises?.judge(route.class, status, fields) ?? false
    if (typeof judged !== 'boolean') return this.#lookInto(response, judged, tookMs)
    response.isDisguised = judged
    this.#answer(response, tookMs)
  }

  /** Holds the response until its body says whether it is a refusal. Nothing of it is passed on before that. */
  #lookInto(response: UpstreamResponse, look: BodyLook, tookMs: number): void {
    const { clock } = this.#call
    this.#phase = 'looking'
    this.#look = { response, body: look, tookMs }
    // The upstream has counted the call by now. If the charge depends on the answer, it waits until the body was looked at.
    if (!this.permit.isSettled) this.permit.commit()
    this.#timer?.cancel()
    this.#timer = clock.schedule(Math.min(LOOK_MS, this.#options.until - clock.now()), this.#onLookedLongEnough)
  }

  readonly #onLookedLongEnough = (): void => this.#safely(() => this.#endLook(false))

  #endLook(isDisguised: boolean): void {
    if (this.#look === undefined) return
    const { response, tookMs } = this.#look
    this.#look = undefined
    response.isDisguised = isDisguised
    this.#answer(response, tookMs)
  }

  /** Takes up a response whose meaning is known: settles the charge, tells the breaker, and ends the attempt. */
  #answer(response: UpstreamResponse, tookMs: number): void {
    const { scrub, credential } = this.#options
    const { status, meaning, fields, isDisguised } = response
    const call = this.#call
    const head = { status: meaning, fields, tookMs, isDisguised }
    const pauseMs = applyFeedback(call, this.#target, this.permit, head)
    const { permit } = this
    const { spend } = call
    const price =
      permit.isSettled || spend !== undefined ? settleHead(permit, spend, this.#target, meaning, fields) : undefined
    if (price !== undefined) price.finishBy = this.#finishBy
    this.permit.commit()
    // A 403 may be about the call (RFC 9110 §15.5.4); a 401 is about the credential alone.
    if (status === 401 && credential !== undefined)
      this.#target.admissionPolicy.metrics.credentialRefused.increment(call.id)
    const error = isDisguised ? 'refused for rate' : undefined
    const record = this.#note({ status, error, requestId: this.#requestIdIn(fields), tookMs })
    this.#judge(meaning, tookMs)
    this.#response = response
    const retryAfterMs = meaning === 429 || meaning >= 500 ? retryAfterOf(fields, call.clock.wall()) : undefined
    const ending: Ending =
      pauseMs === undefined
        ? { kind: 'response', status: meaning, retryAfterMs }
        : { kind: 'throttled', status: meaning, pauseMs }
    this.#conclude({ kind: 'response', ending, response, scrub, price, record, tookMs })
  }

  /** Ends the attempt with a WebSocket. The call has been answered, so no limit counts it as in flight any more. */
  #switch(status: number, fields: Fields, socket: Duplex): void {
    if (this.#call.upgrade === undefined) return
    this.permit.commit()
    // What a WebSocket costs does not become known: reservations stand.
    this.permit.abandon()
    this.permit.leave()
    this.#breakerPermit?.answered()
    this.#breakerPermit?.completed()
    this.#options.scrub?.head(fields)
    const record = this.#note({ status, requestId: this.#requestIdIn(fields) })
    this.#socket = socket
    this.#conclude({ kind: 'switched', status, fields, socket, record, tookMs: this.#elapsedMs() })
  }

  /** Interim responses are passed on (RFC 9110 §15.2), to clients that know them. */
  #inform(status: number, fields: Fields): void {
    const { request, response, isGone } = this.#call
    this.#interim = status === CONTINUE ? 100 : status
    if (status === 101) return this.#break(new MalformedResponse('INVALID_SWITCH'))
    const now = this.#call.clock.now()
    if (now - this.#interimAt > RARELY_MS) this.#interims = 0
    this.#interimAt = now
    if (++this.#interims > MOST_INTERIMS) return this.#break(new MalformedResponse('TOO_MANY_INTERIM_RESPONSES'))
    // A client that waits for 100 Continue got it when its body was read, and no other wants it.
    if (status === 100 || status === CONTINUE) return
    if (request.httpVersion === '1.0' || isGone) return
    // Nobody needs it. Where it can't go out now, it would take memory: the client does not read, or it is another response's turn.
    if (response.socket?.writableNeedDrain !== false) return
    const headers = responseHeaders(fields, false)
    leadToGateway(this.#call, headers)
    response.writeInformation(status, headers)
  }

  #break(error: Error): void {
    const { body } = this.#options
    // Neither the upstream nor the client failed: the gateway's own code that reads the body threw.
    if (body?.mistake !== undefined) throw body.mistake
    if (this.#phase === 'unsent') {
      this.permit.giveUp()
      if (!isMisuse(error)) return this.#fail({ kind: 'unreachable' }, error)
      this.#breakerPermit?.abandoned()
      this.#note({ error: 'unsendable', end: 'failed' })
      this.#conclude({ kind: 'unsendable', cause: error, tookMs: 0 })
    } else if (this.#phase === 'sent' || this.#phase === 'looking') {
      this.permit.giveUp()
      if (isRefusedStream(error) && this.#interim === undefined) return this.#fail({ kind: 'unreachable' }, error)
      if (isHeadTooLarge(error)) return this.#endUncounted({ kind: 'interrupted', isHeadTooLarge: true }, error)
      if (!(error instanceof BodyError)) return this.#fail({ kind: 'interrupted', interim: this.#interim }, error)
      this.#breakerPermit?.abandoned()
      this.#note({ error: 'body_failed', end: 'failed' })
      this.#conclude({ kind: 'body_failed', error, tookMs: this.#elapsedMs() })
    } else {
      // A `BodyError` is not the upstream's fault: it answered early, and the client then failed to send the rest of its body.
      if (this.#isGood && this.#response?.isWanted === true && !(error instanceof BodyError)) {
        this.#isGood = false
        this.#breakerPermit?.failed(this.#failure(`the body broke off${codeOf(error)}`))
      }
      this.#response?.onError(error)
    }
  }

  /** The client has gone. Gives the attempt up, unless other calls wait for its response, or the response tells a price. */
  #leave(): void {
    const { observer } = this.#options
    if (this.#phase === 'sent' || this.#phase === 'looking') {
      if (observer?.isAwaited === true) {
        this.#cancellation = observer.lastWaiterGone()?.subscribe(this.#onGone)
        return
      }
      if (this.#goesOnForPrice()) return
    }
    this.#giveUp()
  }

  /** Goes on without the client for a bounded time, if the response tells the price. Returns whether it does. */
  #goesOnForPrice(): boolean {
    const { drain, deadline } = this.#options
    const finishMs = finishMsOf(this.permit, this.#call.spend, this.#target)
    if (finishMs === 0 || drain.isCancelled) return false
    const { clock } = this.#call
    this.#finishBy = clock.now() + finishMs
    this.#cancellation = drain.subscribe(this.#onFinishedTooLate)
    if (this.#phase === 'looking') return true
    this.#timer?.cancel()
    this.#timer = clock.schedule(Math.min(finishMs, deadline - clock.now()), this.#onFinishedTooLate)
    return true
  }

  readonly #onFinishedTooLate = (): void => this.#safely(() => this.#giveUp())

  #giveUp(): void {
    this.permit.giveUp()
    this.#breakerPermit?.abandoned()
    this.#note({ end: 'client_gone' })
    this.#conclude({ kind: 'gone', tookMs: this.#elapsedMs() })
  }

  #endInTime(): void {
    const { body, deadline, until } = this.#options
    const { clock } = this.#call
    const { headers } = this.#target.upstream.config.timeouts
    const now = clock.now()
    const leftAtSentMs = deadline - this.#sentAt
    const headersMs = Math.min(headers, leftAtSentMs)
    // While the upstream, too, waits for more of the body, the client is the slow one, and `RequestBody` bounds that wait.
    const ownMs =
      body?.isAwaitingClient === true
        ? Math.max(headersMs, CHECK_AGAIN_MS)
        : Math.max(this.#sentAt, body?.progressAt ?? 0) + headersMs - now
    const leftMs = Math.min(ownMs, until - now)
    if (leftMs > 0) {
      this.#timer = clock.schedule(leftMs, this.#onTimeout)
      return
    }
    const phase = until <= now || headers > leftAtSentMs ? 'total' : 'headers'
    this.permit.giveUp()
    const ending: Unanswered = { kind: 'timeout', phase }
    if (this.#phase === 'unsent' && this.#target.upstream.transport.isFull(this.#call.upgrade !== undefined))
      return this.#endUncounted(until <= now ? ending : { kind: 'unreachable' }, new ConnectionsTaken())
    this.#fail(ending, undefined)
  }

  /** Fails the attempt because of a bound of the gateway's own. That says nothing about the upstream, so the breaker does not count it. */
  #endUncounted(ending: Unanswered, cause: Error): void {
    this.#breakerPermit?.abandoned()
    this.#note({ error: `${ending.kind}${codeOf(cause)}`, end: 'failed' })
    this.#conclude({ kind: 'failed', ending, cause, tookMs: this.#elapsedMs() })
  }

  #fail(ending: Unanswered, cause: unknown): void {
    const why = `${ending.kind}${ending.kind === 'timeout' ? ` (${ending.phase})` : codeOf(cause)}`
    this.#breakerPermit?.failed(this.#failure(why))
    if (ending.kind === 'timeout') this.#target.admissionPolicy.capacity.answered(this.#elapsedMs(), true)
    this.#note({ error: why, end: 'failed' })
    this.#conclude({ kind: 'failed', ending, cause, tookMs: this.#elapsedMs() })
  }

  /** Reports the response to the breaker and to the adaptive concurrency. The upstream's time begins when it has the whole request body. */
  #judge(status: number, sinceStartMs: number): void {
    const { slow = Infinity, reset } = this.#target.upstream.config.breaker
    const answeredAt = this.#startedAt + sinceStartMs
    const tookMs = answeredAt - Math.max(this.#sentAt, this.#options.body?.progressAt ?? 0)
    this.#target.admissionPolicy.capacity.answered(tookMs, status === 429 || status === 503)
    this.#isGood = status < 500 && tookMs <= slow
    this.#steadyAt = answeredAt + reset
    if (this.#isGood) return this.#breakerPermit?.answered()
    const late = tookMs > slow ? ` after ${Math.round(tookMs)} ms, which is longer than breaker.slow` : ''
    this.#breakerPermit?.failed(this.#failure(`status ${status}${late}`))
  }

  #failure(because: string): BreakerFailure {
    return { because, correlationId: this.#call.id }
  }

  #note({ status, error, end, requestId, tookMs = this.#elapsedMs() }: Noted): Try {
    const startedMs = rounded(this.#startedAt - this.#call.startedAt)
    const credential = this.#target.credential?.name
    const credentialVersion = this.#options.credential?.version
    const credentialBecause = this.#options.credential?.because || undefined
    const ms = rounded(tookMs)
    this.#try = { status, error, startedMs, ms, end, credential, credentialVersion, credentialBecause, requestId }
    this.#call.tries.push(this.#try)
    return this.#try
  }

  #requestIdIn(fields: Fields): string | undefined {
    for (const name of this.#target.upstream.requestIdHeaders) {
      const value = onlyValue(fields[name])
      // The call keeps it, but not the head that it was cut out of.
      if (value !== undefined && isRequestId(value)) return flatCopy(value)
    }
    return undefined
  }

  #conclude(outcome: Outcome): void {
    this.#stop()
    if (outcome.kind === 'response') this.#phase = 'answered'
    else if (outcome.kind !== 'switched') this.#control?.abort(OVER)
    const resolve = this.#resolve
    this.#resolve = undefined
    resolve?.(outcome)
  }

  #stop(): void {
    this.#phase = 'over'
    this.#look = undefined
    this.#timer?.cancel()
    this.#cancellation?.[Symbol.dispose]()
  }

  #crash(mistake: unknown): void {
    this.#stop()
    this.#reject?.(mistake)
    this.#response?.onMistake(mistake)
    // Last, because undici reports the abort at once, like a connection that broke.
    this.#control?.abort(OVER)
  }
}

/** What the log tells of an attempt, as far as it is known. */
interface Noted {
  readonly status?: number
  readonly error?: string | undefined
  readonly end?: TryEnd
  readonly requestId?: string | undefined
  /** Default: the time since the dispatch. */
  readonly tookMs?: number
}

function rounded(ms: number): number {
  return Math.round(ms * 100) / 100
}

function isChunkedOnly(coding: string | string[]): boolean {
  return coding.toString().trim().toLowerCase() === 'chunked'
}
