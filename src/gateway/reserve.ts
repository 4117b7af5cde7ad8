import { LRUCache } from 'lru-cache'
import { LearnedPrice } from '../answers/learned-price.ts'
import { JsonNumbers } from '../answers/json-numbers.ts'
import { Price } from '../answers/price.ts'
import type { CostByAnswer } from '../schema/limits.ts'
import type { Route } from '../routing/route.ts'

/** The prices of so many kinds of calls are remembered. */
const MOST_KINDS = 2_000

/** What was learned of prices, by limit, route and client. A reload keeps it. */
export class LearnedPrices {
  readonly #byKind = new LRUCache<string, LearnedPrice>({ max: MOST_KINDS })

  of(kind: string, missRate: number): LearnedPrice {
    let learned = this.#byKind.get(kind)
    if (learned === undefined) this.#byKind.set(kind, (learned = new LearnedPrice(missRate)))
    return learned
  }
}

/** What is charged for a call while its price is not known. */
export class Reserve {
  readonly #config: CostByAnswer['reserve']
  readonly #limit: string
  readonly #learned: LearnedPrices
  /** By the request. */
  readonly #price: Price | undefined

  constructor(config: CostByAnswer['reserve'], limit: string, learned: LearnedPrices) {
    this.#config = config
    this.#limit = limit
    this.#learned = learned
    this.#price = typeof config === 'object' && !('missRate' in config) ? new Price(config, ['bytes']) : undefined
  }

  get readsBody(): boolean {
    return this.#price !== undefined
  }

  unitsOf(route: Route, { client, body }: { client: string; body?: Buffer | undefined }): number {
    const config = this.#config
    if (typeof config === 'number') return config
    const units = 'missRate' in config ? this.#learnedFor(route, client, config.missRate) : this.#unitsIn(body)
    return units === undefined ? config.most : rounded(units, config.most)
  }

  observe(route: Route, client: string, units: number): void {
    const config = this.#config
    if (typeof config === 'object' && 'missRate' in config)
      this.#learned.of(this.#kind(route, client), config.missRate).observe(units)
  }

  #learnedFor(route: Route, client: string, missRate: number): number | undefined {
    return this.#learned.of(this.#kind(route, client), missRate).reserve
  }

  #kind(route: Route, client: string): string {
    return `${this.#limit}\n${route.countedAs}\n${client}`
  }

  #unitsIn(body: Buffer | undefined): number | undefined {
    if (body === undefined) return undefined
    const numbers = new JsonNumbers(this.#price!.pointers)
    numbers.write(body)
    numbers.restart()
    return this.#price!.units(undefined, numbers.found, { bytes: body.length })
  }
}

/** Each amount has a policy of its own. So amounts are rounded up to five binary digits, which is a sixteenth at most. */
function rounded(units: number, most: number): number {
  const step = 2 ** Math.max(0, Math.floor(Math.log2(Math.max(1, units))) - 4)
  return Math.max(1, Math.min(most, Math.ceil(units / step) * step))
}
