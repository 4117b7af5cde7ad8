import { Price } from '../answers/price.ts'
import type { Pointer } from '../answers/pointer.ts'
import { bodyText } from '../answers/body-text.ts'
import type { Fields } from '../http/fields.ts'
import { isStatusOf } from '../http/status.ts'
import { divided, type Fraction, fractionOf, roundedUp, times } from '../schema/fraction.ts'
import {
  DEFAULT_FINISH_MS,
  formulaOf,
  type MoneyConfig,
  namesOf,
  priceName,
  UNITS_OF_MONEY,
} from '../schema/price-schema.ts'
import type { Route } from '../routing/route.ts'
import { type LearnedPrices, Reserve } from './reserve.ts'

/** The prices that hold for one call; undefined if its model has none. */
export type Tariff =
  | {
      /** By the names that formulas use. */
      readonly prices: Readonly<Record<string, Fraction>>
      /** What the call costs whatever its answer says; undefined if the answer decides. */
      readonly flat: number | undefined
    }
  | undefined

/** What a price list is asked about. */
export interface PricedCall {
  readonly route: Route
  readonly client: string
  /** The request's body; undefined unless all of it is here. */
  readonly body: Buffer | undefined
}

/**
 * What calls to an upstream cost in money, in billionths of its currency. Prices are decimal numbers of any size, and the arithmetic
 * is exact. Only the result is rounded up, to the next billionth. If the price of a call is not known, because its model has none or
 * its answer does not tell, the call costs what was reserved for it.
 */
export class PriceList {
  readonly unit: string
  readonly #config: MoneyConfig
  readonly #price: Price
  readonly #reserve: Reserve | undefined
  readonly #tariffs: ReadonlyMap<string, Tariff>
  /** The names of models that end with `*`, without it, the longest first. */
  readonly #beginnings: readonly string[]
  readonly #free: ReadonlySet<number | string>
  /** The tariff of every call if there is no list of prices. */
  readonly #always: Tariff

  /** Throws a `FormulaError`. */
  constructor(config: MoneyConfig, learned: LearnedPrices) {
    const { unit, list, response, reserve, free } = config
    this.unit = unit
    this.#config = config
    this.#always = list === undefined ? { prices: {}, flat: undefined } : undefined
    this.#tariffs = new Map(Object.entries(list ?? {}).map(([name, prices]) => [name, tariffOf(config, prices)]))
    this.#beginnings = Object.keys(list ?? {})
      .filter((name) => name.endsWith('*'))
      .map((name) => name.slice(0, -1))
      .sort((a, b) => b.length - a.length)
    const names = namesOf(config)
    this.#price = new Price({ ...response, formula: formulaOf(config) }, names, UNITS_OF_MONEY)
    this.#reserve =
      reserve === undefined
        ? undefined
        : new Reserve(reserve, 'price', learned, { prices: names, unitsOfOne: UNITS_OF_MONEY })
    this.#free = new Set(free)
  }

  /** Whether only the request's body tells what to reserve. */
  get readsBody(): boolean {
    return this.#config.list !== undefined || this.#reserve?.readsBody === true
  }

  get pointers(): readonly Pointer[] {
    return this.#price.pointers
  }

  isFree(status: number): boolean {
    return isStatusOf(this.#free, status)
  }

  /** How long the answer to a call of this tariff is read on after its client has left, in milliseconds; 0 for not at all. */
  finishMsFor(tariff: Tariff): number {
    const { response, finish = DEFAULT_FINISH_MS } = this.#config
    const prices = tariff ?? this.#always
    // If the call has no price, or always the same, the answer tells nothing.
    return response === undefined || prices === undefined || prices.flat !== undefined ? 0 : finish
  }

  tariffFor(route: Route, body: Buffer | undefined): Tariff {
    const { list, model } = this.#config
    if (list === undefined) return this.#always
    if (route.price !== undefined) return this.#tariffs.get(route.price)
    const named = body === undefined ? undefined : bodyText(body, model)
    if (named !== undefined) {
      const exact = this.#tariffs.get(named)
      if (exact !== undefined) return exact
      const beginning = this.#beginnings.find((text) => named.startsWith(text))
      if (beginning !== undefined) return this.#tariffs.get(`${beginning}*`)
    }
    return this.#tariffs.get('default')
  }

  /** Units to charge before the answer is here; 0 for a call that costs nothing. */
  reserveFor({ route, client, body }: PricedCall, tariff: Tariff): number {
    const prices = tariff ?? this.#always
    if (prices?.flat !== undefined) return prices.flat
    const reserve = this.#reserve!
    return prices === undefined ? reserve.most : reserve.unitsOf(route, { client, body }, prices.prices)
  }

  /** What a call has cost; undefined where that is not known. */
  units(fields: Fields | undefined, found: readonly (number | undefined)[], tariff: Tariff): number | undefined {
    const prices = tariff ?? this.#always
    return prices?.flat ?? (prices && this.#price.units(fields, found, prices.prices))
  }

  observe(route: Route, client: string, units: number): void {
    this.#reserve?.observe(route, client, units)
  }
}

function tariffOf({ per, response }: MoneyConfig, prices: Readonly<Record<string, number | string>>): Tariff {
  const ofCall = fractionOf(prices['call'] ?? 0)
  const byName: Record<string, Fraction> = { callPrice: ofCall }
  for (const name of Object.keys(response?.values ?? {}))
    byName[priceName(name)] = divided(fractionOf(prices[name] ?? 0), fractionOf(per))
  const isFlat = Object.keys(prices).every((name) => name === 'call')
  return { prices: byName, flat: isFlat ? Number(roundedUp(times(ofCall, fractionOf(UNITS_OF_MONEY)))) : undefined }
}
