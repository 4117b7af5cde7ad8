import { type CaseKind, caseOf } from './case.ts'
import { type Outcome, simulate } from './simulation.ts'
import { faultsOf, percent } from './verdict.ts'

export interface Summary {
  readonly cases: number
  readonly sent: number
  /** Of a limit, the worst count there was. */
  readonly worst: string
  /** By seed, what was wrong. */
  readonly broken: readonly string[]
}

/** Runs the cases of these seeds, one after the other. */
export async function runCases(kind: CaseKind, seeds: Iterable<number>): Promise<Summary> {
  const broken: string[] = []
  let [cases, sent, worst] = [0, 0, 0]
  for (const seed of seeds) {
    const of = caseOf(kind, seed)
    const outcome: Outcome = await simulate(of)
    cases++
    sent += outcome.sent
    for (const one of outcome.limits) worst = Math.max(worst, one.worst / one.limit.requests)
    for (const fault of faultsOf(of, outcome)) broken.push(`${kind} seed ${seed}: ${fault}`)
    // The test runner wants to be heard now and then.
    await new Promise((resolve) => void setImmediate(resolve))
  }
  return { cases, sent, worst: percent(worst), broken }
}

export function* range(first: number, count: number): Generator<number> {
  for (let seed = first; seed < first + count; seed++) yield seed
}
