import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

const HOUR_MS = 3_600_000

it('a gateway that starts waits no longer where the clock of Redis was set back', async () => {
  const clock = new SimulatedClock(10 * HOUR_MS)
  const options = { clock, prefix: newPrefix() }
  let behindMs = 0
  const time = (): number => clock.now() - behindMs
  const running = steppedLedger(redis.duplicate(), { ...options, time })
  const started = steppedLedger(redis.duplicate(), { ...options, time })
  let begun = 0
  const begin = (ledger: typeof running): void => void ledger.begin().then(() => begun++)
  const passes = async (): Promise<number> => {
    await clock.advance(1_000)
    return begun
  }
  begin(running)
  await expect.poll(passes).toBe(1)
  behindMs = HOUR_MS
  begin(started)
  await expect.poll(passes).toBe(2)
  expect(clock.now() - 10 * HOUR_MS).toBeLessThan(HOUR_MS / 4)
  await Promise.all([running.close(), started.close()])
})
