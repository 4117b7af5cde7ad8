/** A limit grows back window by window; of longer windows, by steps of this length. */
export const LONGEST_GROWTH_MS = 600_000
/** How an adaptive limit moves. The script in Redis gets these from here. */
export const GROWTH = {
  /** The part of what got through that stays unused. */
  MARGIN: 0.05,
  /** So many windows after a refusal a limit begins to grow back, and after so many it is whole. */
  CALM_UNTIL: 1,
  GROWN_AT: 4,
  /** Calls that find out whether more gets through go one after the other: so many a window, and more for each unit of growth. */
  LOOKS: 20,
  LOOKS_PER_UNIT: 5,
} as const
const { MARGIN, CALM_UNTIL, GROWN_AT, LOOKS, LOOKS_PER_UNIT } = GROWTH

/**
 * How much of a limit may be used, by the upstream's answers. If the upstream refuses calls although the limit has room, less of
 * it is used for a while. If it says how many calls it has counted, the rest is taken to be used by others. Times are of any one
 * unit. charge/adaptive-limit.lua does the same.
 *
 * After a refusal as much is allowed as had got through, less a margin. A window later this begins to grow, faster and faster, up
 * to the whole limit. Calls go one at a time into what it has grown by within a window. Otherwise clients that wait would send all
 * they may at once, when the last window's calls leave the count. If others use the limit, all of these calls would be refused
 * instead of only the first.
 */
export class AdaptiveLimit {
  /** Units that got through when the upstream began to refuse calls; and units that it is assumed to let through at least. */
  level = 0
  least = 0
  /** When it began to refuse calls; 0 if it never did. If that is excused: when the excuse ends; `level` exceeds the limit then. */
  since = 0
  /** Units that others have used, until when that is assumed, and when a call may find out. */
  others = 0
  until = 0
  lookAt = 0
  /** When the call was charged whose answer told of the others. */
  observedAt = 0

  /** Units of `requests` that may be used now, if our own are `wanted` with the next call. */
  allowed(requests: number, wanted: number, growth: number, now: number): number {
    const sure = this.sure(requests, growth, now)
    return sure >= wanted || now < this.lookAt ? sure : Math.min(this.cap(requests, growth, now), wanted)
  }

  /** Units that are known to get through, or were a window ago. Beyond them, one call at a time finds out. */
  sure(requests: number, growth: number, now: number): number {
    return this.#left(requests, this.cap(requests, growth, now - growth), now)
  }

  /** The same, with the units that the limit has grown by since. */
  effective(requests: number, growth: number, now: number): number {
    return this.#left(requests, this.cap(requests, growth, now), now)
  }

  /** The same without what others use. */
  cap(requests: number, growth: number, now: number): number {
    if (this.since === 0) return requests
    const calm = Math.min(requests, lessMargin(Math.max(this.least, this.level)))
    const grown = ((now - this.since) / growth - CALM_UNTIL) / (GROWN_AT - CALM_UNTIL)
    if (grown <= 0) return calm
    return grown >= 1 ? requests : calm + Math.floor((requests - calm) * grown * grown * grown)
  }

  #left(requests: number, cap: number, now: number): number {
    return Math.max(0, Math.min(cap, requests - this.othersAt(now)))
  }

  /**
   * The upstream refused a call of `units` that was charged at `at`, when `used` of `requests` were used. The calls that were in
   * flight at the first refusal show together by how many they were too many, but they never more than halve the limit. If even
   * calls were refused that should have got through, these calls can't have shown all of it: a window's calls come in bursts. Then
   * the margin is taken off once more.
   */
  refuse(now: number, at: number, { units, used, requests, growth }: Refused): void {
    if (at > this.since) {
      const cap = this.cap(requests, growth, now)
      const through = Math.min(cap, used)
      this.level = this.since > 0 && used <= this.sure(requests, growth, now) ? lessMargin(through) : through
      this.least = Math.max(1, Math.floor(cap / 2))
      this.since = now
    }
    this.level -= units
  }

  /**
   * The upstream had `counted` so many units when it answered a call that was charged at `at`. `used` of them are our own, but up to
   * `tolerance` of these may have left our count while the answer travelled. Once others are known to be there, the tolerance is
   * added instead, because some of our calls had not arrived yet. Returns whether others use the limit.
   */
  observe(now: number, at: number, { counted, used, tolerance, reset, window, requests }: Observation): boolean {
    const excess = counted - used
    if (at < this.observedAt) return excess > tolerance // an answer that came late knows less
    this.observedAt = at
    if (excess <= (this.othersAt(now) > 0 ? 0 : tolerance)) {
      this.others = 0
      if (this.level > requests) this.since = 0 // the excuse is over
      return false
    }
    this.others = excess + tolerance
    this.until = now + window
    this.lookAt = now + Math.min(reset, window)
    return true
  }

  /**
   * Whether the others, of whom the same answer told, excuse the refusal of a call charged at `at`. If so, nothing is expected of the
   * limit until the reset that the answer named, and all of it after that. They excuse only once. If a call is refused again after
   * that reset, and no answer has told that the others are gone, they are there to stay, and the limit is shared with them.
   */
  excuse(now: number, at: number, { requests, reset, growth }: Excuse): boolean {
    if (this.since > 0) return this.level > requests && at <= this.since
    // Upstreams name resets in whole seconds, so a call may come a little early.
    this.since = now + Math.min(reset, growth) + growth / LOOKS
    this.level = 2 * requests
    this.least = 0
    return true
  }

  /** When the whole limit may be used again. */
  wholeAt(growth: number): number {
    return this.since === 0 ? this.until : Math.max(this.until, this.since + GROWN_AT * growth)
  }

  othersAt(now: number): number {
    return now < this.until ? this.others : 0
  }

  /** A call was charged, and `used` units are our own now. If it finds out whether more gets through, the next one has to wait. */
  charged(now: number, requests: number, used: number, growth: number): void {
    const sure = this.sure(requests, growth, now)
    if (used <= sure || now < this.lookAt) return
    const grown = this.othersAt(now) > 0 ? 0 : this.cap(requests, growth, now) - sure
    this.lookAt = now + growth / (LOOKS + LOOKS_PER_UNIT * grown)
  }
}

function lessMargin(units: number): number {
  return Math.max(1, units - Math.ceil(units * MARGIN))
}

export interface Refused {
  readonly units: number
  readonly used: number
  readonly requests: number
  readonly growth: number
}

export interface Observation {
  readonly counted: number
  readonly used: number
  readonly tolerance: number
  /** Until some of it comes back. */
  readonly reset: number
  /** How long it is believed. */
  readonly window: number
  readonly requests: number
}

export interface Excuse {
  readonly requests: number
  readonly reset: number
  readonly growth: number
}
