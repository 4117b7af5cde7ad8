import type { Cancellation } from '../time/cancellation.ts'
import type { Random } from '../time/clock.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Permit } from '../queue/permit.ts'
import type { Breaker, BreakerPermit } from '../resilience/breaker.ts'
import { BodyError, hasBody, RequestBody } from '../upstream/body.ts'
import { onlyMember } from '../http/fields.ts'
import { isSafeMethod } from '../routing/route.ts'
import type { Hedging } from '../resilience/hedging.ts'
import { admit, admitNow } from './admit.ts'
import { attempt, type AttemptOptions, type Hedge, type Retry, type Sending } from './attempt.ts'
import type { Call, Target } from './call.ts'
import { countTimeout } from './count-timeout.ts'
import { type Answered, decide, type Ending, type RetryPolicy } from './decide.ts'
import { isFailure } from './failure.ts'
import { type Forwarded, GONE, type Refused, refused } from './forwarded.ts'
import type { ResponseObserver, Intercepted } from './response-observer.ts'
import { outgoingRequest } from './outgoing.ts'
import { RequestCredential } from './request-credential.ts'
import type { Race } from './race.ts'
import {
  bodyFailed,
  breakerOpen,
  DRAINING,
  OUT_OF_TIME,
  tooManyWebSockets,
  unanswered,
  unsendable,
} from './refusals.ts'
import type { Upstream } from './snapshot.ts'

export interface Environment {
  readonly random: Random
  readonly metrics: Metrics
  /** Cancelled when the gateway stops and no call may sleep between its attempts any more. */
  readonly drain: Cancellation
  readonly log: Pick<Log, 'logger'>
}

/**
 * Takes an identified call to its end: breaker, admission, credential, send; then deliver, or sleep and again from the
 * breaker. Every attempt is admitted, and so charged, anew.
 */
export function forward(call: Call, target: Target, env: Environment): Promise<Forwarded> {
  const { cache } = target.upstream
  if (call.upgrade !== undefined) return withPlace(target.upstream, () => sendOnly(call, target, env))
  if (cache === undefined) return sendOnly(call, target, env)
  return cache.serve(call, target, (call, target, observer) => new Forwarding(call, target, env, observer).run())
}

/** Without an observer nothing is taken. */
function sendOnly(call: Call, target: Target, env: Environment): Promise<Forwarded> {
  return new Forwarding(call, target, env).run() as Promise<Forwarded>
}

/** A WebSocket needs one of a few places, from before its handshake to its end. */
async function withPlace(upstream: Upstream, run: () => Promise<Forwarded>): Promise<Forwarded> {
  const { webSockets } = upstream
  if (webSockets.open >= webSockets.most) return refused(tooManyWebSockets(upstream))
  webSockets.open++
  try {
    return await run()
  } finally {
    webSockets.open--
  }
}

/** Of a call that was throttled its turn need not come at the very end of the pause. */
const TURN_MS = 250

class Forwarding {
  readonly #call: Call
  #target: Target
  readonly #env: Environment
  readonly #observer: ResponseObserver | undefined
  readonly #isSafe: boolean
  readonly #body: RequestBody | undefined
  readonly #policy: RetryPolicy
  readonly #breaker: Breaker
  readonly #credential: RequestCredential | undefined
  /** When the client wants response headers at the latest, its wait in queues included. */
  readonly #until: number
  /** When the last attempt must have response headers: so long after the first attempt, not counting the queue before it. */
  #deadline: number
  /** The delay before the latest attempt. */
  #delayMs = 0
  /** What it may wait longer than its client asked for, because the upstream let none through. */
  #graceMs = 0
  /** Why the next attempt is made. */
  #reason = 'first'

  constructor(call: Call, target: Target, env: Environment, observer?: ResponseObserver) {
    const { retryPolicy } = target.upstream
    const { mayRetry } = target.requestOptions
    this.#call = call
    this.#target = target
    this.#env = env
    this.#until = call.startedAt + target.requestOptions.timeoutMs
    this.#deadline = this.#until
    this.#breaker = target.upstream.breakers.of(target.route)
    this.#observer = observer
    this.#isSafe = mayRetry && isSafe(call, target)
    const { credential, route } = target
    this.#credential = credential === undefined ? undefined : new RequestCredential(credential, route)
    const mayBeRefusedFirst = this.#credential?.isRenewable === true || retryPolicy.throttled === 'any'
    const isKept = this.#isSafe || (mayRetry && mayBeRefusedFirst)
    this.#body = hasBody(call.request) ? bodyOf(call, target.upstream, isKept) : undefined
    call.body = this.#body
    this.#policy = mayRetry ? retryPolicy : { ...retryPolicy, retries: 0 }
  }

  async run(): Promise<Forwarded | Intercepted> {
    const breaker = this.#breaker
    for (;;) {
      if (breaker.isRefusing) return this.#breakerOpen()
      // Before the call is charged: a client that is slow to send uses up no window, no place, and not the breaker's probe.
      if (this.#body?.isPrepared === false) {
        const end = await this.#receive(this.#body)
        if (end !== undefined) return end
      }
      // Nor does one that has to wait for its credential.
      const wait = this.#credential?.prepare(this.#call)
      if (wait !== undefined) {
        const failure = await wait
        if (this.#call.isGone) return GONE
        if (failure !== undefined) return refused(failure)
      }
      if (this.#until !== Infinity && this.#until <= this.#call.clock.now()) return this.#tooLate()
      const entry = admit(this.#call, this.#target, this.#graceMs, this.#deadline, this.#env.metrics)
      // Most enter at once, and an await less is a trip through the microtask queue less.
      const admission = entry instanceof Promise ? await entry : entry
      if (admission.kind !== 'admitted') return admission
      const end = await this.#attempt(admission.permit)
      if (end.kind !== 'retry') return end
      if (end.delayMs > 0) await this.#sleep(end.delayMs)
      if (this.#call.isGone) return GONE
      if (this.#env.drain.isCancelled) return refused(DRAINING)
      if (this.#credential?.isOfPool === true) this.#chooseAgain(this.#credential)
    }
  }

  /** Sleeps between two attempts, no longer than the client waits, and not while the gateway stops. */
  async #sleep(delayMs: number): Promise<void> {
    const call = this.#call
    const { clock, gone } = call
    const since = clock.now()
    const { promise, resolve } = Promise.withResolvers<void>()
    using waits = new DisposableStack()
    waits.use(gone.subscribe(resolve))
    waits.use(this.#env.drain.subscribe(resolve))
    const timer = clock.schedule(delayMs, resolve)
    waits.defer(() => timer.cancel())
    await promise
    call.sleptMs += clock.now() - since
  }

  /** Takes in what of the body is collected; or how the call ends without it. */
  async #receive(body: RequestBody): Promise<Forwarded | undefined> {
    const call = this.#call
    const receivingSince = call.clock.now()
    try {
      await body.prepare()
      return undefined
    } catch (error) {
      if (!(error instanceof BodyError)) throw error
      countTimeout(call, this.#target.upstream, { kind: 'body_failed', error })
      return endOfBody(error, this.#target.upstream)
    } finally {
      call.receivingMs += call.clock.now() - receivingSince
    }
  }

  /** Sends the call once. What it holds for that comes back at its end, also if anything in here or behind it throws. */
  async #attempt(admitted: Permit): Promise<Forwarded | Intercepted | Retry> {
    using permit = admitted
    const call = this.#call
    using breakerPermit = this.#breaker.enter({ isRetry: call.attempts > 0 })
    if (breakerPermit === undefined) return this.#breakerOpen()
    // oxlint-disable-next-line no-underscore-dangle -- it is only held
    using _use = this.#credential?.take()
    call.breaker = breakerPermit.isProbe ? 'half-open' : undefined
    const { upstream, admissionPolicy } = this.#target
    const { timeouts } = upstream.config
    const body = this.#body
    const now = call.clock.now()
    if (call.attempts++ === 0) {
      this.#deadline = Math.min(this.#until, now + timeouts.total)
      upstream.retryBudget.deposit()
    }
    admissionPolicy.metrics.attempts(this.#reason).increment(call.id)
    admissionPolicy.spending.count(this.#target.client.name, call.id)
    const upstreamMsBefore = call.upstreamMs
    const observer = this.#observer
    const request = outgoingRequest(call, this.#target, body, this.#credential, observer?.conditions)
    observer?.sent()
    const hedge = upstream.hedging === undefined ? undefined : this.#hedge(upstream.hedging)
    const options = this.#optionsFor(permit, breakerPermit, now)
    const result = await attempt(call, this.#target, request, options, hedge)
    const tookMs = call.upstreamMs - upstreamMsBefore
    // How long a client had the patience to wait for the headers says nothing about the upstream.
    const hadPatience = result.kind !== 'gone' || call.response.headersSent
    if (tookMs > 0 && hadPatience) admissionPolicy.metrics.upstreamDuration.observeMs(tookMs, call.id)
    if (result.kind === 'delivered') upstream.hedging?.observe(admissionPolicy.labels.class, tookMs)
    countTimeout(call, upstream, result)
    switch (result.kind) {
      case 'delivered':
      case 'broken_off':
      case 'retry':
      case 'intercepted':
        return result
      case 'gone':
        return GONE
      case 'body_failed':
        return endOfBody(result.error, upstream)
      case 'unsendable':
        return refused(unsendable(result.cause))
      case 'failed': {
        const delayMs = this.#retryAfter(result.ending)
        if (delayMs !== undefined) return { kind: 'retry', delayMs }
        return refused(unanswered(result.ending, upstream, result.cause))
      }
    }
  }

  #optionsFor(permit: Permit, breakerPermit: BreakerPermit, now: number): AttemptOptions {
    const { timeouts, breaker } = this.#target.upstream.config
    const leftMs = this.#deadline - now
    return {
      permit,
      breakerPermit,
      slowMs: breaker.slow ?? Infinity,
      body: this.#body,
      headersMs: Math.min(timeouts.headers, leftMs),
      credentialVersion: this.#credential?.version,
      hasOthers: this.#credential?.hasOthers === true,
      until: this.#until,
      limitedBy: timeouts.headers <= leftMs ? 'headers' : 'total',
      judge: (ending) => this.#retryAfter(ending),
      observer: this.#observer,
      scrub: this.#credential && this.#target.account.echoes?.against(this.#credential.exposed, this.#call.id),
    }
  }

  /** Only beside the first attempt of a call that reads, has no body, and whose answer nobody else waits for. */
  #hedge(hedging: Hedging): Hedge | undefined {
    const { request, upgrade, attempts } = this.#call
    const isRead = this.#isSafe && isSafeMethod(request.method ?? '') && this.#body === undefined
    if (!isRead || attempts > 1 || upgrade !== undefined || this.#observer !== undefined) return undefined
    const afterMs = hedging.afterMs(this.#target.admissionPolicy.labels.class)
    return afterMs === undefined ? undefined : { afterMs, run: (race, send) => this.#runHedge(race, send) }
  }

  async #runHedge(race: Race, send: (sending: Sending) => Promise<void>): Promise<void> {
    try {
      await this.#sendHedge(race, send)
    } catch (error) {
      // The first attempt goes on, and may well answer the call.
      const { logger } = this.#env.log
      const message = 'the second attempt of a call failed in the gateway itself'
      logger.error({ err: error, correlationId: this.#call.id }, message)
    }
  }

  /** Charged like any attempt, but not waited for; and taken from the retry budget. */
  async #sendHedge(race: Race, send: (sending: Sending) => Promise<void>): Promise<void> {
    const { admissionPolicy, upstream } = this.#target
    const call = this.#call
    if (!race.isOpen || this.#breaker.state !== 'closed') return
    using permit = await admitNow(this.#target)
    // Meanwhile the first may have been answered.
    if (permit === undefined || !race.isOpen) return
    using breakerPermit = this.#breaker.enter({ isRetry: true })
    if (breakerPermit === undefined) return
    if (!upstream.retryBudget.withdraw()) return upstream.budgetExhausted.increment(call.id)
    // oxlint-disable-next-line no-underscore-dangle -- it is only held
    using _use = this.#credential?.take()
    call.attempts++
    admissionPolicy.metrics.attempts('hedge').increment(call.id)
    admissionPolicy.spending.count(this.#target.client.name, call.id)
    const request = outgoingRequest(call, this.#target, undefined, this.#credential, undefined)
    await send({ request, options: this.#optionsFor(permit, breakerPermit, call.clock.now()) })
  }

  /** How long to wait before the call is sent once more, or undefined if this was its end. */
  #retryAfter(ending: Ending): number | undefined {
    const { upstream } = this.#target
    const call = this.#call
    if (ending.kind === 'response') {
      if (this.#reason === 'credential') this.#credential?.settled(ending.status)
      if (ending.status < 400) return undefined
      if (this.#isWorthAnotherCredential(ending)) return 0
    }
    const situation = {
      attempts: call.attempts,
      isSafe: this.#isSafe && !this.#hasBegun(ending),
      isReplayable: this.#body?.isReplayable ?? true,
      previousMs: this.#delayMs,
      leftMs: this.#deadline - call.clock.now(),
    }
    // What one credential of several has to wait for, another need not.
    const isOfOne = ending.kind === 'response' && ending.status === 429 && this.#credential?.hasOthers === true
    const judged = isOfOne ? { ...ending, retryAfterMs: 0 } : ending
    const delayMs = decide(judged, this.#policy, situation, this.#env.random)
    // An open breaker would refuse the retry; the upstream's own answer says more.
    if (delayMs === undefined || this.#breaker.isRefusing) return undefined
    // Retries that wait for their turn add no traffic: what is let through is what the quota allows.
    if (ending.kind === 'throttled') this.#graceMs += ending.pauseMs + TURN_MS
    else if (!upstream.retryBudget.withdraw()) {
      upstream.budgetExhausted.increment(call.id)
      return undefined
    }
    this.#delayMs = delayMs
    this.#reason = 'status' in ending ? `status_${ending.status}` : ending.kind
    return delayMs
  }

  /**
   * Whether the upstream is known to have begun with a call that changes something. To do it twice would end in the same, but
   * each time it takes effect, and an upstream that breaks off behind its interim response will do so again.
   */
  #hasBegun(ending: Ending): boolean {
    if (ending.kind !== 'interrupted' || ending.interim === undefined) return false
    return !isSafeMethod(this.#call.request.method ?? '')
  }

  /** Not a matter of the retry budget, because it can't add up: a credential that does not help is not tried again soon. */
  #isWorthAnotherCredential({ status, retryAfterMs }: Answered): boolean {
    if (this.#credential === undefined || (status !== 401 && status !== 403 && status !== 429)) return false
    const isReplayable = this.#target.requestOptions.mayRetry && this.#body?.isReplayable !== false
    if (!this.#credential.isWorthAnother(status, isReplayable, retryAfterMs)) return false
    this.#reason = 'credential'
    return true
  }

  /** Another of a pool may do for the retry; then it waits where the quota of that one is. */
  #chooseAgain(requestCredential: RequestCredential): void {
    const { account, route, client, normalPath } = this.#target
    const { method = '', headers } = this.#call.request
    const credential = account.credential!.choose()
    requestCredential.replace(credential)
    const traits = { method, headers, path: normalPath, client: client.name, credential: credential.member }
    const admissionPolicy = account.admissionPolicies.policyFor(route, traits)
    if (!isFailure(admissionPolicy)) this.#call.target = this.#target = { ...this.#target, credential, admissionPolicy }
  }

  #tooLate(): Refused {
    this.#target.upstream.timeouts.total.increment(this.#call.id)
    return refused(OUT_OF_TIME)
  }

  #breakerOpen(): Refused {
    this.#call.breaker = this.#breaker.state
    return refused(breakerOpen(this.#target.upstream, this.#breaker))
  }
}

/** Whether the call may reach the upstream twice: by its route, or by a key with which the upstream makes it one. */
function isSafe({ request }: Call, { route, upstream }: Target): boolean {
  if (route.retry === 'safe') return true
  return upstream.config.retry.idempotencyKey === 'honoured' && Boolean(onlyMember(request.headers['idempotency-key']))
}

function bodyOf(
  call: Call,
  { config: { retry, timeouts, maxBody, minBodyRate } }: Upstream,
  mayRetry: boolean,
): RequestBody {
  return new RequestBody(call.request, call.response, {
    clock: call.clock,
    mayRetry,
    keepBytes: retry.bodyLimit,
    maxBytes: maxBody ?? Infinity,
    idleMs: timeouts.idle,
    minBytesPerSecond: minBodyRate,
  })
}

function endOfBody({ kind }: BodyError, upstream: Upstream): Forwarded {
  return kind === 'gone' ? GONE : refused(bodyFailed(kind, upstream))
}
