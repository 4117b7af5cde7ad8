import { parseArgs } from 'node:util'
import { shortcomingsOf } from './bars.ts'
import { tableOf } from './records.ts'
import { runSoak } from './run-soak.ts'

/**
 * `npm run soak -- --minutes 30 --seed 7`: ends with 1 if anything is left, was retried, hung, or looked whole and was not, if
 * too few calls were answered, or if the memory of a run of some minutes grew.
 */
const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    rate: { type: 'string', default: '10' },
  },
})
const [minutes, seed, rate] = [Number(values.minutes), Number(values.seed), Number(values.rate)]
console.log(`${minutes} minutes of about ${rate} calls a second, seed ${seed}`)
/** Of a shorter run the memory is still that of its warm-up. */
const JUDGED_MINUTES = 5
/** Collections of garbage come when they come. */
const MOST_GROWTH = 1.25
const result = await runSoak({
  ms: minutes * 60_000,
  seed,
  rate,
  sampleMs: Math.min(30_000, minutes * 1_500),
  onSample: ({ atMs, rssBytes, calls }) =>
    console.log(`${(atMs / 60_000).toFixed(1).padStart(6)} min  ${megabytes(rssBytes)} MiB  ${calls} calls`),
})
const [early, late] = [medianRss(0.2, 0.4), medianRss(0.8, 1)]
const shortcomings = shortcomingsOf(result.records)
console.log(`\n${tableOf(result.records).join('\n')}\n`)
for (const one of shortcomings) console.log(`NOT GOOD ENOUGH: ${one}`)
console.log('faults:', result.faults)
console.log('left at the end:', result.left)
console.log(`memory, median of the second and of the last fifth: ${megabytes(early)} and ${megabytes(late)} MiB`)
console.log(`POSTs retried: ${result.retriedPosts}, wrong ends: ${result.wrong.length}`, result.wrong.slice(0, 10))
if (result.stderr !== '') console.log('its error output:', result.stderr)
const isClean =
  result.stderr === '' &&
  result.wrong.length === 0 &&
  result.retriedPosts === 0 &&
  shortcomings.length === 0 &&
  (minutes < JUDGED_MINUTES || late < early * MOST_GROWTH) &&
  result.records.every(({ end }) => end !== 'internal') &&
  Object.values(result.left).every((count) => count === 0)
console.log(isClean ? 'clean' : 'NOT CLEAN')
process.exit(isClean ? 0 : 1)

function medianRss(from: number, to: number): number {
  const { samples } = result
  const part = samples.slice(Math.floor(samples.length * from), Math.ceil(samples.length * to))
  return part.map(({ rssBytes }) => rssBytes).toSorted((a, b) => a - b)[Math.floor(part.length / 2)] ?? NaN
}

function megabytes(bytes: number): string {
  return (bytes / 1_048_576).toFixed(1)
}
