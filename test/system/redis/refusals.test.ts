import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { pino } from 'pino'
import { expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../../src/time/clock.ts'
import { type Ledger, chargeSetOf, StoreUnavailableError } from '../../../src/ledger/ledger.ts'
import { limitOf } from '../../../src/ledger/limit.ts'
import { openLedger } from '../../../src/process/open-ledger.ts'
import { RedisRecords } from '../../../src/records/redis-records.ts'
import { RequestPeers } from '../../../src/requests/peers.ts'
import { ADMIN_TOKEN, ask } from '../../support/admin.ts'
import { harnessConfig, startGateway } from '../../support/gateway.ts'
import { call } from '../../support/http.ts'
import { storeOf } from '../../support/ledger-load.ts'
import { describeTopology, type RedisServer, startStandalone, until } from '../../support/redis-topologies.ts'
import { startProcess } from '../../support/process.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'

const LIMIT = limitOf({ id: 'read.60000', class: 'read', requests: 1_000, windowMs: 60_000 })
const READS = chargeSetOf('any/thing', [{ limit: LIMIT }])

async function start(args: readonly string[] = []): Promise<RedisServer> {
  const redis = await startStandalone(args)
  onTestFinished(() => redis.stop())
  return redis
}

/** Whether its quota is shared: on a busy machine Redis may be late meanwhile, and a charge be refused. */
async function isShared(ledger: Ledger): Promise<boolean> {
  try {
    return (await ledger.charge(READS, 1)).granted === 1 && !ledger.isDegraded
  } catch (error) {
    if (error instanceof StoreUnavailableError) return false
    throw error
  }
}

/** A ledger that has shared its quota, and what it logs from then on. */
async function openAt(port: number): Promise<{ ledger: Ledger; lines: string[] }> {
  const lines: string[] = []
  const logger = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) })
  // Longer than by default, because on a busy machine Redis itself may be late.
  const store = storeOf({ url: `redis://127.0.0.1:${port}`, commandTimeout: '300ms' })
  const ledger = await openLedger(store, { clock: systemClock, logger })
  onTestFinished(() => ledger.close())
  await until(() => isShared(ledger))
  lines.length = 0
  return { ledger, lines }
}

describeTopology('a Redis that refuses', () => {
  it.each<[string, (redis: RedisServer) => Promise<unknown>, (redis: RedisServer) => Promise<unknown>, string[]?]>([
    [
      'OOM',
      ({ client }) => client.config('SET', 'maxmemory', '1'),
      ({ client }) => client.config('SET', 'maxmemory', '0'),
    ],
    [
      'NOREPLICAS',
      ({ client }) => client.config('SET', 'min-replicas-to-write', '1'),
      ({ client }) => client.config('SET', 'min-replicas-to-write', '0'),
    ],
    ['READONLY', ({ client }) => client.replicaof('127.0.0.1', 1), ({ client }) => client.replicaof('NO', 'ONE')],
    [
      'MASTERDOWN',
      async ({ client }) => {
        await client.config('SET', 'replica-serve-stale-data', 'no')
        await client.replicaof('127.0.0.1', 1)
      },
      ({ client }) => client.replicaof('NO', 'ONE'),
    ],
    [
      'NOPERM',
      ({ client }) => client.acl('SETUSER', 'default', '-evalsha', '-eval'),
      ({ client }) => client.acl('SETUSER', 'default', '+@all'),
    ],
    [
      'MISCONF',
      async ({ client, folder }) => {
        rmSync(folder.path, { recursive: true })
        await client.bgsave()
        await until(async () => (await client.info('persistence')).includes('rdb_last_bgsave_status:err'))
      },
      ({ client }) => client.config('SET', 'stop-writes-on-bgsave-error', 'no'),
      ['--save', '3600', '1'],
    ],
    [
      'BUSY',
      async ({ client }) => {
        const script = client.duplicate()
        onTestFinished(() => script.disconnect())
        script.eval('while true do end', 0).catch(() => undefined)
        await until(() =>
          client.ping().then(
            () => false,
            (error: Error) => error.message.startsWith('BUSY'),
          ),
        )
      },
      ({ client }) => client.script('KILL'),
      ['--busy-reply-threshold', '20'],
    ],
  ])(
    'says %s in the log and in the problem that /readyz shows, until that has passed',
    async (word, begin, end, args) => {
      const redis = await start(args)
      const { ledger, lines } = await openAt(redis.port)
      await begin(redis)
      const isTold = async (): Promise<boolean> => {
        await Promise.resolve(ledger.charge(READS, 1)).catch(() => undefined)
        return lines.some((line) => line.includes(word)) && ledger.problem?.includes(word) === true
      }
      await until(isTold)
      expect(ledger.problem).toMatch(/^the quota store refuses \(.+\): .+; quotas are kept by leases$/)
      await end(redis)
      await until(() => isShared(ledger))
      expect(ledger.problem).toBeUndefined()
      await until(async () => lines.some((line) => line.includes('Redis answers again')))
      expect(lines.filter((line) => line.includes(`refuses (${word}`) && line.includes('leases'))).toHaveLength(1)
    },
  )

  it.each<[string, begin: readonly string[], method: string, path: string, body: object | undefined, said: RegExp]>([
    [
      'the trail',
      ['ACL', 'SETUSER', 'default', '-xrevrange'],
      'GET',
      '/audit',
      undefined,
      /^Redis refuses \(NOPERM .*xrevrange.*docs\/guar/,
    ],
    [
      'a notice',
      ['ACL', 'SETUSER', 'default', '-publish'],
      'POST',
      '/clients',
      { name: 'bot' },
      /^Redis refuses \(.*script.*\): its ACL .*docs\/guar/,
    ],
    [
      'a preset',
      ['ACL', 'SETUSER', 'default', '-publish'],
      'POST',
      '/presets/harness/copy',
      { name: 'ours' },
      /: its ACL/,
    ],
    [
      'the look for a loss',
      ['ACL', 'SETUSER', 'default', '-xrevrange'],
      'POST',
      '/clients',
      { name: 'bot' },
      /NOPERM .*xrevrange/,
    ],
    ['presets', ['ACL', 'SETUSER', 'default', '-hgetall'], 'GET', '/presets', undefined, /NOPERM .*hgetall/],
    [
      'usage',
      ['ACL', 'SETUSER', 'default', '-hgetall'],
      'GET',
      '/usage/days',
      undefined,
      /: Redis refuses \(NOPERM .*hgetall/,
    ],
    [
      'memory',
      ['CONFIG', 'SET', 'maxmemory', '1'],
      'POST',
      '/clients',
      { name: 'bot' },
      /\(OOM .*: its memory is full/,
    ],
    [
      'a master',
      ['REPLICAOF', '127.0.0.1', '1'],
      'POST',
      '/clients',
      { name: 'bot' },
      /\(READONLY .*: it is a replica/,
    ],
  ])('%s is told by the admin API as no mistake of the gateway', async (_, begin, method, path, body, said) => {
    const redis = await start()
    const store = { kind: 'redis', url: `redis://127.0.0.1:${redis.port}`, commandTimeout: '2s' }
    const admin = { port: 0, token: ADMIN_TOKEN }
    const gateway = await startProcess(harnessConfig('http://127.0.0.1:1', {}, { admin, store, clients: {} }))
    expect((await ask(gateway, 'GET', '/clients')).status).toBe(200)
    await redis.client.call(begin[0]!, ...begin.slice(1))
    const answer = await ask(gateway, method, path, body)
    expect(answer.json()).toMatchObject({ status: 503, code: 'STORE_UNAVAILABLE', detail: expect.stringMatching(said) })
    const line = await gateway.line(/a request to the admin API failed/)
    // An error of the client library has the command with it, and so what was to be stored.
    expect(line).not.toMatch(/"args"|sluice:clients|sha256/)
  })

  it('leaves no client behind whose key nobody was told', async () => {
    const redis = await start()
    const store = { kind: 'redis', url: `redis://127.0.0.1:${redis.port}`, commandTimeout: '2s' }
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { store, clients: {} }))
    await redis.client.acl('SETUSER', 'default', '-publish')
    expect((await ask(gateway, 'POST', '/clients', { name: 'bot' })).status).toBe(503)
    await redis.client.acl('SETUSER', 'default', '+publish')
    expect((await ask(gateway, 'POST', '/clients', { name: 'bot' })).status).toBe(201)
  })

  it('to count wrong keys is told of once, and the gateway counts alone', async () => {
    const redis = await start()
    await redis.client.acl('SETUSER', 'default', '-incrby')
    const store = { kind: 'redis', url: `redis://127.0.0.1:${redis.port}`, commandTimeout: '2s' }
    const server = { port: 0, wrongKeys: { perAddress: 5, window: '1h' } }
    const gateway = await startProcess(harnessConfig('http://127.0.0.1:1', {}, { store, server, clients: {} }))
    let tried = 0
    const attempt = async () =>
      (await call(gateway.url, '/harness/x', { headers: { 'x-sluice-key': `wrong-${tried++}` } })).status
    expect(await attempt()).toBe(401)
    // The first one opens the connection.
    await pause(500)
    for (let i = 0; i < 4; i++) expect(await attempt()).toBe(401)
    expect(await attempt()).toBe(429)
    const told =
      /Redis refuses \(.*script.*\): its ACL .*docs\/guarantees\.md.*wrong keys are counted by this gateway alone/
    expect(await gateway.line(/counted by this gateway alone/)).toMatch(told)
    expect(gateway.stdout.match(/counted by this gateway alone/g)).toHaveLength(1)
  })

  it.each<[string, string, string]>([
    ['that it does not have', '99', 'DB index is out of range'],
    ['that its user may not select', '1', "no permissions to run the 'select' command"],
  ])('a database %s is told of, and no other one is used', async (_, database, said) => {
    const redis = await start()
    await redis.client.acl('SETUSER', 'default', '-select')
    if (database === '99') await redis.client.acl('SETUSER', 'default', '+select')
    const store = { kind: 'redis', url: `redis://127.0.0.1:${redis.port}/${database}`, commandTimeout: '2s' }
    const gateway = await startProcess(harnessConfig('http://127.0.0.1:1', {}, { store }))
    const line = await gateway.line(/can not be reached/)
    expect(line).toContain(`it refuses (SELECT `)
    expect(line).toContain(said)
    const readiness = await fetch(`${gateway.adminUrl}/readyz`)
    expect([readiness.status, await readiness.text()]).toMatchObject([503, expect.stringContaining(said)])
    expect(await redis.client.dbsize()).toBe(0)
    expect(gateway.stderr).toBe('')
  })

  it('to let it subscribe again does not end a gateway', async () => {
    const redis = await start()
    const store = { kind: 'redis', url: `redis://127.0.0.1:${redis.port}`, commandTimeout: '2s' }
    const gateway = await startProcess(harnessConfig('http://127.0.0.1:1', {}, { store, clients: {} }))
    const { client } = redis
    await until(async () => (await client.pubsub('NUMSUB', 'sluice:requests', 'sluice:clients'))[3] === 1)
    await client.acl('SETUSER', 'default', '-subscribe')
    await client.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await until(async () => JSON.stringify(await client.acl('LOG')).includes('"subscribe"'))
    await pause(200)
    expect((await fetch(`${gateway.adminUrl}/healthz`)).status).toBe(200)
  })

  it('to let it subscribe is asked again, so that it hears of others and of changes when it may', async () => {
    const redis = await start()
    const { client } = redis
    await client.acl('SETUSER', 'default', '-subscribe')
    const store = storeOf({ url: `redis://127.0.0.1:${redis.port}`, commandTimeout: '2s' })
    const clock = new SimulatedClock()
    const peers = new RequestPeers({ store, clock, name: 'x', answer: () => Promise.resolve({ found: [], away: [] }) })
    onTestFinished(() => peers.close())
    const records = new RedisRecords(store, 'clients', clock)
    onTestFinished(() => records.close())
    records.watch(() => undefined)
    await until(async () => JSON.stringify(await client.acl('LOG')).includes('"subscribe"'))
    await client.acl('SETUSER', 'default', '+subscribe')
    await until(async () => {
      await clock.advance(10_000)
      const listeners = await client.pubsub('NUMSUB', 'sluice:requests', 'sluice:clients')
      return listeners[1] === 1 && listeners[3] === 1
    })
  })

  it('because it is no master any more is left for the one that its address leads to now', async () => {
    const [old, next] = await Promise.all([start(), start()])
    let target = old.port
    const balancer = createServer((socket) => {
      const inner = connect(target, '127.0.0.1')
      socket.pipe(inner).on('error', () => socket.destroy())
      inner.pipe(socket).on('error', () => inner.destroy())
    })
    await once(balancer.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => void balancer.close())
    const { ledger } = await openAt((balancer.address() as AddressInfo).port)
    await next.client.replicaof('127.0.0.1', old.port)
    await until(async () => (await next.client.info('replication')).includes('master_link_status:up'))
    await next.client.replicaof('NO', 'ONE')
    await old.client.replicaof('127.0.0.1', next.port)
    // No connection was closed: only new ones lead to the new master.
    target = next.port
    await until(() => isShared(ledger))
    expect(await next.client.exists('sluice:3:{any/thing}:limits')).toBe(1)
    expect(ledger.problem).toBeUndefined()
  })

  it.each([
    [
      'in protected mode',
      'DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the default user.',
    ],
    ['with clients enough', 'ERR max number of clients reached'],
  ])('%s is one line of JSON with the cause, and nothing on stderr', async (_, said) => {
    // It says so and ends the connection, without having read anything.
    const server = createServer((socket) => {
      socket.on('error', () => undefined).end(`-${said}\r\n`, () => socket.destroy())
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    const url = `redis://:topsecret@127.0.0.1:${port}`
    const gateway = await startProcess({ ...harnessConfig('http://127.0.0.1:1'), store: { kind: 'redis', url } })
    const lines = () => gateway.stdout.split('\n').slice(0, -1)
    const warnings = () => lines().filter((line) => (JSON.parse(line) as { level: number }).level >= 40)
    await until(async () => warnings().length >= 2)
    // And no more of them.
    await pause(3_000)
    expect(gateway.stderr).toBe('')
    expect(warnings()).toHaveLength(2)
    for (const line of warnings()) expect(line).toContain(said.slice(0, 20))
    expect(gateway.stdout).not.toMatch(/EPIPE|topsecret/)
    const readiness = await fetch(`${gateway.adminUrl}/readyz`)
    expect([readiness.status, await readiness.json()]).toMatchObject([503, { status: 'not ready' }])
  })
})
