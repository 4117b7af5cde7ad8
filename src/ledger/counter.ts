import { AdaptiveLimit } from './adaptive-limit.ts'
import { type Limit, SLOTS } from './limit.ts'
import { type Others, type Release, withOthers } from './release.ts'

/** The units charged in one bucket. Without a calendar of its own, bucket n begins at n bucket lengths since the zero of the clock. */
export interface Charges {
  readonly bucket: number
  readonly units: number
}

/** What an upstream's answer says of a limit. `counted` may be off by `tolerance` units. More comes back in `resetMs` milliseconds. */
export interface Counted {
  readonly counted: number
  readonly tolerance: number
  readonly resetMs: number
  readonly isRefused: boolean
}

/** How soon a waiting call asks again for units that calls in flight reserve. Nobody knows when they are settled, or what comes back. */
const RESERVED_POLL_MS = 100
/** How soon a waiting call asks again for a slot of a `concurrent` limit. Nobody knows when a call ends. */
const CONCURRENT_POLL_MS = 25

/**
 * Counts the charges of one limit. It never counts less than the upstream may have counted, as `Ledger` guarantees. All times are
 * milliseconds of one clock. If that clock goes back, time stands still here, but see `#goBack`. The script in redis/charge is the
 * same structure.
 */
export class Counter {
  limit: Limit
  readonly #counts = new Float64Array(SLOTS)
  /** The first bucket that holds charges. It has no meaning while `#sum` is 0. */
  #oldest = 0
  /** The bucket of the latest time seen. */
  #current = 0
  #sum = 0
  #adaptiveLimit: AdaptiveLimit | undefined
  /** By how many milliseconds the calendar is ahead of the clock. Calendar windows begin and end by the calendar. */
  #aheadMs: number

  constructor(limit: Limit, aheadMs = 0) {
    this.limit = limit
    this.#aheadMs = limit.kind === 'calendar' ? aheadMs : 0
  }

  /** Units that count against the limit now, without what others have used. For a calendar: those in the current window. */
  used(now: number): number {
    this.#advance(now)
    return this.limit.kind === 'calendar' ? this.#counts[this.#current % SLOTS]! : this.#sum
  }

  /** Units that can be charged now, of which the next call needs `units`. Negative if more is charged than allowed. */
  free(now: number, units = 0): number {
    const used = this.#most(now)
    const adaptive = this.#adaptiveLimitAt(now)
    const { requests, growthMs } = this.limit
    return (adaptive === undefined ? requests : adaptive.allowed(requests, used + units, growthMs, now)) - used
  }

  /** Units that may be used now; undefined while they are as many as configured. */
  effective(now: number): number | undefined {
    const { requests, growthMs } = this.limit
    const effective = this.#adaptiveLimitAt(now)?.effective(requests, growthMs, now) ?? requests
    return effective < requests ? effective : undefined
  }

  /** The upstream refused a call that was charged at `at`, though the limit had room. */
  refuse(now: number, at: number, units: number): void {
    const { requests, growthMs: growth } = this.limit
    this.#adaptiveLimit = this.#adaptiveLimitAt(now) ?? new AdaptiveLimit()
    this.#adaptiveLimit.refuse(now, at, { units, used: this.#most(now), requests, growth })
  }

  /**
   * The upstream had `counted` so many units when it answered or refused a call of `units` that was charged at `at`; see
   * `AdaptiveLimit`. If the usage of others explains a refusal, no less of the limit is used after the reset.
   */
  observeCount(now: number, at: number, units: number, { counted, tolerance, resetMs, isRefused }: Counted): void {
    const used = this.#most(now)
    this.#adaptiveLimit = this.#adaptiveLimitAt(now) ?? new AdaptiveLimit()
    const { kind, bucketMs, kept, countingToleranceMs, requests, growthMs: growth } = this.limit
    const window = kind === 'calendar' ? this.startOf(this.#current + 1) + countingToleranceMs - now : bucketMs * kept
    const isOfOthers = this.#adaptiveLimit.observe(now, at, {
      counted,
      used,
      tolerance,
      reset: resetMs,
      window,
      requests,
    })
    if (!isRefused) return
    const isExcused = isOfOthers && this.#adaptiveLimit.excuse(now, at, { requests, reset: resetMs, growth })
    if (!isExcused) this.refuse(now, at, units)
  }

  #adaptiveLimitAt(now: number): AdaptiveLimit | undefined {
    const adaptive = this.#adaptiveLimit
    if (adaptive !== undefined && now >= adaptive.wholeAt(this.limit.growthMs)) this.#adaptiveLimit = undefined
    return this.#adaptiveLimit
  }

  /** A call that is sent now may be counted in several calendar windows. Returns the units charged in the fullest of them. */
  #most(now: number): number {
    this.#advance(now)
    const { kind, countingToleranceMs, inFlightLeaseMs } = this.limit
    if (kind !== 'calendar') return this.#sum
    let most = 0
    const first = Math.max(this.bucketOf(now - countingToleranceMs), this.#current - this.limit.kept)
    for (let bucket = first; bucket <= this.bucketOf(now + inFlightLeaseMs); bucket++) {
      most = Math.max(most, this.#counts[bucket % SLOTS]!)
    }
    return most
  }

  /** Charges `units` for calls that are sent at `at`, even beyond the limit. */
  charge(now: number, at: number, units: number): void {
    this.#advance(now)
    const { requests, countingToleranceMs, inFlightLeaseMs, growthMs } = this.limit
    this.#add(now, at - countingToleranceMs, at + inFlightLeaseMs, units)
    this.#adaptiveLimit?.charged(now, requests, this.#most(now), growthMs)
  }

  /**
   * The upstream can't count calls charged at `at` later than `now + laterMs`. `laterMs` may be negative. Never call it for a
   * `concurrent` limit. A `smoothing` limit ignores it.
   */
  commit(now: number, at: number, units: number, laterMs: number): void {
    if (this.limit.kind === 'smoothing') return
    this.#advance(now)
    this.#takeBack(at, units)
    this.addCommitted(now, at, units, laterMs)
  }

  /** Adds the charge that `commit` would leave, if this counter does not hold the charge itself. */
  addCommitted(now: number, at: number, units: number, laterMs: number): void {
    const { kind, countingToleranceMs } = this.limit
    if (kind === 'smoothing') return
    this.#advance(now)
    this.#add(now, at - countingToleranceMs, now + laterMs + (kind === 'calendar' ? countingToleranceMs : 0), units)
  }

  /** Moves the charge of calls in flight from `at` to `to`. */
  renew(now: number, at: number, to: number, units: number): void {
    if (this.limit.kind === 'smoothing') return
    this.#advance(now)
    this.#takeBack(at, units)
    const { countingToleranceMs, inFlightLeaseMs } = this.limit
    this.#add(now, to - countingToleranceMs, to + inFlightLeaseMs, units)
  }

  /** Takes back units that were charged at `at`. Units that count no longer are ignored. */
  refund(now: number, at: number, units: number): void {
    this.#advance(now)
    this.#takeBack(at, units)
  }

  /**
   * Milliseconds until the oldest charge leaves; 0 if nothing is charged. A call in flight may leave later than this says. For a calendar:
   * milliseconds until the next window, whatever is charged.
   */
  resetMs(now: number): number {
    const used = this.used(now)
    if (this.limit.kind === 'calendar') return this.startOf(this.#current + 1) - now
    if (used === 0) return 0
    return this.#leavesAt(this.#oldest) - now
  }

  /** How many units come back when, soonest first, as far as a call of `units` needs to know. */
  releases(now: number, units = 1): Release[] {
    const { kind } = this.limit
    const used = this.used(now)
    if (kind === 'calendar') return this.#windowEnds(now, used)
    if (kind === 'concurrent') return [{ inMs: CONCURRENT_POLL_MS, units: used }]
    const isReserving = this.limit.settles === 'at-end'
    const releases = this.charges(now).map((charges) => {
      const isInFlight = charges.bucket > this.#current
      const inMs = this.#leavesAt(charges.bucket) - now
      const soonMs = isReserving && isInFlight ? Math.min(inMs, RESERVED_POLL_MS) : inMs
      return { inMs: soonMs, units: charges.units, isInFlight }
    })
    if (isReserving) releases.sort((a, b) => a.inMs - b.inMs)
    return withOthers(releases, this.others(now), units - this.free(now))
  }

  /**
   * A call waits until the upstream can't count it in a window any more, even if the upstream's clock is behind. So the window before
   * may hold back calls for a moment, too.
   */
  #windowEnds(now: number, used: number): Release[] {
    const { countingToleranceMs } = this.limit
    const release = (bucket: number, units: number): Release => ({
      inMs: this.startOf(bucket + 1) + countingToleranceMs - now,
      units,
    })
    const end = release(this.#current, used)
    const isBeforeCounted = this.bucketOf(now - countingToleranceMs) < this.#current
    return isBeforeCounted ? [release(this.#current - 1, this.#most(now) - used), end] : [end]
  }

  /** Units that others may or may not use; undefined if there are none. */
  others(now: number): Others | undefined {
    const adaptive = this.#adaptiveLimitAt(now)
    if (adaptive === undefined) return undefined
    const { requests, growthMs } = this.limit
    const units = adaptive.cap(requests, growthMs, now) - adaptive.sure(requests, growthMs, now)
    if (units === 0) return undefined
    return { units, lookInMs: adaptive.lookAt - now, untilInMs: adaptive.wholeAt(growthMs) - now }
  }

  /** Undefined while all of the limit may be used. */
  get adaptiveLimit(): Readonly<AdaptiveLimit> | undefined {
    return this.#adaptiveLimit
  }

  /** Takes over the adaptive limit of another counter of the same limit. */
  copyAdaptiveLimit({ adaptiveLimit }: Counter): void {
    this.#adaptiveLimit = adaptiveLimit && Object.assign(new AdaptiveLimit(), adaptiveLimit)
  }

  /** The charges that count now, by bucket, oldest first. */
  charges(now: number): Charges[] {
    this.#advance(now)
    const charges: Charges[] = []
    const last = this.#furthest
    let left = this.#sum
    for (let bucket = this.#oldest; left > 0 && bucket <= last; bucket++) {
      const units = this.#counts[bucket % SLOTS]!
      if (units > 0) charges.push({ bucket, units })
      left -= units
    }
    return charges
  }

  /** Adds charges that another counter listed with `charges`. */
  restore(now: number, bucket: number, units: number): void {
    this.#advance(now)
    this.#put(bucket, units)
  }

  /** Number of the bucket in which a time lies. */
  bucketOf(time: number): number {
    const { calendar, bucketMs } = this.limit
    return calendar === undefined
      ? Math.floor((time + this.#aheadMs) / bucketMs)
      : calendar.indexOf(time + this.#aheadMs)
  }

  /** When a bucket begins. */
  startOf(bucket: number): number {
    const { calendar, bucketMs } = this.limit
    return (calendar === undefined ? bucket * bucketMs : calendar.startOf(bucket)) - this.#aheadMs
  }

  /**
   * The calendar was set, and is now `aheadMs` ahead of the clock. All charges are counted anew in its windows, by `record`, which has
   * the same charges in a rolling window. A call in flight may be counted in any window since its last renewal. No charge reaches
   * further ahead than a call in flight does. The last bucket of a month ends hours later, and its calls would count in the next month.
   */
  setCalendar(now: number, aheadMs: number, record: Counter): void {
    const { countingToleranceMs, inFlightLeaseMs } = this.limit
    this.#aheadMs = aheadMs
    this.#counts.fill(0)
    this.#sum = 0
    this.#current = this.bucketOf(now)
    for (const { bucket, units } of record.charges(now)) {
      const from = Math.min(record.startOf(bucket), now)
      const isInFlight = bucket > record.bucketOf(now)
      this.#add(
        now,
        from - countingToleranceMs - (isInFlight ? inFlightLeaseMs : 0),
        Math.min(record.startOf(bucket + 1), now + inFlightLeaseMs) + countingToleranceMs,
        units,
      )
    }
  }

  /**
   * Adds units that the upstream may count at any time between `from` and `to`. A calendar has them in each of its windows between
   * these. Another limit has them once, at `to`.
   */
  #add(now: number, from: number, to: number, units: number): void {
    const bucket = this.bucketOf(to)
    const last = to < now ? bucket + this.#current - this.bucketOf(now) : Math.max(bucket, this.#current)
    for (let b = this.limit.kind === 'calendar' ? this.bucketOf(from) : last; b <= last; b++) this.#put(b, units)
  }

  #takeBack(at: number, units: number): void {
    const { kind, countingToleranceMs, inFlightLeaseMs } = this.limit
    const last = this.bucketOf(at + inFlightLeaseMs)
    for (let b = kind === 'calendar' ? this.bucketOf(at - countingToleranceMs) : last; b <= last; b++)
      this.#take(b, units)
  }

  #put(wanted: number, units: number): void {
    const bucket = Math.min(wanted, this.#furthest)
    if (units === 0 || bucket < this.#current - this.limit.kept) return
    if (this.#sum === 0 || bucket < this.#oldest) this.#oldest = bucket
    this.#counts[bucket % SLOTS]! += units
    this.#sum += units
  }

  #take(bucket: number, units: number): void {
    if (bucket < this.#current - this.limit.kept || bucket > this.#furthest) return
    const taken = Math.min(units, this.#counts[bucket % SLOTS]!)
    this.#counts[bucket % SLOTS]! -= taken
    this.#lower(taken)
    this.#skipEmpty()
  }

  #skipEmpty(): void {
    if (this.#sum > 0) while (this.#counts[this.#oldest % SLOTS] === 0) this.#oldest++
  }

  /** The last bucket ahead that has a slot of its own. The next one would share its slot with a bucket that still counts. */
  get #furthest(): number {
    return this.#current + SLOTS - this.limit.kept - 1
  }

  /** When the charges of a bucket leave. A bucket ahead holds calls in flight. These are taken to end now. */
  #leavesAt(bucket: number): number {
    return this.startOf(Math.min(bucket, this.#current) + this.limit.kept + 1)
  }

  #advance(now: number): void {
    const bucket = this.bucketOf(now)
    if (bucket === this.#current) return
    if (bucket < this.#current) return this.#goBack(bucket)
    const first = bucket - this.limit.kept
    if (this.#sum === 0 || first > this.#furthest) {
      this.#counts.fill(0)
      this.#sum = 0
    }
    this.#current = bucket
    if (this.#sum === 0) return
    for (; this.#oldest < first; this.#oldest++) {
      const slot = this.#oldest % SLOTS
      const units = this.#counts[slot]!
      this.#counts[slot] = 0
      this.#lower(units)
    }
    this.#skipEmpty()
  }

  /**
   * Takes `units` off the sum. A sum above the largest exact integer is rounded, so it is added up anew. Otherwise it might not be zero
   * when all units have left, and `#skipEmpty` would never end.
   */
  #lower(units: number): void {
    if (this.#sum <= Number.MAX_SAFE_INTEGER) this.#sum -= units
    else this.#sum = this.#counts.reduce((sum, count) => sum + count, 0)
  }

  /**
   * The clock was set back, by more than one calendar window, or by more than all slots of a `concurrent` limit. Nobody knows which
   * charges still hold, so all of them count as made now. Otherwise nothing would be counted, and no call would leave, until the clock
   * is there again. A rolling window stands still instead. If its clock was behind for only a moment, charges moved back would be
   * forgotten too soon.
   */
  #goBack(bucket: number): void {
    const { kind, kept, inFlightLeaseMs, bucketMs } = this.limit
    const isCalendar = kind === 'calendar'
    if (!isCalendar && kind !== 'concurrent') return
    if (bucket >= this.#current - (isCalendar ? kept : SLOTS) || bucket === -Infinity) return
    this.#counts.fill(0)
    this.#current = bucket
    this.#oldest = isCalendar ? bucket : Math.min(bucket + Math.ceil(inFlightLeaseMs / bucketMs), this.#furthest)
    this.#counts[this.#oldest % SLOTS] = this.#sum
  }
}
