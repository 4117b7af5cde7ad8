import type { Random } from '../time/clock.ts'
import { onlyMember } from '../http/fields.ts'
import type { Breaker } from '../resilience/breaker.ts'
import { isSafeMethod } from '../routing/route.ts'
import { hasBody, RequestBody } from '../upstream/body.ts'
import type { AdmissionPolicy } from './admission-policies.ts'
import type { Call, Identifying, Sending, Target } from './call.ts'
import { type Candidate, candidatesFor } from './candidates.ts'
import type { Traits } from './charges.ts'
import { type Answered, decide, type Ending, type RetryPolicy } from './decide.ts'
import { type Failure, isFailure } from './failure.ts'
import type { Refused } from './forwarded.ts'
import { RequestCredential } from './request-credential.ts'

/**
 * How much longer than the upstream's pause a throttled call may wait, in milliseconds. Its turn comes just after the pause, so without
 * this it would be refused for a moment too few.
 */
const TURN_MS = 250

/** What a call needs for each of its attempts, and whether, why and when there is another. */
export class RetryPlan {
  /** At first the call's own. Replaced when another credential is chosen, or when the body tells the charge. */
  target: Target
  readonly breaker: Breaker
  readonly body: RequestBody | undefined
  readonly credential: RequestCredential | undefined
  /** Whether the call may reach the upstream twice. */
  readonly isSafe: boolean
  /** When the client wants response headers at the latest, queues included, by the call's clock; Infinity if it set no timeout. */
  readonly until: number
  /**
   * When the last attempt must have response headers: `timeouts.total` after the first attempt began, so without the queue before it, but
   * not after `until`. Before the first attempt it is `until`.
   */
  deadline: number
  /** How much longer than its client allowed the call may wait in the queue, in milliseconds, because the upstream throttled it. */
  graceMs = 0
  /** How long to wait before the next attempt, in milliseconds; undefined for an attempt that is no retry. */
  delayMs: number | undefined
  /** Why the next attempt is made, as the metric of attempts says it. */
  reason = 'first'
  readonly #call: Sending & Identifying
  readonly #random: Random
  readonly #policy: RetryPolicy
  #isPriced = false
  /** How long the retry policy made the call wait before its latest attempt. */
  #previousMs = 0

  constructor(call: Sending & Identifying, target: Target, random: Random) {
    const { upstream, credential, route, requestOptions } = target
    const { mayRetry, timeoutMs } = requestOptions
    const { retryPolicy } = upstream
    this.#call = call
    this.target = target
    this.#random = random
    this.#policy = mayRetry ? retryPolicy : { ...retryPolicy, retries: 0 }
    this.until = call.startedAt + timeoutMs
    this.deadline = this.until
    this.breaker = upstream.breakers.of(route)
    this.isSafe = mayRetry && isSafe(call, target)
    this.credential = credential === undefined ? undefined : new RequestCredential(credential, route)
    const mayBeRefusedFirst = this.credential?.isRenewable === true || retryPolicy.throttled === 'any'
    const isKept =
      this.isSafe ||
      (mayRetry && mayBeRefusedFirst) ||
      target.admissionPolicy.readsBody ||
      call.spend?.readsBody === true
    this.body = hasBody(call.request) ? bodyOf(call, target, isKept) : undefined
    call.body = this.body
  }

  get isTooLate(): boolean {
    return this.until !== Infinity && this.until <= this.#call.clock.now()
  }

  /** Counts an attempt that begins. The first one sets `deadline`. */
  begin(): void {
    const { upstream, admissionPolicy, client } = this.target
    const call = this.#call
    if (call.attempts++ === 0) {
      this.deadline = Math.min(this.until, call.clock.now() + upstream.config.timeouts.total)
      upstream.retryBudget.deposit()
    }
    admissionPolicy.metrics.attempts(this.reason).increment(call.id)
    // A charge that is settled later is counted when it is settled.
    if (!admissionPolicy.chargeSet.isSettled) admissionPolicy.spending.count(client, call.id)
  }

  /**
   * Returns how many milliseconds to wait before the call is sent once more; undefined if this attempt was its last. Call it once an
   * attempt: it uses the retry budget, and sets `reason` and `graceMs`.
   */
  delayAfter(ending: Ending): number | undefined {
    const { upstream } = this.target
    const call = this.#call
    if (ending.kind === 'response') {
      this.settleCredential(ending.status)
      if (ending.status < 400) return undefined
      if (this.#isWorthAnotherCredential(ending)) return 0
    }
    const situation = {
      attempts: call.attempts,
      isSafe: this.isSafe && !this.#hasBegun(ending),
      isReplayable: this.body?.isReplayable ?? true,
      previousMs: this.#previousMs,
      leftMs: this.deadline - call.clock.now(),
    }
    // If another credential of the pool is free now, it need not wait for the Retry-After of this one.
    const isOfOne = ending.kind === 'response' && ending.status === 429 && this.credential?.othersInMs === 0
    const judged = isOfOne ? { ...ending, retryAfterMs: 0 } : ending
    const delayMs = decide(judged, this.#policy, situation, this.#random)
    // An open breaker would refuse the retry; the upstream's own answer says more.
    if (delayMs === undefined || this.breaker.isRefusing) return undefined
    // A throttled call waits for its turn, so its retry stays inside the quota, and does not use the retry budget.
    if (ending.kind === 'throttled') this.graceMs += ending.pauseMs + TURN_MS
    else if (!upstream.retryBudget.withdraw()) {
      upstream.budgetExhausted.increment(call.id)
      return undefined
    }
    this.#previousMs = delayMs
    this.reason = 'status' in ending ? `status_${ending.status}` : ending.kind
    return delayMs
  }

  /** Tells the credential that was refused how the attempt with another one was answered. Does nothing after other attempts. */
  settleCredential(status: number): void {
    if (this.reason === 'credential') this.credential?.settled(status)
  }

  /** Chooses the best credential of the pool for a retry. Does nothing if there is no choice. */
  chooseCredential(): void {
    if (this.target.candidates !== undefined) this.#rank()
  }

  /** Call it if the credential can't be had. Returns whether another of the pool takes its place. */
  replaceCredential(): boolean {
    return this.target.credential?.leaveOut?.() === true && this.#rank()
  }

  /** Makes the next attempt use this credential. `because` tells the log why. */
  use({ credential, admissionPolicy }: Candidate, because: string): void {
    this.credential!.replace(credential, because)
    this.#call.target = this.target = { ...this.target, credential, admissionPolicy }
  }

  /**
   * Works the charge out from the request's body, once, if the charge depends on it. Call it when the body was received, as far as it is
   * kept. Returns a failure if the call can never be admitted.
   */
  priceBody(): Failure | undefined {
    const { admissionPolicy, upstream, route } = this.target
    if (this.#isPriced || !(admissionPolicy.readsBody || this.#call.spend?.readsBody === true)) return undefined
    this.#isPriced = true
    const tariff = upstream.prices?.tariffFor(route, this.#bodyThere)
    this.#call.target = this.target = { ...this.target, tariff }
    return admissionPolicy.readsBody ? this.#choosePolicies() : undefined
  }

  /**
   * Charges the call to the budgets of its client, unless it was charged before. Resolves with how the call ends if a budget is used up
   * or the store can't be asked.
   */
  spend(): Promise<Refused | undefined> | undefined {
    const { spend } = this.#call
    return spend?.isPending === true ? spend.enter(this.target, this.#bodyThere) : undefined
  }

  get #bodyThere(): Buffer | undefined {
    return this.body === undefined ? Buffer.alloc(0) : this.body.whole
  }

  #choosePolicies(): Failure | undefined {
    const { account, route, credential } = this.target
    const traits = this.#traits
    const policyOf = (member: string | undefined): AdmissionPolicy | Failure =>
      account.admissionPolicies.policyFor(route, { ...traits, credential: member })
    const admissionPolicy = policyOf(credential?.member)
    if (isFailure(admissionPolicy)) return admissionPolicy
    const candidates = this.target.candidates?.flatMap((candidate) => {
      const policy = policyOf(candidate.credential.member)
      return isFailure(policy) ? [] : [{ ...candidate, admissionPolicy: policy }]
    })
    this.#call.target = this.target = { ...this.target, admissionPolicy, candidates }
    return undefined
  }

  /** Returns whether it chose a credential. It does not if the call can't be admitted with any. */
  #rank(): boolean {
    const { account, route } = this.target
    const found = candidatesFor(account, route, this.#traits)
    if (isFailure(found)) return false
    const others = found.filter(({ credential }) => credential !== this.credential?.suspect)
    const candidates = others.length > 0 ? others : found
    this.target = { ...this.target, candidates }
    this.use(candidates[0]!, '')
    return true
  }

  get #traits(): Traits {
    const { client, normalPath, credential } = this.target
    const { method = '', headers } = this.#call.request
    const body = this.#bodyThere
    return { method, headers, path: normalPath, client: client.name, credential: credential?.member, body }
  }

  /**
   * Whether the upstream is known to have begun with a call that changes something. Such a call is not sent again, even if it is safe to
   * repeat: it would take effect each time, and an upstream that breaks off after its interim response will do so again.
   */
  #hasBegun(ending: Ending): boolean {
    if (ending.kind !== 'interrupted' || ending.interim === undefined) return false
    return !isSafeMethod(this.#call.request.method ?? '')
  }

  /**
   * Whether to send the call again with another credential; if so, sets `reason`. It does not use the retry budget: a credential that does
   * not help is not tried again soon, so such retries can't add up.
   */
  #isWorthAnotherCredential({ status, retryAfterMs = 0 }: Answered): boolean {
    if (this.credential === undefined || (status !== 401 && status !== 403 && status !== 429)) return false
    const isReplayable = this.target.requestOptions.mayRetry && this.body?.isReplayable !== false
    const { maxPause } = this.target.upstream.config.throttle
    if (!this.credential.isWorthAnother(status, isReplayable, Math.min(retryAfterMs, maxPause))) return false
    this.reason = 'credential'
    return true
  }
}

/** Whether the call may reach the upstream twice: its route allows it, or the upstream carries calls with one Idempotency-Key out once. */
function isSafe({ request }: Call, { route, upstream }: Target): boolean {
  if (route.retry === 'safe') return true
  return upstream.config.retry.idempotencyKey === 'honoured' && Boolean(onlyMember(request.headers['idempotency-key']))
}

function bodyOf(call: Call, { upstream }: Target, mayRetry: boolean): RequestBody {
  const { retry, timeouts, maxBody, minBodyRate } = upstream.config
  return new RequestBody(call.request, call.response, {
    clock: call.clock,
    mayRetry,
    keepBytes: retry.bodyLimit,
    maxBytes: maxBody ?? Infinity,
    idleMs: timeouts.idle,
    minBytesPerSecond: minBodyRate,
  })
}
