import { describe, expect, it } from 'vitest'
import { Metrics } from '../../src/observe/metrics.ts'
import { dueOf, duesByClass } from '../../src/usage/due.ts'
import { type Calendar, calendarOf } from '../../src/time/calendar.ts'
import { CallUsage, Spending, Usage } from '../../src/usage/usage.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { countTurns } from '../support/turns.ts'

const MIDNIGHT = Date.parse('2026-11-28T00:00Z')
const MINUTE = 60_000
const HOUR = 60 * MINUTE
const LABELS = { upstream: 'api', account: 'main', class: 'read' }
const BOT = { name: 'bot', weight: 1, share: 0 } as const
const client = (name: string) => ({ ...BOT, name, priority: 'normal' as const })

function counting({ at = MIDNIGHT + HOUR, mostTallies = 100, mostRecent = 100, mostLookUps = 1_000 } = {}) {
  const clock = new SimulatedClock(at)
  const metrics = new Metrics({ maxClients: 1_000, maxAccounts: 1_000 })
  const usage = new Usage({ metrics, clock, mostTallies, mostRecent, mostLookUps })
  const spendingOf = (account = 'main', window = '1m', windowMs = MINUTE, isCalendar = false, calendar?: Calendar) => {
    const labels = { ...LABELS, account }
    return new Spending(
      usage,
      labels,
      [{ class: 'read', units: 2 }],
      [{ limit: { ...labels, window, windowMs, isCalendar, calendar }, units: 2 }],
    )
  }
  return { clock, metrics, usage, spendingOf }
}

describe('what a client has used of a limit', () => {
  it('is counted in its window, in the last hour and in the last day', async () => {
    const { clock, usage, spendingOf } = counting()
    const spending = spendingOf()
    spending.count(client('bot'), 'id')
    const row = async () => (await usage.recent())[0]
    expect(await row()).toMatchObject({
      ...LABELS,
      window: '1m',
      client: 'bot',
      used: 2,
      hour: 2,
      day: 2,
      since: MIDNIGHT + HOUR,
    })
    await clock.advance(MINUTE)
    expect(await row()).toMatchObject({ used: 2 })
    await clock.advance(MINUTE / 10)
    spending.count(client('bot'), 'id')
    expect(await row()).toMatchObject({ used: 2, hour: 4, day: 4 })
    await clock.advance(HOUR + 5 * MINUTE)
    expect(await row()).toMatchObject({ used: 0, hour: 0, day: 4 })
    await clock.advance(25 * HOUR)
    expect(await row()).toBeUndefined()
  })

  it('of a month of a time zone begins anew with it', async () => {
    const calendar = calendarOf({ unit: 'month', timezone: 'Europe/Berlin' })
    const { clock, usage, spendingOf } = counting({ at: Date.parse('2027-02-28T22:00Z') })
    const spending = spendingOf('main', 'month', calendar.windowMs, true, calendar)
    spending.count(client('bot'), 'id')
    expect((await usage.recent())[0]).toMatchObject({ used: 2 })
    await clock.advance(HOUR)
    expect((await usage.recent())[0]).toMatchObject({ used: 0, hour: 2 })
    spending.count(client('bot'), 'id')
    await clock.advance(20 * 24 * HOUR)
    expect((await usage.recent())[0]).toMatchObject({ used: 2, day: 0 })
  })

  it('of a calendar window begins anew with it', async () => {
    const { clock, usage, spendingOf } = counting({ at: MIDNIGHT + 23.5 * HOUR })
    const spending = spendingOf('main', '24h', 24 * HOUR, true)
    spending.count(client('bot'), 'id')
    await clock.advance(HOUR / 2 - 1)
    expect(await usage.recent()).toMatchObject([{ used: 2 }])
    await clock.advance(1)
    expect(await usage.recent()).toMatchObject([{ used: 0, hour: 2, day: 2 }])
  })

  it('goes on when the wall clock is set back', async () => {
    const { clock, usage, spendingOf } = counting()
    const spending = spendingOf('main', '24h', 24 * HOUR, true)
    spending.count(client('bot'), 'id')
    clock.setWall(-48 * HOUR)
    spending.count(client('bot'), 'id')
    expect(await usage.recent()).toMatchObject([{ used: 4 }])
  })

  it('is dropped after a day without use, and found again by who counts it', async () => {
    const { clock, usage, spendingOf } = counting({ mostRecent: 2 })
    const spending = spendingOf()
    for (const name of ['a', 'b']) spending.count(client(name), 'id')
    await clock.advance(26 * HOUR)
    usage.take()
    for (const name of ['c', 'a']) spending.count(client(name), 'id')
    expect(await usage.recent()).toMatchObject([
      { client: 'c', account: 'main', day: 2 },
      { client: 'a', account: 'main', day: 2 },
    ])
  })

  it('is of a bounded number of names: accounts become other first, then clients, and no unit is lost', async () => {
    const { usage, spendingOf } = counting({ mostRecent: 50, mostTallies: 50 })
    const spendings = Array.from({ length: 40 }, (_, i) => spendingOf(`account-${i}`))
    for (const spending of spendings) for (let i = 0; i < 40; i++) spending.count(client(`client-${i}`), 'id')
    const rows = await usage.recent()
    expect(rows.length).toBeLessThanOrEqual(101)
    expect(rows.reduce((sum, row) => sum + row.hour, 0)).toBe(2 * 40 * 40)
    expect(rows).toContainEqual(expect.objectContaining({ account: 'other', client: 'client-39' }))
    const { rows: taken } = usage.take()
    expect(taken.length).toBeLessThanOrEqual(101)
    expect(taken.reduce((sum, row) => sum + row.units, 0)).toBe(2 * 40 * 40)
  })
})

describe('what a client has used on a day', () => {
  it('is told once, with calls, refusals, waits and what the cache saved', () => {
    const { usage, spendingOf } = counting()
    const calls = new CallUsage(usage, LABELS)
    const spending = spendingOf()
    spending.count(client('bot'), 'id')
    spending.save(client('bot'), 'id')
    spending.save(client('bot'), 'id')
    calls.of('bot').wait(1_500.4, 'id')
    calls.of('bot').end(false)
    calls.of('bot').end(true)
    const row = { day: '2026-11-28', client: 'bot', ...LABELS, units: 2, savedUnits: 4, spent: 0 }
    expect(usage.take().rows).toEqual([{ ...row, calls: 2, refusals: 1, waits: 1, waitMs: 1_500 }])
    expect(usage.take().rows).toEqual([])
    calls.of('bot').end(false)
    expect(usage.take().rows).toMatchObject([{ calls: 1, units: 0, waits: 0 }])
  })

  it('is of the day on which it was counted, and the next day begins with none', async () => {
    const { clock, usage, spendingOf } = counting({ at: MIDNIGHT + 24 * HOUR - 1 })
    const spending = spendingOf()
    spending.count(client('bot'), 'id')
    await clock.advance(1)
    expect(usage.isNewDay).toBe(true)
    expect(usage.take()).toMatchObject({ day: '2026-11-28', rows: [{ units: 2 }] })
    spending.count(client('bot'), 'id')
    expect(usage.take()).toMatchObject({ day: '2026-11-29', rows: [{ day: '2026-11-29', units: 2 }] })
  })

  it('sums to the metrics', async () => {
    const { metrics, usage, spendingOf } = counting()
    const spending = spendingOf()
    for (const name of ['a', 'b', 'a']) spending.count(client(name), 'id')
    spending.save(client('b'), 'id')
    const calls = new CallUsage(usage, LABELS)
    calls.of('a').wait(250, 'id')
    for (const money of [100_000_000, 200_000_000]) calls.of('a').spend(money, 'usd', 'id')
    calls.of('a').spend(7, 'eur', 'id')
    const text = await metrics.registry.metrics()
    const labels = 'upstream="api",account="main",class="read"'
    expect(text).toContain(`sluice_quota_charged_total{${labels},client="a"} 4 `)
    expect(text).toContain(`sluice_quota_charged_total{${labels},client="b"} 2 `)
    expect(text).toContain(`sluice_quota_saved_total{${labels},client="b"} 2 `)
    expect(text).toContain(`sluice_client_waits_total{${labels},client="a"} 1 `)
    expect(text).toContain(`sluice_client_wait_seconds_total{${labels},client="a"} 0.25 `)
    expect(text).toMatch(/^sluice_money_spent_total\{.*,client="a",unit="usd"\} 0\.3/m)
    expect(text).toMatch(/^sluice_money_spent_total\{.*,client="a",unit="eur"\} 7e-9 /m)
  })
})

describe('what is looked up for every client of every account', () => {
  it('is forgotten before it is too much, and no unit is lost with it', () => {
    const { usage, spendingOf } = counting({ mostLookUps: 7, mostTallies: 1_000 })
    const spendings = Array.from({ length: 10 }, (_, i) => spendingOf(`account-${i}`))
    for (let n = 0; n < 3; n++)
      for (const spending of spendings) for (let i = 0; i < 10; i++) spending.count(client(`client-${i}`), 'id')
    const { rows } = usage.take()
    expect(rows).toHaveLength(100)
    expect(new Set(rows.map(({ units }) => units))).toEqual(new Set([6]))
  })
})

describe('what a client is due', () => {
  const claim = (name: string, weight: number, share: number, hour = 1) => ({
    client: name,
    weight,
    share,
    used: 0,
    hour,
  })

  it('counts all who used a class, however many, and lets calls go on meanwhile', async () => {
    const rows = Array.from({ length: 5_000 }, (_, i) => ({
      ...{ ...LABELS, window: '1m', client: `client-${i}`, weight: 1, share: 0 },
      ...{ used: 1, hour: 1, day: 1, since: 0 },
    }))
    using turns = countTurns()
    const dues = await duesByClass(rows)
    expect(turns.count).toBeGreaterThan(3)
    expect(dues).toHaveLength(5_000)
    expect(dues[4_999]!.due).toBeCloseTo(1 / 5_000, 10)
  })

  it.each([
    ['equal parts', [claim('a', 1, 0), claim('b', 1, 0)], { a: 0.5, b: 0.5 }],
    ['parts by weight', [claim('a', 3, 0), claim('b', 1, 0)], { a: 0.75, b: 0.25 }],
    ['no less than its share', [claim('a', 3, 0), claim('b', 1, 0.4)], { a: 0.6, b: 0.4 }],
    ['all of it, for who is alone', [claim('a', 1, 0.2)], { a: 1 }],
    ['nothing, for who has not used it for an hour', [claim('a', 1, 0), claim('b', 9, 0, 0)], { a: 1 }],
    ['nothing known, for those that are together', [claim('a', 1, 0), claim('other', 1, 0)], { a: 1 }],
  ])('is %s', (_, claims, expected) => {
    const dues = Object.fromEntries(dueOf(claims))
    expect(Object.keys(dues)).toEqual(Object.keys(expected))
    for (const [name, due] of Object.entries(expected)) expect(dues[name]).toBeCloseTo(due, 10)
  })
})
