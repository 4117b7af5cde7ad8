import type { Clock } from '../time/clock.ts'
import { Rate } from './rate.ts'

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
