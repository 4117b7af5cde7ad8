import { setTimeout as pause } from 'node:timers/promises'
import { Cluster, type Redis } from 'ioredis'
import pino from 'pino'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { type ChargeSet, chargeSetOf } from '../../../src/ledger/ledger.ts'
import { limitOf } from '../../../src/ledger/limit.ts'
import type { RedisLedger } from '../../../src/ledger/redis/redis-ledger.ts'
import { GuessGuard } from '../../../src/clients/guess-guard.ts'
import { connectedInTime, connectRedis } from '../../../src/redis/connection.ts'
import { OwnConnection } from '../../../src/redis/own-connection.ts'
import { troubleOf } from '../../../src/redis/trouble.ts'
import { systemClock } from '../../../src/time/clock.ts'
import { RedisScript } from '../../../src/ledger/redis/script.ts'
import { pauseAwake } from '../../support/awake-clock.ts'
import { Load, openTestLedger, storeOf, type TestLedger } from '../../support/ledger-load.ts'
import {
  describeTopology,
  type RedisCluster,
  type RedisServer,
  type SentinelRedis,
  startCluster,
  startSentinelRedis,
  startStandalone,
  startTlsRedis,
  type TlsRedis,
  until,
} from '../../support/redis-topologies.ts'
import { readText } from '../../deploy/repository.ts'

const [REQUESTS, WINDOW_MS] = [100, 1_000]
/** An answer that takes longer, of the time that this process was awake, has hung: far above `commandTimeout`. */
const HUNG_MS = 1_500

const logger = pino({ level: 'silent' })
let made = 0

function readsOf(partition: string): ChargeSet {
  const limits = [limitOf({ id: 'read.1000', class: 'read', requests: REQUESTS, windowMs: WINDOW_MS })]
  limits.push(limitOf({ id: 'read.60000', class: 'read', requests: 60 * REQUESTS, windowMs: 60_000 }))
  return chargeSetOf(
    partition,
    limits.map((limit) => ({ limit })),
  )
}

async function open(store: object): Promise<TestLedger> {
  const opened = await openTestLedger(store)
  onTestFinished(() => opened.ledger.close())
  return opened
}

async function openThree(store: object): Promise<RedisLedger[]> {
  const opened = [await open(store), await open(store), await open(store)]
  return opened.map(({ ledger }) => ledger)
}

/** Charges, commits, refunds and leaves, through two gateways. */
async function exercise(store: object): Promise<TestLedger> {
  const [one, other] = [await open({ commandTimeout: '2s', ...store }), await open({ commandTimeout: '2s', ...store })]
  const chargeSet = readsOf(`any/${made++}`)
  const first = await one.ledger.charge(chargeSet, 60)
  const second = await other.ledger.charge(chargeSet, 60)
  expect(first.granted).toBe(60)
  // Of the rest, the first gateway may hold a quarter in lease by now.
  expect(second.granted).toBeGreaterThanOrEqual(30)
  expect(second.granted).toBeLessThanOrEqual(40)
  for (let i = 0; i < first.granted; i++) one.ledger.commit(first)
  for (let i = 0; i < second.granted; i++) other.ledger.refund(second)
  await until(async () => (await one.ledger.usage(chargeSet))[0]!.used === 60)
  expect((await other.ledger.charge(chargeSet, 100)).granted).toBeGreaterThanOrEqual(20)
  expect((await one.ledger.usage(chargeSet))[0]!.used).toBeLessThanOrEqual(100)
  expect([one.ledger.isDegraded, other.ledger.isDegraded]).toEqual([false, false])
  return one
}

/** Every key has its end, and begins as keys of ours do. */
async function expectKeysExpire(servers: readonly RedisServer[], prefix: string): Promise<void> {
  let found = 0
  for (const { client } of servers) {
    for (const key of await client.keys('*')) {
      found++
      expect(key).toMatch(new RegExp(`^${prefix}:\\d+:\\{[^{}]+\\}:`))
      const ttl = await client.pttl(key)
      expect(ttl, key).toBeGreaterThan(0)
      expect(ttl, key).toBeLessThan(120_000)
    }
  }
  expect(found).toBeGreaterThan(0)
}

async function expectResp3(client: Redis): Promise<void> {
  expect(await client.client('INFO')).toMatch(/\bresp=3\b/)
}

/** Waits until no gateway is on leases any more; how long that took since `since`. */
async function recovery(ledgers: readonly RedisLedger[], since: number): Promise<number> {
  await until(async () => ledgers.every((ledger) => !ledger.isDegraded))
  return Math.round(performance.now() - since)
}

function expectKept(load: Load): void {
  expect(load.worst(WINDOW_MS)).toBeLessThanOrEqual(REQUESTS)
  expect(load.slowestMs).toBeLessThan(HUNG_MS)
}

describeTopology('a single Redis', () => {
  let redis: RedisServer
  beforeAll(async () => void (redis = await startStandalone()))
  afterAll(() => redis.stop())

  it('keeps the quota, over RESP3, in keys that expire', async () => {
    const { redis: connection } = await exercise({ url: `redis://127.0.0.1:${redis.port}`, prefix: 'plain' })
    await expectResp3(connection as Redis)
    await expectKeysExpire([redis], 'plain')
  })

  it('holds two releases side by side: counters of another key version are left alone', async () => {
    await redis.client.flushall()
    const { ledger } = await open({ url: `redis://127.0.0.1:${redis.port}`, prefix: 'versions' })
    const chargeSet = readsOf('any/main')
    await ledger.charge(chargeSet, 70)
    const ours = await redis.client.keys('versions:*')
    const theirs = ours.map((key) =>
      key.replace(/^versions:(\d+):/, (_, version) => `versions:${Number(version) - 1}:`),
    )
    for (const key of theirs) await redis.client.set(key, 'of another release', 'PX', 60_000)
    expect((await ledger.charge(chargeSet, 70)).granted).toBe(30)
    for (const key of theirs) expect(await redis.client.get(key)).toBe('of another release')
    expect(theirs.some((key) => ours.includes(key))).toBe(false)
  })

  it('is found again after it lost the script', async () => {
    const url = `redis://127.0.0.1:${redis.port}`
    // On a busy machine no answer is late.
    const { ledger } = await open({ url, prefix: 'noscript', commandTimeout: '10s' })
    const chargeSet = readsOf('any/main')
    expect((await ledger.charge(chargeSet, 10)).granted).toBe(10)
    await redis.client.script('FLUSH')
    expect((await ledger.charge(chargeSet, 10)).granted).toBe(10)
    expect((await ledger.usage(chargeSet))[0]!.used).toBe(20)
    expect(ledger.isDegraded).toBe(false)
  })
})

describeTopology('a gateway whose process stood still', () => {
  it.each(['first', 'second'])(
    'does not blame Redis for it: what came meanwhile counts, of the %s call',
    async (which) => {
      const redis = await startStandalone()
      onTestFinished(() => redis.stop())
      const { ledger } = await open({ url: `redis://127.0.0.1:${redis.port}`, prefix: 'busy', commandTimeout: '500ms' })
      await ledger.begin()
      const chargeSet = readsOf('any/main')
      if (which === 'second') await ledger.charge(chargeSet, 1)
      const charge = ledger.charge(chargeSet, 1)
      setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 700))
      expect((await charge).granted).toBe(1)
      expect(ledger.isDegraded).toBe(false)
    },
  )
})

describeTopology('a Redis with TLS and an ACL user', () => {
  let redis: TlsRedis
  beforeAll(async () => void (redis = await startTlsRedis('guarded')))
  afterAll(() => redis.stop())

  const store = (): object => ({
    url: `rediss://localhost:${redis.server.port}`,
    username: redis.username,
    password: redis.password,
    prefix: 'guarded',
    tls: { ca: redis.ca },
  })

  it('keeps the quota with the rights to its own keys and commands only', async () => {
    const { redis: connection } = await exercise(store())
    await expect((connection as Redis).get('else')).rejects.toThrow('NOPERM')
    const clients = (await redis.server.client.client('LIST')) as string
    expect(clients).toMatch(/user=gateway .*\bresp=3\b/)
    await expectKeysExpire([redis.server], 'guarded')
  })

  it('takes the user from the URL, too, and the name in the certificate from the configuration', async () => {
    const { username, password, ca, server } = redis
    const url = `rediss://${username}:${encodeURIComponent(password)}@127.0.0.1:${server.port}`
    await exercise({ url, prefix: 'guarded', tls: { ca, servername: 'localhost' } })
  })

  it('is not spoken to if its certificate is of an unknown authority, or for another name', async () => {
    const { server, ca } = redis
    const errors = await Promise.all([
      errorOf({ ...store(), tls: {} }),
      errorOf({ ...store(), tls: { ca }, url: `rediss://127.0.0.1:${server.port}` }),
      errorOf({ ...store(), password: 'wrong' }),
    ])
    expect(errors).toEqual([
      expect.stringMatching(/self-signed|unable to verify/),
      expect.stringContaining('does not match certificate'),
      expect.stringContaining('WRONGPASS'),
    ])
  })
})

describeTopology('a Redis behind sentinels', () => {
  let redis: SentinelRedis
  beforeAll(async () => void (redis = await startSentinelRedis(2)))
  afterAll(() => redis.stop())

  const store = (): object => ({
    sentinels: redis.sentinels,
    sentinelPassword: redis.sentinelPassword,
    prefix: 'watched',
  })

  it('keeps the quota, over RESP3, in keys that expire', async () => {
    const { redis: connection } = await exercise(store())
    await expectResp3(connection as Redis)
    await expectKeysExpire([await redis.master()], 'watched')
  })

  it('is found again when a new master is named while another is still being asked for', async () => {
    const { ledger, redis: connection } = await open(store())
    const { connector } = connection as unknown as { connector: { disconnect(): void } }
    const ended = new Promise((resolve) => void connection.once('end', resolve))
    connection.once('connecting', () => connector.disconnect()) // as the news of a fail-over does
    connection.disconnect(true)
    await ended
    await until(async () => !ledger.isDegraded)
  })

  it('keeps it when its master dies under load and a replica takes over', async () => {
    const ledgers = await openThree(store())
    const load = new Load(ledgers, readsOf('any/failover'))
    await pause(1_500)
    await redis.doubtSoon()
    const old = await redis.master()
    const diedAt = performance.now()
    await old.kill()
    await until(async () => (await redis.master()) !== old)
    const promotedMs = Math.round(performance.now() - diedAt)
    const recoveredMs = await recovery(ledgers, diedAt)
    const recoveredAt = performance.now()
    await pauseAwake(2 * WINDOW_MS)
    await load.stop()
    console.log(`Sentinel: a new master after ${promotedMs} ms, the quota shared again after ${recoveredMs} ms`)
    expectKept(load)
    expect(load.arrivedSince(recoveredAt)).toBeGreaterThan(REQUESTS)
  })

  it('keeps it when its master stands still, is replaced, and comes back', async () => {
    const ledgers = await openThree(store())
    const load = new Load(ledgers, readsOf('any/frozen'))
    await pause(1_500)
    await redis.doubtSoon()
    const old = await redis.master()
    const frozenAt = performance.now()
    old.freeze()
    await until(async () => (await redis.master()) !== old)
    const recoveredMs = await recovery(ledgers, frozenAt)
    old.thaw()
    await pauseAwake(2 * WINDOW_MS)
    await load.stop()
    console.log(`Sentinel: the quota shared again ${recoveredMs} ms after the master stood still`)
    expectKept(load)
  })
})

describeTopology('a Redis Cluster', () => {
  let cluster: RedisCluster
  beforeAll(async () => void (cluster = await startCluster()))
  afterAll(() => cluster.stop())

  const store = (): object => ({ cluster: cluster.nodes, prefix: 'sliced' })
  const partitionKey = (partition: string): string => `sliced:3:{${partition}}:limits`

  /** An account whose slot is one of the first third's, of which the master has a replica. */
  async function partitionOfFirst(): Promise<string> {
    for (;;) {
      const partition = `any/${made++}`
      const key = partitionKey(partition)
      const isFirst = (await cluster.servers[1]!.client.cluster('KEYSLOT', key)) < 5_461
      if (isFirst && (await cluster.masterOf(key)) !== cluster.servers[1]) return partition
    }
  }

  it('keeps the quota, over RESP3, in keys that expire, each account in one slot', async () => {
    const { redis: connection } = await exercise(store())
    expect(connection).toBeInstanceOf(Cluster)
    for (const node of (connection as Cluster).nodes('master')) await expectResp3(node)
    await expectKeysExpire(await cluster.masters(), 'sliced')
  })

  /** A user with the rights that the guarantees name for all features, and these. */
  async function userOfDocs(...more: string[]): Promise<{ username: string; password: string }> {
    const [, rights = ''] = /^ACL SETUSER (.*)$/m.exec(readText('docs/guarantees.md')) ?? []
    const [username = '', ...rules] = rights.replaceAll('sluice:', 'sliced:').split(' ')
    for (const { client } of cluster.servers) await client.call('ACL', 'SETUSER', username, 'reset', ...rules, ...more)
    return { username, password: 'PASSWORD' }
  }

  it('keeps it with the rights that the guarantees name for a user of all features', async () => {
    await exercise({ ...store(), ...(await userOfDocs()) })
  })

  it('counts wrong keys over all gateways, with these rights', async () => {
    const config = storeOf({ ...store(), ...(await userOfDocs()) })
    const guard = () => {
      const redis = connectRedis(config)
      const limits = { perAddress: 1, overall: 9, window: 60_000 }
      const shared = { connect: () => redis, prefix: config.prefix, troubleOf }
      const made = new GuessGuard({ limits, what: 'keys', clock: systemClock, logger, redis: shared })
      onTestFinished(() => made.close())
      return connectedInTime(redis, systemClock).then(() => made)
    }
    const [one, other] = [await guard(), await guard()]
    expect(await one.count('192.0.2.1', 'a')).toBe(0)
    expect(await other.count('192.0.2.1', 'b')).toBeGreaterThan(0)
    for (const { client } of await cluster.masters()) await client.flushall()
  })

  it.each([
    ['with the rights that the guarantees name', [], false],
    ['who may not ask for it, by leases', ['-asking'], true],
  ])('keeps it while a slot moves, for a user %s', async (_, more, isDegraded) => {
    const { ledger } = await open({ ...store(), commandTimeout: '2s', ...(await userOfDocs(...more)) })
    const partition = `any/${made++}`
    const chargeSet = readsOf(partition)
    expect((await ledger.charge(chargeSet, 1)).granted).toBe(1)
    await pause(600) // so that it has a lease
    const key = partitionKey(partition)
    const from = await cluster.masterOf(key)
    const to = (await cluster.masters()).find((master) => master !== from)!
    let granted = 0
    await cluster.migrate(key, to, async () => {
      const slot = await from.client.cluster('KEYSLOT', key)
      if ((await from.client.cluster('COUNTKEYSINSLOT', slot)) > 0) return
      granted = (await ledger.charge(chargeSet, 1)).granted
      expect(ledger.isDegraded).toBe(isDegraded)
    })
    expect(granted).toBe(1)
    await until(async () => !ledger.isDegraded)
  })

  it('is asked for records, usage and the audit trail after connections to several masters were lost', async () => {
    const own = new OwnConnection(storeOf({ ...store(), commandTimeout: '2s' }), systemClock)
    onTestFinished(() => own.close())
    const key = 'sliced:any'
    const ask = () => own.ask((redis) => redis.get(key))
    expect(await ask()).toBeNull()
    const asked = await cluster.masterOf(key)
    const masters = [...new Set(await cluster.masters())]
    const first = masters.find((master) => master !== asked)
    const portsOf = () => (own.open() as Cluster).nodes('master').map(({ options }) => options.port)
    for (const { client, port } of [first!, asked]) {
      await client.call('CLIENT', 'KILL', 'TYPE', 'normal')
      await until(async () => !portsOf().includes(port))
    }
    // The answer leads to the master, and tells of the others.
    expect(await ask()).toBeNull()
    await until(async () => portsOf().length === masters.length)
    expect(await ask()).toBeNull()
  })

  it('keeps it while the slot of the account moves under load', async () => {
    const ledgers = await openThree(store())
    const partition = await partitionOfFirst()
    const load = new Load(ledgers, readsOf(partition))
    await pause(1_000)
    const movedAt = performance.now()
    await cluster.migrate(partitionKey(partition), cluster.servers[1]!, () => pause(100))
    const movedMs = Math.round(performance.now() - movedAt)
    const recoveredMs = await recovery(ledgers, movedAt)
    const recoveredAt = performance.now()
    await pauseAwake(1.5 * WINDOW_MS)
    await load.stop()
    console.log(`Cluster: slot moved in ${movedMs} ms, the quota shared again after ${recoveredMs} ms`)
    expectKept(load)
    expect(load.arrivedSince(recoveredAt)).toBeGreaterThan(REQUESTS / 2)
    expect(await cluster.masterOf(partitionKey(partition))).toBe(cluster.servers[1])
    await expectKeysExpire(await cluster.masters(), 'sliced')
  })

  it('is noticed to have lost a master the first time, too, and which keys that concerns', async () => {
    const connection = connectRedis(storeOf({ ...store(), commandTimeout: '2s' }))
    onTestFinished(() => connection.disconnect())
    // As in the program, the ledger begins when the cluster is connected.
    await connectedInTime(connection, systemClock)
    const losses: ((key: string) => boolean)[] = []
    new RedisScript(connection).onLost((isConcerned) => void losses.push(isConcerned))
    const key = partitionKey(await partitionOfFirst())
    const lost = await cluster.masterOf(key)
    const others = Array.from({ length: 24 }, (_, i) => partitionKey(`any/${i}`))
    const ofLost: string[] = []
    for (const other of others) if ((await cluster.masterOf(other)) === lost) ofLost.push(other)
    await lost.client.call('CLIENT', 'KILL', 'TYPE', 'normal')
    await until(async () => losses.length > 0)
    expect(losses[0]!(key)).toBe(true)
    expect(others.filter(losses[0]!)).toEqual(ofLost)
  })

  it('keeps it when a master dies under load and its replica takes over', async () => {
    const ledgers = await openThree(store())
    const partition = await partitionOfFirst()
    const load = new Load(ledgers, readsOf(partition))
    await pause(1_500)
    await cluster.doubtSoon()
    const old = await cluster.masterOf(partitionKey(partition))
    const diedAt = performance.now()
    await old.kill()
    await until(async () => !(await cluster.masters(cluster.servers[1])).includes(old))
    const promotedMs = Math.round(performance.now() - diedAt)
    const recoveredMs = await recovery(ledgers, diedAt)
    const recoveredAt = performance.now()
    await pauseAwake(2 * WINDOW_MS)
    await load.stop()
    console.log(`Cluster: a new master after ${promotedMs} ms, the quota shared again after ${recoveredMs} ms`)
    expectKept(load)
    expect(load.arrivedSince(recoveredAt)).toBeGreaterThan(REQUESTS)
  })
})

async function errorOf(store: object): Promise<string> {
  const connection = connectRedis(storeOf(store))
  try {
    return await new Promise<string>((resolve) => void connection.on('error', (error) => resolve(error.message)))
  } finally {
    connection.disconnect()
  }
}
