import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { chargeSetOf, type LimitUsage } from '../../../src/ledger/ledger.ts'
import { type Limit, limitOf } from '../../../src/ledger/limit.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { steppedLedger } from '../../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

const WINDOW_MS = 60_000
const bytesOf = (requests: number, isEnforced: boolean): Limit =>
  limitOf({ id: 'bytes', class: 'any', requests, windowMs: WINDOW_MS, isEnforced })

it('a limit that is not enforced does not begin anew where it counts more units than four bytes hold', async () => {
  const clock = new SimulatedClock()
  const ledger = steppedLedger(redis, { clock })
  const chargeSet = chargeSetOf('api/main', [{ limit: bytesOf(1e9, false), units: 1_500_000_000 }])
  for (let calls = 1; calls <= 6; calls++) {
    const grant = await ledger.charge(chargeSet, 1)
    expect(grant.granted).toBe(1)
    ledger.commit(grant)
    await clock.advance(7_000)
    const [{ used }] = (await ledger.usage(chargeSet)) as [LimitUsage]
    expect(used).toBeGreaterThanOrEqual(Math.min(calls * 1_500_000_000, 2 ** 32 - 1))
  }
})

it('a limit that calls exceed by more than four bytes hold stays used up', async () => {
  const clock = new SimulatedClock()
  const ledger = steppedLedger(redis, { clock })
  const chargeSet = chargeSetOf('api/main', [{ limit: bytesOf(4e9, true), units: 2_000_000_000 }])
  const grants = [await ledger.charge(chargeSet, 1), await ledger.charge(chargeSet, 1)]
  for (const grant of grants) ledger.commit(grant, [2_500_000_000])
  await clock.advance(1_000)
  expect((await ledger.charge(chargeSet, 1)).granted).toBe(0)
  await clock.advance(WINDOW_MS / 2)
  expect((await ledger.charge(chargeSet, 1)).granted).toBe(0)
})
