import type { Clock } from '../time/clock.ts'

/** Retries that are allowed even without traffic: one a second, up to ten saved up. */
const RETRIES_PER_SECOND = 1
const MOST_SAVED = 10
/** The budget saves up what at most this many calls pay in: a quiet day must not pay for a storm. */
const CALLS_REMEMBERED = 500

/**
 * Keeps retries from turning an upstream's trouble into a storm. Every first attempt pays in a share of a retry, and
 * every retry takes out a whole one. After Google SRE, "Handling Overload".
 */
export class RetryBudget {
  readonly #clock: Clock
  readonly #share: number
  readonly #most: number
  #balance = MOST_SAVED
  #countedAt: number

  /** `share` is what retries may add to the traffic, 0.2 for a fifth. */
  constructor(clock: Clock, share: number) {
    this.#clock = clock
    this.#share = share
    this.#most = Math.max(MOST_SAVED, CALLS_REMEMBERED * share)
    this.#countedAt = clock.now()
  }

  /** Pays in for a call's first attempt. */
  deposit(): void {
    this.#balance = Math.min(this.#most, this.#balance + this.#share)
  }

  /** Takes out one retry. Returns false if there is none. */
  withdraw(): boolean {
    const now = this.#clock.now()
    if (this.#balance < MOST_SAVED) {
      const earned = ((now - this.#countedAt) / 1_000) * RETRIES_PER_SECOND
      this.#balance = Math.min(MOST_SAVED, this.#balance + earned)
    }
    this.#countedAt = now
    if (this.#balance < 1) return false
    this.#balance--
    return true
  }
}
