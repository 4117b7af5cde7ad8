import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, describe, expect, inject, it } from 'vitest'
import { LedgerFiles } from '../../src/ledger/embedded/ledger-files.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { type ChargeSet, chargeSetOf, type Ledger } from '../../src/ledger/ledger.ts'
import { type LimitSpec, limitOf, windowOf } from '../../src/ledger/limit.ts'
import { LimitState } from '../../src/ledger/redis/limit-state.ts'
import { RESUME_AFTER_MS } from '../../src/ledger/redis/partition-calls.ts'
import { RedisScript } from '../../src/ledger/redis/script.ts'
import type { CalendarSpec } from '../../src/time/calendar.ts'
import { AnsweredScript } from '../support/answered-script.ts'
import { newFolder } from '../support/gateway.ts'
import { SimulatedClock, stepUntilDone } from '../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../support/stepped-ledger.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

/** A store that outlives the processes that use it. */
interface Store {
  open(clock: SimulatedClock, gateway?: string): Ledger | Promise<Ledger>
}

const embedded = (): Store => {
  const dir = newFolder()
  return { open: (clock) => new MemoryLedger(clock, new LedgerFiles(dir)) }
}

const shared = (): Store & { prefix: string } => {
  const prefix = newPrefix()
  const open = (clock: SimulatedClock, gateway = 'one'): Ledger =>
    steppedLedger(new Redis(inject('redisUrl')), { clock, gateway, prefix, time: () => clock.wall() })
  return { open, prefix }
}

/** A clock whose wall clock shows that time. */
function clockAt(time: string, boot = 'first'): SimulatedClock {
  const clock = new SimulatedClock(1e8, boot)
  clock.setWall(Date.parse(time) - clock.wall())
  return clock
}

function budget(
  window: CalendarSpec['unit'],
  spec: Omit<CalendarSpec, 'unit'>,
  more: Partial<LimitSpec> = {},
): ChargeSet {
  const common = { id: `budget.${window}`, class: 'budget', requests: 100, ...windowOf(window, spec) }
  return chargeSetOf('client:team', [{ limit: limitOf({ ...common, ...more }) }])
}

/** Charges so many calls, all of which are over at once; returns how many were granted. */
async function spend(ledger: Ledger, budget: ChargeSet, calls: number): Promise<number> {
  const grant = await ledger.charge(budget, calls)
  for (let i = 0; i < grant.granted; i++) ledger.commit(grant)
  return grant.granted
}

async function resetOf(ledger: Ledger, clock: SimulatedClock, budget: ChargeSet): Promise<string> {
  const [usage] = await ledger.usage(budget)
  return new Date(clock.wall() + usage!.resetMs).toISOString()
}

/** Time that passes while no process runs. */
function pass(clock: SimulatedClock, ms: number): SimulatedClock {
  const later = new SimulatedClock(clock.now() + ms, clock.boot)
  later.setWall(clock.wall() + ms - later.wall())
  return later
}

describe.each([
  ['embedded', embedded],
  ['Redis', shared],
])('a budget by the calendar in the %s store', (_, store) => {
  it('lasts a month over a change of the clock and restarts, and is there again at the first midnight of the next', async () => {
    const month = budget('month', { timezone: 'Europe/Berlin' })
    const { open } = store()
    let clock = clockAt('2026-03-01T00:00:05+01:00')
    let ledger = await open(clock, 'one')
    expect(await spend(ledger, month, 60)).toBe(60)
    expect(await resetOf(ledger, clock, month)).toBe('2026-03-31T22:00:00.000Z')
    await ledger.close()
    clock = pass(clock, 29 * DAY)
    ledger = await open(clock, 'two')
    expect(await spend(ledger, month, 1_000)).toBe(40)
    await ledger.close()
    clock = pass(clock, Date.parse('2026-03-31T23:59:50+02:00') - clock.wall())
    ledger = await open(clock, 'three')
    const refused = await ledger.charge(month, 1)
    expect(refused.granted).toBe(0)
    // The vendor's clock may be behind by the tolerance, which is a second.
    expect(refused.schedule?.waitMs(1, clock.now())).toBe(11_000)
    await ledger.close()
    clock = pass(clock, 10_999)
    ledger = await open(clock, 'four')
    expect(await spend(ledger, month, 1_000)).toBe(0)
    await ledger.close()
    clock = pass(clock, 2)
    ledger = await open(clock, 'five')
    expect(await spend(ledger, month, 1_000)).toBe(100)
    expect(await resetOf(ledger, clock, month)).toBe('2026-04-30T22:00:00.000Z')
    await ledger.close()
  })

  it.each([
    ['of 23 hours', '2026-03-29T00:00:05+01:00', 23],
    ['of 25 hours', '2026-10-25T00:00:05+02:00', 25],
  ])('lasts a day %s', async (_, begin, hours) => {
    const day = budget('day', { timezone: 'Europe/Berlin' })
    const { open } = store()
    let clock = clockAt(begin)
    let ledger = await open(clock)
    expect(await spend(ledger, day, 100)).toBe(100)
    await ledger.close()
    clock = pass(clock, hours * HOUR - 6_000)
    ledger = await open(clock, 'two')
    expect(await spend(ledger, day, 1)).toBe(0)
    await ledger.close()
    clock = pass(clock, 3_000)
    ledger = await open(clock, 'three')
    expect(await spend(ledger, day, 100)).toBe(100)
    await ledger.close()
  })

  it('counts a call near the end of a window in both, because the clock of the vendor may be a little off', async () => {
    const month = budget('month', { anchor: 31 })
    const { open } = store()
    const clock = clockAt('2027-02-27T23:59:59.500Z')
    const ledger = await open(clock)
    expect(await spend(ledger, month, 70)).toBe(70)
    await clock.advance(2_000)
    expect(await spend(ledger, month, 1_000)).toBe(30)
    expect(await resetOf(ledger, clock, month)).toBe('2027-03-31T00:00:00.000Z')
    await ledger.close()
  })

  it('that was used up says just after its end that it counts until the clock of the vendor is surely in the next', async () => {
    const month = budget('month', {})
    const { open } = store()
    let clock = clockAt('2027-02-10T12:00Z')
    let ledger = await open(clock)
    expect(await spend(ledger, month, 80)).toBe(80)
    await ledger.close()
    clock = pass(clock, Date.parse('2027-03-01T00:00:00.300Z') - clock.wall())
    ledger = await open(clock, 'two')
    expect(await spend(ledger, month, 20)).toBe(20)
    const refused = await ledger.charge(month, 1)
    expect(refused.granted).toBe(0)
    // Of the new month, too, 20 are used.
    expect([1, 80].map((calls) => refused.schedule?.waitMs(calls, clock.now()))).toEqual([700, 700])
    expect(refused.schedule?.waitMs(81, clock.now())).toBe(31 * DAY + 700)
    await clock.advance(701)
    expect(await spend(ledger, month, 1_000)).toBe(80)
    await ledger.close()
  })

  it('of more money than four bytes, or a thousand dollars, can say is there after a restart, too', async () => {
    const limit = limitOf({ id: 'm', class: 'budget', requests: 5e12, unit: 'usd', ...windowOf('month', {}) })
    const costly = chargeSetOf('client:team', [{ limit, units: 3e12 }])
    const { open } = store()
    const clock = clockAt('2027-02-10T12:00Z')
    const before = await open(clock)
    expect(await spend(before, costly, 1)).toBe(1)
    await before.close()
    const after = await open(pass(clock, DAY), 'two')
    expect(await spend(after, costly, 1)).toBe(0)
    expect((await after.usage(costly)).map(({ used }) => used)).toEqual([3e12])
    await after.close()
  })

  it('is not held longer by a clock that was a year ahead and is set right', async () => {
    const day = budget('day', {})
    const { open } = store()
    const clock = clockAt('2027-02-27T12:00Z')
    const ledger = await open(clock)
    expect(await spend(ledger, day, 30)).toBe(30)
    clock.setWall(-365 * DAY)
    await clock.advance(1_000)
    expect(await spend(ledger, day, 1_000)).toBe(70)
    await clock.advance(1_000)
    expect(await spend(ledger, day, 1_000)).toBe(0)
    await ledger.close()
    const next = await open(pass(clock, DAY), 'two')
    expect(await spend(next, day, 1_000)).toBe(100)
    await next.close()
  })
})

describe('what an older release has charged to a month', () => {
  const month = budget('month', { timezone: 'Europe/Berlin' })
  const JUNE = '2026-06-10T12:00Z'

  it('counts in this month, where a file without a version does not say when it was charged', async () => {
    const dir = newFolder()
    new LedgerFiles(dir).save('client:team', {})
    const [name = ''] = readdirSync(join(dir, 'quota'))
    const old = { windowMs: 31 * DAY, charges: [{ bucket: 678, units: 55 }], uncertain: 5 }
    writeFileSync(join(dir, 'quota', name), JSON.stringify({ home: 'client:team', limits: { 'budget.month': old } }))
    const clock = clockAt(JUNE)
    const ledger = new MemoryLedger(clock, new LedgerFiles(dir))
    expect(await spend(ledger, month, 1_000)).toBe(40)
    await ledger.close()
    const july = pass(clock, 21 * DAY)
    expect(await spend(new MemoryLedger(july, new LedgerFiles(dir)), month, 1_000)).toBe(100)
  })

  it('counts in this month, though the rules of the time zone were others when the file was written', async () => {
    const dir = newFolder()
    const clock = clockAt(JUNE)
    const before = new MemoryLedger(clock, new LedgerFiles(dir))
    expect(await spend(before, month, 60)).toBe(60)
    await before.close()
    const [name = ''] = readdirSync(join(dir, 'quota'))
    const file = join(dir, 'quota', name)
    const begin = Date.parse('2026-06-01T00:00+02:00')
    const text = readFileSync(file, 'utf8')
    expect(text).toContain(`"startsAt":${begin}`)
    writeFileSync(file, text.replace(`"startsAt":${begin}`, `"startsAt":${begin - HOUR}`))
    const later = pass(clock, DAY)
    expect(await spend(new MemoryLedger(later, new LedgerFiles(dir)), month, 1_000)).toBe(40)
  })

  it.each([
    ['in this month', JUNE, 45],
    ['in the one before, and so not in this one', '2026-07-10T12:00Z', 100],
  ])('in Redis, by the format before this one, counts %s', async (_, time, left) => {
    const { open, prefix } = shared()
    const record = Buffer.alloc(16)
    const june = 12 * 2026 + 5
    record.writeUInt32BE(55, 0)
    record.writeUIntBE(june, 4, 6)
    record.writeUIntBE(june, 10, 6)
    await redis.set(`${prefix}:2:{client:team}:budget.month`, record)
    const ledger = await open(clockAt(time))
    expect(await spend(ledger, month, 1_000)).toBe(left)
    await ledger.close()
  })
})

it('a month that was used up is not granted again by a machine that starts with a clock of years ago, nor when that is set right', async () => {
  const month = budget('month', {})
  const { open } = embedded()
  const before = await open(clockAt('2026-06-10T12:00Z'))
  expect(await spend(before, month, 1_000)).toBe(100)
  await before.close()
  const clock = clockAt('2020-01-01T00:00:10Z', 'second')
  const after = await open(clock)
  expect(await spend(after, month, 1_000)).toBe(0)
  await clock.advance(60_000)
  clock.setWall(Date.parse('2026-06-10T12:05Z') - clock.wall())
  expect(await spend(after, month, 1_000)).toBe(0)
  await after.close()
})

describe('a budget by the calendar, shared through Redis', () => {
  const month = budget('month', {})

  it('gets back the lease of a gateway that died, and keeps what that had in flight', async () => {
    const { open } = shared()
    const dying = clockAt('2026-06-10T12:00Z')
    const dead = await open(dying, 'dead')
    expect((await dead.charge(month, 10)).granted).toBe(10)
    await dying.advance(300)
    const clock = pass(dying, 1_000)
    const ledger = await open(clock, 'alive')
    let granted = await stepUntilDone(clock, spend(ledger, month, 1_000))
    expect(granted).toBeLessThan(90)
    for (let n = 0; n < 200 && granted < 90; n++) {
      await clock.advance(250)
      granted += await stepUntilDone(clock, spend(ledger, month, 1_000))
    }
    expect(granted).toBe(90)
    await ledger.close()
  })

  it('is kept in Redis until the end of the next month, so that no restart forgets it', async () => {
    const { open, prefix } = shared()
    const clock = clockAt('2026-06-10T12:00Z')
    const ledger = await open(clock)
    expect(await spend(ledger, month, 1)).toBe(1)
    const keptMs = await redis.pttl(`${prefix}:3:{client:team}:limits`)
    expect(keptMs).toBeGreaterThan(Date.parse('2026-08-01') - clock.wall())
    await ledger.close()
  })

  it('is granted, once the time of Redis is known, to a gateway whose clock is years off', async () => {
    const { prefix } = shared()
    const clock = clockAt('1999-06-10T12:00Z')
    const ledger = steppedLedger(new Redis(inject('redisUrl')), { clock, gateway: 'one', prefix, time: null })
    const granting = Promise.resolve(ledger.charge(month, 1))
    expect((await stepUntilDone(clock, granting)).granted).toBeLessThanOrEqual(1)
    let granted = 0
    for (let n = 0; n < 50 && granted === 0; n++) {
      await clock.advance(100)
      granted = (await stepUntilDone(clock, Promise.resolve(ledger.charge(month, 1)))).granted
    }
    expect(granted).toBe(1)
    const [usage] = await stepUntilDone(clock, ledger.usage(month))
    // The stepped clock runs ahead of the real one by as much as a busy machine makes Redis wait.
    const ends = Date.now() + usage!.resetMs + HOUR / 2
    expect(new Date(ends).getUTCDate()).toBe(1)
    await ledger.close()
  })

  it('is granted to such a gateway no sooner than others could tell Redis what it lost', async () => {
    const clock = clockAt('1999-06-10T12:00Z')
    class LosableScript extends RedisScript {
      lose: (isConcerned: (key: string) => boolean) => void = () => undefined
      override onLost(listener: typeof this.lose): void {
        this.lose = listener
      }
    }
    const runner = new LosableScript(new Redis(inject('redisUrl')))
    const ledger = steppedLedger(redis, { clock, runner, time: null })
    await stepUntilDone(clock, ledger.begin())
    runner.lose(() => true)
    const began = clock.now()
    let granted = 0
    for (let n = 0; n < 100 && granted === 0; n++) {
      await clock.advance(50)
      granted = (await stepUntilDone(clock, Promise.resolve(ledger.charge(month, 1)))).granted
    }
    expect(granted).toBe(1)
    expect(clock.now() - began).toBeGreaterThanOrEqual(RESUME_AFTER_MS)
    await ledger.close()
  })

  it('counts again only what was charged lately, when Redis has lost its latest writes', () => {
    const [limit] = month.limits
    const state = new LimitState(limit!, () => false)
    const begin = Date.parse('2026-06-01T12:00Z')
    state.charge(begin, begin, 60)
    const now = begin + 20 * DAY
    state.charge(now, now, 5)
    state.markUnreplicatedSince(now - 1_000, now)
    expect(state.unreplicated?.used(now)).toBe(5)
    state.markUnreplicatedSince(now - 3 * HOUR, now)
    expect(state.unreplicated?.used(now)).toBe(5)
    state.markUnreplicatedSince(now - 5 * HOUR, now)
    expect(state.unreplicated?.used(now)).toBe(65)
  })

  it.each([
    ['of minutes', limitOf({ id: 'm', class: 'any', requests: 50, windowMs: 60_000, kind: 'calendar' })],
    ['of calls in flight', limitOf({ id: 'c', class: 'any', requests: 50, kind: 'concurrent' })],
  ])('%s counts again all that Redis may have lost, when its clock was set back by much before', (_, one) => {
    const state = new LimitState(one, () => false)
    const now = Date.parse('2026-06-01T12:00:30Z')
    state.charge(now + DAY, now + DAY, 2)
    state.charge(now, now, 3)
    state.markUnreplicatedSince(now + DAY - 1_000, now + 100)
    expect(state.unreplicated?.used(now + 100)).toBe(5)
  })

  it('counts little twice when Redis comes back with a snapshot that is minutes old', async () => {
    const clock = new SimulatedClock(Date.UTC(2026, 10, 10, 12))
    const prefix = newPrefix()
    const runner = new AnsweredScript(redis)
    const ledger = steppedLedger(redis, { clock, prefix, runner })
    const many = budget('month', {}, { requests: 100_000 })
    let sent = 0
    const send = async (calls: number): Promise<void> => {
      const grant = await stepUntilDone(clock, Promise.resolve(ledger.charge(many, calls)))
      sent += grant.granted
      for (let n = 0; n < grant.granted; n++) ledger.commit(grant)
    }
    const pass = async (seconds: number, calls: number): Promise<void> => {
      for (let n = 0; n < seconds; n++) {
        if (calls > 0) await send(calls)
        await runner.pass(clock, 1_000, 1_000)
      }
    }
    await send(1_000)
    await pass(700, 0)
    await ledger.usage(many)
    const kept = new Map<string, Buffer>()
    for (const key of await redis.keys(`${prefix}:3:{*`)) kept.set(key, await redis.dumpBuffer(key))
    await pass(400, 1)
    for (const [key, dump] of kept) await redis.restore(key, 0, dump, 'REPLACE')
    await pass(4, 1)
    const [usage] = await ledger.usage(many)
    expect(usage!.used).toBeGreaterThanOrEqual(sent)
    expect(usage!.used).toBeLessThanOrEqual(sent + 30)
    await ledger.close()
  })
})
