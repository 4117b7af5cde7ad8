import { backoffOf } from '../resilience/backoff.ts'
import type { Clock } from '../time/clock.ts'

/** Who was not refused for so long begins anew. */
const FORGET_MS = 120_000

/**
 * Whether an upstream's 401 is a reason to look for another credential: at once the first time, and ever more rarely where
 * that did not help, so that calls that are refused for other reasons are not sent twice, nor sources asked for each.
 */
export class Refusals {
  readonly #clock: Clock
  #count = 0
  #at = -Infinity

  constructor(clock: Clock) {
    this.#clock = clock
  }

  isReason(): boolean {
    const now = this.#clock.now()
    const sinceMs = now - this.#at
    if (sinceMs > FORGET_MS) this.#count = 0
    if (this.#count > 0 && sinceMs < backoffOf(this.#count)) return false
    this.#count++
    this.#at = now
    return true
  }
}
