/** Bounds the memory of one window to 64 MiB. A limit of more requests than these is never reached. */
const MOST_KEPT = 2 ** 22

/**
 * Arrivals within the rolling window (now - windowMs, now]. Each instant is kept, so that the count is exact; the gateway's
 * ledger has buckets, and what proves it right must not count the way it does. Times must not go back.
 */
export class Arrivals {
  readonly #windowMs: number
  #times: number[] = []
  /** Index of the oldest arrival in the window. Arrivals before it are cleared away once they are half of all. */
  #oldest = 0

  constructor(windowMs: number) {
    this.#windowMs = windowMs
  }

  /** How many arrivals are in the window that ends now. */
  count(now: number): number {
    const outUpTo = now - this.#windowMs
    while (this.#oldest < this.#times.length && this.#times[this.#oldest]! <= outUpTo) this.#oldest++
    if (this.#oldest > 1_000 && this.#oldest > this.#times.length / 2) {
      this.#times = this.#times.slice(this.#oldest)
      this.#oldest = 0
    }
    return this.#times.length - this.#oldest
  }

  add(at: number): void {
    this.#times.push(at)
    if (this.#times.length - this.#oldest > MOST_KEPT) this.#oldest++
  }

  /** When the window will have fewer than `count`, if it has as many now and none follow. */
  fewerThanAt(count: number): number {
    return this.#times.at(-count)! + this.#windowMs
  }
}
