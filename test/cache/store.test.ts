import { describe, expect, it, inject, onTestFinished } from 'vitest'
import { type Entry, sizeOf } from '../../src/cache/entry.ts'
import { FORMAT, MOST_PENDING } from '../../src/cache/redis-store.ts'
import { MemoryStore } from '../../src/cache/memory-store.ts'
import { RedisStore } from '../../src/cache/redis-store.ts'
import type { CacheStore } from '../../src/cache/store.ts'
import { systemClock } from '../../src/time/clock.ts'
import { checkConfig } from '../../src/config/load.ts'
import { connectedInTime, connectRedis } from '../../src/redis/connection.ts'
import { startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { describeTopology, startStandalone } from '../support/redis-topologies.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const MINUTE = 60_000

function entryOf(body: Buffer | string, headers: string[] = ['content-type', 'text/plain']): Entry {
  const freshness = { bornAt: 1, lifetimeMs: 2, whileRevalidateMs: 3, ifErrorMs: 4, isStrict: false }
  return { kind: 'entry', status: 200, reason: 'OK', headers, body: Buffer.from(body), ...freshness }
}

function redisConfig(url: string) {
  const upstreams = { x: { url: 'http://127.0.0.1:1', accounts: { main: {} } } }
  return checkConfig({ store: { kind: 'redis', url, commandTimeout: '2s' }, upstreams }, 'test').store
}

async function redisStore(url: string, prefix: string, onError: () => void = () => undefined): Promise<RedisStore> {
  const redis = connectRedis(redisConfig(url))
  redis.on('error', () => undefined)
  await connectedInTime(redis, systemClock)
  const store = new RedisStore({ redis, clock: systemClock, prefix, answerWithinMs: 2_000, onError })
  onTestFinished(() => store.close())
  return store
}

let prefixes = 0
const kinds: Record<string, () => CacheStore | Promise<CacheStore>> = {
  memory: () => new MemoryStore(new SimulatedClock(), 1e6),
  Redis: () => redisStore(inject('redisUrl'), `cache-test-${process.pid}-${prefixes++}`),
}

describe.each(Object.entries(kinds))('the store in %s', (_, open) => {
  it('finds what was kept, byte for byte, and nothing else', async () => {
    const store = await open()
    const { generation } = await store.find('r', 's')
    const entry = entryOf(Buffer.from([0, 255, 10, 13, 128]), ['x-a', 'ä\u00e9"', 'x-a', ''])
    store.keep('r', 's', generation!, entry, MINUTE)
    const found = await store.find('r', 's')
    // Real time passes while it is in Redis.
    expect(found).toEqual({ generation, stored: { ...entry, bornAt: expect.any(Number) as number } })
    expect((await store.find('r', 'other')).stored).toBeUndefined()
    expect((await store.find('other', 's')).stored).toBeUndefined()
    store.keep('r', 's', generation!, { kind: 'vary', names: ['accept'] }, MINUTE)
    expect((await store.find('r', 's')).stored).toEqual({ kind: 'vary', names: ['accept'] })
    store.drop('r', 's')
    expect(await store.find('r', 's')).toEqual({ generation, stored: undefined })
  })

  it('forgets everything of a resource, and takes nothing any more that was asked for before', async () => {
    const store = await open()
    const { generation: before } = await store.find('r', 's')
    store.keep('r', 's', before!, entryOf('old'), MINUTE)
    store.invalidate('r')
    const { generation: after, stored } = await store.find('r', 's')
    expect(stored).toBeUndefined()
    expect(after).not.toBe(before)
    store.keep('r', 's', after!, entryOf('new'), MINUTE)
    store.keep('r', 's', before!, entryOf('late'), MINUTE)
    expect((await store.find('r', 's')).stored).toMatchObject({ body: Buffer.from('new') })
  })
})

describe('the store in memory', () => {
  it('never takes more than its bytes, and lets go of what was used least lately', () => {
    const maxBytes = 1_000_000
    const store = new MemoryStore(new SimulatedClock(), maxBytes)
    const keep = (name: string, bytes: number): void => {
      store.keep(name, 's', store.find(name, 's').generation!, entryOf(Buffer.alloc(bytes)), MINUTE)
    }
    const isKept = (name: string): boolean => store.find(name, 's').stored !== undefined
    for (let i = 0; i < 5_000; i++) {
      if (i > 0) expect(isKept('always')).toBe(true)
      if (i === 0) keep('always', 1_000)
      keep(`r${i}`, (i * 37) % 20_000)
    }
    expect(store.bytes).toBeLessThanOrEqual(maxBytes)
    for (let i = 4_950; i < 5_000; i++) expect(isKept(`r${i}`)).toBe(true)
    expect(isKept('r4000')).toBe(false)
    keep('huge', maxBytes)
    expect(isKept('huge')).toBe(false)
  })

  it('counts what an entry takes in memory', () => {
    expect(sizeOf(entryOf(Buffer.alloc(1_000), ['a'.repeat(100), 'b'.repeat(100)]))).toBeGreaterThan(1_400)
  })

  it('holds on to no larger block than the body', async () => {
    const upstream = await startUpstream((_, response) =>
      response.writeHead(200, { 'cache-control': 'max-age=60' }).end('x'.repeat(200)),
    )
    const gateway = await startGateway({
      server: { port: 0 },
      admin: { port: 0 },
      upstreams: {
        api: {
          url: upstream.url,
          accounts: { main: {} },
          limits: { read: [] },
          routes: [{ method: 'GET', path: '/*', class: 'read', cache: true }],
        },
      },
    })
    global.gc?.()
    const before = process.memoryUsage().arrayBuffers
    for (let i = 0; i < 300; i++) await call(gateway.url, `/api/${i}`)
    // A block from the network has 64 KiB, so these would be 19 MB.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(12e6)
  })

  it('forgets what is older than it is of use', async () => {
    const clock = new SimulatedClock()
    const store = new MemoryStore(clock, 1e6)
    store.keep('r', 's', store.find('r', 's').generation!, entryOf('x'), MINUTE)
    await clock.advance(MINUTE - 1)
    expect(store.find('r', 's').stored).toBeDefined()
    await clock.advance(1)
    expect(store.find('r', 's').stored).toBeUndefined()
  })
})

describeTopology('the store in Redis', () => {
  it('keeps nothing without an end, under names with its prefix, its version and no secret', async () => {
    const server = await startStandalone()
    onTestFinished(() => server.stop())
    const store = await redisStore(`redis://127.0.0.1:${server.port}`, 'my-sluice')
    const { generation } = await store.find('r', 's')
    store.keep('r', 's', generation!, entryOf('x'), MINUTE)
    await store.find('r', 's')
    const keys = await server.client.keys('*')
    expect(keys.toSorted()).toEqual([`my-sluice:cache:${FORMAT}:{r}:generation`, `my-sluice:cache:${FORMAT}:{r}:s`])
    for (const key of keys) expect(await server.client.pttl(key)).toBeGreaterThan(0)
    expect(await server.client.pttl(keys.find((key) => key.endsWith(':s'))!)).toBeLessThanOrEqual(MINUTE)
  })

  it('takes what is none of its own for nothing', async () => {
    const server = await startStandalone()
    onTestFinished(() => server.stop())
    const store = await redisStore(`redis://127.0.0.1:${server.port}`, 'p')
    const { generation } = await store.find('r', 's')
    for (const junk of ['', 'x', '\xff\xff\xff\xff{}', '\0\0\0\x02{}', '\0\0\0\x02{]body']) {
      await server.client.set(`p:cache:${FORMAT}:{r}:s`, Buffer.from(junk, 'latin1'))
      expect(await store.find('r', 's')).toEqual({ generation, stored: undefined })
    }
  })

  it('finds nothing while Redis is away, and after it is back nothing that was written to meanwhile', async () => {
    const server = await startStandalone()
    onTestFinished(() => server.stop())
    let errors = 0
    const store = await redisStore(`redis://127.0.0.1:${server.port}`, 'p', () => void errors++)
    for (const name of ['a', 'b'])
      store.keep(name, 's', (await store.find(name, 's')).generation!, entryOf(name), MINUTE)
    expect((await store.find('a', 's')).stored).toBeDefined()
    // So that its connections break, and it has everything when they are back.
    await server.client.config('SET', 'maxclients', '1')
    await server.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await expect.poll(async () => (await store.find('a', 's')).isFailed).toBe(true)
    store.invalidate('a')
    expect((await store.find('a', 's')).stored).toBeUndefined()
    expect(errors).toBeGreaterThan(0)
    await server.client.config('SET', 'maxclients', '100')
    await expect.poll(async () => (await store.find('b', 's')).stored).toBeDefined()
    await expect.poll(async () => (await store.find('a', 's')).isFailed).toBeUndefined()
    expect((await store.find('a', 's')).stored).toBeUndefined()
  })

  it('ends what is stored later, where Redis refused that on a connection that stays', async () => {
    const server = await startStandalone()
    onTestFinished(() => server.stop())
    let errors = 0
    const store = await redisStore(`redis://127.0.0.1:${server.port}`, 'p', () => void errors++)
    store.keep('a', 's', (await store.find('a', 's')).generation!, entryOf('a'), MINUTE)
    await server.client.acl('SETUSER', 'default', '-del')
    store.invalidate('a')
    await expect.poll(() => errors).toBe(1)
    expect((await store.find('a', 's')).isFailed).toBe(true)
    await server.client.acl('SETUSER', 'default', '+del')
    await expect.poll(async () => (await store.find('a', 's')).isFailed).toBeUndefined()
    expect((await store.find('a', 's')).stored).toBeUndefined()
  })

  it('remembers so many invalidations that Redis did not take, and trusts nothing of before once there were more', async () => {
    const server = await startStandalone()
    onTestFinished(() => server.stop())
    let errors = 0
    const store = await redisStore(`redis://127.0.0.1:${server.port}`, 'p', () => void errors++)
    store.keep('last', 's', (await store.find('last', 's')).generation!, entryOf('old'), MINUTE)
    expect((await store.find('last', 's')).stored).toBeDefined()
    await server.client.acl('SETUSER', 'default', '-del')
    for (let i = 0; i < MOST_PENDING; i++) store.invalidate(`r${i}`)
    store.invalidate('last')
    await expect.poll(() => errors).toBe(MOST_PENDING + 1)
    expect(store.pendingInvalidations).toBe(MOST_PENDING)
    expect(await store.find('last', 's')).toMatchObject({ isFailed: true, stored: undefined })
    await server.client.acl('SETUSER', 'default', '+del')
    // It is ended for the other gateways, too, as soon as it is asked for.
    expect((await store.find('last', 's')).stored).toBeUndefined()
    const other = await redisStore(`redis://127.0.0.1:${server.port}`, 'p')
    expect((await other.find('last', 's')).stored).toBeUndefined()
  })

  it('never makes a call fail, nor wait for longer than commandTimeout', async () => {
    const server = await startStandalone()
    onTestFinished(async () => {
      server.thaw()
      await server.stop()
    })
    const upstream = await startUpstream((_, response) =>
      response.writeHead(200, { 'cache-control': 'max-age=60' }).end('answer'),
    )
    const gateway = await startGateway({
      server: { port: 0 },
      admin: { port: 0 },
      store: { kind: 'redis', url: `redis://127.0.0.1:${server.port}`, commandTimeout: '1s' },
      cache: { store: 'redis' },
      upstreams: {
        api: {
          url: upstream.url,
          accounts: { main: {} },
          limits: { read: [] },
          routes: [{ method: 'GET', path: '/*', class: 'read', cache: true }],
        },
      },
    })
    const read = () => call(gateway.url, '/api/x')
    await read()
    expect((await read()).headers['cache-status']).toContain('hit')
    server.freeze()
    for (let i = 0; i < 3; i++) expect(await read()).toMatchObject({ status: 200, body: 'answer' })
    await server.kill()
    for (let i = 0; i < 3; i++) expect(await read()).toMatchObject({ status: 200, body: 'answer' })
    const metrics = await gateway.metrics()
    expect(metrics).toMatch(/sluice_cache_total\{[^}]*result="unavailable"\} 6/)
    expect(Number(/^sluice_cache_errors_total (\d+)/m.exec(metrics)?.[1])).toBeGreaterThanOrEqual(6)
    expect(gateway.lines.map(({ status }) => status)).toEqual(Array.from({ length: 8 }, () => '200'))
  })
})
