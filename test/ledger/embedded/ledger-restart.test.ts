import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type ChargeSet, chargeSetOf, StoreUnavailableError } from '../../../src/ledger/ledger.ts'
import { LedgerFiles } from '../../../src/ledger/embedded/ledger-files.ts'
import { limitOf, type LimitSpec, windowOf } from '../../../src/ledger/limit.ts'
import { MemoryLedger } from '../../../src/ledger/embedded/memory-ledger.ts'
import { newFolder } from '../../support/gateway.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
/** Of the wall clock, the begin of an hour. */
const NOON = Date.UTC(2026, 10, 21, 12)

function chargeSetWith(spec: Partial<LimitSpec> & Pick<LimitSpec, 'requests'>): ChargeSet {
  return chargeSetOf('any/main', [{ limit: limitOf({ id: 'only', class: 'any', countingToleranceMs: 0, ...spec }) }])
}

/** Charges so many calls, all of which are over at once. */
function spend(ledger: MemoryLedger, chargeSet: ChargeSet, calls: number): void {
  const grant = ledger.charge(chargeSet, calls)
  expect(grant.granted).toBe(calls)
  for (let i = 0; i < calls; i++) ledger.commit(grant)
}

const rolling = chargeSetWith({ requests: 200, windowMs: 20_000 })
const hourly = chargeSetWith({ id: 'hourly', requests: 100, windowMs: HOUR, kind: 'calendar' })

describe('the embedded ledger, after a restart', () => {
  it.each([
    ['an orderly stop', 30_000, true],
    ['an orderly stop', -30_000, true],
    ['kill -9', 30_000, false],
    ['kill -9', -30_000, false],
    ['kill -9', 600_000, false],
    ['kill -9', -600_000, false],
  ])(
    'after %s keeps charges for their window, no less and no more, if the clock was set by %i ms',
    async (_, step, isClosed) => {
      const dir = newFolder()
      const clock = new SimulatedClock()
      const files = new LedgerFiles(dir)
      const before = new MemoryLedger(clock, files)
      spend(before, rolling, 200)
      await clock.advance(5_000)
      if (isClosed) await before.close()
      else files.unlock()
      clock.setWall(step)
      await clock.advance(1_000)
      const after = new MemoryLedger(clock, new LedgerFiles(dir))
      expect(after.charge(rolling, 1).granted).toBe(0)
      await clock.advance(13_900)
      expect(after.charge(rolling, 1).granted).toBe(0)
      // What was charged after the last write, if anything, may have been charged just before the start.
      await clock.advance(isClosed ? 400 : 6_400)
      expect(after.charge(rolling, 200).granted).toBe(200)
    },
  )

  it.each([30_000, -30_000, 15 * MINUTE])(
    'of the machine with a clock that was set by %i ms never takes charges for older than they can be',
    async (step) => {
      const dir = newFolder()
      const before = new MemoryLedger(new SimulatedClock(1e9, 'first'), new LedgerFiles(dir))
      spend(before, rolling, 200)
      await before.close()
      const clock = new SimulatedClock(1e8, 'second')
      clock.setWall(1e9 - 1e8 + step)
      const after = new MemoryLedger(clock, new LedgerFiles(dir))
      expect(after.charge(rolling, 1).granted).toBe(0)
      await clock.advance(20_400)
      expect(after.charge(rolling, 200).granted).toBe(200)
    },
  )

  it('reads what it has written of more money than numbers hold exactly', async () => {
    const dir = newFolder()
    const clock = new SimulatedClock()
    for (const kind of ['rolling', 'calendar'] as const) {
      const of = chargeSetWith({ id: kind, requests: 4e15, windowMs: HOUR, kind, unit: 'idr', isEnforced: false })
      const before = new MemoryLedger(clock, new LedgerFiles(dir))
      for (let i = 0; i < 3; i++) before.commit(before.charge(of, 1), [4e15])
      await before.close()
      const after = new MemoryLedger(clock, new LedgerFiles(dir))
      expect((await after.usage(of))[0]!.used).toBe(Number.MAX_SAFE_INTEGER)
      expect(after.charge(of, 1).granted).toBe(1)
      await after.close()
    }
  })

  it('takes what was made after a full disk for used up until the note of that is removed', async () => {
    const dir = newFolder()
    const clock = new SimulatedClock()
    const full = new LedgerFiles(dir)
    full.markBehind()
    full.unlock()
    await new MemoryLedger(clock, new LedgerFiles(dir)).close()
    await clock.advance(HOUR)
    const monthly = (id: string) => chargeSetWith({ id, requests: 100, windowMs: 30 * 24 * HOUR })
    const noted = new MemoryLedger(clock, new LedgerFiles(dir))
    expect(noted.charge(monthly('one'), 1).granted).toBe(0)
    await noted.close()
    rmSync(join(dir, 'quota', 'used-up'))
    const after = new MemoryLedger(clock, new LedgerFiles(dir))
    expect(after.charge(monthly('one'), 1).granted).toBe(0)
    expect(after.charge(monthly('another'), 100).granted).toBe(100)
    await after.close()
  })

  it('takes what was written before a full disk for used up for one window, though nobody uses it until the next start', async () => {
    const dir = newFolder()
    const clock = new SimulatedClock(NOON)
    const full = new LedgerFiles(dir)
    const before = new MemoryLedger(clock, full)
    for (const limit of [rolling, hourly]) spend(before, limit, 1)
    full.markBehind()
    full.unlock()
    await new MemoryLedger(clock, new LedgerFiles(dir)).close()
    const free = async (limit: ChargeSet): Promise<number> => {
      const ledger = new MemoryLedger(clock, new LedgerFiles(dir))
      const { granted } = ledger.charge(limit, 1_000)
      await ledger.close()
      return granted
    }
    await clock.advance(19_000)
    expect([await free(rolling), await free(hourly)]).toEqual([0, 0])
    await clock.advance(1_500)
    expect([await free(rolling), await free(hourly)]).toEqual([200, 0])
    await clock.advance(HOUR)
    expect(await free(hourly)).toBe(100)
  })

  it('of the machine that took longer than a window and a quarter of an hour finds its quota unused', async () => {
    const dir = newFolder()
    const before = new MemoryLedger(new SimulatedClock(1e9, 'first'), new LedgerFiles(dir))
    spend(before, rolling, 200)
    await before.close()
    const clock = new SimulatedClock(1e8, undefined)
    clock.setWall(1e9 - 1e8 + 16 * MINUTE)
    expect(new MemoryLedger(clock, new LedgerFiles(dir)).charge(rolling, 200).granted).toBe(200)
  })

  it('keeps what an account that was not used meanwhile was charged over several restarts', async () => {
    const dir = newFolder()
    const clock = new SimulatedClock()
    const first = new MemoryLedger(clock, new LedgerFiles(dir))
    spend(first, rolling, 200)
    await first.close()
    for (let i = 0; i < 3; i++) {
      clock.setWall(30_000)
      await clock.advance(5_000)
      const next = new MemoryLedger(clock, new LedgerFiles(dir))
      spend(
        next,
        chargeSetOf('any/main', [{ limit: limitOf({ id: 'other', class: 'any', requests: 10, windowMs: 1_000 }) }]),
        1,
      )
      await next.close()
    }
    expect(new MemoryLedger(clock, new LedgerFiles(dir)).charge(rolling, 1).granted).toBe(0)
  })

  it('removes the file of an account that is not used any more once nothing in it counts, and not before', async () => {
    const dir = newFolder()
    const clock = new SimulatedClock()
    const known = (): string[] => readdirSync(join(dir, 'quota'))
    const run = async (ms: number, use?: ChargeSet, isClosed = true): Promise<string[]> => {
      const files = new LedgerFiles(dir)
      const ledger = new MemoryLedger(clock, files)
      if (use !== undefined) spend(ledger, use, 1)
      await clock.advance(ms)
      if (isClosed) await ledger.close()
      else files.unlock()
      return known()
    }
    const file = ['any%2Fmain.json']
    expect(await run(0, rolling)).toEqual(file)
    expect(await run(20_000)).toEqual(file)
    expect(await run(50_000)).toEqual([])
    // After a crash, what may have been charged counts as charged at the next start.
    expect(await run(HOUR, rolling, false)).toEqual(file)
    await clock.advance(HOUR)
    expect(await run(20_000)).toEqual(file)
    expect(await run(70_000)).toEqual([])
  })

  it('takes charges in a file of the release before for made just now', async () => {
    const dir = newFolder()
    new LedgerFiles(dir).save('any/main', {})
    const [name = ''] = readdirSync(join(dir, 'quota'))
    const limits = { only: { windowMs: 20_000, charges: [{ bucket: 8_123_456, units: 150 }], uncertain: 10 } }
    writeFileSync(join(dir, 'quota', name), JSON.stringify({ home: 'any/main', limits }))
    const first = new MemoryLedger(new SimulatedClock(), new LedgerFiles(dir))
    expect(first.charge(hourly, 1).granted).toBe(1)
    await first.close()
    const ledger = new MemoryLedger(new SimulatedClock(), new LedgerFiles(dir))
    expect(ledger.charge(rolling, 200).granted).toBe(40)
  })
})

/** A ledger whose files count how often they are written. */
function open(dir: string, clock: SimulatedClock) {
  const files = new LedgerFiles(dir)
  const written = { times: 0 }
  const save = files.save.bind(files)
  files.save = (...partition) => {
    written.times++
    save(...partition)
  }
  return { files, written, ledger: new MemoryLedger(clock, files) }
}

describe('the file of a partition, in the embedded ledger', () => {
  const of = (client: number): ChargeSet =>
    chargeSetOf('organisation:acme', [
      { limit: limitOf({ id: `client=${client}`, class: 'budget', requests: 100, windowMs: HOUR }) },
    ])
  const clients = Array.from({ length: 50 }, (_, client) => of(client))

  it('is written for all of its limits at once, and not for each in turn', () => {
    const { ledger, written } = open(newFolder(), new SimulatedClock())
    for (const client of clients) spend(ledger, client, 1)
    const atFirst = written.times
    for (let i = 0; i < 40; i++) for (const client of clients) spend(ledger, client, 1)
    // A twentieth of each limit may be charged until the next time.
    expect(written.times - atFirst).toBeLessThanOrEqual(40 / 5 + 1)
  })

  it('lets a crash cost a limit a share at most, and one that nobody uses nothing', async () => {
    const dir = newFolder()
    const clock = new SimulatedClock()
    const { ledger, files } = open(dir, clock)
    const [idle, busy, late] = clients as [ChargeSet, ChargeSet, ChargeSet]
    await ledger.usage(idle)
    spend(ledger, late, 1)
    for (let i = 0; i < 23; i++) spend(ledger, busy, 1)
    // A call that needs more than the share makes the file be written, too.
    spend(ledger, late, 20)
    files.unlock()
    const after = open(dir, clock).ledger
    const used = async (client: ChargeSet) => (await after.usage(client))[0]!.used
    expect(await used(idle)).toBe(0)
    for (const [client, charged] of [[busy, 23] as const, [late, 21] as const]) {
      expect(await used(client)).toBeGreaterThanOrEqual(charged)
      expect(await used(client)).toBeLessThanOrEqual(charged + 5)
    }
  })
})

describe('what calls give back, in the embedded ledger', () => {
  const USD = 1e9
  const limit = limitOf({
    id: 'month',
    class: 'budget',
    requests: 1_000 * USD,
    unit: 'usd',
    settles: 'at-end',
    ...windowOf('month', {}),
  })
  const costly = chargeSetOf('client:bot', [{ limit, units: 2 * USD }])

  it.each([
    ['cost less than was reserved', 0.01, 0.2],
    ['were never sent', undefined, 0],
  ])('is there after kill -9, though no call came after those that %s', async (_, cost, used) => {
    const dir = newFolder()
    const clock = new SimulatedClock(1e9)
    const { files, ledger, written } = open(dir, clock)
    const grants = Array.from({ length: 20 }, () => ledger.charge(costly, 1))
    await clock.advance(500)
    const before = written.times
    for (const grant of grants) {
      if (cost === undefined) ledger.refund(grant)
      else {
        ledger.commit(grant)
        ledger.commit(grant.rest!, [cost * USD])
      }
    }
    // Not on the way of a call.
    expect(written.times).toBe(before)
    await clock.advance(12_000)
    expect(written.times).toBe(before + 1)
    expect(clock.timers).toBe(0)
    files.unlock()
    const after = open(dir, clock).ledger
    const [usage] = await after.usage(costly)
    // A thousandth at most may have been charged after the last write.
    expect(usage!.used / USD).toBeGreaterThanOrEqual(used)
    expect(usage!.used / USD).toBeLessThanOrEqual(used + 1)
  })

  it('is written once in five seconds, though calls give back something while it is written', async () => {
    const clock = new SimulatedClock(1e9)
    const { ledger, written } = open(newFolder(), clock)
    const clients = Array.from({ length: 40 }, (_, i) => chargeSetOf(`client:${i}`, [{ limit, units: USD / 1e3 }]))
    for (const client of clients) ledger.refund(ledger.charge(client, 1))
    const before = written.times
    // Each turn that writes some of them ends with calls that give back something to all.
    const { soon } = clock
    let turns = 0
    clock.soon = (run) => {
      if (turns++ > 100) throw new Error('it is still written')
      for (const client of clients) ledger.refund(ledger.charge(client, 1))
      soon.call(clock, run)
    }
    await clock.advance(5_000)
    expect(written.times - before).toBe(clients.length)
  })

  it('is not written after the end of the ledger, when another process has the folder', async () => {
    const clock = new SimulatedClock(1e9)
    const { ledger, written } = open(newFolder(), clock)
    const [late, dear] = [ledger.charge(costly, 1), ledger.charge(costly, 1)]
    ledger.refund(ledger.charge(costly, 1))
    await ledger.close()
    const atEnd = written.times
    ledger.refund(late)
    ledger.commit(dear)
    ledger.commit(dear.rest!, [3 * USD])
    expect(() => ledger.charge(costly, 1)).toThrow(StoreUnavailableError)
    await clock.advance(12_000)
    expect(written.times).toBe(atEnd)
  })
})

describe('a window of the calendar, in the embedded ledger', () => {
  function atNoonAnd(ms: number, boot = 'first'): SimulatedClock {
    const clock = new SimulatedClock(1e9, boot)
    clock.setWall(NOON + ms - 1e9)
    return clock
  }

  it('is counted anew when a clock that was behind is set right: what was sent in it counts in it', async () => {
    // It is 12:05, and the clock says 11:55.
    const clock = atNoonAnd(-5 * MINUTE)
    const ledger = new MemoryLedger(clock)
    spend(ledger, hourly, 60)
    await clock.advance(MINUTE)
    clock.setWall(10 * MINUTE)
    spend(ledger, hourly, 40)
    expect(ledger.charge(hourly, 1).granted).toBe(0)
    // At 13:00.
    await clock.advance(54 * MINUTE)
    expect(ledger.charge(hourly, 100).granted).toBe(100)
  })

  it('is counted anew when a clock that was ahead is set right: the account is not stuck for another window', async () => {
    // It is 11:50, and the clock says 12:00.
    const clock = atNoonAnd(0)
    const ledger = new MemoryLedger(clock)
    spend(ledger, hourly, 100)
    await clock.advance(MINUTE)
    clock.setWall(-10 * MINUTE)
    expect(ledger.charge(hourly, 1).granted).toBe(0)
    // At 12:01.
    await clock.advance(10 * MINUTE)
    expect(ledger.charge(hourly, 100).granted).toBe(100)
  })

  it('has what was charged in it and not what was charged before, wherever the clock is set', async () => {
    const clock = atNoonAnd(20 * MINUTE)
    const ledger = new MemoryLedger(clock)
    spend(ledger, hourly, 30)
    await clock.advance(30 * MINUTE)
    spend(ledger, hourly, 20)
    // It is 13:10: the first were sent at 12:40, the others at 13:10.
    clock.setWall(20 * MINUTE)
    expect((await ledger.usage(hourly))[0]).toMatchObject({ used: 20, resetMs: 50 * MINUTE })
    // It is 12:35 after all: the first were sent at 12:05.
    clock.setWall(-35 * MINUTE)
    expect((await ledger.usage(hourly))[0]).toMatchObject({ used: 50, resetMs: 25 * MINUTE })
  })

  it.each([
    ['month', Date.UTC(2026, 11, 1), 5 * HOUR],
    ['day', Date.UTC(2026, 11, 1), 12 * MINUTE],
    ['hour', NOON, 30_000],
  ] as const)(
    'of a %s has nothing of the one before, though the clock is set late in that',
    async (unit, end, left) => {
      const budget = chargeSetWith({ id: 'budget', requests: 1_000, ...windowOf(unit, {}) })
      const clock = atNoonAnd(end - NOON - left - MINUTE)
      const ledger = new MemoryLedger(clock)
      spend(ledger, budget, 500)
      await clock.advance(MINUTE)
      for (const step of [150, -150]) {
        clock.setWall(step)
        expect((await ledger.usage(budget))[0]!.used).toBe(500)
      }
      await clock.advance(left - 1)
      expect((await ledger.usage(budget))[0]!.used).toBe(500)
      await clock.advance(1)
      expect((await ledger.usage(budget))[0]!.used).toBe(0)
    },
  )

  it('has what is in flight when the clock is set just before it begins', async () => {
    const clock = atNoonAnd(HOUR - 4_000)
    const ledger = new MemoryLedger(clock)
    const grant = ledger.charge(hourly, 60)
    spend(ledger, hourly, 30)
    clock.setWall(1_000)
    expect((await ledger.usage(hourly))[0]!.used).toBe(90)
    await clock.advance(3_000)
    for (let i = 0; i < 60; i++) ledger.commit(grant)
    expect(ledger.charge(hourly, 100).granted).toBeLessThanOrEqual(40)
  })

  it('gives back what a call that spans the change of the clock was charged', async () => {
    const clock = atNoonAnd(20 * MINUTE)
    const ledger = new MemoryLedger(clock)
    const grant = ledger.charge(hourly, 10)
    clock.setWall(10 * MINUTE)
    await clock.advance(100)
    for (let i = 0; i < 10; i++) ledger.refund(grant)
    expect((await ledger.usage(hourly))[0]!.used).toBe(0)
  })

  it('goes on exactly where it was after a restart, and after one of the machine', async () => {
    const dir = newFolder()
    const clock = atNoonAnd(59 * MINUTE)
    const before = new MemoryLedger(clock, new LedgerFiles(dir))
    spend(before, hourly, 70)
    await before.close()
    const after = new MemoryLedger(clock, new LedgerFiles(dir))
    expect(after.charge(hourly, 100).granted).toBe(30)
    await after.close()
    await clock.advance(MINUTE)
    const inNext = new MemoryLedger(clock, new LedgerFiles(dir))
    expect(inNext.charge(hourly, 100).granted).toBe(100)
    await inNext.close()
    const anew = atNoonAnd(61 * MINUTE, 'second')
    expect(new MemoryLedger(anew, new LedgerFiles(dir)).charge(hourly, 1).granted).toBe(0)
  })

  it.each([
    // At the end of the first run the clock says, it is, and so many of the 100 may be sent in the second.
    ['11:55', '12:05', -5, 10, 40],
    ['12:05', '11:55', 5, -10, 40],
    ['12:10', '12:40', 10, 30, 40],
  ])('is counted anew when the clock is set between two runs, from %s to %s', async (_, __, at, step, left) => {
    const dir = newFolder()
    const clock = atNoonAnd(at * MINUTE)
    const before = new MemoryLedger(clock, new LedgerFiles(dir))
    spend(before, hourly, 60)
    await before.close()
    clock.setWall(step * MINUTE)
    const after = new MemoryLedger(clock, new LedgerFiles(dir))
    expect(after.charge(hourly, 100).granted).toBe(left)
  })
})

describe('a quota file', () => {
  const at = { now: 1, wall: 1 }
  const limit = { at, windowMs: 1_000, charges: [{ agoMs: 0, units: 1 }], uncertain: 0 }
  const whole = { version: 2, home: 'any/main', limits: { only: limit } }
  const withLimit = (change: object): string => JSON.stringify({ ...whole, limits: { only: { ...limit, ...change } } })

  it.each([
    ['an empty file', '', /it is no JSON/],
    ['cut short', JSON.stringify(whole).slice(0, -9), /it is no JSON/],
    ['binary', '\u0000\u0001\u0002', /it is no JSON/],
    ['{}', '{}', /the whole of it/],
    ['a list', '[]', /the whole of it/],
    ['null', 'null', /the whole of it/],
    ['limits: null', '{"version":2,"home":"any/main","limits":null}', /\/limits/],
    ['a limit that is null', '{"version":2,"home":"any/main","limits":{"only":null}}', /\/limits\/only/],
    ['of the release before, with limits: null', '{"home":"any/main","limits":null}', /damaged/],
    ['negative units', withLimit({ charges: [{ agoMs: 0, units: -5 }] }), /\/limits\/only\/charges\/0\/units/],
    [
      'units that are no number',
      withLimit({ charges: [{ agoMs: 0, units: '5' }] }),
      /\/limits\/only\/charges\/0\/units/,
    ],
    ['NaN', JSON.stringify(whole).replace('"agoMs":0', '"agoMs":NaN'), /it is no JSON/],
    [
      'an infinite number',
      JSON.stringify(whole).replace('"units":1', '"units":1e999'),
      /\/limits\/only\/charges\/0\/units/,
    ],
    ['a huge number', withLimit({ uncertain: 1e300 }), /\/limits\/only\/uncertain/],
    ['without its time', withLimit({ at: {} }), /\/limits\/only\/at/],
    ['of another account', JSON.stringify({ ...whole, home: 'any/other' }), /about "any\/other"/],
  ])('that is damaged (%s) is refused with where, what and what to do', (_, text, what) => {
    const dir = newFolder()
    const files = new LedgerFiles(dir)
    files.save('any/main', {})
    files.unlock()
    writeFileSync(join(dir, 'quota', 'any%2Fmain.json'), text)
    const open = (): unknown => new MemoryLedger(new SimulatedClock(), new LedgerFiles(dir))
    expect(open).toThrow(what)
    expect(open).toThrow(/any%2Fmain\.json is damaged: .*Put back a copy of it, or remove it.*wait that long first/)
    expect(readdirSync(dir)).toEqual(['quota'])
  })

  it.each(['any%2Fmain.json', 'used-up'])('of a version to come (%s) is no damaged one', (name) => {
    const dir = newFolder()
    new LedgerFiles(dir).unlock()
    writeFileSync(join(dir, 'quota', name), '{"version":3,"home":"any/main","limits":{},"at":{}}')
    const open = (): unknown => new MemoryLedger(new SimulatedClock(), new LedgerFiles(dir))
    expect(open).toThrow(
      / is of another release: it has the version 3, and this release knows 2\. .*wait that long first/,
    )
    expect(open).not.toThrow(/damaged/)
    expect(readdirSync(dir)).toEqual(['quota'])
  })

  it('whose charges lie far ahead, or long ago, holds the account for no more than a window', async () => {
    const dir = newFolder()
    const files = new LedgerFiles(dir)
    const charges = [-1e13, 1e13, -5_000].map((agoMs) => ({ agoMs, units: 50 }))
    files.save('any/main', { only: { windowMs: 20_000, charges, uncertain: 0 } })
    files.unlock()
    const clock = new SimulatedClock()
    const ledger = new MemoryLedger(clock, new LedgerFiles(dir))
    expect((await ledger.usage(rolling))[0]!.used).toBe(100)
    await clock.advance(20_000 + rolling.limits[0]!.inFlightLeaseMs + 200)
    expect(ledger.charge(rolling, 200).granted).toBe(200)
  })
})
