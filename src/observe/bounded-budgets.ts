import { OTHER } from './bounded-labels.ts'
import { type BudgetUse, fullerOf } from './gauges.ts'
import { TimeSlice } from './time-slice.ts'

/**
 * Returns budgets under the names that metrics show. The `most` clients with the fullest budgets keep their names,
 * whoever called first. All other clients are `other`, which shows the fullest budget of each window. If `most` is 0,
 * the name is empty.
 */
export async function budgetsByFullness(budgets: Iterable<BudgetUse>, most: number): Promise<BudgetUse[]> {
  const slice = new TimeSlice()
  const fullness = new Map<string, number>()
  const shown: BudgetUse[] = []
  const ofClients: BudgetUse[] = []
  for (const budget of budgets) {
    if (budget.level === 'client') {
      ofClients.push(budget)
      fullness.set(budget.name, Math.max(fullness.get(budget.name) ?? 0, fullnessOf(budget)))
    } else shown.push(budget)
    await slice.endIfOver()
  }
  const named = await fullest(fullness, most, slice)
  const others = new Map<string, BudgetUse>()
  for (const budget of ofClients) {
    if (named.has(budget.name)) shown.push(budget)
    else {
      const known = others.get(budget.window)
      const other = { ...budget, name: most === 0 ? '' : OTHER }
      others.set(budget.window, known === undefined ? other : fullerOf(known, other))
    }
    await slice.endIfOver()
  }
  return [...shown, ...others.values()]
}

/**
 * Returns the `most` names with the greatest numbers. All names are never sorted at once, because there may be very
 * many.
 */
async function fullest(numbers: ReadonlyMap<string, number>, most: number, slice: TimeSlice): Promise<Set<string>> {
  let kept: [string, number][] = []
  const cut = (): [string, number][] => kept.sort(([, a], [, b]) => b - a).slice(0, most)
  for (const entry of numbers) {
    kept.push(entry)
    if (kept.length >= 2 * most) kept = cut()
    await slice.endIfOver()
  }
  return new Set(cut().map(([name]) => name))
}

function fullnessOf({ used, limit, isLocal }: BudgetUse): number {
  return isLocal === true ? 0 : used / limit
}
