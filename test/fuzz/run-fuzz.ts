import { seededRandom } from '../support/seeded-random.ts'
import { startLive } from './live.ts'
import { Mutator } from './mutate.ts'
import { configTarget, headerTarget, pathTarget, scrubTarget } from './targets.ts'

export interface Finding {
  readonly target: string
  readonly input: unknown
  readonly what: string
}

export interface FuzzResult {
  readonly inputs: Record<string, number>
  readonly findings: readonly Finding[]
}

/** A part of the inputs for each; those that go through sockets, or take YAML apart, cost the most. */
const SHARES = { config: 0.04, paths: 0.4, headers: 0.36, scrub: 0.1, admin: 0.05, wire: 0.05 }
const SLOW_MS = 5_000
const MOST_FINDINGS = 20

/** Tries `inputs` inputs, the same for the same seed. An input that ends the process is the last that `onInput` was told of. */
export async function runFuzz(
  seed: number,
  inputs: number,
  onTarget: (name: string, count: number) => void = () => undefined,
): Promise<FuzzResult> {
  const live = await startLive()
  const targets = {
    config: configTarget(),
    paths: pathTarget(),
    headers: headerTarget(),
    scrub: scrubTarget(),
    admin: live.admin,
    wire: live.wire,
  }
  const counts: Record<string, number> = {}
  const findings: Finding[] = []
  try {
    for (const [name, target] of Object.entries(targets)) {
      const mutator = new Mutator(seededRandom(seed))
      const count = Math.ceil(inputs * SHARES[name as keyof typeof SHARES])
      onTarget(name, count)
      for (counts[name] = 0; counts[name] < count && findings.length < MOST_FINDINGS; counts[name]++) {
        let input: unknown
        const before = process.cpuUsage()
        let what: string | undefined
        try {
          const result = target(mutator, (tried) => (input = tried))
          what = result instanceof Promise ? await result : result
        } catch (error) {
          what = `threw ${error instanceof Error ? error.stack : String(error)}`
        }
        const { user } = process.cpuUsage(before)
        if (user / 1_000 > SLOW_MS) what ??= `took ${user / 1_000} ms`
        if (what !== undefined) findings.push({ target: name, input, what })
      }
    }
  } finally {
    await live.stop()
  }
  return { inputs: counts, findings }
}
