import { add, divided, type Fraction, fractionOf, greater, lesser, negated, times } from '../schema/fraction.ts'

/** A price: exact arithmetic over a few named values, made ready once. */
export type Formula = (values: Readonly<Record<string, Fraction>>) => Fraction

/** A formula that can't be read. The message says where and why, in words for people. */
export class FormulaError extends Error {}

/** No formula that anyone needs is longer. The bound also keeps a formula from nesting deeper than the stack allows. */
const LONGEST = 400

const TOKEN = /\s*(?:(?<number>\d+(?:\.\d+)?|\.\d+)|(?<name>[a-z_][a-zA-Z0-9_]*)|(?<sign>[-+*/(),]))/y

export const FUNCTIONS: Readonly<Record<string, (a: Fraction, b: Fraction) => Fraction>> = { max: greater, min: lesser }

/**
 * Reads a formula of numbers, the given names, `+ - * /`, parentheses, `max(…)` and `min(…)`. Nothing of it is ever run as
 * code. Throws a `FormulaError`.
 */
export function parseFormula(text: string, names: readonly string[]): Formula {
  if (text.length > LONGEST) throw new FormulaError(`must not be longer than ${LONGEST} characters`)
  return new Parser(text, names).whole()
}

class Parser {
  readonly #text: string
  readonly #names: readonly string[]
  #at = 0
  #token: { readonly number?: string; readonly name?: string; readonly sign?: string } | undefined
  #tokenAt = 0
  /** How many names of values were read. What has none is the same whatever they are. */
  #namesRead = 0

  constructor(text: string, names: readonly string[]) {
    this.#text = text
    this.#names = names
    this.#advance()
  }

  whole(): Formula {
    const formula = this.#sum()
    if (this.#token !== undefined) throw this.#unexpected('the end')
    return formula
  }

  #sum(): Formula {
    let left = this.#product()
    for (;;) {
      const sign = this.#take('+', '-')
      if (sign === undefined) return left
      const [a, b] = [left, this.#product()]
      left = sign === '+' ? (values) => add(a(values), b(values)) : (values) => add(a(values), negated(b(values)))
    }
  }

  #product(): Formula {
    let left = this.#factor()
    for (;;) {
      const sign = this.#take('*', '/')
      if (sign === undefined) return left
      const [before, at] = [this.#namesRead, this.#tokenAt]
      const [a, b] = [left, this.#factor()]
      if (sign === '/' && this.#namesRead === before && b({}).over === 0n)
        throw new FormulaError(`character ${at + 1}: this is 0, and nothing can be divided by it`)
      left = sign === '*' ? (values) => times(a(values), b(values)) : (values) => divided(a(values), b(values))
    }
  }

  #factor(): Formula {
    const { number, name } = this.#token ?? {}
    if (number !== undefined) {
      this.#advance()
      const constant = fractionOf(number)
      return () => constant
    }
    if (name !== undefined) {
      if (!this.#names.includes(name)) {
        if (Object.hasOwn(FUNCTIONS, name)) return this.#called(FUNCTIONS[name]!)
        const known = this.#names.length === 0 ? 'there are none' : `there are ${this.#names.join(', ')}`
        throw new FormulaError(`character ${this.#tokenAt + 1}: no value is named "${name}"; ${known}`)
      }
      this.#advance()
      this.#namesRead++
      return (values) => values[name]!
    }
    if (this.#take('-') !== undefined) {
      const factor = this.#factor()
      return (values) => negated(factor(values))
    }
    if (this.#take('(') === undefined) throw this.#unexpected('a number, a name or "("')
    const inner = this.#sum()
    if (this.#take(')') === undefined) throw this.#unexpected('")"')
    return inner
  }

  /** What stands behind the name of a function. */
  #called(of: (a: Fraction, b: Fraction) => Fraction): Formula {
    this.#advance()
    if (this.#take('(') === undefined) throw this.#unexpected('"("')
    let all = this.#sum()
    while (this.#take(',') !== undefined) {
      const [a, b] = [all, this.#sum()]
      all = (values) => of(a(values), b(values))
    }
    if (this.#take(')') === undefined) throw this.#unexpected('")"')
    return all
  }

  #take(...signs: readonly string[]): string | undefined {
    const sign = this.#token?.sign
    if (sign === undefined || !signs.includes(sign)) return undefined
    this.#advance()
    return sign
  }

  #advance(): void {
    TOKEN.lastIndex = this.#at
    const match = TOKEN.exec(this.#text)
    if (match === null) {
      this.#token = undefined
      const rest = this.#text.slice(this.#at).trimStart()
      this.#tokenAt = this.#text.length - rest.length
      if (rest !== '') throw new FormulaError(`character ${this.#tokenAt + 1}: "${rest[0]}" means nothing here`)
      return
    }
    this.#token = match.groups
    this.#at = TOKEN.lastIndex
    this.#tokenAt = this.#at - match[0].trimStart().length
  }

  #unexpected(wanted: string): FormulaError {
    return new FormulaError(`character ${this.#tokenAt + 1}: ${wanted} is missing`)
  }
}
