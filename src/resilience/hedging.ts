/** When to hedge: after a fixed time, or after the time in which the share `quantile` of recent calls had response headers. */
export type HedgeAfter = { readonly ms: number } | { readonly quantile: number }

/** How many calls of a class are remembered. */
const REMEMBERED = 256
/** How many calls of a class must be known before one is hedged by a quantile. */
const AT_LEAST = 20
/** After how many further calls of a class they are sorted again. */
const EVERY = 32

/** Says after which time a call is so late that a hedge is worth sending. */
export class Hedging {
  readonly #after: HedgeAfter
  readonly #classes = new Map<string, Latencies>()

  constructor(after: HedgeAfter) {
    this.#after = after
  }

  /** That time in milliseconds; undefined while too few calls of the class are known. */
  afterMs(className: string): number | undefined {
    return 'ms' in this.#after ? this.#after.ms : this.#classes.get(className)?.quantileMs
  }

  /** Notes that a call had its response headers after `tookMs`. */
  observe(className: string, tookMs: number): void {
    if ('ms' in this.#after) return
    const { quantile } = this.#after
    this.#classes.getOrInsertComputed(className, () => new Latencies(quantile)).add(tookMs)
  }
}

class Latencies {
  readonly #quantile: number
  readonly #latest: number[] = []
  #added = 0
  quantileMs: number | undefined

  constructor(quantile: number) {
    this.#quantile = quantile
  }

  add(ms: number): void {
    this.#latest[this.#added++ % REMEMBERED] = ms
    const isDue = this.quantileMs === undefined || this.#added % EVERY === 0
    if (this.#added < AT_LEAST || !isDue) return
    const sorted = this.#latest.toSorted((a, b) => a - b)
    this.quantileMs = sorted[Math.ceil(sorted.length * this.#quantile) - 1]
  }
}
