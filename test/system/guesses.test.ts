import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { GuessGuard } from '../../src/clients/guess-guard.ts'
import { networkOf } from '../../src/net/address.ts'
import { hashKey } from '../../src/clients/keys.ts'
import { createLog } from '../../src/observe/log.ts'
import { ADMIN_TOKEN, ask } from '../support/admin.ts'
import { startRedisServer } from '../support/find-redis.ts'
import { harnessConfig, newFolder, startGateway, startUpstream, stores } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'
import { hasProgram } from '../support/packages.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const clients = { bot: { keys: [hashKey('right')] } }
const PATH = '/harness/ng/api/projects'

async function setUp(wrongKeys: object, rest: object = {}, options: { clock?: SimulatedClock } = {}) {
  const upstream = await startUpstream()
  const gateway = await startGateway(
    harnessConfig(upstream.url, {}, { clients, server: { port: 0, wrongKeys }, ...rest }),
    options,
  )
  const attempt = async (key: string) => (await call(gateway.url, PATH, { headers: { 'x-sluice-key': key } })).status
  return { upstream, gateway, attempt }
}

const keys = (count: number, prefix = 'wrong') => Array.from({ length: count }, (_, i) => `${prefix}-${i}`)

async function inTurn(attempt: (key: string) => Promise<number>, tried: readonly string[]): Promise<number[]> {
  const statuses: number[] = []
  for (const key of tried) statuses.push(await attempt(key))
  return statuses
}

describe('an address that tries many keys', () => {
  it('may try no other for a while, not even the right one, and is told for how long', async () => {
    const { upstream, gateway, attempt } = await setUp({ perAddress: 3, window: '1h' })
    expect(await inTurn(attempt, [...keys(5), 'right'])).toEqual([401, 401, 401, 429, 429, 429])
    const refused = await call(gateway.url, PATH, { headers: { 'x-api-key': 'right' } })
    expect(refused.headers['x-sluice-error']).toBe('too_many_attempts')
    expect(refused.json()).toMatchObject({ code: 'TOO_MANY_ATTEMPTS' })
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(3_500)
    expect(Number(refused.headers['retry-after'])).toBeLessThanOrEqual(3_600)
    expect(upstream.seen).toEqual([])
    expect(gateway.lines.at(-1)).toMatchObject({ outcome: 'too_many_attempts', client: 'unknown' })
  })

  it('may go on with the key that a connection was let in with, and with nothing else on it', async () => {
    const { attempt, gateway } = await setUp({ perAddress: 1, window: '1h' })
    const open = await RawClient.connect(gateway.url)
    const say = (key: string) => open.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\nX-Sluice-Key: ${key}\r\n\r\n`)
    const answers = async (count: number) =>
      [...(await open.until(new RegExp(`(?:HTTP/1.1[^]*){${count}}\r\n\r\n`))).matchAll(/HTTP\/1\.1 (\d+)/g)].map(
        ([, status]) => Number(status),
      )
    say('right')
    expect(await answers(1)).toEqual([200])
    expect(await inTurn(attempt, keys(2))).toEqual([401, 429])
    say('right')
    expect(await answers(2)).toEqual([200, 200])
    say('wrong-again')
    expect(await answers(3)).toEqual([200, 200, 429])
    open.socket.destroy()
  })

  it('is let in again when the time is over', async () => {
    const clock = new SimulatedClock()
    const { attempt } = await setUp({ perAddress: 1, window: '1h' }, {}, { clock })
    expect(await inTurn(attempt, keys(2))).toEqual([401, 429])
    await clock.advance(3_500_000)
    expect(await attempt('right')).toBe(429)
    await clock.advance(101_000)
    expect(await attempt('right')).toBe(200)
  })

  it('is not one that presents the same wrong key again and again, nor one without a key', async () => {
    const { attempt, gateway } = await setUp({ perAddress: 2, window: '1h' })
    expect(await inTurn(attempt, Array(10).fill('old-key'))).toEqual(Array(10).fill(401))
    for (let i = 0; i < 5; i++) expect((await call(gateway.url, PATH)).status).toBe(401)
    expect(await attempt('right')).toBe(200)
  })

  it('and all addresses together are bounded', async () => {
    const { attempt } = await setUp({ perAddress: 100, overall: 3, window: '1h' })
    expect(await inTurn(attempt, keys(5))).toEqual([401, 401, 401, 429, 429])
  })

  it('leaves no trace of a key in log, metrics and answers', async () => {
    const { gateway, attempt } = await setUp({ perAddress: 2, window: '1h' })
    await inTurn(attempt, keys(4, 'guessed-secret'))
    expect(JSON.stringify(gateway.lines) + (await gateway.metrics())).not.toContain('guessed-secret')
  })
})

describe('instances that share a Redis', () => {
  it('count wrong keys together', async () => {
    const store = stores.Redis()
    const one = await setUp({ perAddress: 3, window: '1h' }, { store })
    const two = await setUp({ perAddress: 3, window: '1h' }, { store })
    // The first may come while the connection that counts is made.
    await Promise.all([one.attempt('first-1'), two.attempt('first-2')])
    await pause(200)
    const statuses = await inTurn((key) => (key.endsWith('0') ? one : two).attempt(key), keys(40))
    expect(statuses.filter((status) => status === 401).length).toBeLessThanOrEqual(3)
    expect(await one.attempt('another')).toBe(429)
    expect(await two.attempt('another')).toBe(429)
  })

  it.skipIf(!hasProgram('redis-server'))('each count for themselves while it is away', async () => {
    const redis = await startRedisServer()
    onTestFinished(() => redis.stop())
    const { attempt } = await setUp({ perAddress: 3, window: '1h' }, { store: { kind: 'redis', url: redis.url } })
    expect(await attempt('first')).toBe(401)
    await redis.stop()
    expect(await inTurn(attempt, keys(6)).then((statuses) => statuses.slice(-3))).toEqual([429, 429, 429])
  })
})

describe('the admin port', () => {
  it('lets nobody try many tokens, and then not even the right one', async () => {
    const { gateway } = await setUp({}, { admin: { port: 0, token: ADMIN_TOKEN } })
    const as = (token: string) => ask(gateway, 'GET', '/clients', undefined, { authorization: `Bearer ${token}` })
    const statuses = await inTurn(async (token) => (await as(token)).status, [...keys(10), ...keys(10)])
    expect(statuses).toEqual(Array(20).fill(401))
    const refused = await as('wrong-10')
    expect(refused.status).toBe(429)
    expect(refused.json()).toMatchObject({ status: 429, code: 'TOO_MANY_ATTEMPTS' })
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    expect((await as(ADMIN_TOKEN)).status).toBe(429)
    expect((await call(gateway.adminUrl, '/healthz')).status).toBe(200)
    // Clients have nothing to do with it.
    expect((await call(gateway.url, PATH, { headers: { 'x-sluice-key': 'right' } })).status).toBe(200)
  })
})

describe('connections of one address', () => {
  it('are closed beyond what is allowed, and there is room again once one has ended', async () => {
    const { gateway } = await setUp({}, { server: { port: 0, connectionsPerAddress: 3 } })
    const { hostname, port } = new URL(gateway.url)
    const held = await Promise.all([1, 2, 3].map(() => RawClient.connect(gateway.url)))
    const surplus = connect(Number(port), hostname)
    surplus.on('error', () => undefined)
    surplus.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\nX-Sluice-Key: right\r\n\r\n`)
    await new Promise((resolve) => void surplus.once('close', resolve))
    expect(surplus.bytesRead).toBe(0)
    held[0]!.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\nX-Sluice-Key: right\r\n\r\n`)
    expect(await held[0]!.until(/200 OK/)).toContain('200 OK')
    held[1]!.socket.destroy()
    await expect
      .poll(() =>
        call(gateway.url, PATH, { headers: { 'x-sluice-key': 'right' } }).then(
          ({ status }) => status,
          () => 0,
        ),
      )
      .toBe(200)
    expect(gateway.lines.every(({ outcome }) => outcome === 'delivered')).toBe(true)
    for (const { socket } of held) socket.destroy()
  })

  it('count before they have said anything, where HTTP/2 is spoken, and on the port of the forward proxy', async () => {
    const forwardProxy = { port: 0, ca: join(newFolder(), 'ca') }
    const rest = { server: { port: 0, connectionsPerAddress: 2, http2: true }, forwardProxy }
    const { gateway } = await setUp({}, rest)
    for (const url of [gateway.url, gateway.forwardProxyUrl!]) {
      const held = [await RawClient.connect(url), await RawClient.connect(url)]
      const surplus = await RawClient.connect(url)
      expect(await surplus.closed()).toBe('')
      expect(held.map(({ isClosed }) => isClosed)).toEqual([false, false])
      for (const { socket } of held) socket.destroy()
    }
  })
})

describe('the port for clients', () => {
  it('says nothing of what it is made of, and makes no exceptions for other origins', async () => {
    const { gateway } = await setUp({})
    const preflight = { origin: 'https://page.example', 'access-control-request-method': 'GET' }
    const answers = [
      await call(gateway.url, PATH, { method: 'OPTIONS', headers: preflight }),
      await call(gateway.url, '/nowhere', { headers: preflight }),
      await call(gateway.url, PATH, { headers: { ...preflight, 'x-sluice-key': 'right' } }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([401, 401, 200])
    for (const { headers } of answers) {
      const telling = /^(?:server|x-powered-by|access-control-.*)$/
      expect(Object.keys(headers).filter((name) => telling.test(name))).toEqual([])
    }
  })
})

describe('a guard against guesses', () => {
  it('takes an IPv6 network of 64 bits for one address, and an IPv4 address for the same in IPv6', () => {
    expect(networkOf('2001:db8:1:2::5')).toBe(networkOf('2001:db8:1:2:aaaa:bbbb:cccc:dddd'))
    expect(networkOf('2001:db8:1:3::5')).not.toBe(networkOf('2001:db8:1:2::5'))
    expect(networkOf('1::4:5:6:7:8')).toBe('1:0:0:4')
    expect(networkOf('fe80::1%eth0')).toBe('fe80:0:0:0')
    expect(networkOf('::ffff:192.0.2.1')).toBe('192.0.2.1')
    expect(networkOf('192.0.2.1')).not.toBe(networkOf('192.0.2.2'))
  })

  it('blocks the address that guesses, and no other', async () => {
    const { logger } = createLog({ level: 'silent', format: 'json' })
    const limits = { perAddress: 2, overall: 100, window: 60_000 }
    const guard = new GuessGuard({ what: 'keys', limits, clock: new SimulatedClock(), logger })
    for (const key of keys(3)) await guard.count('192.0.2.1', key)
    expect(guard.blockedMs('192.0.2.1')).toBeGreaterThan(0)
    expect(guard.blockedMs('192.0.2.2')).toBe(0)
    expect(await guard.count('192.0.2.2', 'another')).toBe(0)
  })
})
