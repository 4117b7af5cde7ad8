import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { PRICED_MUTATIONS } from './mutate.ts'
import { faultsOf, simulateMany } from './priced.ts'

const durationMs = 180_000

describe('a limit that is priced by the answer', () => {
  it.each([
    ['memory', 'asked', 2],
    ['memory', 'most', 2],
    ['redis', 'asked', 6],
  ] as const)(
    'in %s is never exceeded with a true maximum (%s), whatever breaks off, is late, crashes or is lost',
    async (store, reserving, seeds) => {
      const options = { store, reserving, isFaulty: true, durationMs }
      expect(faultsOf(options, await simulateMany(seeds, options))).toEqual([])
    },
  )

  it.each([
    ['memory', 'asked', 1],
    ['redis', 'asked', 1],
    ['memory', 'learned', 4],
    ['redis', 'learned', 1],
  ] as const)('in %s is used to 95 %, and exceeded no more often than stated (%s)', async (store, reserving, seeds) => {
    const options = { store, reserving, isFaulty: false, durationMs: 300_000 }
    expect(faultsOf(options, await simulateMany(seeds, options))).toEqual([])
  })
})

const run = promisify(execFile)
const here = import.meta.dirname

it.each(Object.keys(PRICED_MUTATIONS))('the simulator of prices notices when: %s', async (name) => {
  const args = ['--import', join(here, 'mutate.ts'), join(here, 'priced.ts'), '--check']
  const ended = run(process.execPath, args, { env: { ...process.env, MUTATION: name } })
  await expect(ended).rejects.toMatchObject({ code: 1, stderr: expect.stringMatching(/^BROKEN/m) as string })
})
