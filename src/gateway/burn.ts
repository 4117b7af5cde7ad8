import type { Burn } from '../observe/gauges.ts'
import { allowedOf, type LimitUsage } from '../ledger/ledger.ts'
import { BUCKETS, type Limit, windowLengthMs } from '../ledger/limit.ts'

/** What is known of a limit of calls in flight, which has no rate, and of any limit while the store is away. */
export const UNKNOWN_BURN: Burn = { exhaustionInMs: null, burnRatio: null }

/** Charges of this long make the rate: a quarter of the window, but not less than the one and not more than the other. */
const LEAST_RATE_MS = 10_000
const MOST_RATE_MS = 5 * 60_000
/** How finely that time, and the window, are remembered. */
const RATE_STEPS = 8
const WINDOW_STEPS = 32
/** A sum that is smaller than the one before by more than this part of the limit was lost, and did not just come back. */
const LOST_PART = 0.05

/**
 * How fast one limit is spent, by all gateways together: it sees only how much is used, which the store counts. It remembers all
 * that was ever charged, as a few points of a rising line. What was charged in the last minutes is a difference on it, and so is what
 * the window gives back in the time to come: a charge leaves it one window after it was made.
 *
 * The line is as exact as what is noted: at each call that passes here, and whenever somebody asks. What was used when the first was
 * noted counts as charged evenly over the window before.
 */
export class BurnMeter {
  readonly #limit: Limit
  /** How long a charge counts; Infinity where it counts until the calendar says otherwise. */
  readonly #keptMs: number
  readonly #rateMs: number
  readonly #wallAheadMs: () => number
  /** The line: moments, and all that was charged until then. */
  readonly #times: number[] = []
  readonly #totals: number[] = []
  #nextAt = -Infinity
  /** Of a calendar limit: what was used in the window that ends then, when the last point was made. */
  #used = 0
  #windowEndsAt = 0

  /** `wallAheadMs` says by how much the time of day is ahead of the times that it is given. */
  constructor(limit: Limit, wallAheadMs: () => number = () => 0) {
    const { kind, windowMs, bucketMs } = limit
    this.#limit = limit
    this.#wallAheadMs = wallAheadMs
    this.#keptMs = kind === 'calendar' ? Infinity : windowMs + bucketMs / 2 // between one and one bucket more
    this.#rateMs = Math.min(MOST_RATE_MS, Math.max(LEAST_RATE_MS, windowMs / 4))
  }

  /** For the way of a call: it does nothing most of the time. */
  note(now: number, usage: LimitUsage): void {
    if (now >= this.#nextAt) this.#add(now, usage)
  }

  burn(now: number, usage: LimitUsage): Burn {
    const { kind, requests } = this.#limit
    if (kind === 'concurrent') return UNKNOWN_BURN
    this.note(now, usage)
    // Between two points the line ends here.
    const total = this.#totalNow(now, usage)
    const rate = Math.max(0, total - this.#totalAt(now - this.#rateMs, now, total)) / this.#rateMs
    const exhaustionInMs = this.#exhaustion(now, usage, rate, total)
    // Of a limit that is used up nothing more is charged, so the rate falls, though nothing is spent more slowly.
    return {
      exhaustionInMs,
      burnRatio: Math.max((rate * this.#windowMs(now, usage)) / requests, exhaustionInMs === 0 ? 1 : 0),
    }
  }

  #exhaustion(now: number, usage: LimitUsage, rate: number, total: number): number | null {
    const { used, resetMs } = usage
    // A rolling window counts by buckets, and gives back one of them at a time: less than that is nothing.
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

  /** All that was charged until now, by what is used now. */
  #totalNow(now: number, { used, resetMs }: LimitUsage): number {
    const last = this.#totals.at(-1)!
    if (this.#keptMs === Infinity) {
      const isSame = Math.abs(now + resetMs - this.#windowEndsAt) < this.#limit.windowMs / 2
      return last + Math.max(0, isSame ? used - this.#used : used)
    }
    return this.#sumOf(now, used)
  }

  /** Of a rolling window: what has left it, and what is in it. */
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
      // Nothing is known of the time before this window, and what is used was charged in it.
      this.#times.push(windowBeganAt)
      this.#totals.push(last)
    }
    const total = this.#totalNow(now, usage)
    // Calls of which no byte was sent were taken back.
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

  /** Leaves out points that are closer than they have to be, and those that lie too far back. */
  #forget(now: number): void {
    const [times, totals] = [this.#times, this.#totals]
    const keptMs = this.#keptMs === Infinity ? 0 : this.#keptMs
    for (let i = times.length - 2; i > 0; i--) {
      const ageMs = now - times[i]!
      if (ageMs >= Math.max(this.#rateMs, keptMs)) {
        // The line comes from there.
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

  /** The line at a time: straight between its points, and to its end; level before it begins. */
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
