import type { Client } from '../clients/client.ts'
import type { Metrics } from '../observe/metrics.ts'
import { StoreUnavailableError } from '../ledger/ledger.ts'
import { limitName } from '../ledger/limit.ts'
import type { Permit } from '../queue/permit.ts'
import type { Admission, WaitRecord } from '../queue/admission.ts'
import type { AdmissionPolicy } from './admission-policies.ts'
import type { Admitting, Target } from './call.ts'
import { type Candidate, sessionOf } from './candidates.ts'
import { type Forwarded, GONE, type Refused, refused } from './forwarded.ts'
import { notAdmitted, storeUnavailable } from './refusals.ts'
import type { RetryPlan } from './retry-plan.ts'

type Admitted = { readonly kind: 'admitted'; readonly permit: Permit }

/**
 * Waits for the call's turn, up to `graceMs` milliseconds longer than its client allowed, but not beyond `deadline`. Returns a permit,
 * or how the call ends without one: a store that can't be asked refuses it. Returns no promise if the call is admitted or refused at once.
 */
export function admit(
  call: Admitting,
  target: Target,
  graceMs: number,
  deadline: number,
  metrics: Metrics,
): Admitted | Forwarded | Promise<Admitted | Forwarded> {
  const { client, admissionPolicy, requestOptions } = target
  const enteredAt = call.clock.now()
  const waited = (admission: Admission): Admitted | Forwarded =>
    admitted(admission, call, target, call.clock.now() - enteredAt, metrics)
  try {
    const maxWaitMs = leftToWait(call, target, graceMs, deadline, enteredAt)
    const { chargeSet } = admissionPolicy
    const { priority } = requestOptions
    const entry = admissionPolicy.queue.enter({
      chargeSet,
      maxWaitMs,
      client,
      priority,
      comesBack: requestOptions.comesBack !== false,
      cancellation: call.gone,
    })
    return entry instanceof Promise
      ? entry.then(waited, (error: unknown) => storeFailed(error, call, enteredAt, metrics))
      : admitted(entry, call, target, 0, metrics)
  } catch (error) {
    return storeFailed(error, call, enteredAt, metrics)
  }
}

/** How long the call may wait from `now` on, in milliseconds. The waits before earlier attempts count, too. */
function leftToWait(
  call: Admitting,
  { requestOptions }: Target,
  graceMs: number,
  deadline: number,
  now: number,
): number {
  const leftMs = requestOptions.maxWaitMs + graceMs - call.waitedMs
  return Math.max(0, Math.min(leftMs, deadline - now))
}

/**
 * Admits a call that any of several credentials may serve. `candidates` has the best first, and the first that can serve the call now
 * does. If none can, the call waits for the one whose turn comes soonest. A call of a conversation waits for the first one instead, if
 * its turn comes soon enough for the pool and for the call. Sets `plan.target` to the credential it chose.
 */
export async function admitWithAny(
  call: Admitting,
  plan: RetryPlan,
  candidates: readonly Candidate[],
  metrics: Metrics,
): Promise<Admitted | Forwarded> {
  const { account } = plan.target
  const pool = account.credential!.pool!
  const isOfSession = sessionOf(account, call.request) !== undefined
  const reason = isOfSession ? 'session' : pool.order
  const prepared = plan.target.credential
  const busy: string[] = []
  let soonest: Candidate | undefined
  let soonestMs = Infinity
  for (const candidate of candidates) {
    // No call waits for a token while another credential has one. If the token can't be had, the next call to ask for it is told.
    const { credential } = candidate
    const notReady = credential === prepared ? undefined : credential.ready?.()
    notReady?.catch(() => undefined)
    if (notReady !== undefined) continue
    const because = busy.length === 0 ? reason : `${reason}, and ${busy.join(' and ')} had to wait`
    const enteredAt = call.clock.now()
    const isFirst = isOfSession && busy.length === 0
    const maxWaitMs = isFirst
      ? Math.min(pool.affinity!.maxWaitMs, leftToWait(call, plan.target, plan.graceMs, plan.deadline, enteredAt))
      : 0
    // This may throw, so it comes before there is a permit: nobody would give that back.
    plan.use(candidate, because)
    const { comesBack } = plan.target.requestOptions
    const admission = await enterFor(maxWaitMs, plan.target, candidate, comesBack, call.gone)
    const waitedMs = call.clock.now() - enteredAt
    if (admission !== undefined && !('waitMs' in admission)) {
      return admitted(admission, call, plan.target, waitedMs, metrics)
    }
    call.waitedMs += waitedMs
    if (isFirst && waitedMs > 0 && admission?.wait !== undefined) {
      noteWait(call, admission.wait, waitedMs, admission.kind)
    }
    const waitMs = admission?.waitMs ?? Infinity
    if (soonest === undefined || waitMs < soonestMs) {
      soonest = candidate
      soonestMs = waitMs
    }
    busy.push(credential.member ?? credential.name)
  }
  plan.use(soonest ?? { credential: prepared!, admissionPolicy: plan.target.admissionPolicy }, reason)
  return admit(call, plan.target, plan.graceMs, plan.deadline, metrics)
}

/**
 * Admits the call if it need not wait longer than `maxWaitMs`; undefined if the store can't be asked. Keeps no turn for a call that it
 * refuses. If `comesBack` is false, the call does not take a turn that was kept, either.
 */
async function enterFor(
  maxWaitMs: number,
  { client, requestOptions: { priority } }: Target,
  { admissionPolicy: { queue, chargeSet } }: Pick<Candidate, 'admissionPolicy'>,
  comesBack: false | undefined,
  cancellation?: Admitting['gone'],
): Promise<Admission | undefined> {
  try {
    return await queue.enter({ chargeSet, maxWaitMs, client, priority, comesBack, cancellation })
  } catch (error) {
    if (error instanceof StoreUnavailableError) return undefined
    throw error
  }
}

function admitted(
  admission: Admission,
  call: Admitting,
  { client, admissionPolicy }: Target,
  waitedMs: number,
  metrics: Metrics,
): Admitted | Forwarded {
  try {
    return toldOf(admission, call, { client, admissionPolicy }, waitedMs, metrics)
  } catch (error) {
    // Nobody else has the permit yet, so nobody else would give it back.
    if (admission.kind === 'admitted') admission.permit[Symbol.dispose]()
    throw error
  }
}

function toldOf(
  admission: Admission,
  call: Admitting,
  { client, admissionPolicy }: Pick<Target, 'client' | 'admissionPolicy'>,
  waitedMs: number,
  metrics: Metrics,
): Admitted | Forwarded {
  call.waitedMs += waitedMs
  const { because } = admission
  call.isStoreDegraded =
    admission.kind === 'admitted' ? admission.permit.isLocal : admissionPolicy.queue.ledger.isDegraded
  if (because === 'quota') metrics.quotaDenied.of({ ...admissionPolicy.labels, client: client.name }).increment(call.id)
  if (admission.kind !== 'closed' && admission.wait !== undefined) {
    noteWait(call, admission.wait, waitedMs, admission.kind)
    noteForecast(call, admission.wait, waitedMs, admission.kind, admissionPolicy)
  }
  switch (admission.kind) {
    case 'admitted':
      if (because !== undefined) {
        admissionPolicy.metrics.queueWait.observeMs(waitedMs, call.id)
        admissionPolicy.usage.of(client.name).wait(waitedMs, call.id)
      }
      call.usage = admission.permit.usage
      noteWouldDeny(call, admissionPolicy, client, metrics)
      if (!admission.permit.isLocal) noteUsage(call, admissionPolicy)
      return admission
    case 'gone':
      return GONE
    case 'closed':
    case 'too_expensive':
      return refused(notAdmitted(admission, admissionPolicy, client))
    case 'quota_exhausted':
    case 'share_exceeded':
    case 'queue_full':
      call.usage = admission.usage
      return refused(notAdmitted(admission, admissionPolicy, client))
  }
}

/** Notes a wait before the next attempt. */
function noteWait(call: Admitting, record: WaitRecord, waitedMs: number, ended: Admission['kind']): void {
  const endedMs = call.clock.now() - call.startedAt
  ;(call.waits ??= []).push({ record, endedMs, waitedMs, ended, attempt: call.attempts + 1 })
}

/** Notes how wrong the forecast of a wait was. If the call was not admitted, that is known only if it waited longer than forecast. */
function noteForecast(
  { id }: Admitting,
  { because, expectedMs }: WaitRecord,
  waitedMs: number,
  ended: Admission['kind'],
  { metrics }: AdmissionPolicy,
): void {
  if (because !== 'quota') return
  if (ended === 'admitted' || waitedMs > expectedMs) metrics.waited(waitedMs, expectedMs, id)
}

function storeFailed(error: unknown, call: Admitting, enteredAt: number, metrics: Metrics): Refused {
  if (!(error instanceof StoreUnavailableError)) throw error
  call.waitedMs += call.clock.now() - enteredAt
  call.isStoreDegraded = true
  metrics.storeErrors.of({}).increment(call.id)
  return refused(storeUnavailable(error))
}

function noteUsage({ usage, id }: Admitting, { watches }: AdmissionPolicy): void {
  for (let i = 0; i < usage.length; i++) watches[i]?.note(usage[i]!, id)
}

/** Notes which limits would have refused the call if they were enforced. Usage includes all charges made in the same step. */
function noteWouldDeny(call: Admitting, { labels }: AdmissionPolicy, client: Client, metrics: Metrics): void {
  for (const { limit, used } of call.usage) {
    if (limit.isEnforced || used <= limit.requests) continue
    const name = limitName(limit)
    // A limit is noted once a call, however many attempts there are.
    if (call.wouldDeny?.includes(name) !== true) (call.wouldDeny ??= []).push(name)
    metrics.quotaWouldDeny
      .of({ ...labels, class: limit.class, window: limit.label, client: client.name })
      .increment(call.id)
  }
}

/** Admits a second attempt at once; undefined if it would have to wait. It does not take a turn that is kept for the client's next call. */
export async function admitNow(target: Target): Promise<Permit | undefined> {
  const admission = await enterFor(0, target, target, false)
  return admission?.kind === 'admitted' ? admission.permit : undefined
}
