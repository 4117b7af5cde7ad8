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

/** A call that was throttled must not have its turn at the very end of the pause, or its client would be refused by a moment. */
const TURN_MS = 250

/** What a call needs for each of its attempts, and whether, why and when there is another. */
export class RetryPlan {
  /** The call's own, until another credential of a pool is chosen. */
  target: Target
  readonly breaker: Breaker
  readonly body: RequestBody | undefined
  readonly credential: RequestCredential | undefined
  /** Whether the call may reach the upstream twice. */
  readonly isSafe: boolean
  /** When the client wants response headers at the latest, its wait in queues included. */
  readonly until: number
  /** When the last attempt must have response headers: so long after the first attempt, not counting the queue before it. */
  deadline: number
  /** How much longer it may wait than its client asked for, because the upstream let none through. */
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

  /** An attempt begins. The first one begins the time that all of them together may take. */
  begin(): void {
    const { upstream, admissionPolicy, client } = this.target
    const call = this.#call
    if (call.attempts++ === 0) {
      this.deadline = Math.min(this.until, call.clock.now() + upstream.config.timeouts.total)
      upstream.retryBudget.deposit()
    }
    admissionPolicy.metrics.attempts(this.reason).increment(call.id)
    // What is settled later is counted then.
    if (!admissionPolicy.chargeSet.isSettled) admissionPolicy.spending.count(client, call.id)
  }

  /** Milliseconds to wait before the call is sent once more, or undefined if this was its end. */
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
    // What one credential of several has to wait for, another need not.
    const isOfOne = ending.kind === 'response' && ending.status === 429 && this.credential?.othersInMs === 0
    const judged = isOfOne ? { ...ending, retryAfterMs: 0 } : ending
    const delayMs = decide(judged, this.#policy, situation, this.#random)
    // An open breaker would refuse the retry; the upstream's own answer says more.
    if (delayMs === undefined || this.breaker.isRefusing) return undefined
    // Retries that wait for their turn add no traffic: what is let through is what the quota allows.
    if (ending.kind === 'throttled') this.graceMs += ending.pauseMs + TURN_MS
    else if (!upstream.retryBudget.withdraw()) {
      upstream.budgetExhausted.increment(call.id)
      return undefined
    }
    this.#previousMs = delayMs
    this.reason = 'status' in ending ? `status_${ending.status}` : ending.kind
    return delayMs
  }

  /** An attempt was answered. If it was made with another credential, that tells of the one before. */
  settleCredential(status: number): void {
    if (this.reason === 'credential') this.credential?.settled(status)
  }

  /** Another credential of a pool may do for the retry. */
  chooseCredential(): void {
    if (this.target.candidates !== undefined) this.#rank()
  }

  /** The credential can't be had; returns whether another of the pool takes its place. */
  replaceCredential(): boolean {
    if (this.target.credential?.leaveOut?.() !== true) return false
    this.#rank()
    return true
  }

  /** The next attempt is made with this credential. */
  use({ credential, admissionPolicy }: Candidate, because: string): void {
    this.credential!.replace(credential, because)
    this.#call.target = this.target = { ...this.target, credential, admissionPolicy }
  }

  /**
   * The request's body is here, as far as it is kept: it may tell how much to reserve for the call. Returns why the call can never be
   * admitted, if that is what it tells.
   */
  priceBody(): Failure | undefined {
    const { admissionPolicy, upstream, route } = this.target
    if (this.#isPriced || !(admissionPolicy.readsBody || this.#call.spend?.readsBody === true)) return undefined
    this.#isPriced = true
    const tariff = upstream.prices?.tariffFor(route, this.#bodyThere)
    this.#call.target = this.target = { ...this.target, tariff }
    return admissionPolicy.readsBody ? this.#choosePolicies() : undefined
  }

  /** The call is charged to the budgets of its client, if it was not before. Returns how it ends where one of them is used up. */
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

  #rank(): void {
    const { account, route } = this.target
    const found = candidatesFor(account, route, this.#traits)
    if (isFailure(found)) return
    const others = found.filter(({ credential }) => credential !== this.credential?.suspect)
    const candidates = others.length > 0 ? others : found
    this.target = { ...this.target, candidates }
    this.use(candidates[0]!, '')
  }

  get #traits(): Traits {
    const { client, normalPath, credential } = this.target
    const { method = '', headers } = this.#call.request
    const body = this.#bodyThere
    return { method, headers, path: normalPath, client: client.name, credential: credential?.member, body }
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
    if (this.credential === undefined || (status !== 401 && status !== 403 && status !== 429)) return false
    const isReplayable = this.target.requestOptions.mayRetry && this.body?.isReplayable !== false
    if (!this.credential.isWorthAnother(status, isReplayable, retryAfterMs)) return false
    this.reason = 'credential'
    return true
  }
}

/** Whether the call may reach the upstream twice: by its route, or by a key with which the upstream makes it one. */
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
