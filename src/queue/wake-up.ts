import type { Clock, Timer } from '../time/clock.ts'

/** A timer that goes off once, at the soonest of the times for which it is set. */
export class WakeUp {
  readonly #clock: Clock
  readonly #onTime: () => void
  #timer: Timer | undefined
  #at = Infinity

  constructor(clock: Clock, onTime: () => void) {
    this.#clock = clock
    this.#onTime = onTime
  }

  get isSet(): boolean {
    return this.#timer !== undefined
  }

  in(delayMs: number): void {
    const at = this.#clock.now() + delayMs
    if (at >= this.#at) return
    this.cancel()
    this.#at = at
    this.#timer = this.#clock.schedule(delayMs, () => {
      this.cancel()
      this.#onTime()
    })
  }

  cancel(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#at = Infinity
  }
}
