import { backoffOf } from '../resilience/backoff.ts'
import type { Clock } from '../time/clock.ts'

/** The count begins again this long after the last refusal that was a reason. */
const FORGET_MS = 120_000

/**
 * Decides whether a refused credential is a reason to fetch another one. The first refusal is, and ever fewer of those that
 * follow. Otherwise every call that is refused for some other reason would be sent twice.
 */
export class Refusals {
  readonly #clock: Clock
  #count = 0
  #at = -Infinity

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Whether a refusal that came now is a reason. Call it once for each refusal, because it counts. */
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
