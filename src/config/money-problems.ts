import { FormulaError, FUNCTIONS } from '../answers/formula.ts'
import { Price, type PriceConfig } from '../answers/price.ts'
import type { BudgetConfig } from '../schema/budget-schema.ts'
import { allowedBy, type CostByCall, windowLabel } from '../schema/limits.ts'
import { amountText, formulaOf, type MoneyConfig, namesOf } from '../schema/price-schema.ts'
import type { Config, LimitConfig, UpstreamConfig } from '../schema/schema.ts'
import { checkName, didYouMean, type Path, type Report } from './problem.ts'
import { checkWindow } from './window-problems.ts'

/** Finds prices that can't be computed, and routes that name none. */
export function checkMoney(path: Path, upstream: UpstreamConfig, report: Report): void {
  const { price, routes } = upstream
  const listed = Object.keys(price?.list ?? {})
  for (const [index, route] of routes.entries()) {
    if (route.price !== undefined)
      checkName([...path, 'routes', index, 'price'], route.price, listed, 'price.list has no such entry', report)
  }
  if (price === undefined) return
  const at = [...path, 'price']
  const { response, list, reserve } = price
  if (response === undefined && list === undefined)
    report(at, 'needs response, which says where answers tell what they cost, or a list with prices of a `call`')
  if (response !== undefined) checkValues([...at, 'response'], response, report)
  checkList([...at, 'list'], price, report)
  const names = namesOf(price)
  if (response !== undefined)
    checkFormula([...at, 'response', 'formula'], { ...response, formula: formulaOf(price) }, names, report)
  if (reserve === undefined) {
    if (response !== undefined) report(at, 'needs reserve: what a call is charged until its answer tells what it costs')
    else if (list !== undefined && list['default'] === undefined)
      report(at, 'needs reserve, which calls cost that have no entry in the list, or an entry `default`')
  } else checkReserve([...at, 'reserve'], reserve, names, report)
}

/** Each entry of the list must have a price of the `call` alone, or one of each value and perhaps of the `call`, and no other. */
function checkList(path: Path, { list = {}, response }: MoneyConfig, report: Report): void {
  const values = Object.keys(response?.values ?? {})
  for (const [name, prices] of Object.entries(list)) {
    const at = [...path, name]
    const isFlat = Object.keys(prices).every((value) => value === 'call')
    for (const value of isFlat ? [] : values)
      if (!Object.hasOwn(prices, value)) report(at, `has no price for ${value}, which response.values has`)
    for (const value of Object.keys(prices)) {
      if (value === 'call' || values.includes(value)) continue
      const what =
        response === undefined ? 'there is no price.response that could have it' : 'response.values has no such value'
      report([...at, value], `${what}${didYouMean(value, [...values, 'call'])}`)
    }
  }
}

/** Finds limits in money that nothing is charged to, or in another currency, or that let no call through. */
export function checkAmount(at: Path, limit: LimitConfig, upstream: UpstreamConfig, report: Report): void {
  const { amount, unit } = limit
  if ((amount === undefined) !== (unit === undefined)) {
    report(
      [...at, amount === undefined ? 'unit' : 'amount'],
      'amount and unit go together, as in { amount: 50, unit: usd }',
    )
  }
  if (amount === undefined || unit === undefined) return
  for (const key of ['requests', 'concurrent', 'cost', 'pace', 'burst'] as const) {
    if (limit[key] !== undefined) report([...at, key], `${key} does not go with amount; write two limits`)
  }
  const { price } = upstream
  if (price === undefined)
    report([...at, 'amount'], 'the upstream has no price, so no call would be charged; add price')
  else if (price.unit !== unit)
    report([...at, 'unit'], `the price of the upstream is in ${price.unit}, and nothing is converted`)
  else if (limit.enforce !== false) checkMost([...at, 'amount'], price, allowedBy(limit, upstream.headroom), report)
}

function checkMost(at: Path, { reserve, unit }: MoneyConfig, allowed: number, report: Report): void {
  const most = reserve === undefined ? 0 : typeof reserve === 'number' ? reserve : reserve.most
  if (most > allowed)
    report(
      at,
      `a call for which ${amountText({ unit }, most)} is reserved could never be sent: raise it, or lower price.reserve`,
    )
}

/** Finds entries that have the window of another, and amounts that nothing is charged to, or that let no call through. */
export function checkBudget(path: Path, budget: BudgetConfig = [], { upstreams }: Config, report: Report): void {
  const keys = budget.map((one) => `${windowLabel(one, one.window)} ${one.unit === undefined}`)
  for (const [index, one] of budget.entries()) {
    const { amount, unit, enforce } = one
    const at = [...path, 'budget', index]
    checkWindow(at, one, report)
    if (keys.indexOf(keys[index]!) < index) report([...at, 'window'], 'another entry has the same window')
    if (amount === undefined) continue
    const prices = Object.entries(upstreams).flatMap(([name, { price }]) =>
      price === undefined ? [] : [{ name, price }],
    )
    if (prices.length === 0)
      report([...at, 'amount'], 'no upstream has a price, so no call would be charged; add price to one')
    for (const { name, price } of prices) {
      if (price.unit !== unit)
        report([...at, 'unit'], `the price of upstream "${name}" is in ${price.unit}, and nothing is converted`)
      else if (enforce !== false) checkMost([...at, 'amount'], price, amount, report)
    }
  }
}

export function checkTeams(config: Config, report: Report): void {
  const { teams, organisations } = config
  for (const [name, { budget }] of Object.entries(organisations))
    checkBudget(['organisations', name], budget, config, report)
  const known = Object.keys(organisations)
  for (const [name, { organisation, budget }] of Object.entries(teams)) {
    if (organisation !== undefined)
      checkName(['teams', name, 'organisation'], organisation, known, 'there is no such organisation', report)
    checkBudget(['teams', name], budget, config, report)
  }
}

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

/** Finds a formula that can't be read, and values that have the name of what it knows already. `at` ends with `formula`. */
export function checkFormula(at: Path, price: PriceConfig, given: readonly string[], report: Report): void {
  const taken = Object.keys(price.values ?? {}).find((name) => given.includes(name) || Object.hasOwn(FUNCTIONS, name))
  if (taken !== undefined)
    return report([...at.slice(0, -1), 'values', taken], `formulas know another "${taken}": choose another name`)
  try {
    void new Price(price, given)
  } catch (error) {
    if (!(error instanceof FormulaError)) throw error
    report(at, error.message)
  }
}
