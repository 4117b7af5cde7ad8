/*
 * src/gateway: a call from its start to its end. Begin to read in forward.ts, which has the loop. It is longer than other files,
 * so that a reader can follow a call through all steps of the loop without leaving it.
 * It imports what .oxlintrc.ts lists; only server and process stand above.
 * A change here must prove that every way to end gives back the permit, the place and the connection (test/gateway,
 * test/system), and cost nothing in npm run bench.
 */

import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Breaker } from '../resilience/breaker.ts'
import { isSafeMethod } from '../routing/route.ts'
import type { Cancellation } from '../time/cancellation.ts'
import type { Random } from '../time/clock.ts'
import { endOfTurn } from '../time/turns.ts'
import { BodyError, type RequestBody } from '../upstream/body.ts'
import type { OutgoingRequest } from '../upstream/transport.ts'
import { admit, admitNow, admitWithAny } from './admit.ts'
import { type Answered, Attempt, type AttemptOptions, type Outcome, type Switched } from './attempt.ts'
import type { Call, Sending, Target } from './call.ts'
import { countTimeout } from './count-timeout.ts'
import { deliver } from './delivery.ts'
import { type Delivered, type Forwarded, GONE, type Refused, refused } from './forwarded.ts'
import { type Beginning, HedgedAttempt } from './hedge.ts'
import { outgoingRequest } from './outgoing.ts'
import { isToUnpack, PackedResponse } from './packed-response.ts'
import * as refusals from './refusals.ts'
import type { Refresh } from './cached-read.ts'
import { lookUpInCache } from './response-cache.ts'
import type { ResponseObserver } from './response-observer.ts'
import { RetryPlan } from './retry-plan.ts'
import type { Upstream } from './snapshot.ts'
import { answerFromCache, type StoredAnswer } from './stored-answer.ts'
import { openTunnel } from './open-tunnel.ts'

/** How long a call keeps its turn while it waits for a new token, in milliseconds. Most token endpoints answer sooner. */
const KEEP_TURN_MS = 1_000

export interface Environment {
  readonly random: Random
  readonly metrics: Metrics
  /** Cancelled when the gateway stops and no call may sleep between its attempts any more. */
  readonly drain: Cancellation
  readonly log: Pick<Log, 'logger'>
}

/**
 * Takes an identified call to its end: answers it from the cache, or asks the upstream. Resolves with how the call ended, also if it
 * was refused or broke off. Rejects only on a mistake of the gateway.
 */
export function forward(call: Call, target: Target, env: Environment): Promise<Forwarded> {
  if (call.upgrade !== undefined) return forwardWebSocket(call, target, env)
  if (target.upstream.cache === undefined) return send(call, target, env, undefined)
  return forwardThroughCache(call, target, env)
}

async function forwardThroughCache(call: Call, target: Target, env: Environment): Promise<Forwarded> {
  const found = await lookUpInCache(call, target, target.upstream.cache!)
  switch (found.kind) {
    case 'hit':
      if (found.refresh !== undefined) void refreshCache(found.refresh, env)
      return answerFromCache(call, target, found.answer)
    case 'miss':
    case 'revalidate': {
      using observer = found.observer
      const result = await send(call, target, env, observer)
      const end = observer === undefined ? result : observer.conclude(result)
      return end.kind === 'stored' ? answerFromCache(call, target, end) : end
    }
    default:
      return found
  }
}

/** Refreshes a stored answer in the background, for no client. Is cancelled when the gateway stops. Logs a mistake, and never rejects. */
async function refreshCache({ call, target, observer }: Refresh, env: Environment): Promise<void> {
  try {
    using refreshing = observer
    using _ = env.drain.subscribe(() => call.gone.cancel())
    refreshing.conclude(await send(call, target, env, refreshing))
  } catch (error) {
    env.log.logger.error(
      { err: error },
      'a stored answer could not be refreshed in the background; no call failed because of it',
    )
  }
}

/** Forwards a call for a WebSocket. It holds one of the upstream's `webSockets.most` places from before its handshake to its end. */
async function forwardWebSocket(call: Call, target: Target, env: Environment): Promise<Forwarded> {
  const { webSockets } = target.upstream
  if (webSockets.open >= webSockets.most) return refused(refusals.tooManyWebSockets(target.upstream))
  webSockets.open++
  try {
    return await send(call, target, env, undefined)
  } finally {
    webSockets.open--
  }
}

/**
 * Takes a call from its admission to its answer. Each attempt is admitted and charged anew. An attempt ends at the headers of its
 * response, or without a response. Then the response is delivered, the call is sent again, a stored answer answers it, or it is refused.
 */
async function send(
  call: Call,
  identified: Target,
  env: Environment,
  observer: ResponseObserver | undefined,
): Promise<Forwarded> {
  const plan = new RetryPlan(call, identified, env.random)
  try {
    for (;;) {
      const ended = await prepare(call, plan, env)
      if (ended !== undefined) return ended
      const { candidates } = plan.target
      const entry =
        candidates === undefined
          ? admit(call, plan.target, plan.graceMs, plan.deadline, env.metrics)
          : admitWithAny(call, plan, candidates, env.metrics)
      // Most calls are admitted at once. Without an await they skip a trip through the microtask queue.
      const admission = entry instanceof Promise ? await entry : entry
      if (admission.kind !== 'admitted') return admission
      const first = new Attempt(call, plan.target, admission.permit)
      // Not `using`, which V8 runs much more slowly.
      const attempt = hedgedIfLate(first, call, plan, env, observer)
      try {
        // The token may have expired while the call waited. If no new one comes soon, the call gives its turn back and starts again.
        const renewal = entry instanceof Promise ? plan.credential?.prepare(call, plan.until, KEEP_TURN_MS) : undefined
        if (renewal !== undefined && (await renewal) !== undefined) {
          plan.delayMs = undefined
          continue
        }
        if (!first.enter(plan.breaker, call.attempts > 0)) return refusedBy(plan.breaker, call, plan.target)
        const request = begin(first, call, plan, observer)
        const outcome = await attempt.send(request, optionsFor(call, plan, observer, env.drain))
        // Headers that came in one turn of the event loop are taken up together, which costs less than one after the other.
        await endOfTurn(call.clock)
        noteTimes(outcome, call, plan.target)
        const step = nextStep(outcome, call, plan, observer)
        switch (step.kind) {
          case 'end':
            return step.end
          case 'deliver':
            // It is not sent again, and the answer may go on for hours.
            plan.body?.release()
            return await answer(step.outcome, call, plan.target, observer, env.drain)
          case 'answer-from-cache':
            return answerFromCache(call, plan.target, step.answer)
          case 'retry':
            plan.delayMs = step.delayMs
        }
      } finally {
        attempt[Symbol.dispose]()
      }
    }
  } finally {
    plan.body?.release()
  }
}

type Step =
  | { readonly kind: 'end'; readonly end: Forwarded }
  /** If `delayMs` is undefined, it is no retry: the request is sent again without the conditions of the cache. */
  | { readonly kind: 'retry'; readonly delayMs: number | undefined }
  | { readonly kind: 'answer-from-cache'; readonly answer: StoredAnswer }
  | { readonly kind: 'deliver'; readonly outcome: Answered | Switched }

/** Decides what becomes of a call after an attempt. Drains a response that is not delivered. */
function nextStep(outcome: Outcome, { clock }: Sending, plan: RetryPlan, observer: ResponseObserver | undefined): Step {
  const { upstream } = plan.target
  switch (outcome.kind) {
    case 'response': {
      const { response, record } = outcome
      const delayMs = plan.delayAfter(outcome.ending)
      const replacement = delayMs === undefined ? observer?.replace(response.meaning, response.fields) : undefined
      if (delayMs === undefined && replacement === undefined) return { kind: 'deliver', outcome }
      response.drain(clock)
      outcome.price?.settleByHead()
      record.end = replacement?.kind === 'stored' ? 'from_cache' : 'retried'
      if (replacement?.kind === 'stored') return { kind: 'answer-from-cache', answer: replacement }
      if (delayMs === undefined) plan.reason = `status_${response.meaning}`
      return { kind: 'retry', delayMs }
    }
    case 'switched':
      plan.settleCredential(outcome.status)
      return { kind: 'deliver', outcome }
    case 'failed': {
      const delayMs = plan.delayAfter(outcome.ending)
      if (delayMs !== undefined) return { kind: 'retry', delayMs }
      return endStep(refused(refusals.unanswered(outcome.ending, upstream, outcome.cause)))
    }
    case 'unsendable':
      return endStep(refused(refusals.unsendable(outcome.cause)))
    case 'body_failed':
      return endStep(endOfBody(outcome.error, upstream))
    case 'gone':
      return endStep(GONE)
  }
}

function endStep(end: Forwarded): Step {
  return { kind: 'end', end }
}

/**
 * Waits for what the next attempt needs, before the attempt is charged. While a call waits for its client's body or for its credential,
 * it holds no quota, no place in the queue, and not the breaker's probe. Returns how the call ends if there is no next attempt.
 */
async function prepare(call: Call, plan: RetryPlan, env: Environment): Promise<Forwarded | undefined> {
  const { breaker, body, credential, until } = plan
  if (plan.delayMs !== undefined) {
    if (plan.delayMs > 0) await sleep(plan.delayMs, call, env.drain)
    if (call.isGone) return GONE
    if (env.drain.isCancelled) return refused(refusals.DRAINING)
    plan.chooseCredential()
  }
  if (breaker.isRefusing) return refusedBy(breaker, call, plan.target)
  const withoutBody = body?.isPrepared === false ? await receive(body, call, plan.target) : undefined
  if (withoutBody !== undefined) return withoutBody
  const tooExpensive = plan.priceBody()
  if (tooExpensive !== undefined) return refused(tooExpensive)
  for (let wait = credential?.prepare(call, until); wait !== undefined; wait = credential?.prepare(call, until)) {
    const unavailable = await wait
    if (call.isGone) return GONE
    if (unavailable === 'over') return outOfTime(call, plan)
    if (unavailable === undefined) break
    if (!plan.replaceCredential()) return refused(unavailable)
  }
  if (call.isGone) return GONE
  const charged = plan.spend()
  const usedUp = charged === undefined ? undefined : await charged
  if (usedUp !== undefined) return usedUp
  return plan.isTooLate ? outOfTime(call, plan) : undefined
}

function outOfTime(call: Call, { target }: RetryPlan): Forwarded {
  target.upstream.timeouts.total.increment(call.id)
  return refused(refusals.OUT_OF_TIME)
}

/** Sleeps between two attempts. Ends early if the client leaves or the gateway stops. */
async function sleep(delayMs: number, call: Sending, drain: Cancellation): Promise<void> {
  const { clock, gone } = call
  const since = clock.now()
  const { promise, resolve } = Promise.withResolvers<void>()
  using waits = new DisposableStack()
  waits.use(gone.subscribe(resolve))
  waits.use(drain.subscribe(resolve))
  const timer = clock.schedule(delayMs, resolve)
  waits.defer(() => timer.cancel())
  await promise
  call.sleptMs += clock.now() - since
}

/** Receives the part of the body that is collected before it is sent. Returns how the call ends if that fails. */
async function receive(body: RequestBody, call: Sending, { upstream }: Target): Promise<Forwarded | undefined> {
  const since = call.clock.now()
  try {
    await body.prepare()
    return undefined
  } catch (error) {
    if (!(error instanceof BodyError)) throw error
    countTimeout(call, upstream, { kind: 'body_failed', error })
    return endOfBody(error, upstream)
  } finally {
    call.receivingMs += call.clock.now() - since
  }
}

/** Counts the attempt, and makes its request. */
function begin(
  attempt: Attempt,
  call: Sending,
  plan: RetryPlan,
  observer: ResponseObserver | undefined,
): OutgoingRequest {
  const { credential, body, target } = plan
  if (credential !== undefined) attempt.use(credential)
  call.breaker = attempt.isProbe ? 'half-open' : undefined
  plan.begin()
  const request = outgoingRequest(call, target, body, credential, observer?.conditions)
  observer?.sent()
  return request
}

function optionsFor(
  call: Call,
  plan: RetryPlan,
  observer: ResponseObserver | undefined,
  drain: Cancellation,
): AttemptOptions {
  const { body, credential, deadline, until, target } = plan
  const scrub = credential && target.account.echoes?.against(credential.exposed, call.id)
  return { body, credential, deadline, until, observer, scrub, drain }
}

/** Passes on what the upstream answered, to its end. */
async function answer(
  outcome: Answered | Switched,
  call: Call,
  { upstream, admissionPolicy }: Target,
  observer: ResponseObserver | undefined,
  drain: Cancellation,
): Promise<Forwarded> {
  const idleMs = upstream.config.timeouts.idle
  const end = await (outcome.kind === 'switched'
    ? openTunnel(call, upstream, outcome)
    : deliverAnswer(outcome, call, idleMs, observer, drain))
  if (outcome.kind === 'response' && outcome.price !== undefined) await outcome.price.settle()
  if (end.kind === 'delivered') upstream.hedging?.observe(admissionPolicy.labels.class, outcome.tookMs)
  outcome.record.end = end.kind
  countTimeout(call, upstream, end)
  return end
}

function deliverAnswer(
  answered: Answered,
  call: Call,
  idleMs: number,
  observer: ResponseObserver | undefined,
  drain: Cancellation,
): Promise<Delivered> {
  const { response, scrub, price } = answered
  const options = { idleMs, scrub, observer, price, worth: price, drain }
  if (scrub === undefined || !isToUnpack(response, call.request.method, scrub)) return deliver(call, response, options)
  const packed = new PackedResponse(response, { clock: call.clock, scrub, price })
  // `PackedResponse` reads the price itself, from the body as the upstream sent it.
  const begin = (): Promise<Delivered> => deliver(call, packed, { ...options, price: undefined })
  return packed.decided?.then(begin) ?? begin()
}

/** Adds the time of an attempt to that of the upstream, or to that of the client if its body failed. Counts a timeout. */
function noteTimes(outcome: Outcome, call: Sending, { upstream, admissionPolicy }: Target): void {
  const { kind, tookMs } = outcome
  if (kind === 'body_failed') call.receivingMs += tookMs
  else if (kind !== 'unsendable') call.upstreamMs += tookMs
  // The time until a client left says nothing about the upstream.
  const isOfUpstream = kind === 'response' || kind === 'failed' || kind === 'switched'
  if (isOfUpstream && tookMs > 0) admissionPolicy.metrics.upstreamDuration.observeMs(tookMs, call.id)
  countTimeout(call, upstream, outcome)
}

/**
 * Returns the first attempt, or one that starts a second beside it if the first is slow. It does that only for the first attempt of a
 * call that only reads, may be retried, has no body, is no WebSocket, and whose answer the cache does not want.
 */
function hedgedIfLate(
  first: Attempt,
  call: Call,
  plan: RetryPlan,
  env: Environment,
  observer: ResponseObserver | undefined,
): Attempt | HedgedAttempt {
  const { hedging } = plan.target.upstream
  if (hedging === undefined || call.attempts > 0 || call.upgrade !== undefined || observer !== undefined) return first
  if (!plan.isSafe || plan.body !== undefined || !isSafeMethod(call.request.method ?? '')) return first
  return new HedgedAttempt(call, first, {
    afterMs: () => hedging.afterMs(plan.target.admissionPolicy.labels.class),
    begin: (isStillWanted) => beginSecond(call, plan, env, isStillWanted),
    onMistake(error) {
      const message = 'the second attempt of a call failed in the gateway itself'
      env.log.logger.error({ err: error, correlationId: call.id }, message)
    },
  })
}

/** Begins the second attempt; undefined if there may be none. It is charged as any other, uses the retry budget, and never waits for quota. */
async function beginSecond(
  call: Call,
  plan: RetryPlan,
  env: Environment,
  isStillWanted: () => boolean,
): Promise<Beginning | undefined> {
  const { target, breaker } = plan
  const { upstream } = target
  if (!isStillWanted() || breaker.state !== 'closed' || !upstream.transport.hasRoom) return undefined
  const permit = await admitNow(target)
  if (permit === undefined) return undefined
  using held = new DisposableStack()
  const attempt = held.use(new Attempt(call, target, permit))
  // The first attempt may have been answered meanwhile.
  if (!isStillWanted() || !attempt.enter(breaker, true)) return undefined
  if (!upstream.retryBudget.withdraw()) {
    upstream.budgetExhausted.increment(call.id)
    return undefined
  }
  plan.reason = 'hedge'
  const request = begin(attempt, call, plan, undefined)
  const beginning = { attempt, request, options: optionsFor(call, plan, undefined, env.drain) }
  held.move()
  return beginning
}

function refusedBy(breaker: Breaker, call: Sending, { upstream }: Target): Refused {
  call.breaker = breaker.state
  return refused(refusals.breakerOpen(upstream, breaker))
}

function endOfBody({ kind }: BodyError, upstream: Upstream): Forwarded {
  return kind === 'gone' ? GONE : refused(refusals.bodyFailed(kind, upstream))
}
