import type { Clock } from '../../time/clock.ts'
import { Counter } from '../counter.ts'
import type { Grant } from '../ledger.ts'
import { BUCKETS, type Limit, longestWindowMs } from '../limit.ts'
import { chargedAt, type CountedLimit } from '../limit-table.ts'
import type { Stamp, StoredLimit } from './ledger-files.ts'

/**
 * Stands for the units that may have been charged where their number is not known. A file holds at most this many for a
 * bucket.
 */
export const ALL = Number.MAX_SAFE_INTEGER
/** The calendar follows the wall clock once they differ by this much. A smaller difference may come from reading two clocks. */
export const WALL_STEP_MS = 100
/** A time this long before the end of a bucket lies in that bucket; the end itself is in the next one. */
const INSIDE_MS = 0.01
/** `now` of two processes may differ by this much where they do not know that they are on the same start of the machine. */
const NOW_ERROR_MS = 20
/**
 * How far the wall clock may be off where nothing else tells how much time has passed between two runs, such as after the machine
 * was started anew.
 */
const WALL_ERROR_MS = 15 * 60_000

/** A call in flight is charged up to a window and a half ahead, and counts for another window from then on. */
const KEPT_WINDOWS = 3

/** One limit of a partition: its counts, and what is stored of it. */
export class Tally implements CountedLimit {
  readonly counter: Counter
  /** The charges of a calendar limit by when they were made, in case the calendar is set. */
  readonly record: Counter | undefined
  /** How many units may be charged before the file must be written again. */
  reserved = 0
  /**
   * The units of the last charge; Infinity before the first. Where they are more than the limit's share, a write for
   * another limit gives this one no new reserve.
   */
  lastCharge = Infinity

  constructor(limit: Limit, wallAheadMs: number) {
    this.counter = new Counter(limit, wallAheadMs)
    this.record = limit.kind === 'calendar' ? new Counter(rollingOf(limit)) : undefined
  }

  get limit(): Limit {
    return this.counter.limit
  }

  set limit(limit: Limit) {
    this.counter.limit = limit
  }

  charge(now: number, units: number): void {
    this.counter.charge(now, now, units)
    this.record?.charge(now, now, units)
  }

  commit({ at }: Grant, units: number, now: number, laterMs: number): void {
    this.counter.commit(now, at, units, laterMs)
    this.record?.commit(now, at, units, laterMs)
  }

  refund(grant: Grant, units: number, now: number): void {
    const at = chargedAt(grant, this.limit)
    this.counter.refund(now, at, units)
    this.record?.refund(now, at, units)
  }

  chargeMore({ at }: Grant, units: number, now: number, laterMs: number): void {
    this.counter.addCommitted(now, at, units, laterMs)
    this.record?.addCommitted(now, at, units, laterMs)
  }

  renew({ at }: Grant, units: number, now: number, to: number): void {
    this.counter.renew(now, at, to, units)
    this.record?.renew(now, at, to, units)
  }

  /** The wall clock was set, and is now `aheadMs` ahead of the ledger's clock. */
  setCalendar(now: number, aheadMs: number): void {
    if (this.record !== undefined) this.counter.setCalendar(now, aheadMs, this.record)
  }

  /** Counts what an earlier process stored, and what it may have charged after that, at worst just now. */
  restore(now: number, stored: StoredLimit, wallAheadMs: number, clock: Clock): void {
    const { counter, record, limit } = this
    const elapsed = elapsedSince(stored.at, clock.boot, now, now + wallAheadMs)
    const charged = record ?? counter
    const latest = charged.bucketOf(now + limit.inFlightLeaseMs)
    for (const { agoMs, units } of stored.charges) {
      const at = now - elapsed.leastMs - agoMs - INSIDE_MS
      charged.restore(now, Math.min(charged.bucketOf(at), latest), units)
    }
    if (stored.windows === undefined || elapsed.isWallSet) this.setCalendar(now, wallAheadMs)
    else if (record !== undefined) this.#restoreWindows(now, stored.windows)
    const { uncertain } = stored
    const units = Math.min(uncertain, limit.requests)
    if (units === 0) return
    const agoMs = uncertain === ALL ? elapsed.leastMs : 0
    const laterMs = limit.countingToleranceMs - agoMs
    counter.addCommitted(now, now - agoMs, units, laterMs)
    record?.addCommitted(now, now - agoMs, units, laterMs)
  }

  #restoreWindows(now: number, windows: NonNullable<StoredLimit['windows']>): void {
    const { counter, limit } = this
    const last = counter.bucketOf(now + limit.inFlightLeaseMs)
    for (const { startsAt, units } of windows) {
      const bucket = limit.calendar?.nearest(startsAt) ?? Math.round(startsAt / limit.bucketMs)
      // A window that has not begun was stored while the wall clock was ahead, or the wall clock is behind now.
      counter.restore(now, Math.min(bucket, last), units)
    }
  }

  /** What is to be stored. Calls in flight end with the process, but the upstream may notice that a little later. */
  stored(now: number, at: Stamp): StoredLimit {
    const { counter, record, reserved } = this
    const { windowMs, inFlightLeaseMs, bucketMs, calendar } = counter.limit
    const charged = record ?? counter
    const startsAt = (bucket: number): number => calendar?.startOf(bucket) ?? bucket * bucketMs
    const windows = counter
      .charges(now)
      .map(({ bucket, units }) => ({ startsAt: startsAt(bucket), units: Math.min(units, ALL) }))
    return {
      at,
      windowMs: Math.max(windowMs, inFlightLeaseMs),
      charges: charged.charges(now).map(({ bucket, units }) => ({
        agoMs: now - charged.startOf(bucket + 1),
        units: Math.min(units, ALL),
      })),
      ...(record === undefined ? {} : { windows }),
      uncertain: reserved,
    }
  }
}

/** Whether nothing that was stored counts any more. `sinceMs`: how long ago an earlier process can have charged anything at all. */
export function isOver({ at, windowMs, uncertain }: StoredLimit, clock: Clock, sinceMs: number): boolean {
  const now = clock.now()
  const agoMs = uncertain === 0 ? elapsedSince(at, clock.boot, now, clock.wall()).leastMs : sinceMs
  return agoMs >= KEPT_WINDOWS * windowMs
}

/** The same limit in a rolling window. */
function rollingOf(limit: Limit): Limit {
  return { ...limit, kind: 'rolling', calendar: undefined, bucketMs: longestWindowMs(limit) / BUCKETS, kept: BUCKETS }
}

/** How much time has passed at least since something was noted, and whether the wall clock is known to have been set since. */
function elapsedSince(
  then: Stamp | undefined,
  boot: string | undefined,
  now: number,
  wall: number,
): { leastMs: number; isWallSet: boolean } {
  if (then === undefined) return { leastMs: 0, isWallSet: false }
  // This holds after a restart of the machine, too, because the clock then begins after the time that was noted.
  const sinceMs = now - then.now
  const wallMs = wall - then.wall
  if (boot !== undefined && boot === then.boot && sinceMs >= 0) {
    return { leastMs: sinceMs, isWallSet: Math.abs(wallMs - sinceMs) >= WALL_STEP_MS }
  }
  return { leastMs: Math.max(0, sinceMs - NOW_ERROR_MS, wallMs - WALL_ERROR_MS), isWallSet: false }
}
