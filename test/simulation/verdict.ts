import type { Case } from './case.ts'
import type { Outcome } from './simulation.ts'

/** What is to be had of `window / (window + mean latency)` where nothing goes wrong and more is wanted than there is. */
const LEAST_UTILISATION = 0.98

/** What is wrong with the outcome of a case, in words; empty if nothing is. */
export function faultsOf(of: Case, outcome: Outcome): string[] {
  const wrong: string[] = []
  for (const { limit, worst, atMs } of outcome.limits) {
    const most = limit.requests + outcome.excess
    if (limit.isEnforced && worst > most) wrong.push(`${limit.id}: ${worst} of ${most} at ${Math.round(atMs)} ms`)
  }
  if (of.onOutage === 'closed' && outcome.sentWithout > 0) wrong.push(`${outcome.sentWithout} sent without Redis`)
  const used = utilisation(of, outcome)
  if ((of.kind === 'saturated' || of.kind === 'shadow') && used < LEAST_UTILISATION)
    wrong.push(`used to ${percent(used)} only`)
  return wrong
}

/**
 * How many of the calls were sent that `window / (window + mean latency)` allows: the share of time in which the places of the
 * limit were taken, each from dispatch until a window after the response. Of cases with one limit and calls of one unit.
 */
export function utilisation({ limits, durationMs }: Case, { busyMs, sentAt }: Outcome): number {
  return busyMs / (limits[0]!.requests * (durationMs - sentAt[0]!))
}

export function percent(share: number): string {
  return `${(share * 100).toFixed(2)} %`
}
