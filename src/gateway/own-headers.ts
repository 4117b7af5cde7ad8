import type { EpochMs } from '../time/clock.ts'
import { allowedOf, type LimitUsage } from '../ledger/ledger.ts'
import { limitName, windowLengthMs } from '../ledger/limit.ts'
import type { Answering, Call } from './call.ts'

/**
 * Adds the gateway's own headers, which every response to a call has: names and values in turn. `tightest` is what `tightestOf`
 * returns.
 */
export function ownHeaders(call: Answering, headers: string[], tightest: LimitUsage | undefined): void {
  call.overheadMs = call.gatewayMs
  headers.push('X-Correlation-Id', call.id, 'Server-Timing', serverTiming(call))
  if (call.attempts > 1) headers.push('X-Sluice-Attempts', String(call.attempts))
  if (call.breaker !== undefined) headers.push('X-Sluice-Breaker', call.breaker)
  if (call.isStoreDegraded) headers.push('X-Sluice-Store', 'degraded')
  if (tightest !== undefined) quotaHeaders(tightest, call, call.clock.wall(), headers)
}

function serverTiming({ waitedMs, upstreamMs, sleptMs, overheadMs = 0 }: Call): string {
  const backoff = sleptMs > 0 ? `, backoff;dur=${sleptMs.toFixed(1)}` : ''
  return `queue;dur=${waitedMs.toFixed(1)}, upstream;dur=${upstreamMs.toFixed(1)}, gateway;dur=${overheadMs.toFixed(1)}${backoff}`
}

type Charged = Pick<Call, 'usage' | 'budgetUsage' | 'budgetUnits' | 'target'>

/**
 * The limit that leaves the client the fewest calls, and so the one that it meets first. It may belong to the client's budget.
 * Undefined if the fields can describe none of its limits: then the vendor's own fields stay.
 */
export function tightestOf({ usage, budgetUsage, budgetUnits, target }: Charged): LimitUsage | undefined {
  const units = target?.admissionPolicy.chargeSet.units
  let tightest: LimitUsage | undefined
  let fewest = Infinity
  for (let i = 0; i < usage.length; i++) {
    const one = usage[i]!
    if (!isTold(one)) continue
    const calls = remainingOf(one) / (units?.[i] ?? 1)
    if (calls >= fewest) continue
    tightest = one
    fewest = calls
  }
  for (let i = 0; i < budgetUsage.length; i++) {
    const one = budgetUsage[i]!
    const calls = remainingOf(one) / (budgetUnits[i] ?? 1)
    if (calls >= fewest || !isTold(one)) continue
    tightest = one
    fewest = calls
  }
  return tightest
}

/**
 * Whether the RateLimit fields can describe a limit. They count requests in a window, and a limit that is not enforced binds
 * nobody.
 */
function isTold({ limit: { isEnforced, kind } }: LimitUsage): boolean {
  return isEnforced && kind !== 'concurrent' && kind !== 'smoothing'
}

/** Adds the X-RateLimit fields in their usual dialect, and the RateLimit fields of the IETF draft. */
function quotaHeaders(tightest: LimitUsage, call: Charged, now: EpochMs, headers: string[]): void {
  const { unit } = tightest.limit
  const windowMs = windowLengthMs(tightest.limit, now + tightest.resetMs)
  const name = inQuotes(policyName(tightest, call))
  const requests = told(tightest.limit.requests, unit)
  const remaining = String(told(remainingOf(tightest), unit))
  headers.push(
    'X-RateLimit-Limit',
    String(requests),
    'X-RateLimit-Remaining',
    remaining,
    'X-RateLimit-Reset',
    String(Math.ceil((now + tightest.resetMs) / 1_000)),
    'RateLimit-Policy',
    // The draft counts windows in whole seconds. Nothing is said of another window, because it would be untrue.
    `${name};q=${requests}${unit === undefined ? '' : `;qu="micro-${unit}"`}${windowMs % 1_000 === 0 ? `;w=${windowMs / 1_000}` : ''}`,
    'RateLimit',
    `${name};r=${remaining};t=${Math.ceil(tightest.resetMs / 1_000)}`,
  )
}

/** The fields hold whole numbers of at most 15 digits, so money is told in millionths. It is rounded down, as what is left must be. */
function told(units: number, unit: string | undefined): number {
  return unit === undefined ? units : Math.floor(units / 1_000)
}

/**
 * The name of a limit's policy: usually its class. If the call was charged to several limits of that class, it is the whole name of
 * the limit, because they would seem to be one otherwise.
 */
function policyName(named: LimitUsage, { usage, budgetUsage }: Charged): string {
  const { limit } = named
  const isOther = (other: LimitUsage): boolean =>
    other.limit !== limit && other.limit.class === limit.class && isTold(other)
  return usage.some(isOther) || budgetUsage.some(isOther) ? limitName(limit) : limit.class
}

/** Writes a string of a structured field. It may only have printable ASCII (RFC 9651 §3.3.3); other characters become `_`. */
function inQuotes(text: string): string {
  return /^[ !#-[\]-~]*$/.test(text) ? `"${text}"` : `"${text.replaceAll(/[^ !#-[\]-~]/g, '_')}"`
}

/** The names of the limits that have too little left for this call. */
export function violatedPolicies(call: Charged): string[] {
  const { usage, budgetUsage, budgetUnits, target } = call
  const units = target?.admissionPolicy.chargeSet.units
  const violated = [
    ...usage.filter((one, i) => isTold(one) && remainingOf(one) < (units?.[i] ?? 1)),
    ...budgetUsage.filter((one, i) => isTold(one) && remainingOf(one) < (budgetUnits[i] ?? 1)),
  ]
  return violated.map((one) => policyName(one, call))
}

function remainingOf(usage: LimitUsage): number {
  return Math.max(0, allowedOf(usage) - usage.used)
}
