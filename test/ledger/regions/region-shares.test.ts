import { Redis } from 'ioredis'
import { expect, inject, it, onTestFinished } from 'vitest'
import { chargeSetOf } from '../../../src/ledger/ledger.ts'
import { type Limit, limitOf } from '../../../src/ledger/limit.ts'
import { RedisHome } from '../../../src/ledger/regions/redis-home.ts'
import { RegionShares } from '../../../src/ledger/regions/region-shares.ts'
import type { Shares } from '../../../src/ledger/shares.ts'
import { connectedInTime, connectRedis } from '../../../src/redis/connection.ts'
import { Secret } from '../../../src/schema/secret.ts'
import { systemClock } from '../../../src/time/clock.ts'
import { AnsweredScript } from '../../support/answered-script.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../../support/stepped-ledger.ts'

const LEASE_MS = 10_000
const RESERVE = 15

/** What regions beside each other have in common: the home, the clock and the lease. */
interface Place {
  readonly clock: SimulatedClock
  readonly prefix: string
  readonly leaseMs: number
}

/**
 * A gateway in one of two regions, with a home in a real Redis, all in stepped time. Its own Redis counts as used what `counts` was told. `beside`
 * another, it has the same home and the same clock.
 */
async function startRegion(name = 'eu', beside: Partial<Place> = {}) {
  const redis = connectRedis({ url: new Secret(inject('redisUrl')), commandTimeout: 5_000 })
  await connectedInTime(redis, systemClock)
  const { clock = new SimulatedClock(), prefix = newPrefix(), leaseMs = LEASE_MS } = beside
  const home = new RedisHome(redis)
  const shares = new RegionShares({
    clock,
    name,
    weights: { eu: 1, us: 1 },
    reserve: 0.3,
    leaseMs,
    longestCallMs: 1_000,
    prefix,
    home: {
      exchange: (keys, [region, , , ...rest]) => {
        asked++
        return home.exchange(keys, [region!, (clock.now() + aheadMs) * 1_000, server, ...rest])
      },
      close: () => home.close(),
    },
  })
  onTestFinished(() => shares.close())
  let [most, asked, used] = [0, 0, 0]
  let server = 'first'
  let aheadMs = 0
  shares.begin(({ limits }) => {
    most = Math.max(most, limits.length)
    return Promise.resolve(limits.map((limit) => ({ limit, used, resetMs: 0, committed: used })))
  })
  /** Home has answered what it was asked within this time. */
  const pass = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 500) {
      await clock.advance(500)
      await redis.ping()
    }
  }
  /** Another server takes the place of home, which knows nothing. */
  const forget = (): void => void (server = 'second')
  /** The clock of home is set forward. */
  const setForward = (ms: number): void => void (aheadMs += ms)
  const counts = (units: number): void => void (used = units)
  const place: Place = { clock, prefix, leaseMs }
  return { ...place, shares, pass, counts, forget, setForward, most: () => most, asked: () => asked }
}

function limitsOf(count: number, more: Partial<Limit> = {}): Limit[] {
  return Array.from({ length: count }, (_, i) =>
    limitOf({ id: `limit-${i}`, class: 'read', requests: 100, windowMs: 1_000, ...more }),
  )
}

it('has its share of each limit of a partition that has more of them than a script of Redis can take', async () => {
  const { shares, pass, setForward, most } = await startRegion()
  const partition = shares.of('x')
  const limits = limitsOf(4_100)
  partition.use(
    chargeSetOf(
      'x',
      limits.map((limit) => ({ limit })),
    ),
  )
  const hasShares = () => new Set(limits.map((limit) => partition.unitsOf(limit)! > RESERVE))
  await pass(1_000)
  expect(hasShares()).toEqual(new Set([false]))
  // As if it were long ago that home began: until then it gives nothing away.
  setForward(2 * LEASE_MS)
  await expect
    .poll(async () => {
      await pass(1_000)
      return hasShares()
    })
    .toEqual(new Set([true]))
  expect(most()).toBeLessThanOrEqual(1_000)
})

it('asks home for nothing where no limit is split, and does not take it for away', async () => {
  const { shares, pass } = await startRegion()
  shares.of('x').use(
    chargeSetOf(
      'x',
      limitsOf(1, { isEnforced: false }).map((limit) => ({ limit })),
    ),
  )
  await pass(2 * LEASE_MS)
  expect(shares.problem).toBeUndefined()
})

it('has the reserve of a limit that was made smaller until home agrees, and old calls bring nothing back', async () => {
  const { shares, pass } = await startRegion()
  const partition = shares.of('x')
  const use = (limit: Limit): void => partition.use(chargeSetOf('x', [{ limit }]))
  const [before] = limitsOf(1)
  use(before!)
  await pass(2 * LEASE_MS)
  expect(partition.unitsOf(before!)).toBeGreaterThan(RESERVE)
  const [after] = limitsOf(1, { requests: 40 })
  use(after!)
  expect(partition.unitsOf(after!)).toBe(6)
  await pass(LEASE_MS / 2)
  // A call that was routed before the reload.
  use(before!)
  expect([before!, after!].map((limit) => partition.unitsOf(limit))).toEqual([6, 6])
  await pass(LEASE_MS / 2 + 2_000)
  expect(partition.unitsOf(after!)).toBe(6)
  await pass(2_000)
  expect(partition.unitsOf(after!)).toBeGreaterThan(6)
  expect(partition.unitsOf(after!)).toBeLessThanOrEqual(34)
})

it('keeps what it was told for its lease when home has forgotten it, and no longer', async () => {
  const { shares, pass, forget } = await startRegion()
  const partition = shares.of('x')
  const [limit] = limitsOf(1)
  partition.use(chargeSetOf('x', [{ limit: limit! }]))
  await pass(2 * LEASE_MS)
  const told = partition.unitsOf(limit!)
  expect(told).toBeGreaterThan(RESERVE)
  forget()
  await pass(LEASE_MS / 2)
  expect(partition.unitsOf(limit!)).toBe(told)
  await pass(LEASE_MS)
  expect(partition.unitsOf(limit!)).toBe(RESERVE)
  await pass(LEASE_MS)
  expect(partition.unitsOf(limit!)).toBeGreaterThan(RESERVE)
})

it('gives its share back when it is idle, so that another region has it at once when it needs it', async () => {
  const eu = await startRegion()
  const [limit] = limitsOf(1, { windowMs: 3_600_000 })
  const chargeSet = chargeSetOf('x', [{ limit: limit! }])
  eu.shares.of('x').use(chargeSet)
  await eu.pass(1_000)
  // Home gives nothing away until all that it may have forgotten has left the window.
  eu.setForward(2 * 3_600_000)
  await eu.pass(2 * LEASE_MS)
  expect(eu.shares.of('x').unitsOf(limit!)).toBe(50)
  await eu.pass(150_000)
  const asked = eu.asked()
  await eu.pass(10_000)
  expect(eu.asked()).toBe(asked)
  const us = await startRegion('us', eu)
  us.setForward(2 * 3_600_000)
  const partition = us.shares.of('x')
  partition.use(chargeSet)
  partition.lacks(limit!, 1)
  await us.pass(3_000)
  expect(partition.unitsOf(limit!)).toBe(100 - RESERVE)
})

it('asks no more for a region whose other gateways call, and leaves the share to them', async () => {
  const idle = await startRegion()
  const busy = await startRegion('eu', idle)
  const [limit] = limitsOf(1)
  const chargeSet = chargeSetOf('x', [{ limit: limit! }])
  for (const { shares } of [idle, busy]) shares.of('x').use(chargeSet)
  await busy.pass(1_000)
  for (const region of [idle, busy]) region.setForward(2 * LEASE_MS)
  for (let passed = 0; passed < 120_000; passed += 10_000) {
    busy.shares.of('x').use(chargeSet)
    await busy.pass(10_000)
  }
  const asked = idle.asked()
  await busy.pass(10_000)
  expect(idle.asked()).toBe(asked)
  expect(busy.shares.of('x').unitsOf(limit!)).toBe(50)
})

it.each([10_000, 120_000, 300_000])('moves shares after the demand where a share lasts %i ms', async (leaseMs) => {
  const eu = await startRegion('eu', { leaseMs })
  const us = await startRegion('us', eu)
  const [limit] = limitsOf(1, { windowMs: 60_000 })
  const chargeSet = chargeSetOf('x', [{ limit: limit! }])
  /** What both regions may use after the one has wanted all for some leases, and the other nothing. */
  const unitsAfter = async (wanting: typeof eu, other: typeof eu) => {
    for (let passed = 0; passed < 3 * leaseMs + 120_000; passed += 1_000) {
      const partition = wanting.shares.of('x')
      partition.use(chargeSet)
      partition.lacks(limit!, 1)
      wanting.counts(partition.unitsOf(limit!)!)
      other.counts(0)
      await wanting.pass(500)
      await other.pass(500)
    }
    return [wanting, other].map(({ shares }) => shares.of('x').unitsOf(limit!))
  }
  us.shares.of('x').use(chargeSet)
  expect(await unitsAfter(eu, us)).toEqual([100 - RESERVE, RESERVE])
  expect(await unitsAfter(us, eu)).toEqual([100 - RESERVE, RESERVE])
})

it('is told all that is used, though the share ends while Redis is asked', async () => {
  const connection = new Redis(inject('redisUrl'))
  onTestFinished(() => connection.disconnect())
  const clock = new SimulatedClock(Date.UTC(2026, 0, 1, 11, 59, 50))
  let share = 100
  let endsNext = false
  const runner = new AnsweredScript(connection, () => {
    if (endsNext) share = RESERVE
  })
  const partition = { unitsOf: () => share, strandedOf: () => 0, leasePartOf: () => 1, use: () => {}, lacks: () => {} }
  const shares: Shares = { of: () => partition, forget: () => {}, problem: undefined, close: () => {} }
  const ledger = steppedLedger(connection, { clock, runner, shares })
  onTestFinished(() => ledger.close())
  const [rolling] = limitsOf(1, { windowMs: 60_000 })
  const hourly = limitOf({ id: 'hourly', class: 'read', requests: 100, kind: 'calendar', windowMs: 3_600_000 })
  const chargeSet = chargeSetOf('x', [{ limit: rolling! }, { limit: hourly }])
  const grant = await ledger.charge(chargeSet, 70)
  for (let call = 0; call < 70; call++) ledger.commit(grant)
  const committed = async () => (await ledger.usage(chargeSet)).map((one) => one.committed)
  expect(await committed()).toEqual([70, 70])
  // In the next hour the vendor may still count the calls of a second ago in the hour before.
  // No renewal of leases may be under way when the share ends.
  await runner.pass(clock, 10_200, 50)
  endsNext = true
  expect(await committed()).toEqual([70, 70])
  expect(share).toBe(RESERVE)
})
