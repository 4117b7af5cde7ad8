import { expect, it } from 'vitest'
import { KINDS } from '../system/faults/table.ts'
import { runSoak } from './run-soak.ts'

it('holds nothing any more after ten seconds of calls of all kinds over lines that fail at random', async () => {
  const { ends, wrong, repeatedPosts, faults, left, stderr, exitCode } = await runSoak({
    ms: 10_000,
    seed: 5,
    rate: 30,
    sampleMs: 1_000,
  })
  expect({ wrong, repeatedPosts, stderr, exitCode }).toEqual({
    wrong: [],
    repeatedPosts: 0,
    stderr: '',
    exitCode: null,
  })
  expect(left).toEqual(Object.fromEntries(Object.keys(left).map((what) => [what, 0])))
  expect(ends['internal']).toBeUndefined()
  // It was no idle run.
  expect(ends['answered']).toBeGreaterThan(10 * KINDS.length)
  expect(Object.keys(ends).length).toBeGreaterThan(4)
  expect(faults.upstream).toBeGreaterThan(10)
}, 90_000)
