import type { Release } from './release.ts'
import type { Limit } from './limit.ts'

/** What calls of a kind are charged: so many units of each limit. */
interface Charges {
  readonly limits: readonly Limit[]
  readonly units: readonly number[]
}

interface LimitSchedule {
  readonly limit: Limit
  /** Units that one call is charged. */
  readonly units: number
  /** The same of the last call of those that are asked about, if it costs another amount than the others. */
  readonly last?: number
  /** Units free at the moment of the snapshot; negative where more is charged than allowed. */
  readonly free: number
  /** Soonest first. */
  readonly releases: readonly Release[]
}

/** If it is not known when enough comes back, a call asks again after a window, but never sooner than this. */
const ASK_AGAIN_MS = 100

/** When how much of a charge set comes back, as known at one moment: what the admission queue computes its ETAs from. */
export class Schedule {
  readonly takenAt: number
  readonly limits: readonly LimitSchedule[]
  readonly notBefore: number

  /**
   * `takenAt` is in the time of the caller's clock, to which `waitMs` relates, and so is `notBefore`, until which the upstream
   * wants no calls at all.
   */
  constructor(takenAt: number, limits: readonly LimitSchedule[], notBefore = 0) {
    this.takenAt = takenAt
    this.notBefore = notBefore
    this.limits = limits.filter(({ limit }) => limit.isEnforced)
  }

  /**
   * Milliseconds from `now` until `calls` more calls in all can have been admitted, if nobody else asks and each is in flight
   * for `latencyMs`.
   */
  waitMs(calls: number, now: number, latencyMs = 0): number {
    let latest = 0
    for (const limit of this.limits) latest = Math.max(latest, waitForLimit(limit, calls, latencyMs))
    return Math.max(0, this.takenAt + latest - now, this.notBefore - now)
  }

  /** What decides that time: the limit of which enough comes back last, or `pause` while the upstream wants no calls at all. */
  heldBy(calls: number, now: number, latencyMs = 0): Limit | 'pause' | undefined {
    let latest = Math.max(0, now - this.takenAt)
    let last: Limit | undefined
    for (const limit of this.limits) {
      const inMs = waitForLimit(limit, calls, latencyMs)
      if (inMs <= latest) continue
      latest = inMs
      last = limit.limit
    }
    return this.notBefore > this.takenAt + latest ? 'pause' : last
  }

  /** Whether so many calls wait for nothing but what is charged already. */
  isWithinWindow(calls: number): boolean {
    for (const { limit, units, last = units } of this.limits) {
      if ((calls - 1) * units + last > limit.requests) return false
    }
    return true
  }

  /** The same for calls of this charge set, as far as its limits are known here. */
  of(chargeSet: Charges): Schedule {
    const limits = this.limits.flatMap(({ limit, free, releases }) => {
      const own = chargeIn(chargeSet, limit)
      if (own.units === 0) return []
      return [{ ...own, free: free + own.limit.requests - limit.requests, releases }]
    })
    return new Schedule(this.takenAt, limits, this.notBefore)
  }

  /** The same where the last of the calls that are asked about is of this charge set. */
  endingWith(chargeSet: Charges): Schedule {
    const limits = this.limits.map((one) => {
      const { limit, units } = chargeIn(chargeSet, one.limit)
      return { ...one, limit, free: one.free + limit.requests - one.limit.requests, last: units }
    })
    return new Schedule(this.takenAt, limits, this.notBefore)
  }

  /**
   * As it is after others were granted so many calls at `now`, of which it is not known when they will come back. Where calls cost
   * different amounts, each is taken to have cost a unit: this one may be a large one, for which it would look as if others had used
   * up everything. Asking too soon is better than leaving quota unused.
   */
  without(calls: number, now: number): Schedule {
    const limits = this.limits.map(({ limit, units, free, releases }) => {
      const used = limit.isVaried ? calls : calls * units
      const release = { inMs: leavesInMs(limit, releases, now - this.takenAt), units: used, isInFlight: true }
      return { limit, units, free: free - used, releases: [...releases, release] }
    })
    return new Schedule(this.takenAt, limits, this.notBefore)
  }

  /**
   * How many calls could surely have been admitted at `time`, and at any instant since. What was expected to come back meanwhile is
   * left out, because calls may have been in flight for longer.
   */
  freeSince(time: number): number {
    if (time < this.takenAt || time < this.notBefore) return 0
    let least = Infinity
    for (const { free, units } of this.limits) least = Math.min(least, Math.floor(free / units))
    return Math.max(0, least)
  }

  /**
   * How many calls can be admitted at `now`, as far as this snapshot tells. Once the wait for one call is over it is at least one,
   * even if what is known to come back does not suffice. Otherwise nobody would ever ask again.
   */
  freeAt(now: number): number {
    if (now < this.notBefore) return 0
    let least = Infinity
    for (const { free, units, releases } of this.limits) {
      let sum = free
      for (const release of releases) {
        if (this.takenAt + release.inMs > now) break
        sum += release.units
      }
      least = Math.min(least, Math.floor(sum / units))
    }
    return least < 1 && this.waitMs(1, now) === 0 ? 1 : least
  }
}

/** In how many milliseconds what is charged after `sinceMs` leaves the count. All of a calendar window leaves at its end. */
function leavesInMs({ kind, windowMs, bucketMs }: Limit, releases: readonly Release[], sinceMs: number): number {
  if (kind !== 'calendar') return sinceMs + windowMs + bucketMs
  const endsInMs = releases.at(-1)?.inMs ?? 0
  return sinceMs < endsInMs ? endsInMs : endsInMs + windowMs
}

/** The same limit as calls of a charge set know it, which a reload may have changed, and their units of it. */
function chargeIn({ limits, units }: Charges, known: Limit): { limit: Limit; units: number } {
  const i = limits.findIndex(({ id }) => id === known.id)
  return i < 0 ? { limit: known, units: 0 } : { limit: limits[i]!, units: units[i]! }
}

function waitForLimit(
  { limit, units, last = units, free, releases }: LimitSchedule,
  calls: number,
  latencyMs: number,
): number {
  const { requests, windowMs, bucketMs, kind } = limit
  if (last > requests) return Infinity
  const fitting = Math.floor(requests / units) // calls in one window
  // Nobody waits for calls that never fit.
  const ahead = fitting === 0 ? 0 : calls - 1
  // Those admitted within this window occupy the next one: every full limit ahead is another window to wait.
  let windowsAhead = fitting === 0 ? 0 : Math.floor(ahead / fitting)
  let missing = (ahead - windowsAhead * fitting) * units + last
  if (missing > requests) {
    windowsAhead++
    missing = last
  }
  missing -= free
  const waitMs = windowsAhead * (windowMs + (kind === 'calendar' ? 0 : bucketMs) + latencyMs)
  if (missing <= 0) return waitMs
  for (const release of releases) {
    missing -= release.units
    if (missing <= 0) return waitMs + release.inMs + (release.isInFlight === true ? latencyMs : 0)
  }
  return waitMs + Math.max(windowMs, ASK_AGAIN_MS)
}
