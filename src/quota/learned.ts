/** A limit grows back by steps of no window longer than this. */
export const LONGEST_GROWTH_MS = 600_000
/** Windows after a refusal at which the steps end by which a limit grows back: each longer than a window, to be found out. */
const CALM_UNTIL = 1.5
const NEAR_UNTIL = 2.5
const BEYOND_UNTIL = 3.5
const GROWN_AT = 4.5
/** By so large a part of what is let through it stays below that, and probes beyond it. */
const MARGIN = 0.05
const PROBE = 0.01
/** One call finds out, every so large a part of a window, whether others still use everything. */
const LOOK_AFTER = 20

/**
 * What an upstream's answers have taught of one limit: that it refuses calls for which there should be quota, so that less
 * of it is used for a while; and how much of it others use, as it says itself. Times are of any one unit. The script in
 * redis-ledger.lua does the same.
 *
 * After a refusal it allows what had got through, less a margin; then a hundredth more, then a hundredth more than what had
 * got through. If others took up what was left to them, or are still there, few calls are refused. Only after a window in
 * which none was, it grows faster and faster up to all of it.
 */
export class Learned {
  /** Units that got through when the upstream began to refuse calls, and that it is taken to let through at least. */
  level = 0
  least = 0
  /** When it did; 0 if it never did. */
  since = 0
  /** Units that others have used, until when that is believed, and when a call may find out. */
  others = 0
  until = 0
  lookAt = 0
  /** Time of the charge of the call whose answer told it. */
  toldAt = 0

  /** Units that may be used now, of so many, if our own are to be `wanted` with the next call. */
  allowed(requests: number, wanted: number, growth: number, now: number): number {
    const allowed = this.cap(requests, growth, now)
    const others = this.othersAt(now)
    if (others === 0) return allowed
    const left = Math.max(0, Math.min(allowed, requests - others))
    return left >= wanted || now < this.lookAt ? left : Math.min(allowed, wanted)
  }

  /** The same without what others use. */
  cap(requests: number, growth: number, now: number): number {
    return this.since === 0 ? requests : Math.min(requests, this.#grown(requests, growth, now))
  }

  #grown(requests: number, growth: number, now: number): number {
    const windows = Math.max(0, now - this.since) / growth
    const through = Math.max(this.least, this.level)
    const calm = Math.max(1, through - Math.ceil(through * MARGIN))
    const probe = Math.ceil(through * PROBE)
    if (windows < CALM_UNTIL) return calm
    if (windows < NEAR_UNTIL) return calm + probe
    if (windows < BEYOND_UNTIL) return through + probe
    if (windows >= GROWN_AT) return requests
    const grown = (windows - BEYOND_UNTIL) / (GROWN_AT - BEYOND_UNTIL)
    const square = grown * grown
    return Math.floor(through + probe + (requests - through - probe) * square * square * grown)
  }

  /**
   * The upstream refused a call of so many units that was charged at `at`, when so many were used of those allowed. All that
   * were in flight when it first did together tell how many too many they were, but no more than halve the limit.
   */
  refuse(now: number, at: number, units: number, allowed: number, used: number): void {
    if (at > this.since) {
      this.level = Math.min(allowed, used)
      this.least = Math.max(1, Math.floor(allowed / 2))
      this.since = now
    }
    this.level -= units
  }

  /**
   * The upstream has counted so many units when it answered a call that was charged at `at`. Our own are `used`; up to
   * `tolerance` of them may have left the count while the answer travelled. Once others are known to be there, that much is
   * added instead: of what we count, some had not arrived yet. Returns whether that tells anything of others.
   */
  believe(now: number, at: number, { counted, used, tolerance, reset, window }: Told): boolean {
    const excess = counted - used
    if (at < this.toldAt) return excess > tolerance // an answer that came late knows less
    this.toldAt = at
    if (excess <= (this.othersAt(now) > 0 ? 0 : tolerance)) {
      this.others = 0
      return false
    }
    this.others = excess + tolerance
    this.until = now + window
    this.lookAt = now + Math.min(reset, window)
    return true
  }

  /** Whether all of it is as configured again. */
  isOver(growth: number, now: number): boolean {
    return now >= this.until && (this.since === 0 || now - this.since >= GROWN_AT * growth)
  }

  othersAt(now: number): number {
    return now < this.until ? this.others : 0
  }

  /** A call was charged that brought our own to `used`, of so many units. */
  charged(now: number, requests: number, used: number, window: number): void {
    const others = this.othersAt(now)
    if (others > 0 && now >= this.lookAt && used > requests - others) this.lookAt = now + window / LOOK_AFTER
  }
}

export interface Told {
  readonly counted: number
  readonly used: number
  readonly tolerance: number
  /** Until some of it comes back. */
  readonly reset: number
  /** How long it is believed. */
  readonly window: number
}
