/**
 * Replays cases: `npm run simulate -- --seed 7` prints one in full, `--cases 500` so many from there on, `--forever` until it
 * is stopped or, with `--until-broken`, finds something. `--kind` as in case.ts, `--trace` with everything that happens. Ends
 * with 1 if the guarantee was broken.
 */
import { parseArgs } from 'node:util'
import { CASE_KINDS, type CaseKind, caseOf } from './case.ts'
import { type Outcome, simulate } from './simulation.ts'
import { faultsOf, percent, utilisation } from './verdict.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    kind: { type: 'string', default: 'random' },
    cases: { type: 'string', default: '1' },
    forever: { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
    'until-broken': { type: 'boolean', default: false },
  },
})
const kind = CASE_KINDS.find((one) => one === values.kind)
if (kind === undefined) throw new Error(`--kind is one of: ${CASE_KINDS.join(', ')}`)
const first = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)
const cases = values.forever ? Infinity : Number(values.cases)

if (cases === 1) await replay(kind, first)
else await runMany(kind, first, cases)

async function replay(kind: CaseKind, seed: number): Promise<void> {
  const of = caseOf(kind, seed)
  console.log(JSON.stringify(of, undefined, 2))
  const outcome = await simulate(of, values.trace ? { onEvent: (line) => console.log(line) } : {})
  print(outcome)
  if (of.limits.length === 1 && of.load.kind === 'saturated') {
    console.log(`used to ${percent(utilisation(of, outcome))} of window / (window + mean latency)`)
  }
  for (const fault of faultsOf(of, outcome)) fail(fault)
}

function print({ limits, sent, meanLatencyMs, excess }: Outcome): void {
  for (const { limit, worst, atMs } of limits) {
    const where = limit.kind === 'concurrent' ? 'at once' : `in ${limit.windowMs} ms (${limit.kind})`
    console.log(`${limit.id}: at worst ${worst} of ${limit.requests} ${where}, at ${Math.round(atMs)} ms`)
  }
  console.log(`${sent} calls, of ${Math.round(meanLatencyMs)} ms on average`)
  if (excess > 0) console.log(`${excess} more than a limit are allowed, because the assumptions were not kept`)
}

async function runMany(kind: CaseKind, first: number, cases: number): Promise<void> {
  const began = performance.now()
  let [done, sent, broken, worst] = [0, 0, 0, 0]
  for (; done < cases; done++) {
    const of = caseOf(kind, first + done)
    const outcome = await simulate(of)
    sent += outcome.sent
    for (const one of outcome.limits) worst = Math.max(worst, one.worst / one.limit.requests)
    const faults = faultsOf(of, outcome)
    if (faults.length > 0) broken++
    for (const fault of faults) fail(`seed ${of.seed}: ${fault}`)
    if (faults.length > 0 && values['until-broken']) return
    if (done % 1_000 === 999) report()
  }
  report()

  function report(): void {
    const seconds = Math.round((performance.now() - began) / 100) / 10
    console.log(
      `${done} cases in ${seconds} s, ${sent} calls, worst count ${percent(worst)} of a limit, ${broken} broken`,
    )
  }
}

function fail(text: string): void {
  console.error(`BROKEN ${text}`)
  process.exitCode = 1
}
