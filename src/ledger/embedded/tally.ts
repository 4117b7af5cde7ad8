import type { Clock } from '../../time/clock.ts'
import { Counter } from '../counter.ts'
import type { Grant } from '../ledger.ts'
import { BUCKETS, type Limit, longestWindowMs } from '../limit.ts'
import type { CountedLimit } from '../limit-table.ts'
import type { Stamp, StoredLimit } from './ledger-files.ts'

/** How many units may have been charged where it is not known how many. A file takes no more of a bucket. */
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

/** One limit of a partition, counted, and as it is stored. */
export class Tally implements CountedLimit {
  readonly counter: Counter
  /** The charges of a calendar limit by when they were made, in case the calendar is set. */
  readonly record: Counter | undefined
  /** How many units may be charged before the file must be written again. */
  reserved = 0
  /** What was charged last. A limit that nobody uses, or whose calls need more than its share, gets no share with the others. */
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

  refund({ at }: Grant, units: number, now: number): void {
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

  /** The calendar was set, and is now so far ahead of the clock. */
  setCalendar(now: number, aheadMs: number): void {
    if (this.record !== undefined) this.counter.setCalendar(now, aheadMs, this.record)
  }

  /** Counts what an earlier process stored. `uncertain` units may have been charged after that, at worst all of them just now. */
  restore(now: number, stored: StoredLimit | undefined, uncertain: number, wallAheadMs: number, clock: Clock): void {
    const { counter, record, limit } = this
    if (stored !== undefined) {
      const elapsed = elapsedSince(stored.at, clock.boot, now, now + wallAheadMs)
      const charged = record ?? counter
      const latest = charged.bucketOf(now + limit.inFlightLeaseMs)
      for (const { agoMs, units } of stored.charges) {
        const at = now - elapsed.leastMs - agoMs - INSIDE_MS
        charged.restore(now, Math.min(charged.bucketOf(at), latest), units)
      }
      if (stored.windows === undefined || elapsed.isWallSet) this.setCalendar(now, wallAheadMs)
      else if (record !== undefined) this.#restoreWindows(now, stored.windows)
    }
    const units = Math.min(uncertain, limit.requests)
    if (units === 0) return
    counter.addCommitted(now, now, units, limit.countingToleranceMs)
    record?.addCommitted(now, now, units, limit.countingToleranceMs)
  }

  #restoreWindows(now: number, windows: NonNullable<StoredLimit['windows']>): void {
    const { counter, limit } = this
    const last = counter.bucketOf(now + limit.inFlightLeaseMs)
    for (const { startsAt, units } of windows) {
      const bucket = limit.calendar?.nearest(startsAt) ?? Math.round(startsAt / limit.bucketMs)
      // A window that has not begun was begun by a clock that was ahead, or this one is behind.
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
  // On another start of the machine, too: it began after what was noted then.
  const sinceMs = now - then.now
  const wallMs = wall - then.wall
  if (boot !== undefined && boot === then.boot && sinceMs >= 0) {
    return { leastMs: sinceMs, isWallSet: Math.abs(wallMs - sinceMs) >= WALL_STEP_MS }
  }
  return { leastMs: Math.max(0, sinceMs - NOW_ERROR_MS, wallMs - WALL_ERROR_MS), isWallSet: false }
}
