import { ADVICE_OF, type FailureKind } from '../../gateway/failure.ts'
import { isTrouble, type LatelyRow, SLOW_MS } from '../../requests/lately.ts'
import { countOf, roughly } from '../../schema/units.ts'
import type { WebhookEvent } from '../../schema/webhook-schema.ts'
import { capital, type Cause } from './cause.ts'
import type { BreakerRow } from './status.ts'

/** So many calls tell how fast an upstream is. */
const ENOUGH_CALLS = 5

/** What calls were refused for lately, upstream by upstream, besides what open breakers say. */
export function* refusalCauses(ended: readonly LatelyRow[], breakers: readonly BreakerRow[]): Iterable<Cause> {
  const refused = ended.filter((row) => row.outcome !== 'delivered' && isTrouble(row))
  for (const [about, rows] of Map.groupBy(refused, aboutRefusal)) {
    const { outcome, upstream } = rows[0]!
    // What the open breaker says already.
    if (outcome === 'breaker_open' && breakers.some((one) => one.upstream === upstream && one.state !== 'closed'))
      continue
    const to = upstream === null || isOfGateway(outcome) ? '' : ` to ${upstream}`
    const advice = ADVICE_OF[outcome as FailureKind] ?? 'the upstream broke off in the middle of its answer'
    const what = `${countOf(sumOf(rows), 'call')}${to} ended as ${outcome}${whoseMost(rows)}.`
    const [event, alert] = EVENT_OF[outcome] ?? [
      'refusals',
      isCallers(outcome) ? 'SluiceCallersRejected' : 'SluiceHighRefusals',
    ]
    const severity = isCallers(outcome) ? 'warning' : 'failing'
    const correlationId = latestOf(rows)
    yield { event, severity, about, alert, correlationId, what, todo: `${capital(advice)}.` }
  }
}

function aboutRefusal({ outcome, upstream }: LatelyRow): string {
  return `${outcome} ${isOfGateway(outcome) ? '' : (upstream ?? '')}`
}

/** These befall the calls to all upstreams alike, so that one message tells of all. */
function isOfGateway(outcome: string): boolean {
  return outcome === 'store_unavailable' || outcome === 'draining'
}

/** Whose calls most of these are, if that is known; only of more than half it is said that they are most. */
function whoseMost(rows: readonly LatelyRow[]): string {
  const byClient = [...Map.groupBy(rows, (row) => row.client)].map(([client, its]) => ({ client, calls: sumOf(its) }))
  const [most] = byClient.filter(({ client }) => client !== null).toSorted((a, b) => b.calls - a.calls)
  if (most === undefined || most.client === 'unknown') return ''
  const { client, calls } = most
  return 2 * calls > sumOf(rows) ? `, most of the client ${client}` : `, ${calls} of the client ${client}`
}

/** Refusals that have an event of their own, and their alert. */
const EVENT_OF: Readonly<Record<string, readonly [WebhookEvent, string]>> = {
  queue_full: ['queue_full', 'SluiceHighRefusals'],
  breaker_open: ['breaker', 'SluiceBreakerOpen'],
  store_unavailable: ['store', 'SluiceStoreErrors'],
  credential_unavailable: ['credential', 'SluiceCredentialNotRenewed'],
  internal: ['refusals', 'SluiceInternalErrors'],
}

/** Those that a caller has to mend are no failure of the gateway, or of a vendor. */
function isCallers(outcome: string): boolean {
  return /^(invalid_request|(?:proxy_)?unauthenticated|forbidden|account_mismatch|unknown_upstream|body_too_large|not_cached|too_many_attempts)$/.test(
    outcome,
  )
}

/** What the answers of upstreams tell of them, account by account, of all calls that ended lately. */
export function* upstreamCauses(ended: readonly LatelyRow[]): Iterable<Cause> {
  const answered = ended.filter(({ outcome }) => outcome === 'delivered')
  for (const [upstream, rows] of Map.groupBy(answered, (row) => row.upstream ?? 'unknown')) {
    yield* statusCauses(upstream, rows)
    const calls = sumOf(rows)
    const slow = rows.reduce((sum, row) => sum + row.slow, 0)
    if (calls < ENOUGH_CALLS || 2 * slow < calls) continue
    const what = `${upstream} is slow: half of its calls take more than ${roughly(SLOW_MS)}.`
    yield { event: 'upstream', severity: 'warning', about: `${upstream} slow`, what, todo: SEE_FAILED }
  }
}

/** One cause for each status that is too frequent. It names the account that got it most, and says how many others got it too often. */
function* statusCauses(upstream: string, rows: readonly LatelyRow[]): Iterable<Cause> {
  const accounts = [...Map.groupBy(rows, (row) => row.account ?? null)].map(([account, its]) => ({ account, its }))
  for (const [status, { part, more, ...how }] of Object.entries(ABOUT_STATUS)) {
    const found = accounts.flatMap(({ account, its }) => {
      const having = its.filter((row) => row.status === status || `${row.status?.[0]}xx` === status)
      const [count, calls] = [sumOf(having), sumOf(its)]
      return count > more && count > part * calls ? [{ account, having, count, calls }] : []
    })
    if (found.length === 0) continue
    const { account, having, count, calls } = found.reduce((a, b) => (b.count > a.count ? b : a))
    const name = account === null ? upstream : `${upstream}/${account}`
    const others = found.length === 1 ? '' : `, and ${countOf(found.length - 1, 'other account')} got too many, too`
    const what = `${name} answered ${count} of ${countOf(calls, 'call')} with ${status}${others}.`
    yield { severity: 'failing', about: `${upstream} ${status}`, correlationId: latestOf(having), what, ...how }
  }
}

const SEE_FAILED = 'See the failed calls for which path, and the vendor’s status page.'

interface AboutStatus extends Pick<Cause, 'event' | 'alert' | 'todo'> {
  /** It is told if more than this part of the calls, and more than so many calls, have the status: as of the alert. */
  readonly part: number
  readonly more: number
}

const ABOUT_STATUS: Readonly<Record<'401' | '403' | '429' | '5xx', AboutStatus>> = {
  401: {
    part: 0.5,
    more: 2,
    event: 'credential',
    alert: 'SluiceCredentialRefused',
    todo: 'The vendor refuses the credential: set a new one, or see whether it was revoked.',
  },
  403: {
    part: 0.95,
    more: 20,
    event: 'upstream',
    alert: 'SluiceCredentialRefused',
    todo: 'The credential lacks a right, or the vendor refuses these calls: see the failed calls for the paths.',
  },
  429: {
    // The alert fires sooner where no reduction of ours explains them, which is not known here.
    part: 0.4,
    more: 2,
    event: 'upstream',
    alert: 'SluiceUpstreamThrottling',
    todo: 'The vendor throttles more than the limit explains: somebody else uses the account, or its limit is lower.',
  },
  '5xx': { part: 0.1, more: 5, event: 'upstream', alert: 'SluiceUpstreamErrors', todo: SEE_FAILED },
}

function sumOf(rows: readonly LatelyRow[]): number {
  return rows.reduce((sum, { calls }) => sum + calls, 0)
}

/** The correlation id of the latest of these calls. */
function latestOf(rows: readonly LatelyRow[]): string {
  return rows.reduce((a, b) => (b.at > a.at ? b : a)).correlationId
}
