/** How many of the latest prices are remembered. */
const REMEMBERED = 1_000
/** After how many new prices the remembered ones are sorted again. */
const SORT_EVERY = 10

/**
 * Learns how much to reserve for calls of one kind, so that at most a given share of them costs more. Of n prices in no particular
 * order, the next one exceeds the k-th smallest with a probability of at most 1 - k / (n + 1). The reservation is the smallest k-th
 * price for which that is at most the share. If there is none, too few prices are known, and the most that a call may cost is to be
 * reserved.
 */
export class LearnedPrice {
  readonly #latest = new Float64Array(REMEMBERED)
  #sorted = new Float64Array(0)
  #count = 0
  #next = 0
  #since = 0

  /** Notes what a call has cost. */
  observe(units: number): void {
    this.#latest[this.#next] = units
    this.#next = (this.#next + 1) % REMEMBERED
    this.#count = Math.min(this.#count + 1, REMEMBERED)
    this.#since++
  }

  /** `missRate` is the share. Undefined while too few prices are known. */
  reserve(missRate: number): number | undefined {
    if (this.#since >= SORT_EVERY) {
      this.#since = 0
      this.#sorted = this.#latest.slice(0, this.#count).sort()
    }
    const n = this.#sorted.length
    const rank = Math.ceil((n + 1) * (1 - missRate) - 1e-9)
    return rank > n ? undefined : this.#sorted[rank - 1]
  }
}
