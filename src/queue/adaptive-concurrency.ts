/** Between which bounds the number of calls in flight is adapted. */
export interface ConcurrencyBounds {
  readonly min: number
  readonly max: number
}

/**
 * A step is judged after at least this many answers, and after as many as may be in flight: about a round trip of all
 * of them.
 */
const FEWEST = 10
/** Answers that take this many times as long as without load mean that calls wait at the upstream. */
const TOLERANCE = 2
/**
 * A delay of this much more is no sign of load, however short the answers are: timers and networks are no more exact.
 */
const JITTER_MS = 5
/** The part of the limit that is left after a refusal, and the least part that is left after any step. */
const AFTER_REFUSAL = 0.7
const LEAST_LEFT = 0.5
/** The factor by which the limit grows in each step until it is too large for the first time. */
const FIRST_GROWTH = 1.5

/**
 * How many calls of a class may be in flight, by what the upstream shows that it can take. The limit begins at its
 * minimum, which tells how long an answer takes without load. The limit falls when answers take longer than that, and
 * at once when calls are refused or not answered in time. Otherwise it grows while it is used up. So calls wait here,
 * in order, and do not slow down the upstream.
 *
 * The limit is always within its bounds. It follows a change of the upstream within a few round trips, down by at most
 * half in each. Answers of one class should take about as long as one another: a class of short and long answers is
 * held to the short.
 */
export class AdaptiveConcurrency {
  #bounds: ConcurrencyBounds
  #limit: number
  /** How long an answer takes without load; undefined before the first step. */
  #unloadedMs: number | undefined
  #sample: number[] = []
  #mostInFlight = 0
  /** Whether the limit was never too large so far. */
  #isNew = true
  /**
   * Refusals since the step began. The first lets the limit fall. The others among the calls that were in flight then say
   * nothing new.
   */
  #refusals = 0

  constructor(bounds: ConcurrencyBounds) {
    this.#bounds = bounds
    this.#limit = bounds.min
  }

  get limit(): number {
    return Math.floor(this.#limit)
  }

  /** Sets the bounds after a reload. What was learned stays. */
  change(bounds: ConcurrencyBounds): void {
    this.#bounds = bounds
    this.#limit = within(this.#limit, bounds)
  }

  /**
   * A call was answered after `tookMs`, while `inFlight` calls were in flight; or it was refused, or not answered in
   * time.
   */
  note(tookMs: number, isRefusal: boolean, inFlight: number): void {
    if (isRefusal) return this.#refused()
    this.#sample.push(tookMs)
    this.#mostInFlight = Math.max(this.#mostInFlight, inFlight)
    if (this.#sample.length < this.#enough) return
    const { min } = this.#bounds
    const before = this.#limit
    if (this.#refusals === 0) this.#limit = within(this.#next(), this.#bounds)
    // At the minimum there is no smaller load to compare with. So this counts as the time without load.
    if (this.#limit === min && before === min) this.#unloadedMs = medianOf(this.#sample)
    this.#beginStep(0)
  }

  #refused(): void {
    this.#refusals++
    if (this.#refusals > 1 && this.#refusals <= this.#enough) return
    this.#limit = within(this.#limit * AFTER_REFUSAL, this.#bounds)
    this.#isNew = false
    this.#beginStep(1)
  }

  get #enough(): number {
    return Math.max(FEWEST, this.limit)
  }

  #beginStep(refusals: number): void {
    this.#sample = []
    this.#mostInFlight = 0
    this.#refusals = refusals
  }

  #next(): number {
    const limit = this.#limit
    const tookMs = medianOf(this.#sample)
    // With at most half of the allowed calls in flight, load does not matter: this is the upstream's own time.
    const isUnloaded = this.#mostInFlight <= limit / 2
    if (this.#unloadedMs === undefined || isUnloaded || tookMs < this.#unloadedMs) this.#unloadedMs = tookMs
    const mostMs = TOLERANCE * this.#unloadedMs + JITTER_MS
    if (tookMs > mostMs) {
      this.#isNew = false
      return limit * Math.max(LEAST_LEFT, mostMs / tookMs)
    }
    if (this.#mostInFlight < this.limit) return limit
    return this.#isNew ? limit * FIRST_GROWTH : limit + Math.max(1, Math.sqrt(limit) / 2)
  }
}

function within(limit: number, { min, max }: ConcurrencyBounds): number {
  return Math.min(max, Math.max(min, limit))
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!
}
