import type { RequestRow } from '../../requests/story.ts'
import { ADVICE_OF, type FailureKind } from '../../gateway/failure.ts'
import { countOf, roughly } from '../../schema/units.ts'
import type { AdminParts } from './management.ts'
import { type UsageNow, usageNow } from './usage-view.ts'
import type { BreakerRow, CredentialRow, QueueRow, QuotaRow, Reloaded } from './status.ts'

/** What the live page shows. */
export interface PageState {
  readonly causes: readonly Cause[]
  /** Undefined while the quota store can't be asked. */
  readonly limits: readonly QuotaRow[] | undefined
  readonly usage: UsageNow
  readonly queue: readonly QueueRow[]
  readonly breakers: readonly BreakerRow[]
  readonly credentials: readonly CredentialRow[]
  /** The latest calls that did not end well, the newest first. */
  readonly failed: readonly RequestRow[]
  readonly away: readonly { readonly instance: string; readonly why: string }[]
}

/** Something that is wrong now, or soon will be. */
export interface Cause {
  readonly severity: 'failing' | 'warning'
  readonly what: string
  readonly todo: string
}

/** How far back calls are looked at for what is wrong now. */
const LATELY_MS = 5 * 60_000
const MOST_CALLS = 400
/** Of each process so many clients and limits are asked for. */
const MOST_USES = 200
const MOST_FAILED = 20
const NEARLY_USED = 0.9
/** What is used up sooner is a limit of a short window, and comes back as soon. The alert SluiceQuotaExhaustionAhead has the same. */
const LEAST_AHEAD_MS = 60_000
const MOST_AHEAD_MS = 2 * 3_600_000
const SOON_MS = 7 * 86_400_000
/** So many calls tell something of an upstream. */
const ENOUGH_CALLS = 5
const SLOW_MS = 5_000

/** Asks for everything at once; what can't be had is missing, and said to be. */
export async function pageState(parts: AdminParts): Promise<PageState> {
  const { status, controls, requests, management } = parts
  const since = management.clock.wall() - LATELY_MS
  const quota = status.quota()
  const [notReady, degraded, limits, usage, queue, breakers, credentials, calls] = await Promise.all([
    status.notReady(),
    status.degraded(),
    quota,
    usageNow(parts, MOST_USES, quota),
    status.queue(),
    controls.breakers(),
    status.credentials(),
    requests.ask({ kind: 'list', filter: { since }, most: MOST_CALLS }),
  ])
  const rows = calls.found as readonly RequestRow[]
  const failed = rows.filter(isFailed)
  const causes = [
    ...storeCauses(notReady, degraded, limits),
    ...reloadCauses(controls.lastReload()),
    ...breakerCauses(breakers),
    ...credentialCauses(credentials),
    ...limitCauses(limits ?? [], queue),
    ...refusalCauses(failed, breakers),
    ...upstreamCauses(rows),
  ]
  // The worst first; each kind stays together.
  causes.sort((a, b) => Number(a.severity !== 'failing') - Number(b.severity !== 'failing'))
  return { causes, limits, usage, queue, breakers, credentials, failed: failed.slice(0, MOST_FAILED), away: calls.away }
}

function isFailed({ isRunning, outcome, status }: RequestRow): boolean {
  return !isRunning && outcome !== 'client_gone' && (outcome !== 'delivered' || Number(status) >= 500)
}

function* storeCauses(notReady?: string, degraded?: string, limits?: readonly QuotaRow[]): Iterable<Cause> {
  const todo = 'Look at Redis, or at the disk of store.dir. sluice_store_degraded says which gateways it is about.'
  if (notReady !== undefined) yield { severity: 'failing', what: `This gateway is not ready: ${notReady}.`, todo }
  else if (degraded !== undefined) yield { severity: 'warning', what: `Degraded: ${degraded}.`, todo }
  if (limits === undefined) yield { severity: 'failing', what: 'The quota store does not answer.', todo }
}

function* reloadCauses(last: Reloaded | undefined): Iterable<Cause> {
  if (last?.result !== 'rejected') return
  const todo =
    'The configuration before stays in force, but a restart would fail. npx sluice check shows every mistake.'
  yield { severity: 'warning', what: `The last reload was rejected: ${last.problems[0] ?? 'the log says why'}`, todo }
}

function* breakerCauses(breakers: readonly BreakerRow[]): Iterable<Cause> {
  for (const { upstream, group, state, byHand, retryAfterMs } of breakers) {
    if (state === 'closed') continue
    const name = group === undefined ? upstream : `${upstream} (${group})`
    const until = retryAfterMs === undefined ? '' : `, the next probe is in ${roughly(retryAfterMs)}`
    const what = byHand ? `The breaker of ${name} was opened by hand.` : `The breaker of ${name} is ${state}${until}.`
    const todo = byHand
      ? 'Close it when the vendor is well: POST /v1/upstreams/NAME/breaker.'
      : 'The upstream kept failing: see the failed calls below, and the vendor’s status page.'
    yield { severity: 'failing', what, todo }
  }
}

function* credentialCauses(credentials: readonly CredentialRow[]): Iterable<Cause> {
  const todo = 'Make a new one at the vendor, and put it beside the old one: npx sluice credentials rotate.'
  for (const { upstream, account, credential, expiresInMs, quarantined } of credentials) {
    const name = credential ?? `${upstream}/${account}`
    if (expiresInMs !== null && expiresInMs <= 0)
      yield { severity: 'failing', what: `The credential ${name} has expired.`, todo }
    else if (expiresInMs !== null && expiresInMs < SOON_MS)
      yield { severity: 'warning', what: `The credential ${name} expires in ${roughly(expiresInMs)}.`, todo }
    if (quarantined > 0) {
      const what = `${quarantined} of the credentials of ${upstream}/${account} are left out: the vendor refused them.`
      yield { severity: 'warning', what, todo }
    }
  }
}

function* limitCauses(limits: readonly QuotaRow[], queue: readonly QueueRow[]): Iterable<Cause> {
  for (const limit of limits) yield* causesOfLimit(limit, queue)
}

function* causesOfLimit(row: QuotaRow, queue: readonly QueueRow[]): Iterable<Cause> {
  const { upstream, account, window, limit, effective, used, waiting, exhaustionInMs } = row
  const name = `${upstream}/${account} ${row.class} per ${window}`
  if (window.endsWith(' shadow')) return
  if (effective < NEARLY_USED * limit) {
    const what = `Only ${effective} of ${limit} of ${name} can be used: the vendor lets less through.`
    const todo = 'Somebody uses the account without the gateway, or the limit is lower than configured.'
    yield { severity: 'warning', what, todo }
  }
  if (used < effective && waiting === 0) {
    if (used >= NEARLY_USED * effective) {
      const todo = 'Calls will have to wait soon. “Who spends” says whose they are.'
      yield { severity: 'warning', what: `${name} is nearly used up: ${used} of ${effective}.`, todo }
    } else if (exhaustionInMs !== null && exhaustionInMs > LEAST_AHEAD_MS && exhaustionInMs < MOST_AHEAD_MS) {
      const what = `${name} will be used up in ${roughly(exhaustionInMs)} at this rate: ${used} of ${effective} are.`
      const todo =
        'See in sluice_quota_charged_total who calls more than usual. Slow that client down, or spread its calls.'
      yield { severity: 'warning', what, todo }
    }
    return
  }
  const waits = queue.filter((one) => one.upstream === upstream && one.account === account && one.class === row.class)
  const most = waits.reduce<QueueRow | undefined>(
    (a, b) => (a !== undefined && a.waiting >= b.waiting ? a : b),
    undefined,
  )
  const who = most === undefined ? '' : `, ${most.waiting} of the client ${most.client}`
  const what = `${name} is used up, and ${countOf(waiting, 'call')} ${waiting === 1 ? 'waits' : 'wait'}${who}.`
  const todo = `More comes back in ${roughly(row.resetMs)}. Slow that client down, or have the vendor raise the limit.`
  yield { severity: 'failing', what, todo }
}

function* refusalCauses(failed: readonly RequestRow[], breakers: readonly BreakerRow[]): Iterable<Cause> {
  for (const [outcome, calls] of Map.groupBy(failed, (row) => row.outcome)) {
    // What the open breaker says already.
    const isKnown = outcome === 'breaker_open' && breakers.some(({ state }) => state !== 'closed')
    if (outcome === 'delivered' || isKnown) continue
    const { client, upstream } = mostOf(calls)
    const to = upstream === undefined ? '' : ` to ${upstream}`
    const whose = client === undefined || client === 'unknown' ? '' : `, most of the client ${client}`
    const advice = ADVICE_OF[outcome as FailureKind] ?? 'the upstream broke off in the middle of its answer'
    const what = `${countOf(calls.length, 'call')}${to} ended as ${outcome}${whose}.`
    yield { severity: isCallers(outcome) ? 'warning' : 'failing', what, todo: `${capital(advice)}.` }
  }
}

/** Those that a caller has to mend are no failure of the gateway, or of a vendor. */
function isCallers(outcome: string): boolean {
  return /^(invalid_request|(?:proxy_)?unauthenticated|forbidden|account_mismatch|unknown_upstream|body_too_large|not_cached|too_many_attempts)$/.test(
    outcome,
  )
}

function* upstreamCauses(rows: readonly RequestRow[]): Iterable<Cause> {
  const answered = rows.filter(({ isRunning, outcome }) => !isRunning && outcome === 'delivered')
  for (const [upstream, calls] of Map.groupBy(answered, (row) => row.upstream ?? 'unknown')) {
    const todo = 'See the failed calls below for which path, and the vendor’s status page.'
    const errors = calls.filter(({ status }) => Number(status) >= 500).length
    if (errors >= ENOUGH_CALLS || errors > calls.length / 10)
      yield {
        severity: 'failing',
        what: `${upstream} answered ${errors} of ${countOf(calls.length, 'call')} with 5xx.`,
        todo,
      }
    for (const status of ['401', '403', '429']) {
      const count = calls.filter((row) => row.status === status).length
      if (count < ENOUGH_CALLS && count <= calls.length / 2) continue
      if (count > 0)
        yield {
          severity: 'failing',
          what: `${upstream} answered ${count} of ${countOf(calls.length, 'call')} with ${status}.`,
          todo: TODO_OF[status]!,
        }
    }
    if (calls.length < ENOUGH_CALLS) continue
    const times = calls.map(({ durationMs, waitMs }) => durationMs - waitMs).toSorted((a, b) => a - b)
    const median = times[Math.floor(times.length / 2)]!
    if (median >= SLOW_MS)
      yield {
        severity: 'warning',
        what: `${upstream} is slow: half of its calls take more than ${roughly(median)}.`,
        todo,
      }
  }
}

const TODO_OF: Readonly<Record<string, string>> = {
  401: 'The vendor refuses the credential: set a new one, or see whether it was revoked.',
  403: 'The credential lacks a right, or the vendor refuses these calls: see the failed calls for the paths.',
  429: 'The vendor throttles though we count quota left: somebody else uses the account, or its limit is lower.',
}

/** The client and the upstream that most of these calls have, where they have one. */
function mostOf(calls: readonly RequestRow[]): { client: string | undefined; upstream: string | undefined } {
  const largest = (of: (row: RequestRow) => string | null): string | undefined => {
    const groups = [...Map.groupBy(calls, of)].filter(([name]) => name !== null)
    return groups.toSorted(([, a], [, b]) => b.length - a.length)[0]?.[0] ?? undefined
  }
  return { client: largest((row) => row.client), upstream: largest((row) => row.upstream) }
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
