import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { Redis } from 'ioredis'
import pino from 'pino'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import type { StoreConfig } from '../../src/schema/schema.ts'
import { Losses } from '../../src/records/losses.ts'
import { RedisRecords } from '../../src/records/redis-records.ts'
import { OwnConnection, StoreError } from '../../src/redis/own-connection.ts'
import { openManaged } from '../../src/process/management.ts'
import { ADMIN_TOKEN, ask } from '../support/admin.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { harnessConfig, startGateway, stores } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

interface Item {
  readonly id: string
  readonly version: number
  readonly text?: string
}

const upstreams = { x: { url: 'http://x', accounts: { main: { id: 'm' } } } }

function setUp() {
  const { store } = checkConfig({ store: stores.Redis(), upstreams }, 'test')
  const redis = new Redis(inject('redisUrl'))
  onTestFinished(() => redis.disconnect())
  const logged: string[] = []
  const logger = pino(
    { base: null },
    { write: (line: string) => void logged.push((JSON.parse(line) as { msg: string }).msg) },
  )
  const clock = new SimulatedClock()
  const open = (config: StoreConfig = store) => {
    const losses = new Losses(clock, logger)
    const records = new RedisRecords<Item>(config, 'clients', clock, losses)
    onTestFinished(() => records.close())
    return { losses, records, read: async () => Object.fromEntries(await records.read()) }
  }
  return { open, redis, key: `${store.prefix}:clients`, store, logged, clock }
}

const a1: Item = { id: 'a', version: 1 }
const a2: Item = { id: 'a', version: 2 }
const b1: Item = { id: 'b', version: 1 }
const both = { a: a1, b: b1 }

/** Redis loses `a`, which one gateway has removed and another still knows, and `b`, which both know. */
async function loseAfterRemoval() {
  const { open, redis, key } = setUp()
  const [up, old] = [open(), open()]
  for (const item of [a1, b1]) await up.records.change(item.id, () => item)
  await Promise.all([up.read(), old.read()])
  await up.records.change('a', () => undefined)
  await up.read()
  await redis.del(key)
  return { up, old }
}

describe('records that Redis has lost', () => {
  it('are put back by whoever knows them, and the loss is told for half a day', async () => {
    const { open, redis, key, logged, clock } = setUp()
    const [one, other] = [open(), open()]
    for (const item of [a1, b1]) await one.records.change(item.id, () => item)
    expect([await one.read(), await other.read()]).toEqual([both, both])
    expect(one.losses.text).toBeUndefined()
    await redis.del(key)
    expect([await other.read(), await one.read()]).toEqual([both, both])
    expect(await redis.hlen(key)).toBe(2)
    expect(other.losses.text).toMatch(
      /^Redis has lost 2 of its clients, put back from what this gateway knew \(noticed at .*Z\)$/,
    )
    expect(logged).toEqual(['Redis has lost 2 of its clients, put back from what this gateway knew'])
    await clock.advance(12 * 3_600_000)
    expect(other.losses.text).toBeUndefined()
  })

  it('are put back in their newest state, by whoever knows that', async () => {
    const { open, redis, key } = setUp()
    const [old, up] = [open(), open()]
    await old.records.change('a', () => a1)
    await old.read()
    await up.records.change('a', () => a2)
    await up.read()
    await redis.del(key)
    expect(await old.read()).toEqual({ a: a1 })
    expect(await up.read()).toEqual({ a: a2 })
    expect(await old.read()).toEqual({ a: a2 })
  })

  it('are put back in their newest state, though a gateway that is behind puts back an older one meanwhile', async () => {
    const { open, redis, key, store } = setUp()
    const old = open()
    const line = await slowLine()
    const { url } = checkConfig({ store: { ...stores.Redis(), url: line.url }, upstreams }, 'test').store
    const up = open({ ...store, url: url! })
    await up.records.change('a', () => a1)
    await old.read()
    await up.records.change('a', () => undefined)
    expect(await up.read()).toEqual({})
    await redis.del(key)
    let isBehindDone = false
    line.beforeChange = async () => {
      line.beforeChange = undefined
      expect(await old.read()).toEqual({ a: a1 })
      isBehindDone = true
    }
    expect(await up.read()).toEqual({})
    expect(isBehindDone).toBe(true)
    for (const { read } of [old, up]) expect(await read()).toEqual({})
  })

  it('do not replace what is newer, or another of that name', async () => {
    const { open, redis, key } = setUp()
    const { records, read, losses } = open()
    await records.change('a', () => a2)
    await read()
    const other: Item = { id: 'c', version: 1 }
    for (const item of [{ ...a2, version: 3 }, other]) {
      await redis.hset(key, 'a', JSON.stringify(item))
      expect(await read()).toEqual({ a: item })
    }
    expect(losses.text).toBeUndefined()
  })

  it('are not those that were removed', async () => {
    const { open, redis, key } = setUp()
    const [one, other] = [open(), open()]
    for (const item of [a1, b1]) await one.records.change(item.id, () => item)
    await Promise.all([one.read(), other.read()])
    await one.records.change('a', () => undefined)
    for (const { read, losses } of [one, other]) {
      expect(await read()).toEqual({ b: b1 })
      expect(losses.text).toBeUndefined()
    }
    await redis.del(key)
    for (const { read } of [one, other]) expect(await read()).toEqual({ b: b1 })
    await one.records.change('a', (before) => {
      expect(before).toBeUndefined()
      return a1
    })
    expect(await other.read()).toEqual({ a: a1, b: b1 })
  })

  it('are not those that were removed, though a gateway has not heard of it yet', async () => {
    const { up, old } = await loseAfterRemoval()
    expect(await up.read()).toEqual({ b: b1 })
    expect(await old.read()).toEqual({ b: b1 })
    expect(up.losses.text).toContain('1 of its clients')
  })

  it('do not come back after their removal, though a gateway that has not heard of it reads first', async () => {
    const { up, old } = await loseAfterRemoval()
    expect(await old.read()).toEqual(both)
    for (const { read } of [up, old]) expect(await read()).toEqual({ b: b1 })
  })

  it('do not come back after another took their name, though a gateway that has not heard of it reads first', async () => {
    const { open, redis, key } = setUp()
    const [up, old] = [open(), open()]
    await up.records.change('a', () => ({ ...a1, version: 7 }))
    await Promise.all([up.read(), old.read()])
    await up.records.change('a', () => undefined)
    const other: Item = { id: 'c', version: 1 }
    await up.records.change('a', () => other)
    await up.read()
    await redis.del(key)
    expect(await old.read()).toEqual({ a: { ...a1, version: 7 } })
    for (const { read } of [up, old]) expect(await read()).toEqual({ a: other })
  })

  it('do not come back after their removal where they have no version, nor were written by this one', async () => {
    const { open, redis, key } = setUp()
    const [up, old] = [open(), open()]
    await redis.hset(key, 'a', JSON.stringify({ text: 'sealed' }))
    await Promise.all([up.read(), old.read()])
    await up.records.change('a', () => undefined)
    await up.read()
    await redis.del(key)
    expect(await old.read()).toEqual({ a: { text: 'sealed' } })
    for (const { read } of [up, old]) expect(await read()).toEqual({})
  })

  it('are there for a change that comes before anybody has read', async () => {
    const { open, redis, key } = setUp()
    const { records, read } = open()
    await records.change('a', () => a1)
    await read()
    await redis.del(key)
    await records.change('a', (before) => {
      expect(before).toEqual(a1)
      return a2
    })
    expect(await read()).toEqual({ a: a2 })
  })

  it('and whose fields are no UTF-8 since, are told of, and put back when these are removed', async () => {
    const { open, redis, key } = setUp()
    const { records, read, losses } = open()
    await records.change('a', () => a2)
    await read()
    const older = Buffer.from(JSON.stringify({ ...a1, text: '?', revision: 1 }))
    older[older.indexOf('?')] = 0xff
    await redis.hset(key, 'a', older)
    const wrong = `Redis can not change what is no UTF-8: remove the field a of the hash ${key} (HDEL)`
    for (let i = 0; i < 2; i++) await expect(read()).rejects.toThrow(wrong)
    await expect(open().records.change('a', () => a2)).rejects.toThrow(wrong)
    expect(losses.text).toContain(`1 of its clients, can not be put back: ${wrong}`)
    await redis.hdel(key, 'a')
    expect(await read()).toEqual({ a: a2 })
  })

  it('and that were removed by an older version, whose names have an empty text, are not there', async () => {
    const { open, redis, key } = setUp()
    const { read } = open()
    await redis.hset(key, 'a', '', 'b', JSON.stringify(b1))
    expect(await read()).toEqual({ b: b1 })
  })

  it('and that Redis does not take back are said once to be missing, and put back when it does', async () => {
    const { open, redis, key, store, logged } = setUp()
    const user = `u${store.prefix}`
    await redis.call('ACL', 'SETUSER', user, 'on', 'nopass', '~*', '&*', '+@all')
    onTestFinished(async () => void (await redis.call('ACL', 'DELUSER', user)))
    const { records, read, losses } = open({ ...store, username: user, password: store.password ?? redisPassword() })
    await records.change('a', () => a1)
    await read()
    await redis.del(key)
    await redis.call('ACL', 'SETUSER', user, '-eval')
    for (let i = 0; i < 2; i++) await expect(read()).rejects.toThrow('NOPERM')
    expect(losses.text).toContain('1 of its clients, can not be put back: Redis refuses (NOPERM')
    await redis.call('ACL', 'SETUSER', user, '+eval')
    expect(await read()).toEqual({ a: a1 })
    expect(losses.text).toContain('put back')
    expect(logged).toHaveLength(2)
  })
})

interface SlowLine {
  readonly url: string
  /** What happens before a script that announces a change goes on to Redis. */
  beforeChange: (() => Promise<void>) | undefined
}

/** A line to Redis that is slow at the wrong moment. */
async function slowLine(): Promise<SlowLine> {
  const target = new URL(inject('redisUrl'))
  const server = createServer((client) => {
    const redis = connect(Number(target.port || 6_379), target.hostname)
    redis.pipe(client)
    let last = Promise.resolve()
    client.on('data', (bytes) => {
      const before = bytes.includes('PUBLISH') ? line.beforeChange : undefined
      last = last.then(() => before?.()).then(() => void redis.write(bytes))
    })
    client.on('close', () => redis.destroy())
    for (const socket of [client, redis]) socket.on('error', () => client.destroy())
  }).listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const line: SlowLine = {
    url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`,
    beforeChange: undefined,
  }
  return line
}

function redisPassword() {
  return checkConfig({ store: { ...stores.Redis(), password: 'any' }, upstreams }, 'test').store.password!
}

it('copies of presets are put back, and removed ones are not, though nobody asks for them', async () => {
  const { redis, store, clock } = setUp()
  const key = `${store.prefix}:presets`
  const open = async () => {
    const managed = await openManaged(store, { clock, logger: pino({ level: 'silent' }) })
    onTestFinished(() => managed.close())
    return managed.presets
  }
  const [one] = [await open(), await open()]
  // Both have subscribed, so that both hear of each change.
  await expect.poll(() => redis.pubsub('NUMSUB', key)).toEqual([key, 2])
  for (const name of ['ours', 'old'])
    await one.change(name, () => ({ id: name, name, basedOn: 'github', config: {}, createdAt: clock.wall() }))
  await one.change('old', () => undefined)
  const isPutBack = async () => {
    await clock.advance(10_000)
    return (await redis.hkeys(key)).toSorted()
  }
  for (let i = 0; i < 2; i++) await isPutBack()
  await redis.del(key)
  await expect.poll(isPutBack).toEqual(['old', 'ours'])
  expect([...(await one.read()).keys()]).toEqual(['ours'])
})

it.each(['{', '5', 'null', '[]'])(
  'a field of somebody else (%s) is told of, with where it is and what to do',
  async (text) => {
    const { open, redis, key } = setUp()
    const { records, read } = open()
    await records.change('a', () => a1)
    await redis.hset(key, 'foreign', text)
    const wrong = `Redis has what is no record: remove the field foreign of the hash ${key} (HDEL)`
    for (const asked of [read(), records.change('foreign', () => b1), records.change('a', () => a2)]) {
      const error: unknown = await asked.catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(StoreError)
      expect((error as Error).message).toBe(wrong)
    }
    await redis.hdel(key, 'foreign')
    expect(await read()).toEqual({ a: a1 })
  },
)

it('a copy of a preset that takes a name just now is not taken away with the one before', async () => {
  const { store } = setUp()
  const line = await slowLine()
  const config = (url: string) =>
    harnessConfig(
      'http://127.0.0.1:1',
      {},
      { admin: { port: 0, token: ADMIN_TOKEN }, store: { ...stores.Redis(), prefix: store.prefix, url } },
    )
  const [slow, quick] = [await startGateway(config(line.url)), await startGateway(config(inject('redisUrl')))]
  const copy = async () => (await ask(quick, 'POST', '/presets/github/copy', { name: 'ours' })).json() as { id: string }
  const before = await copy()
  let after = before
  line.beforeChange = async () => {
    line.beforeChange = undefined
    expect((await ask(quick, 'DELETE', '/presets/ours')).status).toBe(204)
    after = await copy()
  }
  expect((await ask(slow, 'DELETE', `/presets/${before.id}`)).status).toBe(404)
  expect((await ask(quick, 'GET', '/presets/ours')).json().id).toBe(after.id)
  expect(after.id).not.toBe(before.id)
})

it.each([
  ['is made, though its answer was lost', { kind: 'reset', at: 'before-headers' } as const, { a: a1 }],
  ['that did not arrive is refused', { kind: 'refuse' } as const, {}],
])('a change %s', async (_, fault, expected) => {
  const { open, store } = setUp()
  const proxy = await FaultProxy.start({ target: inject('redisUrl') })
  onTestFinished(() => proxy.stop())
  const { store: byProxy } = checkConfig(
    { store: { ...stores.Redis(), prefix: store.prefix, url: proxy.url }, upstreams },
    'test',
  )
  const { records, read } = open(byProxy)
  expect(await read()).toEqual({})
  // It reads all, looks at the record, and changes it.
  let exchanges = 0
  proxy.choose(() => (++exchanges === 3 ? fault : undefined))
  const isMade = await records
    .change('a', () => a1)
    .then(
      () => true,
      () => false,
    )
  expect([isMade, await open().read()]).toEqual(['a' in expected, expected])
})

it('says why Redis can not be reached to whoever asks', async () => {
  const { store, clock } = setUp()
  const connection = new OwnConnection({ ...store, username: 'nobody', password: redisPassword() }, clock)
  onTestFinished(() => connection.close())
  const asked = connection.ask((redis) => redis.ping()).catch((error: unknown) => (error as Error).message)
  await new Promise((resolve) => void connection.open().once('error', resolve))
  await clock.advance(2_000)
  expect(await asked).toMatch(
    /^Redis refuses \(WRONGPASS .*\): it does not accept store\.username and store\.password$/,
  )
})

it('takes no mistake of the program for a refusal of Redis', async () => {
  const { store, clock } = setUp()
  const connection = new OwnConnection(store, clock)
  onTestFinished(() => connection.close())
  await expect(connection.ask((redis) => redis.call('NONSENSE'))).rejects.toThrow(StoreError)
  const mistake = new TypeError('undefined is not a function')
  await expect(connection.ask(() => Promise.reject(mistake))).rejects.toBe(mistake)
})
