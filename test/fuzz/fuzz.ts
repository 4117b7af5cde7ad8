import { parseArgs } from 'node:util'
import { runFuzz } from './run-fuzz.ts'

/** `npm run fuzz -- --seed 7 --inputs 200000`: ends with 1 if any input was taken wrongly, hung, or was answered 500. */
const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    inputs: { type: 'string', default: '200000' },
  },
})
const [seed, inputs] = [Number(values.seed), Number(values.inputs)]
console.log(`${inputs} inputs, seed ${seed}`)
const { inputs: tried, findings } = await runFuzz(seed, inputs, (name, count) => console.log(`${name}: ${count}`))
console.log('tried:', tried)
for (const { target, input, what } of findings) console.log(`${target}: ${JSON.stringify(input)}\n  ${what}`)
console.log(findings.length === 0 ? 'clean' : 'NOT CLEAN')
process.exit(findings.length === 0 ? 0 : 1)
