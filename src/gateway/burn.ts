import type { Burn } from '../observe/gauges.ts'
import { allowedOf, type LimitUsage } from '../ledger/ledger.ts'
import { BUCKETS, type Limit, windowLengthMs } from '../ledger/limit.ts'

/** The burn of a limit of calls in flight, which has no rate, and of any limit while the store is away. */
export const UNKNOWN_BURN: Burn = { exhaustionInMs: null, burnRatio: null }

/** The rate is measured over a quarter of the window, but over no less than the first of these and no more than the second. */
const LEAST_RATE_MS = 10_000
const MOST_RATE_MS = 5 * 60_000
/** In how many steps the time of the rate, and the window, are remembered. */
const RATE_STEPS = 8
const WINDOW_STEPS = 32
/** If the total falls by more than this part of the limit, the store has lost charges. If it falls by less, charges were refunded. */
const LOST_PART = 0.05

/**
 * How fast one limit is spent by all gateways together. The meter sees only how much is used, as the store counts it. From that it
 * remembers the total that was ever charged, as a few points of a rising line. What was charged in the last minutes is a difference
 * of two totals. So is what the window gives back in the time to come, since a charge leaves the window one window after it was made.
 *
 * The line is only as exact as the usage that is noted: at each call that passes here, and whenever the burn is asked for. What was
 * used at the first note counts as charged evenly over the window before.
 */
export class BurnMeter {
  readonly #limit: Limit
  /** How long a charge counts; Infinity for a calendar limit, where it counts until the window ends. */
  readonly #keptMs: number
  readonly #rateMs: number
  readonly #wallAheadMs: () => number
  /** The points of the line: times, and the total that was charged until each. */
  readonly #times: number[] = []
  readonly #totals: number[] = []
  #nextAt = -Infinity
  /** For a calendar limit: what was used when the line was last updated, and when that window ends. */
  #used = 0
  #windowEndsAt = 0

  /** `wallAheadMs` says by how much the time of day is ahead of the times that the meter is given. */
  constructor(limit: Limit, wallAheadMs: () => number = () => 0) {
    const { kind, windowMs, bucketMs } = limit
    this.#limit = limit
    this.#wallAheadMs = wallAheadMs
    this.#keptMs = kind === 'calendar' ? Infinity : windowMs + bucketMs / 2 // between one and one bucket more
    this.#rateMs = Math.min(MOST_RATE_MS, Math.max(LEAST_RATE_MS, windowMs / 4))
  }

  /** Notes how much is used. It is called for each call, and does nothing most of the time. */
  note(now: number, usage: LimitUsage): void {
    if (now >= this.#nextAt) this.#add(now, usage)
  }

  burn(now: number, usage: LimitUsage): Burn {
    const { kind, requests } = this.#limit
    if (kind === 'concurrent') return UNKNOWN_BURN
    this.note(now, usage)
    // The last piece of the line ends at what is used now.
    const total = this.#totalNow(now, usage)
    const rate = Math.max(0, total - this.#totalAt(now - this.#rateMs, now, total)) / this.#rateMs
    const exhaustionInMs = this.#exhaustion(now, usage, rate, total)
    // A limit that is used up takes no more charges, so its rate falls although calls want as much as before. Its ratio stays at 1 or
    // more.
    return {
      exhaustionInMs,
      burnRatio: Math.max((rate * this.#windowMs(now, usage)) / requests, exhaustionInMs === 0 ? 1 : 0),
    }
  }

  #exhaustion(now: number, usage: LimitUsage, rate: number, total: number): number | null {
    const { used, resetMs } = usage
    // A rolling window gives back one bucket at a time. With less than a bucket free, it counts as used up.
    const full = allowedOf(usage) * (1 - 1 / BUCKETS)
    if (used >= full) return 0
    if (this.#keptMs === Infinity) {
      const inMs = (full - used) / rate
      return inMs < resetMs ? inMs : null
    }
    let usedThen = used
    let inMs = 0
    // Each piece of the line that lies in the window comes back at its own rate.
    const [times, totals] = [
      [...this.#times, now],
      [...this.#totals, total],
    ]
    let before = this.#totalAt(now - this.#keptMs, now, total)
    for (let i = 0; i < times.length; i++) {
      const untilMs = times[i]! + this.#keptMs - now
      if (untilMs <= inMs) continue
      const growth = rate - (totals[i]! - before) / (untilMs - inMs)
      if (growth > 0 && usedThen + growth * (untilMs - inMs) >= full) return inMs + (full - usedThen) / growth
      usedThen += growth * (untilMs - inMs)
      before = totals[i]!
      inMs = untilMs
    }
    return null
  }

  /** The total that was charged until now, computed from what is used now. */
  #totalNow(now: number, { used, resetMs }: LimitUsage): number {
    const last = this.#totals.at(-1)!
    if (this.#keptMs === Infinity) {
      const isSame = Math.abs(now + resetMs - this.#windowEndsAt) < this.#limit.windowMs / 2
      return last + Math.max(0, isSame ? used - this.#used : used)
    }
    return this.#sumOf(now, used)
  }

  /** The total of a rolling window: what has left it, and what is in it. */
  #sumOf(now: number, used: number): number {
    return used + this.#totalAt(now - this.#keptMs, now, this.#totals.at(-1) ?? 0)
  }

  #add(now: number, usage: LimitUsage): void {
    const { kind, requests } = this.#limit
    if (kind === 'concurrent') return
    const { used, resetMs } = usage
    const windowBeganAt = kind === 'calendar' ? now + resetMs - this.#windowMs(now, usage) : now - this.#keptMs
    const last = this.#totals.at(-1) ?? 0
    const isLost = kind !== 'calendar' && this.#sumOf(now, used) < last - LOST_PART * requests
    if (this.#times.length === 0 || isLost) {
      this.#times.splice(0, Infinity, windowBeganAt)
      this.#totals.splice(0, Infinity, 0)
    } else if (windowBeganAt > this.#times.at(-1)!) {
      // The last point lies before this window. What is used now was charged in this window, and nothing is known of the time between.
      this.#times.push(windowBeganAt)
      this.#totals.push(last)
    }
    const total = this.#totalNow(now, usage)
    // A lower total than before means that charges were refunded, because no byte of their calls was sent.
    for (let i = this.#totals.length - 1; i >= 0 && this.#totals[i]! > total; i--) this.#totals[i] = total
    if (now > this.#times.at(-1)!) {
      this.#times.push(now)
      this.#totals.push(total)
    }
    this.#used = used
    this.#windowEndsAt = now + resetMs
    this.#nextAt = now + Math.min(this.#rateMs / RATE_STEPS, this.#limit.windowMs / WINDOW_STEPS)
    this.#forget(now)
  }

  /** The length of the current window. */
  #windowMs(now: number, { resetMs }: LimitUsage): number {
    return windowLengthMs(this.#limit, now + this.#wallAheadMs() + resetMs)
  }

  /** Drops points that lie closer together than they have to, and points that lie too far back. */
  #forget(now: number): void {
    const [times, totals] = [this.#times, this.#totals]
    const keptMs = this.#keptMs === Infinity ? 0 : this.#keptMs
    for (let i = times.length - 2; i > 0; i--) {
      const ageMs = now - times[i]!
      if (ageMs >= Math.max(this.#rateMs, keptMs)) {
        // The line now begins at this point, which its next piece still needs.
        times.splice(0, i)
        totals.splice(0, i)
        return
      }
      const ofRate = ageMs <= this.#rateMs ? this.#rateMs / RATE_STEPS : Infinity
      const ofWindow = ageMs <= keptMs ? keptMs / WINDOW_STEPS : Infinity
      if (times[i + 1]! - times[i - 1]! > Math.min(ofRate, ofWindow)) continue
      times.splice(i, 1)
      totals.splice(i, 1)
    }
  }

  /** The total at a time. The line is straight between its points and from the last one to its end, and level before the first one. */
  #totalAt(time: number, end: number, endTotal: number): number {
    const [times, totals] = [this.#times, this.#totals]
    let i = times.length - 1
    while (i >= 0 && times[i]! > time) i--
    if (i < 0) return totals[0] ?? endTotal
    const [fromTime, from] = [times[i]!, totals[i]!]
    const [toTime, to] = i + 1 < times.length ? [times[i + 1]!, totals[i + 1]!] : [end, endTotal]
    return toTime > fromTime ? from + ((to - from) * (time - fromTime)) / (toTime - fromTime) : from
  }
}
