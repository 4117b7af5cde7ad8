/** A limit grows back by steps of no window longer than this. */
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
 * What an upstream's answers have taught of one limit: that it refuses calls for which there should be quota, so that less
 * of it is used for a while; and how much of it others use, as it says itself. Times are of any one unit.  * charge/adaptive-limit.lua does the same.
 *
 * After a refusal it allows what had got through, less a margin; after a window it grows, faster and faster, up to all of
 * it. Into what it has grown by within a window calls go one at a time: clients that wait send all they may at once, when
 * the last window's calls leave the count, and where others use it all of these would be refused instead of the first.
 */
export class AdaptiveLimit {
  /** Units that got through when the upstream began to refuse calls, and that it is taken to let through at least. */
  level = 0
  least = 0
  /** When it did; 0 if it never did. Where that is excused, when the excuse ends, and the level is more than there is. */
  since = 0
  /** Units that others have used, until when that is believed, and when a call may find out. */
  others = 0
  until = 0
  lookAt = 0
  /** Time of the charge of the call whose answer told it. */
  observedAt = 0

  /** Units that may be used now, of so many, if our own are to be `wanted` with the next call. */
  allowed(requests: number, wanted: number, growth: number, now: number): number {
    const sure = this.sure(requests, growth, now)
    return sure >= wanted || now < this.lookAt ? sure : Math.min(this.cap(requests, growth, now), wanted)
  }

  /** Units of which it is known, or was a window ago, that they get through. Beyond them one call at a time finds out. */
  sure(requests: number, growth: number, now: number): number {
    return this.#left(requests, this.cap(requests, growth, now - growth), now)
  }

  /** With those that it has grown by since. */
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
   * The upstream refused a call of so many units that was charged at `at`, when so many of `requests` were used. All that
   * were in flight when it first did together tell how many too many they were, but no more than halve the limit. Where even
   * what should have got through did not, they can't have told all: the calls of a window come in bursts.
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
   * The upstream has counted so many units when it answered a call that was charged at `at`. Our own are `used`; up to
   * `tolerance` of them may have left the count while the answer travelled. Once others are known to be there, that much is
   * added instead: of what we count, some had not arrived yet. Returns whether that tells anything of others.
   */
  observe(now: number, at: number, { counted, used, tolerance, reset, window, requests }: Observation): boolean {
    const excess = counted - used
    if (at < this.observedAt) return excess > tolerance // an answer that came late knows less
    this.observedAt = at
    if (excess <= (this.othersAt(now) > 0 ? 0 : tolerance)) {
      this.others = 0
      if (this.level > requests) this.since = 0 // what was excused is over
      return false
    }
    this.others = excess + tolerance
    this.until = now + window
    this.lookAt = now + Math.min(reset, window)
    return true
  }

  /**
   * Whether a refusal of a call charged at `at` is excused by the others that its answer told of: until the reset that it named
   * nothing is expected of the limit, and then all of it. That is so once: if a call is refused again after that reset, though
   * no answer has told that the others are gone, they are there to stay, and the limit has to be shared with them.
   */
  excuse(now: number, at: number, { requests, reset, growth }: Excuse): boolean {
    if (this.since > 0) return this.level > requests && at <= this.since
    // Resets are told in whole seconds, so that a call may be a little early.
    this.since = now + Math.min(reset, growth) + growth / LOOKS
    this.level = 2 * requests
    this.least = 0
    return true
  }

  /** When all of it is as configured again. */
  wholeAt(growth: number): number {
    return this.since === 0 ? this.until : Math.max(this.until, this.since + GROWN_AT * growth)
  }

  othersAt(now: number): number {
    return now < this.until ? this.others : 0
  }

  /** A call was charged that brought our own to `used`, of so many units. */
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
