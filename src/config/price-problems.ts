import { FormulaError } from '../answers/formula.ts'
import { Price, type PriceConfig } from '../answers/price.ts'
import type { CostByCall } from '../schema/limits.ts'
import type { Path } from './problem.ts'

type Report = (path: Path, message: string) => void

export function checkValues(at: Path, { values }: NonNullable<CostByCall['response']>, report: Report): void {
  for (const [name, { header, body }] of Object.entries(values)) {
    if ((header === undefined) === (body === undefined)) report([...at, 'values', name], 'needs either header or body')
  }
}

/** `prices` are names of prices that a formula may use. */
export function checkReserve(
  there: Path,
  reserve: CostByCall['reserve'],
  prices: readonly string[],
  report: Report,
): void {
  if (typeof reserve === 'number') return
  if ('missRate' in reserve) {
    const { missRate } = reserve
    if (missRate < 0.002 || missRate > 0.5) report([...there, 'missRate'], 'must be from 0.2% to 50%')
  } else if (reserve.values === undefined && reserve.formula === undefined) report(there, 'needs values or a formula')
  else checkFormula([...there, 'formula'], reserve, ['bytes', ...prices], report)
}

export function checkFormula(at: Path, price: PriceConfig, given: readonly string[], report: Report): void {
  try {
    void new Price(price, given)
  } catch (error) {
    if (!(error instanceof FormulaError)) throw error
    report(at, error.message)
  }
}
