import { Redis } from 'ioredis'
import { afterAll, afterEach, describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { type Grant, type Ledger, type ChargeSet, chargeSetOf, StoreUnavailableError } from '../../src/ledger/ledger.ts'
import { type Limit, limitOf } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { argumentsOf, type ScriptRunner } from '../../src/ledger/redis/protocol.ts'
import { RedisScript } from '../../src/ledger/redis/script.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../support/stepped-ledger.ts'
import { worstCount } from '../support/worst-count.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())
const ledgers: Ledger[] = []
afterEach(async () => {
  // The connection is shared: only what is held back is given up.
  ledgers.length = 0
  const keys = await redis.keys(`test-${process.pid}-*`)
  if (keys.length > 0) await redis.del(keys)
})

function limit(className: string, requests: number, windowMs = 60_000): Limit {
  return limitOf({ id: `${className}.${windowMs}`, class: className, requests, windowMs })
}

function chargeSet(partition: string, ...limits: Limit[]): ChargeSet {
  return chargeSetOf(
    partition,
    limits.map((one) => ({ limit: one })),
  )
}

/** A ledger in the shared Redis; of ledgers with one prefix, each is another gateway's. */
function redisLedger(clock: SimulatedClock, prefix = newPrefix(), stepTime = false, connection = redis): RedisLedger {
  return steppedLedger(connection, { clock, prefix, ...(!stepTime && { time: null }) })
}

const implementations = {
  'in memory': (clock: SimulatedClock): Ledger => new MemoryLedger(clock),
  'in Redis': (clock: SimulatedClock): Ledger => redisLedger(clock, undefined, true),
}

/** Calls that are sent and answered at once. */
async function spend(ledger: Ledger, of: ChargeSet, calls: number): Promise<Grant> {
  const grant = await ledger.charge(of, calls)
  for (let i = 0; i < grant.granted; i++) {
    ledger.commit(grant)
    ledger.leave(grant)
  }
  return grant
}

it('renews however many calls are in flight, some at a time', { timeout: 300_000 }, async () => {
  const clock = new SimulatedClock(1_700_000_000_000)
  const script = new RedisScript(redis)
  const sizes: number[] = []
  const run = script.run.bind(script)
  script.run = (keys, args) => {
    sizes.push(args.length)
    return run(keys, args)
  }
  const ledger = steppedLedger(redis, { clock, runner: script })
  ledgers.push(ledger)
  const reads = chargeSet('harness/prod', limit('read', 1_000_000))
  const CALLS = 60_000
  const grants = await Promise.all(Array.from({ length: CALLS }, async () => ledger.charge(reads, 1)))
  expect(grants.every(({ granted }) => granted === 1)).toBe(true)
  const first = grants[0]!.at
  sizes.length = 0
  for (let ms = 0; ms < 70_000; ms += 5_000) {
    await clock.advance(5_000)
    // The answers of a real Redis take no simulated time.
    await redis.ping()
  }
  expect(grants[0]!.at).toBeGreaterThan(first)
  expect(Math.max(...sizes)).toBeLessThan(10_000)
  expect(sizes.filter((size) => size > 4_000).length).toBeGreaterThanOrEqual(CALLS / 1_000)
  // Longer in flight than a window, all of them count.
  expect((await ledger.usage(reads))[0]!.used).toBe(CALLS)
})

describe.each(Object.entries(implementations))('the ledger %s', (_, create) => {
  function setUp(): { clock: SimulatedClock; ledger: Ledger } {
    const clock = new SimulatedClock(1_700_000_000_000)
    const ledger = create(clock)
    ledgers.push(ledger)
    return { clock, ledger }
  }

  it('grants up to the limit, then refuses and says when there will be more', async () => {
    const { clock, ledger } = setUp()
    const reads = chargeSet('harness/prod', limit('read', 3))
    for (let used = 1; used <= 3; used++) {
      const { granted, usage } = await spend(ledger, reads, 1)
      expect(granted).toBe(1)
      expect(usage[0]).toMatchObject({ used })
      await clock.advance(1_000)
    }
    const refused = await spend(ledger, reads, 1)
    expect(refused.granted).toBe(0)
    const waitMs = refused.schedule!.waitMs(1, clock.now())
    expect(waitMs).toBeGreaterThan(57_000 - 1)
    expect(waitMs).toBeLessThanOrEqual(57_000 + 600)
    await clock.advance(waitMs - 1)
    expect((await spend(ledger, reads, 1)).granted).toBe(0)
    await clock.advance(1)
    expect((await spend(ledger, reads, 1)).granted).toBe(1)
  })

  it('does not charge what it refuses', async () => {
    const { clock, ledger } = setUp()
    const reads = chargeSet('harness/prod', limit('read', 2))
    await spend(ledger, reads, 2)
    for (let i = 0; i < 20; i++) expect((await spend(ledger, reads, 1)).granted).toBe(0)
    expect((await ledger.usage(reads))[0]!.used).toBe(2)
    await clock.advance(60_600)
    expect((await spend(ledger, reads, 2)).granted).toBe(2)
  })

  it('charges all limits of a call or none of them', async () => {
    const { ledger } = setUp()
    const [template, read] = [limit('template', 2), limit('read', 10)]
    const templateReads = chargeSet('harness/prod', template, read)
    expect((await spend(ledger, templateReads, 1)).granted).toBe(1)
    expect((await spend(ledger, templateReads, 1)).granted).toBe(1)
    expect((await spend(ledger, templateReads, 1)).granted).toBe(0)
    const used = (await ledger.usage(templateReads)).map((one) => one.used)
    expect(used).toEqual([2, 2])
  })

  describe('of money of which a limit is not enforced', () => {
    const BILLION = 1_000_000_000
    const watched = (requests: number): Limit =>
      limitOf({ id: 'money', class: 'any', requests, windowMs: 60_000, unit: 'idr', isEnforced: false })
    const calls = (requests: number, units: number): ChargeSet =>
      chargeSetOf('harness/prod', [{ limit: watched(requests), units }])

    it('grants every call, however much is used', async () => {
      const { clock, ledger } = setUp()
      const of = calls(1_000_000 * BILLION, 500_000 * BILLION)
      for (let i = 0; i < 30; i++) {
        expect((await spend(ledger, of, 1)).granted, String(i)).toBe(1)
        await clock.advance(1_000)
      }
      expect((await ledger.usage(of))[0]!.used).toBeGreaterThan(9_000_000 * BILLION)
    })

    it.each([0, 10_000])('counts more than numbers hold exactly, with %i ms between the calls', async (ms) => {
      const { clock, ledger } = setUp()
      const [cost, of] = [4_000_000 * BILLION - 1, calls(4_000_000 * BILLION, BILLION)]
      for (let i = 0; i < 3; i++) {
        const grant = await ledger.charge(of, 1)
        ledger.commit(grant, [cost])
        await clock.advance(ms)
      }
      await clock.advance(1_000)
      expect((await ledger.usage(of))[0]!.used).toBeGreaterThan(9_000_000 * BILLION)
      expect(ledger.isDegraded).toBe(false)
      await clock.advance(60_600 - 1_000 - 3 * ms)
      const left = ms === 0 ? 0 : 2 * cost
      expect((await ledger.usage(of))[0]!.used).toBe(left)
      await clock.advance(60_600)
      expect((await spend(ledger, of, 1)).granted).toBe(1)
    })
  })

  it('grants as many of several calls as fit into every limit', async () => {
    const { ledger } = setUp()
    const both = chargeSet('harness/prod', limit('write', 7), limit('write', 4, 1_000))
    const grant = await spend(ledger, both, 10)
    expect(grant.granted).toBe(4)
    expect(grant.usage.map((one) => one.used)).toEqual([4, 4])
  })

  it('keeps accounts and classes apart', async () => {
    const { ledger } = setUp()
    const one = limit('read', 1)
    expect((await spend(ledger, chargeSet('harness/prod', one), 1)).granted).toBe(1)
    expect((await spend(ledger, chargeSet('harness/staging', one), 1)).granted).toBe(1)
    expect((await spend(ledger, chargeSet('harness/prod', limit('write', 1)), 1)).granted).toBe(1)
    expect((await spend(ledger, chargeSet('harness/prod', one), 1)).granted).toBe(0)
  })

  it('counts two charge sets of one account that share a limit together', async () => {
    const { ledger } = setUp()
    const read = limit('read', 3)
    await spend(ledger, chargeSet('harness/prod', read), 2)
    await spend(ledger, chargeSet('harness/prod', limit('template', 5), read), 1)
    expect((await spend(ledger, chargeSet('harness/prod', read), 1)).granted).toBe(0)
  })

  it('counts a call from when it was committed, because the upstream may have counted it as late as that', async () => {
    const { clock, ledger } = setUp()
    const reads = chargeSet('harness/prod', limit('read', 1))
    const grant = await ledger.charge(reads, 1)
    await clock.advance(20_000)
    ledger.commit(grant)
    await clock.advance(50_000)
    expect((await spend(ledger, reads, 1)).granted).toBe(0)
    await clock.advance(10_600)
    expect((await spend(ledger, reads, 1)).granted).toBe(1)
  })

  it('counts a call that is committed after its window once more', async () => {
    const { clock, ledger } = setUp()
    const reads = chargeSet('harness/prod', limit('read', 1))
    const grant = await ledger.charge(reads, 1)
    await clock.advance(90_000)
    ledger.commit(grant)
    expect((await spend(ledger, reads, 1)).granted).toBe(0)
  })

  it('gives a pace back what a call was charged that was renewed before it was refunded', async () => {
    const { clock, ledger } = setUp()
    const pace = limitOf({ id: 'pace', class: 'read', requests: 5, windowMs: 40_000, kind: 'smoothing' })
    const reads = chargeSet('harness/prod', limit('read', 10), pace)
    const used = async () => (await ledger.usage(reads)).map((one) => one.used)
    const unsent = await ledger.charge(reads, 1)
    const { chargedAt } = unsent
    await clock.advance(5_200)
    expect(unsent.at).toBeGreaterThan(chargedAt)
    await spend(ledger, reads, 1)
    ledger.refund(unsent)
    ledger.leave(unsent)
    await clock.advance(100)
    expect(await used()).toEqual([1, 1])
    // The first call would have left the pace by then, but the second has not.
    await clock.advance(36_000)
    expect(await used()).toEqual([1, 1])
    await clock.advance(5_000)
    expect(await used()).toEqual([1, 0])
  })

  it('takes a refunded charge back', async () => {
    const { clock, ledger } = setUp()
    const reads = chargeSet('harness/prod', limit('read', 1))
    const grant = await ledger.charge(reads, 1)
    await clock.advance(100)
    ledger.refund(grant)
    expect((await spend(ledger, reads, 1)).granted).toBe(1)
    expect((await spend(ledger, reads, 1)).granted).toBe(0)
  })

  it.each([
    [1_000, 2_000],
    [2_000, 1_000],
    [0, 28_000],
    [28_000, 0],
  ])(
    'counts calls in flight, and lets them go, when a reload changes the tolerance from %i to %i ms',
    async (from, to) => {
      const { clock, ledger } = setUp()
      const [before, after] = [from, to].map((countingToleranceMs) =>
        chargeSet(
          'harness/prod',
          limitOf({ id: 'read.concurrent', class: 'read', kind: 'concurrent', requests: 10, countingToleranceMs }),
        ),
      ) as [ChargeSet, ChargeSet]
      const grant = await ledger.charge(before, 20)
      expect(grant.granted).toBe(10)
      await clock.advance(10)
      expect((await ledger.charge(after, 20)).granted).toBe(0)
      for (let i = 0; i < 10; i++) {
        ledger.commit(grant)
        ledger.leave(grant)
      }
      await clock.advance(from + 3_000)
      for (let n = 0; n < 30; n++) {
        expect((await spend(ledger, after, 1)).granted, `call ${n}`).toBe(1)
        await clock.advance(500)
      }
    },
  )

  it('tells how much is used and when the oldest charge leaves', async () => {
    const { clock, ledger } = setUp()
    const reads = chargeSet('harness/prod', limit('read', 100))
    await spend(ledger, reads, 5)
    await clock.advance(10_000)
    await spend(ledger, reads, 2)
    const [usage] = await ledger.usage(reads)
    expect(usage!.used).toBe(7)
    expect(usage!.resetMs).toBeGreaterThanOrEqual(50_000)
    expect(usage!.resetMs).toBeLessThanOrEqual(50_600)
  })

  it('shows in its schedule how long a whole queue will take', async () => {
    const { clock, ledger } = setUp()
    const reads = chargeSet('harness/prod', limit('read', 10))
    await spend(ledger, reads, 4)
    await clock.advance(30_000)
    await spend(ledger, reads, 6)
    const schedule = (await spend(ledger, reads, 1)).schedule!
    const waits = [1, 4, 5, 10, 11, 14, 15].map((units) => Math.round(schedule.waitMs(units, clock.now()) / 1_000))
    expect(waits).toEqual([30, 30, 60, 60, 91, 91, 121])
  })

  it('never has more than the limit arrive in a window, whatever the latencies below the window', async () => {
    for (let seed = 1; seed <= 12; seed++) {
      const { clock, ledger } = setUp()
      const random = seededRandom(seed)
      const [requests, windowMs] = [5 + Math.floor(random() * 15), 10_000]
      const reads = chargeSet('harness/prod', limit('read', requests, windowMs))
      const arrivals: number[] = []
      const inFlight: { grant: Grant; respondsAt: number }[] = []
      for (let step = 0; step < 400; step++) {
        await clock.advance(random() * 150)
        for (const call of inFlight.splice(0).filter((one) => one.respondsAt > clock.now() || commit(one)))
          inFlight.push(call)
        const grant = await ledger.charge(reads, 1 + Math.floor(random() * 3))
        for (let i = 0; i < grant.granted; i++) {
          const latencyMs = random() ** 3 * windowMs * 0.95
          arrivals.push(clock.now() + random() * latencyMs)
          inFlight.push({ grant, respondsAt: clock.now() + latencyMs })
        }
      }
      function commit({ grant }: { grant: Grant }): boolean {
        ledger.commit(grant)
        return false
      }
      expect(
        worstCount(
          arrivals.toSorted((a, b) => a - b),
          windowMs,
        ),
        `seed ${seed}`,
      ).toBeLessThanOrEqual(requests)
      expect(arrivals.length, `seed ${seed}`).toBeGreaterThan(requests * 2)
    }
  })
})

describe('the ledger in Redis', () => {
  it('makes one script call of everything that is asked for one charge set in one turn of the event loop', async () => {
    // Redis counts the calls of other tests too, so this ledger's connection counts its own.
    const connection = redis.duplicate()
    onTestFinished(async () => void (await connection.quit()))
    const prefix = newPrefix()
    const ledger = redisLedger(new SimulatedClock(), prefix, false, connection)
    const reads = chargeSet('harness/prod', limit('read', 5))
    await spend(ledger, reads, 0) // loads the script
    // That the partition is used is told besides, once.
    await expect.poll(() => redis.zscore(`${prefix}:3:{register}:homes`, '+harness/prod')).not.toBeNull()
    const sent = vi.spyOn(connection, 'sendCommand')
    const grants = await Promise.all(Array.from({ length: 8 }, async () => ledger.charge(reads, 1)))
    expect(grants.map(({ granted }) => granted)).toEqual([1, 1, 1, 1, 1, 0, 0, 0])
    expect(sent.mock.calls.map(([{ name }]) => name)).toEqual(['evalsha'])
  })

  it('is ready by leases if Redis was there at the start, although nobody has asked since', () => {
    const runner = (isConnected: boolean) => ({
      run: () => Promise.reject(new Error('away')),
      runExchange: () => Promise.reject(new Error('away')),
      runRegister: () => Promise.reject(new Error('away')),
      onLost: () => undefined,
      isConnected,
      close: () => undefined,
    })
    const [there, away] = [runner(true), runner(false)]
    const ledgerWith = (of: ScriptRunner) =>
      new RedisLedger({ runner: of, clock: new SimulatedClock(), gateway: 'one', prefix: 'x', answerWithinMs: 50 })
    const [found, lost] = [ledgerWith(there), ledgerWith(away)]
    there.isConnected = false
    expect(found.isReady).toBe(true)
    expect(lost.isReady).toBe(false)
  })

  it('takes back what was granted too late to be sent', async () => {
    const clock = new SimulatedClock()
    const script = new RedisScript(redis)
    const { promise: isHeld, resolve: letGo } = Promise.withResolvers<void>()
    let calls = 0
    const runner: ScriptRunner = {
      run: async (keys, args) => {
        const isCharge = calls++ === 0
        const reply = await script.run(keys, args)
        if (isCharge) await isHeld
        return reply
      },
      runExchange: (keys, args) => script.runExchange(keys, args),
      runRegister: (keys, args) => script.runRegister(keys, args),
      onLost: () => undefined,
      isConnected: true,
      close: () => undefined,
    }
    const prefix = newPrefix()
    const ledger = new RedisLedger({ runner, clock, gateway: 'late', prefix, answerWithinMs: 50 })
    const reads = chargeSet('harness/prod', limit('read', 5))
    const other = redisLedger(new SimulatedClock(), prefix)
    await other.usage(reads)
    const charge = Promise.resolve(ledger.charge(reads, 5)).catch((error: unknown) => error)
    await expect.poll(() => calls).toBe(1)
    await clock.advance(60)
    expect(await charge).toBeInstanceOf(StoreUnavailableError)
    expect((await other.charge(reads, 1)).granted).toBe(0)
    letGo()
    const free = async () => {
      await clock.advance(20)
      return (await other.usage(reads))[0]!.used
    }
    await expect.poll(free).toBe(0)
  })

  it('lets a gateway that begins wait while another that it should hear of is silent', async () => {
    const prefix = newPrefix()
    const reads = chargeSet('harness/prod', limit('read', 100))
    // As if it had been without Redis for two seconds: it may have spent what the newcomer would be granted.
    const silent = redisLedger(new SimulatedClock(), prefix, true)
    expect((await silent.charge(reads, 10)).granted).toBe(10)
    const clock = new SimulatedClock()
    await clock.advance(2_000)
    const newcomer = redisLedger(clock, prefix, true)
    const refused = await newcomer.charge(reads, 10)
    expect(refused.granted).toBe(0)
    expect(refused.schedule!.waitMs(1, clock.now())).toBeLessThanOrEqual(1_500)
    const granted = async () => {
      await clock.advance(250)
      return (await newcomer.charge(reads, 10)).granted
    }
    await expect.poll(granted).toBe(10)
  })

  it('trusts Redis at once where others are heard of, or have said farewell', async () => {
    const prefix = newPrefix()
    const reads = chargeSet('harness/prod', limit('read', 100))
    const clock = new SimulatedClock()
    const first = redisLedger(clock, prefix, true, redis.duplicate())
    await first.charge(reads, 10)
    await clock.advance(500)
    expect((await redisLedger(clock, prefix, true).charge(reads, 10)).granted).toBe(10)

    const other = chargeSet('harness/other', limit('read', 100))
    await first.charge(other, 10)
    await first.close()
    const later = new SimulatedClock()
    await later.advance(2_000)
    expect((await redisLedger(later, prefix, true).charge(other, 10)).granted).toBe(10)
  })

  it('is shared by gateways: together they never get more than the limit', async () => {
    const prefix = newPrefix()
    const gateways = Array.from({ length: 3 }, () => redisLedger(new SimulatedClock(), prefix))
    const reads = chargeSet('harness/prod', limit('read', 100))
    const grants = await Promise.all(
      gateways.flatMap((ledger) => Array.from({ length: 100 }, async () => ledger.charge(reads, 1))),
    )
    expect(grants.filter(({ granted }) => granted === 1)).toHaveLength(100)
  })

  it('keeps every key of an account in one hash slot, with a time to live a little above the window', async () => {
    const prefix = newPrefix()
    const ledger = redisLedger(new SimulatedClock(), prefix)
    await spend(ledger, chargeSet('harness/prod', limit('template', 5), limit('read', 5)), 1)
    const keys = await redis.keys(`${prefix}:*{harness/prod}*`)
    expect(keys.toSorted()).toEqual([`${prefix}:3:{harness/prod}:leases`, `${prefix}:3:{harness/prod}:limits`])
    for (const key of keys) {
      const ttl = await redis.pttl(key)
      expect(ttl).toBeGreaterThan(59_000)
      expect(ttl).toBeLessThanOrEqual(91_000)
      expect(await redis.memory('USAGE', key)).toBeLessThan(2_048)
    }
  })

  it('leaves nothing behind of a call that comes when Redis has lost the account', async () => {
    const prefix = newPrefix()
    const keys = [`${prefix}:limits`, `${prefix}:leases`]
    const call = { gateway: '@a-1', time: '', about: Date.now(), batches: [], additions: [] }
    const args = argumentsOf(chargeSet('harness/prod', limit('read', 5)), {
      ...call,
      ...{ expected: 7, wanted: 1, termMs: 0, isClaim: false, leases: [] },
    })
    expect((await new RedisScript(redis).run(keys, args))[2]).toBe(-1)
    expect(await redis.exists(keys)).toBe(0)
  })
})
