import { Redis } from 'ioredis'
import { afterAll, describe, expect, inject, it } from 'vitest'
import { type Ledger, type UpstreamFeedback, type ChargeSet, chargeSetOf } from '../../src/ledger/ledger.ts'
import { type Limit, limitOf, type LimitSpec } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

/** Two gateways that share what they count; the embedded ledger has only one. */
const implementations = {
  'in memory': (clock: SimulatedClock): [Ledger, Ledger] => {
    const ledger = new MemoryLedger(clock)
    return [ledger, ledger]
  },
  'in Redis': (clock: SimulatedClock): [Ledger, Ledger] => {
    const options = { clock, prefix: newPrefix() }
    return [steppedLedger(redis, options), steppedLedger(redis, options)]
  },
}

const WINDOW_MS = 60_000

function limit(spec: Partial<LimitSpec> = {}): Limit {
  return limitOf({ id: 'read.60000', class: 'read', requests: 100, windowMs: WINDOW_MS, ...spec })
}

describe.each(Object.entries(implementations))('what the upstream teaches the ledger %s', (_, create) => {
  function setUp() {
    const clock = new SimulatedClock(1_700_000_000_000)
    const [ledger, other] = create(clock)
    /** So many calls are sent and answered at once, the last one with feedback. */
    const send = async (of: ChargeSet, calls: number, feedback?: UpstreamFeedback, by = ledger): Promise<number> => {
      const grant = await by.charge(of, calls)
      if (feedback !== undefined) by.applyFeedback(grant, feedback)
      for (let i = 0; i < grant.granted; i++) by.commit(grant)
      for (let i = 0; i < grant.granted; i++) by.leave(grant)
      return grant.granted
    }
    const pass = async (ms: number) => {
      await clock.advance(ms)
    }
    return { clock, ledger, other, send, pass }
  }
  const reads = chargeSetOf('harness/prod', [{ limit: limit() }])
  const counted = (units: number, rest: object = {}): UpstreamFeedback => {
    return { kind: 'counted', limit: 0, units, tolerance: 2, resetMs: 10_000, isRefused: false, ...rest }
  }

  it('lets a call of many units find out as soon as one of a single unit', async () => {
    const { clock, ledger, send, pass } = setUp()
    const dear = chargeSetOf('harness/prod', [{ limit: limit(), units: 20 }])
    expect(await send(dear, 1, counted(95))).toBe(1)
    const { granted, schedule } = await ledger.charge(dear, 1)
    expect([granted, schedule?.waitMs(1, clock.now())]).toEqual([0, 10_000])
    await pass(10_000)
    expect(await send(dear, 1)).toBe(1)
  })

  it('says nothing of the size of a limit that is not enforced any more', async () => {
    const { ledger, send } = setUp()
    const shadow = chargeSetOf('harness/prod', [{ limit: limit({ isEnforced: false }) }])
    await send(reads, 1, counted(60))
    const effective = async (of: ChargeSet) => (await ledger.usage(of))[0]!.effective
    expect(await effective(reads)).toBeLessThan(100)
    expect(await effective(shadow)).toBeUndefined()
    expect(await send(shadow, 200)).toBe(200)
  })

  it('is nothing as long as it teaches nothing, of calls that have waited too', async () => {
    const { ledger, send } = setUp()
    await send(reads, 3)
    const turn = {
      queue: 'reads',
      costs: [
        ['a', 1],
        ['a', 1],
      ] as const,
    }
    const { granted, usage, schedule } = await ledger.charge(reads, 2, turn)
    expect(granted).toBe(2)
    expect(usage[0]!.effective).toBeUndefined()
    expect(schedule!.waitMs(100, 1_700_000_000_000)).toBeLessThan(2 * WINDOW_MS)
  })

  it('that less remains than was thought holds at every gateway', async () => {
    const { ledger, other, send, pass } = setUp()
    await send(reads, 1, counted(61))
    await pass(20)
    expect(await ledger.usage(reads)).toMatchObject([{ used: 1, effective: 38 }])
    // Each may hold some of it in lease.
    expect((await send(reads, 100, undefined, other)) + (await send(reads, 100))).toBe(37)
  })

  it('does not add up: the next word takes the place of the one before, and others who stopped are forgotten', async () => {
    const { ledger, send, pass } = setUp()
    for (const units of [61, 62, 63]) await send(reads, 1, counted(units))
    await pass(20)
    expect(await ledger.usage(reads)).toMatchObject([{ used: 3, effective: 100 - (63 - 3 + 2) }])
    await send(reads, 1, counted(4))
    await pass(20)
    expect((await ledger.usage(reads))[0]!.effective).toBeUndefined()
  })

  it('is no others where what differs could be calls that overtook one another', async () => {
    const { ledger, send, pass } = setUp()
    await send(reads, 10, counted(12))
    await pass(20)
    expect((await ledger.usage(reads))[0]!.effective).toBeUndefined()
  })

  it('is not forgotten because of an answer to an earlier call that came later', async () => {
    const { ledger, send, pass } = setUp()
    const early = await ledger.charge(reads, 1)
    await pass(1_000)
    await send(reads, 1, counted(61))
    await pass(20)
    ledger.applyFeedback(early, counted(1))
    await pass(20)
    expect(await ledger.usage(reads)).toMatchObject([{ effective: 39 }])
  })

  it('that nothing remains keeps all but one call back, which goes after the reset to see', async () => {
    const { send, pass, ledger } = setUp()
    await send(reads, 1, counted(100))
    await pass(20)
    const refused = await ledger.charge(reads, 1)
    expect(refused.granted).toBe(0)
    await pass(10_000 - 40)
    expect(await send(reads, 5)).toBe(0)
    await pass(40)
    expect(await send(reads, 5)).toBe(1)
    expect(await send(reads, 5)).toBe(0)
    await pass(WINDOW_MS / 20)
    expect(await send(reads, 5, counted(3))).toBe(1)
    await pass(20)
    expect(await send(reads, 200)).toBe(97)
  })

  it.each([true, false])(
    'of a reset is the same on a call that was refused (%s) and on one that was not',
    async (isRefused) => {
      const { send, pass, ledger } = setUp()
      await send(reads, 1, counted(100, { resetMs: 5_000, isRefused }))
      await pass(20)
      const waiting = await ledger.charge(reads, 1)
      expect(waiting.granted).toBe(0)
      expect(waiting.schedule!.waitMs(1, 1_700_000_000_020)).toBeLessThanOrEqual(5_000)
      await pass(5_000)
      expect(await send(reads, 5, counted(2, { resetMs: WINDOW_MS }))).toBe(1)
      await pass(20)
      expect(await send(reads, 200)).toBe(98)
    },
  )

  it('by a refusal that our own calls explain makes the limit a little smaller, as any other does', async () => {
    const { ledger, send, pass } = setUp()
    await send(reads, 99, counted(100, { resetMs: 5_000, isRefused: true }))
    await pass(20)
    // 98 got through.
    expect(await ledger.usage(reads)).toMatchObject([{ used: 99, effective: 93 }])
    expect(await send(reads, 1)).toBe(0)
  })

  it('by refusals with resets is believed once: where others stay, the limit is shared with them', async () => {
    const { ledger, send, pass } = setUp()
    const refused = counted(100, { resetMs: 5_000, isRefused: true })
    await send(reads, 50, refused)
    await pass(5_500)
    // A little early, because resets are told in whole seconds: still the same refusal.
    await send(reads, 1, { ...refused, resetMs: 500 } as UpstreamFeedback)
    await pass(20)
    expect((await ledger.usage(reads))[0]!.effective).toBe(49)
    await pass(10_000)
    await send(reads, 1, refused)
    await pass(WINDOW_MS)
    // Half of it is the least, less a twentieth.
    expect(await send(reads, 200)).toBe(47)
  })

  it('by a refusal with a reset takes nothing from a limit that a reload makes larger', async () => {
    const { ledger, send } = setUp()
    await send(reads, 10, counted(100, { isRefused: true }))
    const larger = chargeSetOf('harness/prod', [{ limit: limit({ requests: 300 }) }])
    // Others have used 90, or a few more.
    expect((await ledger.usage(larger))[0]!.effective).toBe(300 - 92)
  })

  it('by a refusal of GitHub’s hour is over when it says so', async () => {
    const { clock, send, pass, ledger } = setUp()
    const hour = chargeSetOf('github/main', [{ limit: limit({ id: 'hour', requests: 5_000, windowMs: 3_600_000 }) }])
    await send(hour, 10, counted(5_000, { resetMs: 1_800_000, tolerance: 60, isRefused: true }))
    await pass(20)
    const { granted, schedule } = await ledger.charge(hour, 1)
    expect(granted).toBe(0)
    expect(schedule!.waitMs(1, clock.now())).toBeGreaterThan(1_799_000)
    expect(schedule!.waitMs(1, clock.now())).toBeLessThanOrEqual(1_800_000)
    await pass(1_800_000)
    expect(await send(hour, 100, counted(1, { resetMs: 3_600_000, tolerance: 60 }))).toBe(1)
    await pass(20)
    expect(await send(hour, 100)).toBe(100)
  })

  it('is believed for a window at most', async () => {
    const { send, pass } = setUp()
    await send(reads, 1, counted(100, { resetMs: 1e9 }))
    await pass(WINDOW_MS - 1_000)
    expect(await send(reads, 5)).toBe(0)
    await pass(2_000)
    expect(await send(reads, 200)).toBe(100)
  })

  it('by a refusal makes a limit as small as what got through, less a twentieth, for every gateway', async () => {
    const { ledger, other, send, pass } = setUp()
    const grant = await ledger.charge(reads, 80)
    for (let i = 0; i < 5; i++) ledger.applyFeedback(grant, { kind: 'refused', limit: 0 })
    await pass(20)
    expect((await other.usage(reads))[0]).toMatchObject({ used: 80, effective: 71 })
    expect(await send(reads, 1, undefined, other)).toBe(0)
  })

  it('by a refusal no more than halves it, and never makes it nothing', async () => {
    const { ledger, send, pass } = setUp()
    const effective = []
    for (let i = 0; i < 9; i++) {
      await pass(20)
      await send(reads, 1, { kind: 'refused', limit: 0 })
      await pass(20)
      effective.push((await ledger.usage(reads))[0]!.effective)
    }
    expect(effective.slice(0, 3)).toEqual([47, 21, 9])
    expect(effective.at(-1)).toBe(1)
  })

  it('by a refusal is over after four windows in which nothing was refused', async () => {
    const { ledger, send, pass } = setUp()
    await send(reads, 60, { kind: 'refused', limit: 0 })
    const effective = []
    for (let windows = 0.5; windows < 4.5; windows += 0.5) {
      await pass(WINDOW_MS / 2)
      await ledger.usage(reads)
      effective.push((await ledger.usage(reads))[0]!.effective ?? 100)
    }
    // 59 got through.
    expect(effective).toEqual([56, 56, 56, 57, 61, 69, 81, 100])
  })

  it('by a refusal lets no call cost more than is left of the limit', async () => {
    const { ledger, pass } = setUp()
    const fives = chargeSetOf('harness/prod', [{ limit: limit(), units: 5 }])
    const grant = await ledger.charge(fives, 4)
    ledger.applyFeedback(grant, { kind: 'refused', limit: 0 })
    await pass(20)
    // Of 20 units 15 got through, but half is the least.
    expect((await ledger.usage(fives))[0]).toMatchObject({ used: 20, effective: 47 })
    expect((await ledger.charge(fives, 20)).granted).toBe(5)
  })

  it('by a refusal grows back by one call after the other, and nobody asks in vain meanwhile', async () => {
    const { clock, ledger, other, send, pass } = setUp()
    await send(reads, 60, { kind: 'refused', limit: 0 })
    await pass(2.5 * WINDOW_MS)
    // A neighbour may hold some of it in lease.
    await send(reads, 1, undefined, other)
    await pass(1_500)
    expect((await ledger.usage(reads))[0]!.effective).toBeGreaterThan(60)
    const granted = []
    let grant = await ledger.charge(reads, 100)
    for (; grant.granted > 0; grant = await ledger.charge(reads, 100)) granted.push(grant.granted)
    expect(granted[0]).toBeLessThanOrEqual(56)
    expect(granted.slice(1).filter((calls) => calls > 1)).toEqual([])
    expect(grant.usage[0]!.used).toBeLessThan(grant.usage[0]!.effective!)
    expect(grant.schedule!.waitMs(1, clock.now())).toBeGreaterThan(10)
  })

  it('that it wants no calls of an account holds for every class and gateway, for that long', async () => {
    const { clock, ledger, other, send, pass } = setUp()
    const writes = chargeSetOf('harness/prod', [{ limit: limit({ id: 'write.60000', class: 'write' }) }])
    const staging = chargeSetOf('harness/staging', [{ limit: limit() }])
    await send(reads, 1, { kind: 'pause', ms: 5_000 })
    await pass(20)
    const refused = await other.charge(writes, 1)
    expect(refused.granted).toBe(0)
    expect(refused.schedule!.waitMs(1, clock.now())).toBeCloseTo(4_980, -1)
    expect(refused.schedule!.freeAt(clock.now())).toBe(0)
    expect(await send(staging, 1, undefined, other)).toBe(1)
    // A shorter one does not shorten it.
    ledger.applyFeedback(await ledger.charge(staging, 1), { kind: 'pause', ms: 1 })
    await pass(4_970)
    expect(await send(reads, 1, undefined, other)).toBe(0)
    await pass(20)
    expect(await send(writes, 1, undefined, other)).toBe(1)
  })

  it('of an account that shares its partition with others holds for that account only', async () => {
    const { send, pass, other } = setUp()
    const [prod, staging] = ['prod', 'staging'].map((name) => {
      return chargeSetOf('harness', [{ limit: limit({ id: `read:account=${name}` }) }], `harness/${name}`)
    })
    await send(prod!, 1, { kind: 'pause', ms: 5_000 })
    await pass(20)
    expect(await send(prod!, 1, undefined, other)).toBe(0)
    expect(await send(staging!, 1, undefined, other)).toBe(1)
  })

  it('keeps calls back that are charged to nothing, at the gateway that was told', async () => {
    const { ledger, send, pass } = setUp()
    const free = chargeSetOf('harness/prod', [])
    const grant = await ledger.charge(free, 1)
    expect(grant.granted).toBe(1)
    await send(reads, 1, { kind: 'pause', ms: 5_000 })
    // Until Redis was told: an answer that came after the clock moved would begin the pause anew.
    await ledger.usage(reads)
    await pass(20)
    const refused = await ledger.charge(free, 1)
    expect(refused).toMatchObject({ granted: 0, usage: [] })
    await pass(5_000)
    expect((await ledger.charge(free, 1)).granted).toBe(1)
  })

  it('a limit that paces another lets so many through in its short window, whenever they are answered', async () => {
    const { clock, ledger, pass } = setUp()
    const pace = limitOf({ id: 'pace', class: 'read', kind: 'smoothing', requests: 2, windowMs: 1_000 })
    const paced = chargeSetOf('harness/prod', [{ limit: limit() }, { limit: pace }])
    const grant = await ledger.charge(paced, 5)
    expect(grant.granted).toBe(2)
    expect(Math.abs(grant.schedule!.waitMs(1, clock.now()) - 1_005)).toBeLessThanOrEqual(5)
    await pass(900)
    ledger.commit(grant)
    ledger.abandon(grant)
    await pass(120)
    const next = await ledger.charge(paced, 5)
    expect(next.granted).toBe(2)
    ledger.refund(next)
    await pass(20)
    expect((await ledger.charge(paced, 5)).granted).toBe(1)
  })
})
