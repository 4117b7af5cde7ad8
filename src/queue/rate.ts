import type { Clock } from '../time/clock.ts'

/** The time over which it is a mean: what was longer ago counts less and less. */
const OVER_MS = 10_000

/** How often something happens lately. */
export class Rate {
  readonly #clock: Clock
  #perSecond = 0
  #at: number

  constructor(clock: Clock) {
    this.#clock = clock
    this.#at = clock.now()
  }

  add(): void {
    this.#perSecond = this.perSecond + 1_000 / OVER_MS
    this.#at = this.#clock.now()
  }

  get perSecond(): number {
    return this.#perSecond * Math.exp((this.#at - this.#clock.now()) / OVER_MS)
  }
}
