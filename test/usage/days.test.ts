import { mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import pino from 'pino'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { type DayRow, daysBetween, MOST_ROWS } from '../../src/usage/day-row.ts'
import type { UsageDays } from '../../src/usage/days.ts'
import { FileDays } from '../../src/usage/file-days.ts'
import { FLUSH_EVERY_MS, type KeeperOptions, UsageKeeper } from '../../src/usage/keeper.ts'
import { RedisDays } from '../../src/usage/redis-days.ts'
import { CallUsage, Usage } from '../../src/usage/usage.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { harnessConfig, newFolder, stores } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { countTurns } from '../support/turns.ts'

const logger = pino({ level: 'silent' })
const DAY = '2026-11-28'
const NOON = Date.parse(`${DAY}T12:00Z`)
const DAY_MS = 86_400_000

function row(client: string, units = 1, more: Partial<DayRow> = {}): DayRow {
  const counts = { units, calls: 1, refusals: 0, waits: 0, waitMs: 0, savedUnits: 0, spent: 0 }
  return { day: DAY, client, upstream: 'api', account: 'main', class: 'read', ...counts, ...more }
}

/** On that day, so that its rows have not expired. */
function daysOf(wanted: object, clock = new SimulatedClock(NOON)): UsageDays {
  const { store } = checkConfig({ ...harnessConfig('http://x'), store: wanted }, 'test')
  const days = store.kind === 'redis' ? new RedisDays(store, clock) : new FileDays(store.dir!, clock, logger)
  onTestFinished(() => days.close())
  return days
}

/** A connection of somebody else, and the key of that day's rows. */
function ownRedis({ prefix }: { readonly prefix: string }): { redis: Redis; key: string } {
  const redis = new Redis(inject('redisUrl'))
  onTestFinished(() => redis.disconnect())
  return { redis, key: `${prefix}:{usage}:${DAY}` }
}

describe.each(Object.keys(stores) as (keyof typeof stores)[])('the rows of a day, with %s', (kind) => {
  it('add up, and a batch that is added again counts once', async () => {
    const store = stores[kind]()
    const days = daysOf(store)
    expect(await days.read(DAY)).toEqual([])
    const first = { number: 1, day: DAY, rows: [row('a', 2, { waits: 1, waitMs: 1_500 }), row('b', 0.5)] }
    await days.add(first)
    await days.add(first)
    await days.add({ number: 2, day: DAY, rows: [row('a', 3, { refusals: 1, savedUnits: 7 })] })
    await days.add(first)
    const expected = [row('a', 5, { calls: 2, refusals: 1, waits: 1, waitMs: 1_500, savedUnits: 7 }), row('b', 0.5)]
    const byClient = (rows: readonly DayRow[]) => rows.toSorted((a, b) => (a.client < b.client ? -1 : 1))
    expect(byClient(await days.read(DAY))).toEqual(expected)
    // As the next process finds them, which begins to number anew.
    const next = daysOf(store)
    await next.add({ number: 1, day: DAY, rows: [row('b', 1)] })
    expect(byClient(await next.read(DAY))[1]).toEqual(row('b', 1.5, { calls: 2 }))
  })

  it('are kept apart by team and currency, and money is whole billionths', async () => {
    const store = stores[kind]()
    const days = daysOf(store)
    const rows = [
      row('a', 1, { team: 'x', organisation: 'acme', unit: 'usd', spent: 1_234_567_890_123_457 }),
      row('a', 1, { team: 'y', unit: 'usd', spent: 1 }),
      row('a', 1),
    ]
    await days.add({ number: 1, day: DAY, rows })
    await days.add({ number: 2, day: DAY, rows: [row('a', 1, { team: 'y', unit: 'usd', spent: 2 })] })
    const found = (await daysOf(store).read(DAY)).toSorted((a, b) => b.spent - a.spent)
    expect(found).toEqual([rows[0], { ...rows[1], units: 2, calls: 2, spent: 3 }, rows[2]])
  })

  it('have any names, and no more of them than there may be', async () => {
    const days = daysOf(stores[kind]())
    await days.add({ number: 1, day: DAY, rows: [row('a "b"\n,c', 1, { account: 'ü' })] })
    const rows = Array.from({ length: 2 * MOST_ROWS + 500 }, (_, i) =>
      row(`client-${i}`, 1, { account: `account-${i % 7}` }),
    )
    for (let i = 0, number = 2; i < rows.length; i += 500)
      await days.add({ number: number++, day: DAY, rows: rows.slice(i, i + 500) })
    // Clients that have a row for their other accounts go on with it.
    await days.add({ number: 1_000, day: DAY, rows: [row('client-15000', 7, { account: 'new' })] })
    const kept = await days.read(DAY)
    expect(kept.find(({ client }) => client === 'client-15000')).toMatchObject({ account: 'other', units: 8 })
    expect(kept).toContainEqual(row('a "b"\n,c', 1, { account: 'ü' }))
    expect(kept.length).toBeLessThanOrEqual(2 * MOST_ROWS + 1)
    expect(kept.reduce((sum, { units }) => sum + units, 0)).toBe(rows.length + 8)
    expect(kept.find(({ client, account }) => client === 'other' && account === 'other')!.units).toBeGreaterThan(400)
  })
})

describe('the rows of a day in files', () => {
  it('are added and written over many turns of the event loop, those of one worker after the other', async () => {
    const dir = newFolder()
    const days = new FileDays(dir, new SimulatedClock(NOON), logger)
    const rows = Array.from({ length: 2_000 }, (_, i) => row(`client ${i}`))
    using turns = countTurns()
    const added = [1, 2].map((worker) => days.add({ number: 1, day: DAY, rows }, worker))
    const again = days.add({ number: 1, day: DAY, rows }, 2)
    const read = await days.read(DAY)
    await Promise.all([...added, again])
    expect(turns.count).toBeGreaterThan(25)
    expect(read).toHaveLength(2_000)
    expect(read.every(({ calls }) => calls === 2)).toBe(true)
    expect(await new FileDays(dir, new SimulatedClock(NOON), logger).read(DAY)).toEqual(read)
  })

  it('are read over many turns of the event loop, while a batch of the same day comes', async () => {
    const dir = newFolder()
    const rows = Array.from({ length: 5_000 }, (_, i) => row(`client\n${i},`))
    await new FileDays(dir, new SimulatedClock(NOON), logger).add({ number: 1, day: DAY, rows })
    const days = new FileDays(dir, new SimulatedClock(NOON), logger)
    using turns = countTurns()
    const reading = days.read(DAY).then((found) => ({ found, turns: turns.count }))
    await days.add({ number: 1, day: DAY, rows: [row('late')] })
    const read = await reading
    expect(read.turns).toBeGreaterThan(5)
    expect(read.found).toEqual(rows)
    expect(await days.read(DAY)).toEqual([...rows, row('late')])
  })

  it.each([
    ['without its end', (text: string) => text.replace(/\n[^\n]*$/, '')],
    ['with a part of a row', (text: string) => text.replace('"read"],', '"rea')],
    ['with a text for a number', (text: string) => text.replace('[5,', '["5",')],
    ['of another version', (text: string) => text.replace('1', '0')],
    [
      'of a newer version',
      (text: string) => text.replace('1', '2'),
      'newer',
      /is of a newer release \(version 2\): run/,
    ],
  ])(
    'can not be read while their file is damaged, or was put aside: %s',
    async (_, damage, aside = 'damaged', why = /is damaged: put back a copy of it, or move it away/) => {
      const dir = newFolder()
      await new FileDays(dir, new SimulatedClock(NOON), logger).add({
        number: 1,
        day: DAY,
        rows: [row('a', 5), row('b', 5)],
      })
      const path = join(dir, 'usage', `${DAY}.json`)
      const text = readFileSync(path, 'utf8')
      writeFileSync(path, damage(text))
      const days = new FileDays(dir, new SimulatedClock(NOON), logger)
      await expect(days.read(DAY)).rejects.toThrow(`${DAY}.json`)
      await expect(days.read(DAY)).rejects.toThrow(why)
      expect(readdirSync(join(dir, 'usage'))).toEqual([`${DAY}.json`])
      // What comes has to be written, beside the rest.
      await days.add({ number: 1, day: DAY, rows: [row('c', 5)] })
      expect(readdirSync(join(dir, 'usage'))).toEqual([`${DAY}.json`, `${DAY}.json.${aside}`])
      for (const one of [days, new FileDays(dir, new SimulatedClock(NOON), logger)]) {
        await expect(one.read(DAY)).rejects.toThrow(`${DAY}.json.${aside}`)
      }
      writeFileSync(`${path}.${aside}`, text)
      // What counts again is not replaced by what is damaged next.
      const good = readFileSync(path, 'utf8')
      writeFileSync(path, damage(good))
      const next = new FileDays(dir, new SimulatedClock(NOON), logger)
      await expect(next.add({ number: 1, day: DAY, rows: [row('d', 5)] })).rejects.toThrow(why)
      expect(readFileSync(`${path}.${aside}`, 'utf8')).toBe(text)
      writeFileSync(path, good)
      expect((await days.read(DAY)).map(({ client }) => client)).toEqual(['c', 'a', 'b'])
      rmSync(`${path}.${aside}`)
      expect((await days.read(DAY)).map(({ client }) => client)).toEqual(['c'])
    },
  )

  it('are read from the one line that an older release has written, which reads what this one writes', async () => {
    const dir = newFolder()
    const days = new FileDays(dir, new SimulatedClock(NOON), logger)
    await days.add({ number: 1, day: DAY, rows: [row('a', 5), row('b\n', 0.5)] })
    const path = join(dir, 'usage', `${DAY}.json`)
    writeFileSync(path, JSON.stringify(JSON.parse(readFileSync(path, 'utf8'))))
    expect(await new FileDays(dir, new SimulatedClock(NOON), logger).read(DAY)).toEqual([row('a', 5), row('b\n', 0.5)])
  })
})

describe('the rows of a day that could not be written', () => {
  it('count when their batch comes again, though another worker has begun the next day meanwhile', async () => {
    const dir = newFolder()
    const days = new FileDays(dir, new SimulatedClock(NOON), logger)
    const batch = { number: 2, day: DAY, rows: [row('a', 5)] }
    await days.add({ number: 1, day: DAY, rows: [row('a', 2)] }, 1)
    const blocked = join(dir, 'usage', `${DAY}.json.tmp`)
    mkdirSync(blocked)
    await expect(days.add(batch, 1)).rejects.toThrow()
    expect((await days.read(DAY))[0]!.units).toBe(2)
    rmdirSync(blocked)
    await days.add({ number: 1, day: '2026-11-29', rows: [row('b', 1, { day: '2026-11-29' })] }, 2)
    await days.add(batch, 1)
    expect((await new FileDays(dir, new SimulatedClock(NOON), logger).read(DAY))[0]).toMatchObject({
      units: 7,
      calls: 2,
    })
  })
})

describe('the rows of a day in Redis', () => {
  it('count a batch once whose answer was lost, and expire', async () => {
    const proxy = await FaultProxy.start({ target: inject('redisUrl') })
    onTestFinished(() => proxy.stop())
    const store = { ...stores.Redis(), url: proxy.url }
    const days = daysOf(store)
    await days.add({ number: 1, day: DAY, rows: [row('a')] })
    for (let number = 2; number < 6; number++) {
      const batch = { number, day: DAY, rows: [row('a')] }
      // Redis has done it, and nobody hears of that.
      proxy.set({ kind: 'reset', at: 'before-headers' }, 1)
      await expect(days.add(batch)).rejects.toThrow()
      proxy.set(undefined)
      await days.add(batch)
    }
    expect(await days.read(DAY)).toEqual([row('a', 5, { calls: 5 })])
    const redis = new Redis(inject('redisUrl'))
    onTestFinished(() => redis.disconnect())
    const keys = await redis.keys(`${store.prefix}:*`)
    expect(keys).toHaveLength(2)
    for (const key of keys) expect(await redis.pttl(key)).toBeGreaterThan(6 * DAY_MS)
    expect(await redis.pttl(`${store.prefix}:{usage}:${DAY}`)).toBeGreaterThan(90 * DAY_MS)
  })

  it('keep the numbers that only a newer release counts', async () => {
    const store = stores.Redis()
    const days = daysOf(store)
    await days.add({ number: 1, day: DAY, rows: [row('a')] })
    const { redis, key } = ownRedis(store)
    const [name] = await redis.hkeys(key)
    await redis.hset(key, name!, `${await redis.hget(key, name!)} 7 8`)
    await days.add({ number: 2, day: DAY, rows: [row('a')] })
    expect(await redis.hget(key, name!)).toMatch(/^2 2 .* 7 8$/)
    expect(await days.read(DAY)).toEqual([row('a', 2, { calls: 2 })])
  })

  it.each([
    ['[', '1'],
    ['{}', '1'],
    ['["a"]', 'one'],
  ])('are not read while there is what is none (%s: %s), and whoever asks is told what to do', async (name, text) => {
    const store = stores.Redis()
    const days = daysOf(store)
    await days.add({ number: 1, day: DAY, rows: [row('a')] })
    const { redis, key } = ownRedis(store)
    await redis.hset(key, name, text)
    await expect(days.read(DAY)).rejects.toThrow(
      `Redis has what is no row: remove the field ${name} of the hash ${key}`,
    )
    await redis.hdel(key, name)
    expect(await days.read(DAY)).toEqual([row('a')])
  })
})

describe('the files of days', () => {
  it('are removed when they are 90 days old', async () => {
    const dir = newFolder()
    const folder = join(dir, 'usage')
    mkdirSync(folder)
    const clock = new SimulatedClock(NOON)
    for (const name of ['2026-08-29.json', '2026-08-30.json', '2026-11-27.json']) writeFileSync(join(folder, name), '{')
    writeFileSync(join(folder, `${DAY}.json.tmp`), 'half')
    const days = daysOf({ dir }, clock)
    await days.add({ number: 1, day: DAY, rows: [row('a')] })
    expect(readdirSync(folder)).toEqual(['2026-08-30.json', '2026-11-27.json', `${DAY}.json`])
    expect(readFileSync(join(folder, `${DAY}.json`), 'utf8')).toContain('"a"')
  })
})

describe('which days are asked for', () => {
  it.each([
    ['one', NOON, NOON, [DAY]],
    ['over midnight', NOON - DAY_MS / 2 - 1, NOON, ['2026-11-27', DAY]],
    ['none of the future', NOON, NOON + 9 * DAY_MS, [DAY]],
  ])('%s', (_, since, until, expected) => {
    expect(daysBetween(since, until, NOON)).toEqual(expected)
  })

  it('are no more than are kept', () => {
    expect(daysBetween(0, NOON, NOON)).toHaveLength(91)
  })
})

describe('what was counted', () => {
  /** Keeps what it is told, as often as it can be written. */
  class Days implements UsageDays {
    readonly rowsABatch = 200
    isAway = false
    readonly batches: { number: number; day: string; units: number }[] = []

    add({ number, day, rows }: Parameters<UsageDays['add']>[0]): Promise<void> {
      if (this.isAway) return Promise.reject(new Error('away'))
      this.batches.push({ number, day, units: rows.reduce((sum, { calls }) => sum + calls, 0) })
      return Promise.resolve()
    }

    read(): Promise<DayRow[]> {
      return Promise.resolve([])
    }

    close(): void {}
  }

  function keeping(at = NOON, owners: KeeperOptions['owners'] = () => () => ({})) {
    const clock = new SimulatedClock(at)
    const metrics = new Metrics()
    const usage = new Usage({ metrics, clock })
    const days = new Days()
    let unwritten = 0
    const keeper = new UsageKeeper({
      usage,
      days,
      clock,
      logger,
      owners,
      onUnwritten: () => unwritten++,
    })
    onTestFinished(() => keeper.close())
    const calls = new CallUsage(usage, { upstream: 'api', account: 'main', class: 'read' })
    return { clock, days, keeper, call: (client = 'a') => calls.of(client).end(false), unwritten: () => unwritten }
  }

  it('is written every two seconds, and nothing where nothing was', async () => {
    const { clock, days, call } = keeping()
    call()
    call()
    await clock.advance(FLUSH_EVERY_MS)
    await clock.advance(10 * FLUSH_EVERY_MS)
    expect(days.batches).toEqual([{ number: 1, day: DAY, units: 2 }])
  })

  it('is written as one of the day before at midnight, whatever the period', async () => {
    const { clock, days, call } = keeping(NOON + DAY_MS / 2 - 100)
    call()
    await clock.advance(100)
    call()
    await clock.advance(FLUSH_EVERY_MS)
    expect(days.batches).toMatchObject([
      { day: DAY, units: 1 },
      { day: '2026-11-29', units: 1 },
    ])
  })

  it('is of the day on which it was counted, though a write hangs over midnight', async () => {
    const { clock, days, keeper, call } = keeping(NOON + DAY_MS / 2 - FLUSH_EVERY_MS - 100)
    const { add } = days
    const { promise: isOver, resolve: end } = Promise.withResolvers<void>()
    days.add = (batch) => isOver.then(() => add.call(days, batch))
    call()
    await clock.advance(FLUSH_EVERY_MS)
    call()
    await clock.advance(100)
    for (let i = 0; i < 5; i++) {
      call()
      await clock.advance(FLUSH_EVERY_MS)
    }
    end()
    await keeper.flush()
    await keeper.flush()
    const sum = (day: string) => days.batches.reduce((all, one) => all + (one.day === day ? one.units : 0), 0)
    expect([sum(DAY), sum('2026-11-29')]).toEqual([2, 5])
    expect(days.batches.map(({ number }) => number)).toEqual(days.batches.map((_, i) => i + 1))
  })

  it('is not lost where it can not be said whose it is', async () => {
    let isWrong = true
    const { days, keeper, call, unwritten } = keeping(NOON, () => {
      if (isWrong) throw new Error('a mistake')
      return () => ({})
    })
    call()
    await keeper.flush()
    expect(unwritten()).toBe(1)
    isWrong = false
    await keeper.flush()
    expect(days.batches).toMatchObject([{ units: 1 }])
  })

  it('waits for a store that is away, by the day, and goes there in order', async () => {
    const { clock, days, keeper, call, unwritten } = keeping(NOON + DAY_MS / 2 - 3 * FLUSH_EVERY_MS)
    days.isAway = true
    for (let i = 0; i < 6; i++) {
      call()
      await clock.advance(FLUSH_EVERY_MS)
    }
    expect(unwritten()).toBeGreaterThan(4)
    days.isAway = false
    call()
    await keeper.flush()
    const sum = (day: string) => days.batches.reduce((all, one) => all + (one.day === day ? one.units : 0), 0)
    expect([sum(DAY), sum('2026-11-29')]).toEqual([3, 4])
    expect(days.batches.map(({ number }) => number)).toEqual(days.batches.map((_, i) => i + 1))
  })

  it('is written later where the gateway itself made a mistake', async () => {
    const { days, keeper, call, unwritten } = keeping()
    call()
    const { add } = days
    days.add = () => {
      throw new Error('a mistake')
    }
    await keeper.flush()
    expect(unwritten()).toBe(1)
    days.add = add
    await keeper.flush()
    expect(days.batches).toMatchObject([{ units: 1 }])
  })

  it('is written once more when the gateway stops', async () => {
    const { clock, days, keeper, call } = keeping()
    call()
    await keeper.close()
    expect(days.batches).toMatchObject([{ units: 1 }])
    expect(clock.timers).toBe(0)
  })
})
