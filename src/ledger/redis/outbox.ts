import type { LimitUsage, ChargeSet } from '../ledger.ts'
import type { Limit } from '../limit.ts'

/**
 * Commits ride on the next charge of their charge set, but wait no longer than this, or than a twentieth of a window: until
 * then their calls count as if they were in flight. They say when they were made, so nothing else is lost by waiting.
 */
const COMMIT_WITHIN_MS = 5_000
/** Of what others wait for it is told as soon as this. */
export const LEAST_WAIT_MS = 10
/**
 * While less than this part of a limit is used, so few calls may be deferred that together they take less than that part of it:
 * nobody misses what they take for `inFlightLeaseMs` more than a window. One that took longer than that is told: it would leave too soon.
 */
const LITTLE = 0.25
const DEFERRED = 0.01
/** No more of them, and of no more charge sets of a partition, so that they need little memory. */
export const MOST_DEFERRED = 8

/** What becomes of calls that were charged at `at`; the words are the script's. */
export interface Change {
  readonly what: 'commit' | 'abandon' | 'refund' | 'leave'
  readonly at: number
  readonly calls: number
}

/** Calls that were charged in the same buckets and ended in the same ones; both times are those of one of them. */
export interface Ended extends Change {
  readonly latest: number
  calls: number
}

/**
 * Calls of one charge set that have ended and of which Redis was not told yet. Until it is, they count as if they were in flight;
 * as it is told when they ended, nothing is lost by that, and what ended together is told as one.
 */
export class Outbox {
  readonly chargeSet: ChargeSet
  readonly ended: Ended[] = []
  /** From when on they ride on a charge, and by when they go even if none does. */
  eligibleAt = Infinity
  dueAt = Infinity
  readonly #alike = new Map<string, Ended>()
  readonly #bucketMs: number
  #calls = 0

  constructor(chargeSet: ChargeSet) {
    this.chargeSet = chargeSet
    this.#bucketMs = Math.min(...chargeSet.limits.map(({ bucketMs }) => bucketMs))
  }

  /**
   * These ended by `time` at the latest, by Redis's clock, when so much was used. Returns whether Redis has to be told: if not,
   * they are told with the first ones of which it has to be.
   */
  add(
    { what, at, calls }: Change,
    { now, time, usage }: { now: number; time: number; usage: readonly LimitUsage[] },
  ): boolean {
    const isOver = what === 'commit' || what === 'abandon'
    const latest = isOver ? time : 0
    const key = `${what} ${chargedFrom(this.chargeSet, at)} ${endedFrom(this.chargeSet, latest, what === 'abandon')}`
    let ended = this.#alike.get(key)
    if (ended !== undefined) ended.calls += calls
    else {
      ended = { what, at, calls, latest }
      this.ended.push(ended)
      this.#alike.set(key, ended)
    }
    this.#calls += calls
    // What was not sent, or is no more among the calls at once, others may have now.
    if (!isOver) this.eligibleAt = now
    else if (this.eligibleAt === Infinity && this.#isMissed(ended, usage)) this.eligibleAt = now + this.#bucketMs
    return this.eligibleAt < Infinity
  }

  #isMissed(ended: Ended, usage: readonly LimitUsage[]): boolean {
    if (this.ended.length > MOST_DEFERRED) return true
    return usage.some(({ limit, used }, i) => {
      const { kind, requests } = limit
      if (kind === 'smoothing') return false
      if (outlastsCharge(ended, limit)) return true
      return (
        kind !== 'rolling' || used >= LITTLE * requests || this.#calls * this.chargeSet.units[i]! >= DEFERRED * requests
      )
    })
  }
}

/** Whether the upstream may have counted these later than the charge says that they had when they were sent. */
export function outlastsCharge({ at, latest }: Ended, { inFlightLeaseMs, countingToleranceMs }: Limit): boolean {
  return latest + countingToleranceMs > at + inFlightLeaseMs
}

/** From when on a call in flight is in the same buckets of every limit as one charged at `at`, in microseconds. */
function chargedFrom({ limits }: ChargeSet, at: number): number {
  let from = 0
  for (const { kind, bucketMs, inFlightLeaseMs, countingToleranceMs } of limits) {
    from = Math.max(from, bucketFrom(at, bucketMs, inFlightLeaseMs))
    if (kind === 'calendar') from = Math.max(from, bucketFrom(at, bucketMs, -countingToleranceMs))
  }
  return from
}

/** The same of one that is over. */
function endedFrom({ limits }: ChargeSet, latest: number, isAbandoned: boolean): number {
  let from = 0
  for (const { kind, bucketMs, countingToleranceMs } of limits) {
    const slacks = Number(isAbandoned) + Number(kind === 'calendar')
    from = Math.max(from, bucketFrom(latest, bucketMs, slacks * countingToleranceMs))
  }
  return from
}

/** As the script reckons. */
function bucketFrom(time: number, bucketMs: number, aheadMs: number): number {
  const bucket = bucketMs * 1_000
  const ahead = aheadMs * 1_000
  return Math.floor((micros(time) + ahead) / bucket) * bucket - ahead
}

export function commitWithinMs({ limits }: ChargeSet): number {
  // A place among calls at once is wanted back soon.
  const waits = limits.map(({ kind, windowMs }) =>
    kind === 'concurrent' ? 0 : kind === 'smoothing' ? Infinity : windowMs / 20,
  )
  return Math.max(LEAST_WAIT_MS, Math.min(COMMIT_WITHIN_MS, ...waits))
}

export function micros(ms: number): number {
  return Math.round(ms * 1_000)
}
