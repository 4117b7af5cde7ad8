import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { REGION_MUTATIONS } from './mutate.ts'
import { randomRegionsCase, simulateRegions } from './regions.ts'

const run = promisify(execFile)
const here = import.meta.dirname

describe('a quota over several regions', () => {
  it('is never exceeded, whatever is cut off, lost or dead', async () => {
    const redis = new Redis(inject('redisUrl'))
    onTestFinished(() => redis.disconnect())
    for (let seed = 1; seed <= 5; seed++) {
      const { worst, sent } = await simulateRegions(randomRegionsCase(seed), redis)
      expect(sent).toBeGreaterThan(0)
      for (const { limit, units } of worst) expect(units, `seed ${seed}`).toBeLessThanOrEqual(limit.requests)
    }
  })

  it.each(Object.entries(REGION_MUTATIONS))('the simulator notices when: %s', async (name, { seed }) => {
    const args = ['--import', join(here, 'mutate.ts'), join(here, 'simulate-regions.ts')]
    const env = { ...process.env, MUTATION: name }
    const ended = run(process.execPath, [...args, '--seed', String(seed), '--cases', '1', '--until-broken'], { env })
    await expect(ended).rejects.toMatchObject({ code: 1, stderr: expect.stringMatching(/^BROKEN seed/m) as string })
  })
})
