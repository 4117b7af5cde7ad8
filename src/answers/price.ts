import { type Fields, onlyValue } from '../http/fields.ts'
import { type Formula, parseFormula } from './formula.ts'
import { type Fraction, fractionOf, roundedUp, times } from '../schema/fraction.ts'
import type { MoneyConfig } from '../schema/price-schema.ts'
import { type Pointer, pointerOf } from './pointer.ts'

/** A price as a configuration states it. */
export type PriceConfig = Partial<NonNullable<MoneyConfig['response']>>

/** One named value of a price: from a header, or from the first of several places in the body that has one. */
interface Source {
  readonly name: string
  readonly header: string | undefined
  readonly places: readonly Pointer[]
  readonly otherwise: number | undefined
}

/** What a call costs by what its answer, or its request, says. */
export class Price {
  readonly #sources: readonly Source[]
  readonly #formula: Formula
  readonly #unitsOfOne: Fraction
  /** All places in the body, in the order in which `units` wants what was found there. */
  readonly pointers: readonly Pointer[]

  /**
   * `given`: the names of values that `units` is given. `unitsOfOne`: how many units make one of what the formula computes, as for
   * money. Throws a `FormulaError`.
   */
  constructor({ values = {}, formula }: PriceConfig, given: readonly string[] = [], unitsOfOne = 1) {
    this.#unitsOfOne = fractionOf(unitsOfOne)
    this.#sources = Object.entries(values).map(([name, { header, body = [], default: otherwise }]) => ({
      name,
      header: header?.toLowerCase(),
      places: [body].flat().map(pointerOf),
      otherwise,
    }))
    this.pointers = this.#sources.flatMap(({ places }) => places)
    const names = this.#sources.map(({ name }) => name)
    this.#formula = parseFormula(formula ?? names.join(' + '), [...names, ...given])
  }

  /** Whether the head of an answer tells the whole price, so that nothing later is needed. */
  isToldBy(fields: Fields): boolean {
    return this.#sources.every(({ header }) => header !== undefined && numberIn(fields[header]) !== undefined)
  }

  /**
   * A whole number of units, rounded up once, at the end; undefined if a value is missing or makes no sense. `found`: what the body
   * says at `pointers`.
   */
  units(
    fields: Fields | undefined,
    found: readonly (number | undefined)[],
    given: Readonly<Record<string, Fraction>> = {},
  ): number | undefined {
    const values: Record<string, Fraction> = { ...given }
    let at = 0
    for (const { name, header, places, otherwise } of this.#sources) {
      const inBody = found.slice(at, (at += places.length)).find((value) => value !== undefined)
      const value = (header === undefined ? inBody : numberIn(fields?.[header])) ?? otherwise
      if (value === undefined) return undefined
      values[name] = fractionOf(value)
    }
    const units = Number(roundedUp(times(this.#formula(values), this.#unitsOfOne)) ?? -1)
    return Number.isFinite(units) && units >= 0 ? units : undefined
  }
}

function numberIn(field: Fields[string]): number | undefined {
  const text = onlyValue(field)
  return text !== undefined && /^\d{1,15}(?:\.\d{1,15})?$/.test(text) ? Number(text) : undefined
}
