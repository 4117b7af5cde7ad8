/** A limit grows back in steps of one window. If the window is longer than this, the step is this long. */
export const LONGEST_GROWTH_MS = 600_000
/** How an adaptive limit moves. The script in Redis gets these from here. */
export const GROWTH = {
  /** This part of what got through stays unused. */
  MARGIN: 0.05,
  /** So many steps after a refusal, a limit begins to grow back. */
  CALM_UNTIL: 1,
  /** So many steps after a refusal, it is whole again. */
  GROWN_AT: 4,
  /** Calls that find out whether more gets through go one after another, so many in each step. */
  LOOKS: 20,
  /** So many more of them go in each step for each unit by which the limit has grown. */
  LOOKS_PER_UNIT: 5,
  /** The level while a refusal is excused: above every limit, also one that a reload makes larger. */
  EXCUSED: Number.MAX_SAFE_INTEGER,
} as const
const { MARGIN, CALM_UNTIL, GROWN_AT, LOOKS, LOOKS_PER_UNIT, EXCUSED } = GROWTH

/**
 * How much of a limit may be used, by the upstream's answers. If the upstream refuses calls although the limit has room, less of
 * it is used for a while. If it has counted more than our own calls, others are assumed to use the limit, too. All times have one
 * unit, which the caller chooses. charge/adaptive-limit.lua does the same.
 *
 * After a refusal, as much is allowed as had got through, less a margin. One step (`growth`) later this begins to grow, faster and
 * faster, up to the whole limit. What it has grown by in the last step is used by one call at a time. Otherwise clients that wait would
 * use all of it at once, when earlier calls leave the count. If others use the limit, all these calls would be refused, not only one.
 */
export class AdaptiveLimit {
  /** Units that got through when the upstream began to refuse calls. Above the limit while a refusal is excused. */
  level = 0
  /** Units that the upstream is assumed to let through at least, however many calls it refuses. */
  least = 0
  /** When the upstream began to refuse calls; 0 if it did not. While a refusal is excused: when the excuse ends. */
  since = 0
  /** Units that others have used, which is assumed until `until`. */
  others = 0
  until = 0
  /** From then on, one call may find out whether more gets through. */
  lookAt = 0
  /** When the call was charged whose answer was last used to count the others. */
  observedAt = 0

  /** Units of `requests` that may be used now. `wanted` is what we would use in all with the next call. */
  allowed(requests: number, wanted: number, growth: number, now: number): number {
    const sure = this.sure(requests, growth, now)
    return sure >= wanted || now < this.lookAt ? sure : Math.min(this.cap(requests, growth, now), wanted)
  }

  /** Units that were allowed one step ago, less what others use. Beyond them, one call at a time finds out whether more gets through. */
  sure(requests: number, growth: number, now: number): number {
    return this.#left(requests, this.cap(requests, growth, now - growth), now)
  }

  /** `sure` with the units by which the limit has grown in the last step. */
  effective(requests: number, growth: number, now: number): number {
    return this.#left(requests, this.cap(requests, growth, now), now)
  }

  /** Units that refusals leave of the limit, whatever others use. */
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
   * The upstream refused a call of `units` that was charged at `at`, while `used` of `requests` were used. The first refusal sets
   * `level`. Each refused call then lowers it by its units, so the calls in flight at the first refusal show together how many were too
   * many. They never more than halve the limit. If the limit was lowered before, and a call within `sure` is refused, earlier refusals
   * have not shown the whole excess, because calls come in bursts. Then the margin is taken off once more.
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
   * The upstream had `counted` so many units when it answered a call that was charged at `at`. Our own count is `used`, but up to
   * `tolerance` of our units may have left it while the answer travelled. So an excess up to `tolerance` shows no others. A greater one
   * does, and `tolerance` is added to it, because some of our calls may not have arrived yet. Once others are known, any excess shows
   * them. Returns whether others use the limit.
   */
  observe(now: number, at: number, { counted, used, tolerance, reset, window, requests }: Observation): boolean {
    const excess = counted - used
    if (at < this.observedAt) return excess > tolerance // an answer to a later call has told more
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
   * Whether the use of others, which the same answer showed, excuses the refusal of a call charged at `at`. The excuse ends shortly
   * after `reset`, or after one step if that is sooner. It also holds for later refusals of calls charged until then. After it the whole
   * limit is expected again. Only one excuse is given until an answer shows no others. Otherwise the others are there to stay, and the
   * next refusal lowers the limit.
   */
  excuse(now: number, at: number, { requests, reset, growth }: Excuse): boolean {
    if (this.since > 0) return this.level > requests && at <= this.since
    // Upstreams name resets in whole seconds, so a call may come a little early.
    this.since = now + Math.min(reset, growth) + growth / LOOKS
    this.level = EXCUSED
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

  /** A call was charged, so we use `used` units now. If this call finds out whether more gets through, the next such call must wait. */
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
  /** The time until some of the limit comes back. */
  readonly reset: number
  /** For how long the observed use of others is assumed. */
  readonly window: number
  readonly requests: number
}

export interface Excuse {
  readonly requests: number
  readonly reset: number
  readonly growth: number
}
