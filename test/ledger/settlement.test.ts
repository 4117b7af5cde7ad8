import { Redis } from 'ioredis'
import { afterAll, describe, expect, inject, it } from 'vitest'
import { LedgerFiles } from '../../src/ledger/embedded/ledger-files.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { chargeSetOf, type ChargeSet, type Grant } from '../../src/ledger/ledger.ts'
import { limitOf, type LimitSpec } from '../../src/ledger/limit.ts'
import { newFolder } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { twoGateways } from '../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
redis.setMaxListeners(100)
afterAll(() => redis.quit())
const stores = twoGateways(redis)

function tokens(spec: Partial<LimitSpec> = {}): ReturnType<typeof limitOf> {
  return limitOf({ id: 'tokens', class: 'tokens', requests: 1_000, windowMs: 60_000, settles: 'at-end', ...spec })
}

const calls = limitOf({ id: 'calls', class: 'calls', requests: 100, windowMs: 60_000 })

/** A call that is charged once to `calls`, and to `tokens` so much. */
function reserving(units: number, limit = tokens()): ChargeSet {
  return chargeSetOf('any/main', [{ limit: calls }, { limit, units }])
}

describe.each(Object.entries(stores))('a reservation %s', (_, create) => {
  const setUp = () => {
    const clock = new SimulatedClock(1_700_000_000_000)
    const [ledger, other] = create(clock)
    const used = async (of: ChargeSet, by = ledger): Promise<number[]> =>
      (await by.usage(of)).map((usage) => usage.used)
    /** Sends a call; it must be granted. */
    const sent = async (of: ChargeSet): Promise<Grant> => {
      const grant = await ledger.charge(of, 1)
      expect(grant.granted).toBe(1)
      return grant
    }
    return { clock, ledger, other, used, sent }
  }

  it('stands from the dispatch to the end of the response, and what is left of it is free at once, for all', async () => {
    const { clock, ledger, other, used, sent } = setUp()
    const big = reserving(900)
    const grant = await sent(big)
    ledger.commit(grant)
    await clock.advance(100_000)
    // The other limit has counted the call at its head, and has forgotten it.
    expect(await used(big)).toEqual([0, 900])
    expect((await other.charge(big, 1)).granted).toBe(0)
    ledger.commit(grant.rest!, [120])
    expect(await used(big)).toEqual([0, 120])
    await clock.advance(11)
    expect(await used(big, other)).toEqual([0, 120])
    // In Redis a part of it is leased to the first gateway.
    expect((await other.charge(reserving(500), 1)).granted).toBe(1)
    expect((await other.charge(reserving(500), 1)).granted).toBe(0)
  })

  it('is settled at the later time, for a window from then on', async () => {
    const { clock, ledger, used, sent } = setUp()
    const grant = await sent(reserving(900))
    await clock.advance(30_000)
    ledger.commit(grant)
    ledger.commit(grant.rest!, [300])
    await clock.advance(59_000)
    expect(await used(reserving(1))).toEqual([1, 300])
    await clock.advance(1_700)
    expect(await used(reserving(1))).toEqual([0, 0])
  })

  it('that was too small leaves a debt, which every gateway knows at once, and later calls wait for', async () => {
    const { clock, ledger, other, used, sent } = setUp()
    const grant = await sent(reserving(100))
    await sent(reserving(800))
    ledger.commit(grant)
    ledger.commit(grant.rest!, [700])
    await clock.advance(11)
    expect(await used(reserving(1), other)).toEqual([2, 1_500])
    expect((await other.charge(reserving(1), 1)).granted).toBe(0)
    await clock.advance(50_000)
    expect((await other.charge(reserving(1), 1)).granted).toBe(0)
    await clock.advance(11_000)
    // What is still in flight stands, and only that.
    expect(await used(reserving(1), other)).toEqual([1, 800])
    expect((await other.charge(reserving(201), 1)).granted).toBe(0)
    expect((await other.charge(reserving(100), 1)).granted).toBe(1)
  })

  it('stays charged where the cost never becomes known', async () => {
    const { clock, ledger, used, sent } = setUp()
    const grant = await sent(reserving(400))
    ledger.commit(grant)
    ledger.abandon(grant.rest!)
    await clock.advance(58_000)
    expect(await used(reserving(1))).toEqual([1, 400])
    await clock.advance(4_000)
    expect(await used(reserving(1))).toEqual([0, 0])
  })

  it('is taken back with its call where no byte was sent', async () => {
    const { ledger, used, sent } = setUp()
    const grant = await sent(reserving(400))
    ledger.refund(grant)
    expect(await used(reserving(1))).toEqual([0, 0])
  })

  it('can be given up with its call, and then counts for both', async () => {
    const { ledger, used, sent } = setUp()
    ledger.abandon(await sent(reserving(400)))
    expect(await used(reserving(1))).toEqual([1, 400])
  })

  it('of several calls in one grant is settled call by call', async () => {
    const { clock, ledger, used } = setUp()
    const grant = await ledger.charge(reserving(200), 9)
    expect(grant.granted).toBe(5)
    for (const spent of [0, 10, 200, 20, 5]) {
      ledger.commit(grant)
      ledger.commit(grant.rest!, [spent])
    }
    expect(await used(reserving(1))).toEqual([5, 235])
    await clock.advance(61_000)
    expect(await used(reserving(1))).toEqual([0, 0])
  })

  it('can be settled at the head, for answers that do not count', async () => {
    const { clock, ledger, used, sent } = setUp()
    const unless304 = chargeSetOf('any/main', [{ limit: calls }, { limit: tokens({ settles: 'at-head' }), units: 5 }])
    const grant = await sent(unless304)
    expect(grant.rest).toBeUndefined()
    ledger.commit(grant, [1, 0])
    await clock.advance(11)
    expect(await used(unless304)).toEqual([1, 0])
  })

  it('of a calendar window counts in the windows of the call, and the debt in that of its end', async () => {
    const { clock, ledger, used, sent } = setUp()
    const limit = tokens({ id: 'minute', kind: 'calendar' })
    await clock.advance(60_000 - (clock.now() % 60_000) + 30_000)
    const one = await sent(reserving(300, limit))
    const two = await sent(reserving(300, limit))
    for (const [grant, spent] of [
      [one, 100],
      [two, 1_200],
    ] as const) {
      ledger.commit(grant)
      ledger.commit(grant.rest!, [spent])
    }
    expect((await used(reserving(1, limit)))[1]).toBe(1_300)
    await clock.advance(28_000)
    expect((await ledger.charge(reserving(1, limit), 1)).granted).toBe(0)
    await clock.advance(4_000)
    expect((await used(reserving(1, limit)))[1]).toBe(0)
    expect((await ledger.charge(reserving(1_000, limit), 1)).granted).toBe(1)
  })

  it('lets those that wait ask again soon, because nobody knows what comes back', async () => {
    const { clock, ledger, sent } = setUp()
    await sent(reserving(900))
    const { schedule } = await ledger.charge(reserving(200), 1)
    expect(schedule!.waitMs(1, clock.now())).toBeLessThanOrEqual(100)
  })
})

describe('the embedded ledger, after a crash', () => {
  it.each([
    ['unsettled', undefined, 800],
    ['settled with a debt', 950, 950],
  ])('still counts a call that was %s', async (_, spent, counted) => {
    const dir = newFolder()
    const clock = new SimulatedClock()
    const files = new LedgerFiles(dir)
    const before = new MemoryLedger(clock, files)
    const grant = before.charge(reserving(800), 1)
    before.commit(grant)
    if (spent !== undefined) before.commit(grant.rest!, [spent])
    files.unlock()
    await clock.advance(30_000)
    const after = new MemoryLedger(clock, new LedgerFiles(dir))
    const [, usage] = await after.usage(reserving(1))
    expect(usage!.used).toBeGreaterThanOrEqual(counted)
    await clock.advance(75_000)
    expect(after.charge(reserving(1_000), 1).granted).toBe(1)
  })
})
