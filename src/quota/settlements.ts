import type { LimitUsage, Meter } from './ledger.ts'

/**
 * Settlements ride on the next charge of their meter, but wait no longer than this, or than a twentieth of a window: until
 * then their calls count as if they were in flight. They say when they were made, so nothing else is lost by waiting.
 */
const SETTLE_WITHIN_MS = 5_000
/** Of what others wait for it is told as soon as this. */
export const LEAST_WAIT_MS = 10
/** While less than this part of a limit is used, nobody misses what a call takes for `holdMs` more than a window. */
const LITTLE = 0.25

/** What becomes of a call that was charged; the same words are the script's. */
export type Change = 'settle' | 'abandon' | 'refund' | 'leave'

/** Calls that were charged in the same buckets and ended in the same ones. */
export interface Ended {
  readonly what: Change
  /** When one of them was charged, and when it was over, by Redis's clock. */
  readonly at: number
  readonly latest: number
  calls: number
}

/**
 * Calls of one meter that have ended and of which Redis was not told yet. Until it is, they count as if they were in flight;
 * as it is told when they ended, nothing is lost by that, and what ended together is told as one.
 */
export class Settlements {
  readonly meter: Meter
  readonly ended: Ended[] = []
  /** From when on they ride on a charge, and by when they go even if none does. */
  ripeAt = Infinity
  dueAt = Infinity
  readonly #alike = new Map<string, Ended>()
  readonly #bucketMs: number

  constructor(meter: Meter) {
    this.meter = meter
    this.#bucketMs = Math.min(...meter.limits.map(({ bucketMs }) => bucketMs))
  }

  /** These ended by `time` at the latest, by Redis's clock. */
  add({ what, at, calls }: { what: Change; at: number; calls: number }, now: number, time: number): void {
    const isOver = what === 'settle' || what === 'abandon'
    // What was not sent, or is no more among the calls at once, others may have now.
    this.ripeAt = Math.min(this.ripeAt, isOver ? now + this.#bucketMs : now)
    const latest = isOver ? time : 0
    const key = `${what} ${chargedFrom(this.meter, at)} ${endedFrom(this.meter, latest, what === 'abandon')}`
    const alike = this.#alike.get(key)
    if (alike !== undefined) {
      alike.calls += calls
      return
    }
    const ended = { what, at, calls, latest }
    this.ended.push(ended)
    this.#alike.set(key, ended)
  }
}

/** From when on a call in flight is in the same buckets of every limit as one charged at `at`, in microseconds. */
function chargedFrom({ limits }: Meter, at: number): number {
  let from = 0
  for (const { kind, bucketMs, holdMs, slackMs } of limits) {
    from = Math.max(from, bucketFrom(at, bucketMs, holdMs))
    if (kind === 'calendar') from = Math.max(from, bucketFrom(at, bucketMs, -slackMs))
  }
  return from
}

/** The same of one that is over. */
function endedFrom({ limits }: Meter, latest: number, isAbandoned: boolean): number {
  let from = 0
  for (const { kind, bucketMs, slackMs } of limits) {
    const slacks = Number(isAbandoned) + Number(kind === 'calendar')
    from = Math.max(from, bucketFrom(latest, bucketMs, slacks * slackMs))
  }
  return from
}

/** As the script reckons. */
function bucketFrom(time: number, bucketMs: number, aheadMs: number): number {
  const bucket = bucketMs * 1_000
  const ahead = aheadMs * 1_000
  return Math.floor((micros(time) + ahead) / bucket) * bucket - ahead
}

export function isLittleUsed(usage: readonly LimitUsage[]): boolean {
  return usage.every(
    ({ limit, used }) => limit.kind === 'pace' || (limit.kind === 'rolling' && used < limit.requests * LITTLE),
  )
}

export function settleWithinMs({ limits }: Meter): number {
  // A place among calls at once is wanted back soon.
  const waits = limits.map(({ kind, windowMs }) =>
    kind === 'concurrent' ? 0 : kind === 'pace' ? Infinity : windowMs / 20,
  )
  return Math.max(LEAST_WAIT_MS, Math.min(SETTLE_WITHIN_MS, ...waits))
}

export function micros(ms: number): number {
  return Math.round(ms * 1_000)
}
