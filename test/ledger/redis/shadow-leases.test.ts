import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { chargeSetOf } from '../../../src/ledger/ledger.ts'
import { limitOf } from '../../../src/ledger/limit.ts'
import { AnsweredScript } from '../../support/answered-script.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

it('a gateway that does not enforce a limit yet takes none of it from one that does', async () => {
  const clock = new SimulatedClock()
  const runner = new AnsweredScript(redis.duplicate())
  const options = { clock, prefix: newPrefix() }
  const chargeSet = (isEnforced: boolean) =>
    chargeSetOf('vendor/main', [
      { limit: limitOf({ id: 'read', class: 'read', requests: 100, windowMs: 60_000, isEnforced }) },
    ])
  const before = steppedLedger(redis, { ...options, runner })
  const after = steppedLedger(redis, { ...options, runner: new AnsweredScript(redis.duplicate()) })
  const shadow = chargeSet(false)
  before.commit(await before.charge(shadow, 1))
  await runner.pass(clock, 1_000)
  expect((await after.charge(chargeSet(true), 50)).granted).toBe(50)
  await Promise.all([before.close(), after.close()])
})
