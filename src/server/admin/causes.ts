import { LATELY, type RequestAnswers, type RequestQuestion } from '../../requests/question.ts'
import { isTrouble, LATELY_MS, type LatelyRow } from '../../requests/lately.ts'
import type { RequestRow } from '../../requests/story.ts'
import { countOf, roughly } from '../../schema/units.ts'
import { refusalCauses, upstreamCauses } from './call-causes.ts'
import { capital, type Cause } from './cause.ts'
import { expiryCauses, SOON_MS } from './expiry-causes.ts'
import type { AdminParts } from './management.ts'
import type { BreakerRow, BudgetRow, CredentialRow, Degradation, QueueRow, QuotaRow, Reloaded } from './status.ts'

const MOST_FAILED = 20
const NEARLY_USED = 0.9
/** What is used up sooner is a limit of a short window, and comes back as soon. The alert SluiceQuotaExhaustionAhead has the same. */
const LEAST_AHEAD_MS = 60_000
const MOST_AHEAD_MS = 2 * 3_600_000

/** What the state of the gateway is now, and what of it is wrong. */
export interface Findings {
  /** The worst first; each kind stays together. */
  readonly causes: readonly Cause[]
  /** Undefined while the quota store can't be asked. */
  readonly limits: readonly QuotaRow[] | undefined
  readonly budgets: readonly BudgetRow[] | undefined
  readonly queue: readonly QueueRow[]
  readonly breakers: readonly BreakerRow[]
  readonly credentials: readonly CredentialRow[]
  /** The latest calls that did not end well, the newest first. */
  readonly failed: readonly RequestRow[]
  readonly away: RequestAnswers['away']
}

/** Asks for everything at once; what can't be had is missing, and said to be. `ask` says whose calls are looked at. */
export async function findings(
  { status, controls, management }: Pick<AdminParts, 'status' | 'controls' | 'management'>,
  ask: (question: RequestQuestion) => Promise<RequestAnswers>,
): Promise<Findings> {
  const filter = { since: management.clock.wall() - LATELY_MS, isTrouble: true } as const
  const [notReady, degraded, limits, budgets, queue, breakers, credentials, lately, failed] = await Promise.all([
    status.notReady(),
    status.degraded(),
    status.quota(),
    status.budgets(),
    status.queue(),
    controls.breakers(),
    status.credentials(),
    ask(LATELY),
    ask({ kind: 'list', filter, most: MOST_FAILED }),
  ])
  const ended = lately.found as readonly LatelyRow[]
  const causes = [
    ...storeCauses(notReady, degraded, limits),
    ...reloadCauses(controls.lastReload()),
    ...breakerCauses(breakers),
    ...credentialCauses(credentials),
    ...expiryCauses(management),
    ...limitCauses(limits ?? [], queue),
    ...budgetCauses(budgets ?? []),
    ...refusalCauses(ended, breakers),
    ...upstreamCauses(ended),
  ]
  causes.sort((a, b) => Number(a.severity !== 'failing') - Number(b.severity !== 'failing'))
  // Older releases know no such filter.
  const rows = (failed.found as readonly RequestRow[]).filter((row) => !row.isRunning && isTrouble(row))
  const away = [...new Map([...failed.away, ...lately.away].map((one) => [one.instance, one])).values()]
  return { causes, limits, budgets, queue, breakers, credentials, failed: rows, away }
}

function* storeCauses(
  notReady: string | undefined,
  degraded: readonly Degradation[],
  limits: readonly QuotaRow[] | undefined,
): Iterable<Cause> {
  if (notReady === 'draining') {
    const what = 'This gateway is shutting down: calls that run are finished, and new ones refused.'
    yield { severity: 'warning', about: 'draining', what, todo: 'Nothing, if that is meant.' }
    return
  }
  const event = 'store'
  const todo = 'Look at Redis, or at the disk of store.dir. sluice_store_degraded says which gateways it is about.'
  if (notReady !== undefined) {
    const what = `This gateway is not ready: ${notReady}.`
    yield { event, severity: 'failing', about: 'not ready', alert: 'SluiceStoreErrors', what, todo }
  }
  for (const { kind, why } of notReady === undefined ? degraded : []) {
    yield { event, severity: 'warning', ...ABOUT_DEGRADED[kind], what: `Degraded: ${why}.`, todo }
  }
  if (notReady === undefined && limits === undefined) {
    const what = 'The quota store does not answer.'
    yield { event, severity: 'failing', about: 'silent', alert: 'SluiceStoreErrors', what, todo }
  }
}

const ABOUT_DEGRADED = {
  store: { about: 'degraded', alert: 'SluiceStoreDegraded' },
  home: { about: 'home', alert: 'SluiceStoreDegraded' },
  'lost data': { about: 'lost data', alert: 'SluiceStoreLostData' },
  workers: { about: 'workers', alert: 'SluiceWorkersMissing' },
} satisfies Record<Degradation['kind'], Pick<Cause, 'about' | 'alert'>>

function* reloadCauses(last: Reloaded | undefined): Iterable<Cause> {
  if (last?.result !== 'rejected') return
  const todo =
    'The configuration before stays in force, but a restart would fail. npx sluice check shows every mistake.'
  const what = `The last reload was rejected: ${last.problems[0] ?? 'the log says why'}`
  yield { event: 'reload', severity: 'warning', about: 'configuration', alert: 'SluiceReloadRejected', what, todo }
}

function* breakerCauses(breakers: readonly BreakerRow[]): Iterable<Cause> {
  for (const { upstream, group, state, byHand, retryAfterMs } of breakers) {
    if (state === 'closed') continue
    const name = group === undefined ? upstream : `${upstream} (${group})`
    const until = retryAfterMs === undefined ? '' : `, the next probe is in ${roughly(retryAfterMs)}`
    const what = byHand ? `The breaker of ${name} was opened by hand.` : `The breaker of ${name} is ${state}${until}.`
    const todo = byHand
      ? 'Close it when the vendor is well: POST /v1/upstreams/NAME/breaker.'
      : 'The upstream kept failing: see the failed calls, and the vendor’s status page.'
    yield { event: 'breaker', severity: 'failing', about: name, alert: 'SluiceBreakerOpen', what, todo }
  }
}

function* credentialCauses(credentials: readonly CredentialRow[]): Iterable<Cause> {
  const todo =
    'Make a new one at the vendor, and put it beside the old one: npx sluice credentials rotate NAME --expires DATE. When calls with it succeed, end that with --finish.'
  const pools = new Set<string>()
  for (const { upstream, account, credential, expiresInMs, quarantined } of credentials) {
    const name = credential ?? `${upstream}/${account}`
    const event = 'credential'
    if (expiresInMs !== null && expiresInMs <= 0) {
      const what = `The credential ${name} has expired.`
      yield { event, severity: 'failing', about: `${name} expired`, alert: 'SluiceCredentialExpired', what, todo }
    } else if (expiresInMs !== null && expiresInMs < SOON_MS) {
      const what = `The credential ${name} expires in ${roughly(expiresInMs)}.`
      yield { event, severity: 'warning', about: `${name} expires`, alert: 'SluiceCredentialExpires', what, todo }
    }
    const about = `${upstream}/${account} left out`
    // Each credential of a pool has a row, which says how many of the pool are left out.
    if (quarantined > 0 && !pools.has(about)) {
      pools.add(about)
      const what = `${quarantined} of the credentials of ${upstream}/${account} are left out: the vendor refused them.`
      yield { event, severity: 'warning', about, alert: 'SluiceCredentialRefused', what, todo }
    }
  }
}

function* limitCauses(limits: readonly QuotaRow[], queue: readonly QueueRow[]): Iterable<Cause> {
  const known = limits.filter(({ window, isLocal }) => !window.endsWith(' shadow') && isLocal !== true)
  for (const limit of known) yield* causesOfLimit(limit, queue)
  // Calls wait for a class, whose limits are rows: that some wait says nothing of a limit of which something is left.
  const classes = Map.groupBy(known, aboutClass)
  for (const [about, rows] of classes) {
    const waiting = Math.max(...rows.map((row) => row.waiting))
    if (waiting === 0 || rows.some(isUsedUp)) continue
    const what = `${sayWaiting(waiting)} for ${about}, of which no limit is used up${mostWaiting(rows[0]!, queue)}.`
    const todo = 'Look at the story of one of them: it says what held it back, such as concurrency.'
    yield { event: 'used_up', severity: 'warning', about, what, todo }
  }
}

/** Budgets that are used up, or nearly. Webhooks tell of them by their own thresholds, see `usageCauses`. */
function* budgetCauses(budgets: readonly BudgetRow[]): Iterable<Cause> {
  for (const budget of budgets) {
    const { used, limit, isLocal } = budget
    if (isLocal === true || used < NEARLY_USED * limit) continue
    const about = aboutBudget(budget)
    const what = `${capital(about)} is ${used >= limit ? '' : 'nearly '}used up: ${used} of ${limit}.`
    yield { severity: 'warning', about, alert: 'SluiceBudgetNearlyUsed', what, todo: todoOfBudget(budget) }
  }
}

function todoOfBudget({ level, name }: BudgetRow): string {
  return level === 'client'
    ? `Have that client call less, or raise clients.${name}.budget.`
    : `See in npx sluice quota --by client who of the ${level} spends it, or raise ${level}s.${name}.budget.`
}

function isUsedUp({ used, effective }: QuotaRow): boolean {
  return used >= effective
}

function sayWaiting(waiting: number): string {
  return `${countOf(waiting, 'call')} ${waiting === 1 ? 'waits' : 'wait'}`
}

/** Whose calls most of those are that wait for the class of a row. */
function mostWaiting(row: QuotaRow, queue: readonly QueueRow[]): string {
  const waits = queue.filter(
    (one) => one.upstream === row.upstream && one.account === row.account && one.class === row.class,
  )
  const [most] = waits.toSorted((a, b) => b.waiting - a.waiting)
  return most === undefined ? '' : `, ${most.waiting} of the client ${most.client}`
}

/** The `about` of every limit and budget whose use is unknown now. If such a cause is missing, it may still hold. */
export function unknownUsage(limits: readonly QuotaRow[], budgets: readonly BudgetRow[]): Set<string> {
  const local = limits.filter(({ isLocal }) => isLocal)
  return new Set([
    ...local.flatMap((row) => [aboutLimit(row), aboutClass(row)]),
    ...budgets.filter(({ isLocal }) => isLocal).map(aboutBudget),
  ])
}

function aboutClass(row: QuotaRow): string {
  return `${row.upstream}/${row.account} ${row.class}`
}

function aboutLimit(row: QuotaRow): string {
  return `${aboutClass(row)} per ${row.window}`
}

function aboutBudget({ level, name, window }: BudgetRow): string {
  return `the budget of ${level === 'client' ? '' : `the ${level} `}${name} per ${window}`
}

type Reached = Cause & { readonly level: number }

/** For a webhook: limits, and budgets of clients, of which so much is used. `level` counts the thresholds that are reached. */
export function* usageCauses(
  limits: readonly QuotaRow[],
  budgets: readonly BudgetRow[],
  thresholds: readonly number[],
): Iterable<Reached> {
  const reached = (about: string, used: number, most: number, more: string, todo: string): Reached | undefined => {
    const part = most === 0 ? 1 : used / most
    const level = thresholds.filter((threshold) => part >= threshold).length
    if (level === 0) return undefined
    // Amounts of money are not exact as binary fractions: 57 of 100 cents must not be 56 %.
    const what = `${Math.floor(100 * part + 1e-9)} % of ${about} is used: ${used} of ${most}${more}.`
    const severity = part >= 1 ? 'failing' : 'warning'
    return { event: 'usage', level, severity, about, alert: 'SluiceQuotaNearlyUsed', what, todo }
  }
  for (const limit of limits) {
    const { window, used, effective, exhaustionInMs, isLocal } = limit
    if (window.endsWith(' shadow') || isLocal === true) continue
    const end =
      exhaustionInMs === null || exhaustionInMs === 0 ? '' : `; at this rate it ends in ${roughly(exhaustionInMs)}`
    const todo = 'See in npx sluice top who calls most. Slow that client down, or have the vendor raise the limit.'
    const cause = reached(aboutLimit(limit), used, effective, end, todo)
    if (cause !== undefined) yield cause
  }
  for (const budget of budgets) {
    const { used, limit, isLocal } = budget
    if (isLocal === true) continue
    const cause = reached(aboutBudget(budget), used, limit, '', todoOfBudget(budget))
    if (cause !== undefined) yield { ...cause, alert: 'SluiceBudgetNearlyUsed' }
  }
}

function* causesOfLimit(row: QuotaRow, queue: readonly QueueRow[]): Iterable<Cause> {
  const { effective, used, waiting, exhaustionInMs } = row
  const limit = row.share ?? row.limit
  const name = aboutLimit(row)
  if (effective < NEARLY_USED * limit) {
    const what = `Only ${effective} of ${limit} of ${name} can be used: the vendor lets less through.`
    const todo = 'Somebody uses the account without the gateway, or the limit is lower than configured.'
    yield { event: 'reduced', severity: 'warning', about: name, alert: 'SluiceQuotaReduced', what, todo }
  }
  if (!isUsedUp(row)) {
    if (used >= NEARLY_USED * effective) {
      const todo = 'Calls will have to wait soon. “Who spends” says whose they are.'
      yield { severity: 'warning', about: name, what: `${name} is nearly used up: ${used} of ${effective}.`, todo }
    } else if (exhaustionInMs !== null && exhaustionInMs > LEAST_AHEAD_MS && exhaustionInMs < MOST_AHEAD_MS) {
      const what = `${name} will be used up in ${roughly(exhaustionInMs)} at this rate: ${used} of ${effective} are.`
      const todo =
        'See in sluice_quota_charged_total who calls more than usual. Slow that client down, or spread its calls.'
      yield { event: 'exhaustion', severity: 'warning', about: name, alert: 'SluiceQuotaExhaustionAhead', what, todo }
    }
    return
  }
  const what = `${name} is used up, and ${sayWaiting(waiting)}${mostWaiting(row, queue)}.`
  const todo = `More comes back in ${roughly(row.resetMs)}. Slow that client down, or have the vendor raise the limit.`
  yield { event: 'used_up', severity: 'failing', about: name, alert: 'SluiceQuotaNearlyUsed', what, todo }
}
