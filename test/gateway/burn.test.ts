import { describe, expect, it } from 'vitest'
import { BurnMeter } from '../../src/gateway/burn.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { chargeSetOf } from '../../src/ledger/ledger.ts'
import { type LimitSpec, limitOf, windowOf } from '../../src/ledger/limit.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE

/** A limit at the real ledger, spent at some rate; `looksEveryMs` is how often somebody asks. */
function setUp(spec: Partial<LimitSpec>, { start = 1_000_000, looksEveryMs = Infinity } = {}) {
  const clock = new SimulatedClock(start)
  const ledger = new MemoryLedger(clock)
  const limit = limitOf({ id: 'read', class: 'read', requests: 1_000, windowMs: MINUTE, ...spec })
  const chargeSet = chargeSetOf('it/main', [{ limit }])
  const meter = new BurnMeter(limit)
  const burn = async (effective?: number) => {
    const [usage] = await ledger.usage(chargeSet)
    return meter.burn(clock.now(), effective === undefined ? usage! : { ...usage!, effective })
  }
  /** Calls at that rate, each over at once; those that do not fit are left out. */
  const spend = async (perSecond: number, ms: number, isSeenHere = true) => {
    const stepMs = Math.min(perSecond > 0 ? 1_000 / perSecond : Infinity, looksEveryMs, 1_000)
    let owed = 0
    for (let at = 0, looked = 0; at < ms; at += stepMs, looked += stepMs) {
      owed += (perSecond * stepMs) / 1_000
      for (; owed >= 0.999; owed--) {
        const grant = ledger.charge(chargeSet, 1)
        if (grant.granted === 0) continue
        if (isSeenHere) meter.note(clock.now(), grant.usage[0]!)
        ledger.commit(grant)
        ledger.leave(grant)
      }
      if (looked >= looksEveryMs) {
        looked = 0
        await burn()
      }
      await clock.advance(stepMs)
    }
  }
  return { clock, ledger, chargeSet, spend, burn }
}

describe('a rolling limit', () => {
  it('ends when what is left is spent, if nothing comes back before', async () => {
    const { spend, burn } = setUp({})
    await spend(25, 20_000)
    const { exhaustionInMs, burnRatio } = await burn()
    // 500 of 990 at 25/s: what was charged first comes back in 40 s.
    expect(exhaustionInMs! / 1_000).toBeCloseTo(19.6, 0)
    expect(burnRatio).toBeCloseTo(1.5, 1)
  })

  it('never ends at a rate that the window gives back', async () => {
    const { spend, burn } = setUp({})
    for (const ms of [15_000, 30_000, MINUTE, 2 * MINUTE]) {
      await spend(15, ms)
      const { exhaustionInMs, burnRatio } = await burn()
      expect(exhaustionInMs).toBeNull()
      expect(burnRatio).toBeCloseTo(0.9, 1)
    }
  })

  it('ends later by what a burst gives back in time', async () => {
    const { spend, burn } = setUp({})
    await spend(40, 15_000)
    await spend(0, 35_000)
    // 724 are used. 424 of them come back within 11 s, then nothing for 35 s: 266 of 20/s would last for 13 s only.
    await spend(20, 15_000)
    const { exhaustionInMs, burnRatio } = await burn()
    expect(exhaustionInMs! / 1_000).toBeGreaterThan(33)
    expect(exhaustionInMs! / 1_000).toBeLessThan(37)
    expect(burnRatio).toBeGreaterThan(1.1)
    expect(burnRatio).toBeLessThan(1.3)
  })

  it('has ended when all of it is used, and when the rest of it is less than comes back in one piece', async () => {
    const { spend, burn } = setUp({})
    await spend(25, 39_650)
    expect((await burn()).exhaustionInMs).toBe(0)
    await spend(25, 5_000)
    expect((await burn()).exhaustionInMs).toBe(0)
  })

  it('burns as fast as it may, at least, for as long as nothing is left', async () => {
    const { clock, spend, burn } = setUp({})
    await spend(500, 2_000)
    expect((await burn()).burnRatio).toBeGreaterThan(3)
    await clock.advance(30_000)
    expect(await burn()).toEqual({ exhaustionInMs: 0, burnRatio: 1 })
    await clock.advance(30_000)
    expect(await burn()).toEqual({ exhaustionInMs: null, burnRatio: 0 })
  })

  it('goes by what can be used of it now', async () => {
    const { spend, burn } = setUp({})
    await spend(10, 30_000)
    expect((await burn()).exhaustionInMs).toBeNull()
    expect((await burn(400)).exhaustionInMs! / 1_000).toBeCloseTo(9.6, 0)
    expect((await burn(0)).exhaustionInMs).toBe(0)
  })

  it('counts no call that was taken back, because no byte of it was sent', async () => {
    const { ledger, chargeSet, clock, burn, spend } = setUp({})
    await spend(5, 20_000)
    for (let i = 0; i < 200; i++) {
      const grant = ledger.charge(chargeSet, 1)
      if (i % 20 === 0) await burn()
      await clock.advance(100)
      ledger.refund(grant)
      ledger.leave(grant)
    }
    expect((await burn()).burnRatio).toBeLessThan(0.02)
  })

  it('has no rate any more when nobody calls', async () => {
    const { spend, burn } = setUp({})
    await spend(25, 20_000)
    await spend(0, MINUTE)
    expect(await burn()).toEqual({ exhaustionInMs: null, burnRatio: 0 })
  })

  it.each(['1s', '10s', '1m', '1h', '24h'] as const)(
    'of %s is measured as it is spent, also by other gateways, of which only the scrapes tell',
    async (label) => {
      const windowMs = { '1s': 1_000, '10s': 10_000, '1m': MINUTE, '1h': HOUR, '24h': 24 * HOUR }[label]
      const { spend, burn } = setUp({ windowMs }, { looksEveryMs: 5_000 })
      const perSecond = (0.5 * 1_000 * 1_000) / windowMs
      await spend(Math.min(50, perSecond), Math.max(30_000, Math.min(windowMs / 8, 10 * MINUTE)), windowMs < 5_000)
      const { burnRatio, exhaustionInMs } = await burn()
      expect(burnRatio).toBeGreaterThan(0.45 * Math.min(1, 50 / perSecond))
      expect(burnRatio).toBeLessThan(0.6)
      expect(exhaustionInMs).toBeNull()
    },
  )

  it('of an hour ends in time for a morning that is twice as busy as it may be', async () => {
    const { spend, burn } = setUp({ requests: 3_600, windowMs: HOUR }, { looksEveryMs: 15_000 })
    await spend(2, 10 * MINUTE, false)
    const { burnRatio, exhaustionInMs } = await burn()
    expect(burnRatio).toBeCloseTo(2, 1)
    // 1200 of 3564 at 2/s
    expect(exhaustionInMs! / MINUTE).toBeCloseTo(19.7, 0)
  })

  it('counts what was used before the first look as charged evenly over the window', async () => {
    const { spend, burn } = setUp({})
    await spend(10, MINUTE, false)
    expect((await burn()).burnRatio).toBeCloseTo(0.6, 1)
  })
})

describe('a calendar limit', () => {
  const calendar = { kind: 'calendar', windowMs: HOUR, requests: 1_000 } as const

  it('ends when what is left is spent, if its window does not end before', async () => {
    const { spend, burn } = setUp(calendar, { start: 10 * HOUR })
    await spend(0.5, 10 * MINUTE)
    const { exhaustionInMs, burnRatio } = await burn()
    expect(burnRatio).toBeCloseTo(1.8, 1)
    // 300 of 990 at 30 a minute
    expect(exhaustionInMs! / MINUTE).toBeCloseTo(23, 0)
  })

  it('never ends if its window ends before, and begins anew with that', async () => {
    const { spend, burn } = setUp(calendar, { start: 10 * HOUR + 30 * MINUTE })
    await spend(0.5, 10 * MINUTE)
    expect(await burn()).toMatchObject({ exhaustionInMs: null })
    await spend(0.5, 25 * MINUTE)
    const { exhaustionInMs, burnRatio } = await burn()
    expect(burnRatio).toBeCloseTo(1.8, 1)
    // 150 of 990 at 30 a minute
    expect(exhaustionInMs! / MINUTE).toBeCloseTo(28, 0)
  })

  it('of a month burns by the true length of this one', async () => {
    const start = Date.parse('2026-02-10T00:00Z')
    const { spend, burn } = setUp({ ...windowOf('month', {}), requests: 1_000_000 }, { start, looksEveryMs: MINUTE })
    await spend(1, 10 * MINUTE)
    // 28 days of one a second
    expect((await burn()).burnRatio).toBeCloseTo(2.4192, 1)
  })

  it('has ended until its next window', async () => {
    const { spend, burn } = setUp(calendar, { start: 10 * HOUR })
    await spend(10, 2 * MINUTE)
    expect((await burn()).exhaustionInMs).toBe(0)
    await spend(0, HOUR)
    expect(await burn()).toEqual({ exhaustionInMs: null, burnRatio: 0 })
  })
})

it('says nothing of a limit of calls in flight, which has no rate', async () => {
  const { spend, burn } = setUp({ kind: 'concurrent', requests: 5 })
  await spend(10, 10_000)
  expect(await burn()).toEqual({ exhaustionInMs: null, burnRatio: null })
})
