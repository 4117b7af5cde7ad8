import type { Clock } from '../time/clock.ts'

/** So many clients are remembered without looking whether they still come. */
const FEW = 100
/** Who comes less often than this, about a minute after its last call, is as if it had never come. */
const LEAST_PER_SECOND = 1 / 1_000

/** How often calls of each client come lately; of clients that have stopped coming nothing is kept. */
export class Arrivals {
  readonly #clock: Clock
  readonly #rates = new Map<string, Rate>()
  /** Looked through when it has become twice as many as came lately, so that it costs little for each. */
  #most = FEW

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#rates.size
  }

  add(client: string): void {
    this.#rates.getOrInsertComputed(client, () => new Rate(this.#clock)).add()
    if (this.#rates.size < this.#most) return
    for (const [name, { perSecond }] of this.#rates) if (perSecond < LEAST_PER_SECOND) this.#rates.delete(name)
    this.#most = Math.max(FEW, 2 * this.#rates.size)
  }

  perSecond(client: string): number {
    return this.#rates.get(client)?.perSecond ?? 0
  }
}

/** The time over which it is a mean: what was longer ago counts less and less. */
const OVER_MS = 10_000

/** How often something happens lately. */
class Rate {
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
