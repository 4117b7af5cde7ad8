/**
 * Tells stories of somebody who uses an account without the gateways: `npm run simulate:others` prints for several of them,
 * of a dozen seeds each, how many calls the upstream refused from the third window on, and how much of what was left was
 * used; `--seed 3` each window of the first story. `--share 0.2` and the like change what all of them have in common.
 */
import { parseArgs } from 'node:util'
import { type Story, summaryOf, tell } from './second-consumer.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    share: { type: 'string', default: '0.4' },
    requests: { type: 'string', default: '1000' },
    'window-ms': { type: 'string', default: '60000' },
  },
})
const base: Story = {
  seed: Number(values.seed ?? 1),
  gateways: 2,
  requests: Number(values.requests),
  windowMs: Number(values['window-ms']),
  latencyMs: { min: 20, max: 400 },
  dialect: 'silent',
  share: Number(values.share),
  from: 5,
  until: 17,
  windows: 24,
}
if (values.seed === undefined) await tellAll()
else console.table((await tell(base)).chapters)

async function tellAll(): Promise<void> {
  const stories: Record<string, Partial<Story>> = {
    'the others are refused, too': {},
    'the others are let in first': { isFavoured: true },
    'the others come in bursts': { isFavoured: true, isBursty: true },
    'one gateway, embedded ledger': { gateways: 0 },
    'the upstream says what remains': { dialect: 'headers' },
    'a window of 5 s and 300 calls': { requests: 300, windowMs: 5_000, latencyMs: { min: 5, max: 60 } },
  }
  for (const [name, story] of Object.entries(stories)) {
    const told = { ...base, ...story }
    const tales = []
    for (let seed = 1; seed <= 12; seed++) tales.push(await tell({ ...told, seed }))
    const summaries = tales.map((tale) => summaryOf(told, tale))
    const refused = summaries.map(({ refusedShare }) => refusedShare)
    const seen = summaries.reduce((sum, one) => sum + one.seen, 0)
    console.log(
      `${name}: ${percent(mean(refused))} of the calls refused upstream, at most ${percent(Math.max(...refused))};`,
      `${seen} seen by clients; ${percent(mean(summaries.map(({ used }) => used)))} of what was left used;`,
      `whole again after ${Math.max(...tales.map(({ wholeAfter }) => wholeAfter)).toFixed(1)} windows at most`,
    )
  }
}

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, one) => sum + one, 0) / numbers.length
}

function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`
}
