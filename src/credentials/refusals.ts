import { backoffOf } from '../resilience/backoff.ts'
import type { Clock } from '../time/clock.ts'

/** After this long without a refusal, the count begins again. */
const FORGET_MS = 120_000

/**
 * Decides whether an upstream's 401 is a reason to fetch another credential. The first is. If that did not help, the
 * next ones are so ever more rarely. Otherwise every call that is refused for some other reason would be sent twice.
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
