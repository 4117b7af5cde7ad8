import { LRUCache } from 'lru-cache'
import { type Fraction, fractionOf } from '../schema/fraction.ts'
import { LearnedPrice } from '../answers/learned-price.ts'
import { JsonNumbers } from '../answers/json-numbers.ts'
import { Price } from '../answers/price.ts'
import type { CostByCall } from '../schema/limits.ts'
import type { Route } from '../routing/route.ts'

/**
 * Each amount has an admission policy of its own, so amounts are rounded up to this many binary digits. A reservation grows by a
 * sixteenth at most. A final charge, of which nothing is given back, grows by a sixty-fourth at most.
 */
const [RESERVED_DIGITS, FINAL_DIGITS] = [5, 7]

/** How many kinds of calls have their prices remembered. */
const MOST_KINDS = 2_000

/** What was learned of prices, by limit, route and client. A reload keeps it. */
export class LearnedPrices {
  /** Made at its first use. It takes all its room at once, and each account has one, although most learn nothing. */
  #byKind: LRUCache<string, LearnedPrice> | undefined

  of(kind: string): LearnedPrice {
    this.#byKind ??= new LRUCache({ max: MOST_KINDS })
    let learned = this.#byKind.get(kind)
    if (learned === undefined) this.#byKind.set(kind, (learned = new LearnedPrice()))
    return learned
  }
}

interface ReserveOptions {
  readonly prices?: readonly string[]
  readonly unitsOfOne?: number
  /** Whether nothing settles the charge later. */
  readonly isFinal?: boolean
}

/** What is charged for a call before its price is known, or for good if no answer tells the price. */
export class Reserve {
  readonly #config: CostByCall['reserve']
  readonly #digits: number
  readonly #limit: string
  readonly #learned: LearnedPrices
  /** Set if the reservation is computed from the request. */
  readonly #price: Price | undefined

  /** `prices`: the names of the prices that `unitsOf` is given. `unitsOfOne`: how many units are one of what a formula computes. */
  constructor(
    config: CostByCall['reserve'],
    limit: string,
    learned: LearnedPrices,
    { prices = [], unitsOfOne = 1, isFinal = false }: ReserveOptions = {},
  ) {
    this.#config = config
    this.#digits = isFinal ? FINAL_DIGITS : RESERVED_DIGITS
    this.#limit = limit
    this.#learned = learned
    const isByRequest = typeof config === 'object' && !('missRate' in config)
    this.#price = isByRequest ? new Price(config, ['bytes', ...prices], unitsOfOne) : undefined
  }

  get most(): number {
    return typeof this.#config === 'number' ? this.#config : this.#config.most
  }

  get readsBody(): boolean {
    return this.#price !== undefined
  }

  unitsOf(
    route: Route,
    { client, body }: { client: string; body?: Buffer | undefined },
    prices?: Readonly<Record<string, Fraction>>,
  ): number {
    const config = this.#config
    if (typeof config === 'number') return config
    const units =
      'missRate' in config
        ? this.#learned.of(this.#kind(route, client)).reserve(config.missRate)
        : this.#unitsIn(body, prices)
    return units === undefined ? config.most : this.#rounded(units, config.most)
  }

  observe(route: Route, client: string, units: number): void {
    const config = this.#config
    if (typeof config === 'object' && 'missRate' in config) this.#learned.of(this.#kind(route, client)).observe(units)
  }

  #rounded(units: number, most: number): number {
    const step = 2 ** Math.max(0, Math.floor(Math.log2(Math.max(1, units))) - this.#digits + 1)
    return Math.max(1, Math.min(most, Math.ceil(units / step) * step))
  }

  #kind(route: Route, client: string): string {
    return `${this.#limit}\n${route.countedAs}\n${client}`
  }

  #unitsIn(body: Buffer | undefined, prices?: Readonly<Record<string, Fraction>>): number | undefined {
    if (body === undefined) return undefined
    const numbers = new JsonNumbers(this.#price!.pointers)
    numbers.write(body)
    numbers.restart()
    return this.#price!.units(undefined, numbers.found, {
      ...prices,
      bytes: fractionOf(body.length),
    })
  }
}
