import type { EpochMs } from '../time/clock.ts'
import { allowedOf, type LimitUsage } from '../ledger/ledger.ts'
import type { Answering, Call } from './call.ts'

/** Adds what the gateway says in every response to a call: names and values in turn. */
export function ownHeaders(call: Answering, headers: string[]): void {
  call.overheadMs = call.gatewayMs
  headers.push('X-Correlation-Id', call.id, 'Server-Timing', serverTiming(call))
  if (call.attempts > 1) headers.push('X-Sluice-Attempts', String(call.attempts))
  if (call.breaker !== undefined) headers.push('X-Sluice-Breaker', call.breaker)
  if (call.isStoreDegraded) headers.push('X-Sluice-Store', 'degraded')
  const tightest = tightestOf(call.usage, call.target?.admissionPolicy.chargeSet.units ?? [])
  if (tightest !== undefined) quotaHeaders(tightest, call.clock.wall(), headers)
}

function serverTiming({ waitedMs, upstreamMs, sleptMs, overheadMs = 0 }: Call): string {
  const backoff = sleptMs > 0 ? `, backoff;dur=${sleptMs.toFixed(1)}` : ''
  return `queue;dur=${waitedMs.toFixed(1)}, upstream;dur=${upstreamMs.toFixed(1)}, gateway;dur=${overheadMs.toFixed(1)}${backoff}`
}

/** The limit of which the fewest calls are left: the one that the client will run into first. */
function tightestOf(usage: readonly LimitUsage[], units: readonly number[]): LimitUsage | undefined {
  let tightest: LimitUsage | undefined
  let fewest = Infinity
  for (let i = 0; i < usage.length; i++) {
    const one = usage[i]!
    // The fields are about requests in a window of the vendor's, of limits that are kept.
    if (!one.limit.isEnforced || one.limit.kind === 'concurrent' || one.limit.kind === 'smoothing') continue
    const calls = remainingOf(one) / (units[i] ?? 1)
    if (calls >= fewest) continue
    tightest = one
    fewest = calls
  }
  return tightest
}

/** The X-RateLimit fields in their usual dialect, and the IETF draft's RateLimit fields. */
function quotaHeaders(usage: LimitUsage, now: EpochMs, headers: string[]): void {
  const { class: name, requests, windowMs } = usage.limit
  const remaining = String(remainingOf(usage))
  headers.push(
    'X-RateLimit-Limit',
    String(requests),
    'X-RateLimit-Remaining',
    remaining,
    'X-RateLimit-Reset',
    String(Math.ceil((now + usage.resetMs) / 1_000)),
    'RateLimit-Policy',
    `"${name}";q=${requests};w=${Math.ceil(windowMs / 1_000)}`,
    'RateLimit',
    `"${name}";r=${remaining};t=${Math.ceil(usage.resetMs / 1_000)}`,
  )
}

function remainingOf(usage: LimitUsage): number {
  return Math.max(0, allowedOf(usage) - usage.used)
}
