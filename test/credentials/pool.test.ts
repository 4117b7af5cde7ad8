import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { buildCredentialSet } from '../../src/credentials/build-set.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { Secret } from '../../src/schema/secret.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { newFolder, startGateway, startUpstream, stores, type TestUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { seededRandom } from '../support/seeded-random.ts'
import type { Clock } from '../../src/time/clock.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { startTokenServer } from '../support/token-server.ts'
import { runCommand } from '../support/command-line.ts'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const NAMES = ['a', 'b', 'c', 'd']
const credentials = (names: readonly string[]): object[] => names.map((name) => ({ name, value: `key-${name}` }))

function configOf(
  url: string,
  pool: object,
  { store = { dir: newFolder() }, names = NAMES, limits = {}, members = credentials(names), retry = {} }: Setting = {},
): object {
  const account = { credentials: members, pool }
  return {
    server: { port: 0 },
    admin: { port: 0 },
    store,
    upstreams: { api: { url, accounts: { main: account }, limits: { read: [], write: [], ...limits }, retry } },
  }
}

interface Setting {
  readonly store?: object
  readonly names?: readonly string[]
  readonly limits?: object
  readonly members?: readonly object[]
  readonly retry?: object
}

function keysOf(upstream: TestUpstream): string[] {
  return upstream.seen.map(({ headers }) => headers.authorization!.slice('key-'.length))
}

/** A call of a conversation; what it was sent with. */
async function callOf(session: string, url: string, header = 'x-sluice-session'): Promise<string> {
  const answer = await call(url, '/api/x', { headers: { [header]: session, 'x-sluice-max-wait': '0' } })
  return answer.status === 200 ? answer.body.slice('key-'.length) : `${answer.status}`
}

/** What the story of a call says of its attempts. */
async function triesOf(adminUrl: string, id: unknown): Promise<unknown> {
  const answer = await fetch(`${adminUrl}/v1/requests/${String(id)}`)
  const { data } = (await answer.json()) as { data: { tries: unknown }[] }
  return data[0]!.tries
}

const echo = () => startUpstream(({ headers }, response) => response.end(headers.authorization))

describe.each(Object.entries(stores))('a pool, with %s', (_, store) => {
  it('spends the quota first that comes back soonest, and none that is used up', async () => {
    const windows: Record<string, { left: number; endsInS: number }> = {
      'key-a': { left: 3, endsInS: 3_000 },
      'key-b': { left: 3, endsInS: 600 },
      'key-c': { left: 3, endsInS: 1_200 },
    }
    const upstream = await startUpstream(({ headers }, response) => {
      const window = windows[headers.authorization!]!
      const status = window.left > 0 ? 200 : 429
      window.left = Math.max(0, window.left - 1)
      const quota = { limit: 3, remaining: window.left, reset: window.endsInS }
      response.writeHead(
        status,
        Object.fromEntries(Object.entries(quota).map(([name, value]) => [`ratelimit-${name}`, String(value)])),
      )
      response.end()
    })
    const gateway = await startGateway(configOf(upstream.url, {}, { store: store(), names: ['a', 'b', 'c'] }))
    for (let i = 0; i < 9; i++) expect((await call(gateway.url, '/api/x')).status).toBe(200)
    // One call tells of each; then b is spent, then c, and a is kept for longest.
    expect(keysOf(upstream).join('')).toBe('abcbbccaa')
    const { correlationId } = gateway.lines[3]!
    const tries = await triesOf(gateway.adminUrl, correlationId)
    expect(tries).toMatchObject([{ credential: 'api/main#b', credentialBecause: 'expires-first' }])
  })

  it('serves a call by another credential where its own is used up, and tells why', async () => {
    const upstream = await echo()
    const limits = { read: [{ requests: 2, window: '1h', scope: 'credential' }] }
    const gateway = await startGateway(configOf(upstream.url, { affinity: {} }, { store: store(), limits }))
    const served: string[] = []
    for (let i = 0; i < 9; i++) served.push(await callOf('one', gateway.url))
    const [own, next] = [served[0], served[2]]
    expect(served.slice(0, 4)).toEqual([own, own, next, next])
    expect(new Set(served.slice(0, 8))).toEqual(new Set(NAMES))
    // All of them are used up.
    expect(served[8]).toBe('429')
    const { correlationId } = gateway.lines[2]!
    const tries = await triesOf(gateway.adminUrl, correlationId)
    expect(tries).toMatchObject([{ credentialBecause: `session, and ${own} had to wait` }])
  })
})

it('counts as waiting what the store takes for each credential that is asked for', async () => {
  const upstream = await echo()
  const slow = await FaultProxy.start({ target: inject('redisUrl') })
  onTestFinished(() => slow.stop())
  const own = stores.Redis()
  const limits = { read: [{ requests: 1, window: '1h', scope: 'credential' }] }
  const pool = { choose: 'round-robin' }
  const first = await startGateway(configOf(upstream.url, pool, { store: own, limits }))
  const second = await startGateway(
    configOf(upstream.url, pool, { store: { ...own, url: slow.url, commandTimeout: '20s' }, limits }),
  )
  for (let i = 0; i < 3; i++) expect((await call(first.url, '/api/x')).status).toBe(200)
  const roundTripMs = 20
  slow.set({ kind: 'latency', ms: roundTripMs / 2 })
  expect((await call(second.url, '/api/x')).status).toBe(200)
  expect(keysOf(upstream).join('')).toBe('abcd')
  expect(second.lines[0]!.waitMs).toBeGreaterThan(3.9 * roundTripMs)
})

it('goes by the ledger where the vendor says nothing of its quota', async () => {
  const clock = new SimulatedClock()
  const upstream = await echo()
  const limits = { read: [{ requests: 3, window: '1h', scope: 'credential' }] }
  const gateway = await startGateway(configOf(upstream.url, {}, { names: ['a', 'b', 'c'], limits }), { clock })
  for (let i = 0; i < 9; i++) {
    expect((await call(gateway.url, '/api/x')).status).toBe(200)
    if (i < 3) await clock.advance(10 * MINUTE)
  }
  expect(keysOf(upstream).join('')).toBe('abcaabbcc')
})

describe('a conversation', () => {
  it('stays on one credential at all gateways, and only those of one that is removed move', async () => {
    const upstream = await echo()
    const [one, other] = await Promise.all([
      startGateway(configOf(upstream.url, { affinity: {} })),
      startGateway(configOf(upstream.url, { affinity: {} })),
    ])
    const sessions = Array.from({ length: 24 }, (_, i) => `conversation ${i}`)
    const served = new Map<string, string>()
    for (const session of sessions) served.set(session, await callOf(session, one.url))
    for (const session of sessions) expect(await callOf(session, other.url)).toBe(served.get(session))
    expect(new Set(served.values())).toEqual(new Set(NAMES))
    // The header is the gateway's own.
    for (const { headers } of upstream.seen) expect(headers).not.toHaveProperty('x-sluice-session')
    await one.reloadWith(configOf(upstream.url, { affinity: {} }, { names: ['a', 'b', 'd'] }))
    for (const session of sessions) {
      const now = await callOf(session, one.url)
      if (served.get(session) === 'c') expect(now).not.toBe('c')
      else expect(now).toBe(served.get(session))
    }
  })

  it('may be named by a header of the client’s own, which goes on as it was sent', async () => {
    const upstream = await echo()
    const gateway = await startGateway(configOf(upstream.url, { affinity: { header: 'Session-Id' } }))
    const served = new Set<string>()
    for (let i = 0; i < 5; i++) served.add(await callOf('mine', gateway.url, 'session-id'))
    expect(served.size).toBe(1)
    expect(upstream.seen[0]!.headers['session-id']).toBe('mine')
    // Without it a call is part of no conversation.
    served.clear()
    for (let i = 0; i < 5; i++) served.add((await call(gateway.url, '/api/x')).body)
    expect(served.size).toBeGreaterThan(1)
  })

  it('goes on with another credential while its own is refused, and then returns', async () => {
    const clock = new SimulatedClock()
    let refused = ''
    const upstream = await startUpstream(({ headers }, response) => {
      response.writeHead(headers.authorization === refused ? 401 : 200).end(headers.authorization)
    })
    const pool = { affinity: {}, quarantine: '30s' }
    const gateway = await startGateway(configOf(upstream.url, pool), { clock })
    const own = await callOf('one', gateway.url)
    refused = `key-${own}`
    const other = await callOf('one', gateway.url)
    expect(NAMES.filter((name) => name !== own)).toContain(other)
    for (let i = 0; i < 3; i++) expect(await callOf('one', gateway.url)).toBe(other)
    refused = ''
    await clock.advance(31 * SECOND)
    expect(await callOf('one', gateway.url)).toBe(own)
  })

  it('goes on with another credential where its call may not wait so long', async () => {
    const clock = new SimulatedClock()
    const upstream = await echo()
    const limits = { read: [{ requests: 1, window: '60s', scope: 'credential' }] }
    const pool = { affinity: { maxWait: '2m' } }
    const gateway = await startGateway(configOf(upstream.url, pool, { limits }), { clock })
    const own = await callOf('one', gateway.url)
    const other = await callOf('one', gateway.url)
    expect(NAMES.filter((name) => name !== own)).toContain(other)
  })

  it('goes on with another credential where no token can be had for its own', async () => {
    const upstream = await echo()
    const tokens = await Promise.all(NAMES.map(() => startTokenServer()))
    const members = tokens.map(({ url }, i) => ({
      name: NAMES[i],
      ...{ type: 'oauth2', tokenUrl: url, clientId: 'me', clientSecret: 'client-secret' },
    }))
    const config = configOf(upstream.url, { affinity: {} }, { members })
    const gateway = await startGateway(config)
    const sent = { headers: { 'x-sluice-session': 'one' } }
    expect((await call(gateway.url, '/api/x', sent)).status).toBe(200)
    const own = tokens.find(({ requests }) => requests.length > 0)!
    expect(tokens.filter(({ requests }) => requests.length > 0)).toEqual([own])
    for (const server of tokens) Object.assign(server, { isUp: server !== own })
    const second = await startGateway(config)
    expect((await call(second.url, '/api/x', sent)).status).toBe(200)
    for (const server of tokens) server.isUp = false
    const third = await startGateway(config)
    expect((await call(third.url, '/api/x', sent)).status).toBe(503)
  })

  it('waits for its credential if that is soon enough', async () => {
    const clock = new SimulatedClock()
    const upstream = await echo()
    const limits = { read: [{ requests: 1, window: '60s', scope: 'credential' }] }
    const pool = { affinity: { maxWait: '20s' } }
    const gateway = await startGateway(configOf(upstream.url, pool, { limits }), { clock })
    const waitingCall = () => call(gateway.url, '/api/x', { headers: { 'x-sluice-session': 'one' } })
    const own = (await waitingCall()).body
    await clock.advance(30 * SECOND)
    const other = (await waitingCall()).body
    expect(other).not.toBe(own)
    await clock.advance(21 * SECOND)
    const waiting = waitingCall()
    await expect.poll(() => gateway.metrics()).toMatch(/sluice_queue_depth\{[^}]*class="read"\} 1/)
    await clock.advance(10 * SECOND)
    expect((await waiting).body).toBe(own)
  })
})

/**
 * How much of the quota of four credentials is used in three days, and how many calls find none, by calls that come in bursts and give up where no credential can serve them.
 * The vendor counts a hundred calls in each window of an hour; the windows of each credential begin at a time of its own.
 */
function usedBy(
  choose: 'expires-first' | 'least-used' | 'round-robin',
  seed: number,
): { used: number; refused: number } {
  const random = seededRandom(seed)
  let now = 0
  // Nothing here waits, and a call costs far less than a turn of the simulated clock.
  const clock = { now: () => now } as never as Clock
  const services = { clock, random, metrics: new Metrics() }
  const place = { upstream: 'api', account: 'main', header: 'x-key', host: '' }
  const members = NAMES.map((name) => ({ name, value: new Secret(`key-${name}`) }))
  const { pool } = buildCredentialSet(place, { credentials: members, pool: { choose } }, services)!
  const phases = NAMES.map(() => random() * 60 * MINUTE)
  const windows = NAMES.map(() => ({ number: -1, left: 0 }))
  let [used, asked] = [0, 0]
  for (let minute = 0; minute < 3 * 24 * 60; minute++) {
    now += MINUTE
    const calls = random() < 1 / 45 ? 80 + Math.floor(random() * 160) : Math.floor(random() * 5)
    asked += calls
    for (let i = 0; i < calls; i++) {
      for (const credential of pool!.ranked(undefined, () => undefined)) {
        const which = NAMES.indexOf(credential.member!)
        const sinceStart = now + phases[which]!
        const number = Math.floor(sinceStart / (60 * MINUTE))
        const window = windows[which]!
        if (window.number !== number) Object.assign(window, { number, left: 100 })
        const endsInMs = (number + 1) * 60 * MINUTE - sinceStart
        if (window.left === 0) {
          credential.refused(429, 0, true, endsInMs)
          continue
        }
        window.left--
        used++
        credential.quotaTold!(endsInMs, window.left === 0 ? endsInMs : 0)
        break
      }
    }
  }
  return { used, refused: asked - used }
}

it('leaves a credential out of the order only while its shortest window is used up', () => {
  let now = 0
  const services = { clock: { now: () => now } as never as Clock, random: Math.random, metrics: new Metrics() }
  const place = { upstream: 'api', account: 'main', header: 'x-key', host: '' }
  const members = ['a', 'b'].map((name) => ({ name, value: new Secret(name) }))
  const { pool } = buildCredentialSet(place, { credentials: members }, services)!
  const order = () => pool!.ranked(undefined, () => undefined).map(({ member }) => member)
  const [a, b] = ['a', 'b'].map((name) =>
    pool!.ranked(undefined, () => undefined).find(({ member }) => member === name)!,
  )
  a!.quotaTold!(30 * MINUTE, MINUTE)
  b!.quotaTold!(60 * MINUTE, 0)
  expect(order()).toEqual(['b', 'a'])
  now += MINUTE + SECOND
  expect(order()).toEqual(['a', 'b'])
})

it('knows when another of its credentials can be used, whether the one that asks is left out or not', () => {
  let now = 0
  const services = { clock: { now: () => now } as never as Clock, random: Math.random, metrics: new Metrics() }
  const place = { upstream: 'api', account: 'main', header: 'x-key', host: '' }
  const poolOf = (names: readonly string[]) =>
    buildCredentialSet(place, { credentials: names.map((name) => ({ name, value: new Secret(name) })) }, services)!
  expect(poolOf(['a']).choose().othersInMs).toBe(Infinity)
  const { pool } = poolOf(['a', 'b'])
  const [a, b] = ['a', 'b'].map((name) =>
    pool!.ranked(undefined, () => undefined).find(({ member }) => member === name)!,
  )
  const told = () => [a!.othersInMs, b!.othersInMs]
  expect(told()).toEqual([0, 0])
  a!.refused(429, 0, true, 30 * SECOND)
  expect(told()).toEqual([0, 30 * SECOND])
  expect(b!.leaveOut!()).toBe(false)
  now += 30 * SECOND
  expect(told()).toEqual([30 * SECOND, 0])
})

it('makes calls wait where the last of its credentials is refused for too many calls', async () => {
  const clock = new SimulatedClock()
  const upstream = await startUpstream((_, response) => response.writeHead(429, { 'retry-after': '30' }).end())
  const setting = { names: ['a', 'b'], retry: { retries: 0 } }
  const gateway = await startGateway(configOf(upstream.url, {}, setting), { clock })
  const sent = { headers: { 'x-sluice-max-wait': '0' } }
  for (let i = 0; i < 5; i++) expect((await call(gateway.url, '/api/x', sent)).status).toBe(429)
  expect(keysOf(upstream)).toEqual(['a', 'b'])
})

it.each([
  ['a moment since 1970', () => String(Math.floor(Date.now() / 1_000) + 30), 31 * SECOND],
  ['no time that anybody waits', () => '999999999', 5 * MINUTE + SECOND],
])('leaves a credential out for throttle.maxPause at most where Retry-After says %s', async (_, told, backAfterMs) => {
  const clock = new SimulatedClock()
  let isRefusing = true
  const upstream = await startUpstream(({ headers }, response) => {
    const isRefused = isRefusing && headers.authorization === 'key-a'
    response.writeHead(isRefused ? 429 : 200, isRefused ? { 'retry-after': told() } : {}).end()
  })
  const setting = { names: ['a', 'b'] }
  const pool = { choose: 'round-robin', quarantine: '1s' }
  const gateway = await startGateway(configOf(upstream.url, pool, setting), { clock })
  for (let i = 0; i < 3; i++) await call(gateway.url, '/api/x')
  isRefusing = false
  expect(keysOf(upstream).slice(1)).toEqual(['b', 'b', 'b'])
  await clock.advance(2 * SECOND)
  for (let i = 0; i < 2; i++) await call(gateway.url, '/api/x')
  expect(keysOf(upstream).slice(4)).toEqual(['b', 'b'])
  await clock.advance(backAfterMs)
  for (let i = 0; i < 2; i++) await call(gateway.url, '/api/x')
  expect(keysOf(upstream).slice(6).toSorted()).toEqual(['a', 'b'])
})

it('is not made to use a credential sooner by a refusal that comes later, or says no time', () => {
  let now = 0
  const services = { clock: { now: () => now } as never as Clock, random: Math.random, metrics: new Metrics() }
  const place = { upstream: 'api', account: 'main', header: 'x-key', host: '' }
  const members = ['a', 'b'].map((name) => ({ name, value: new Secret(name) }))
  const { pool } = buildCredentialSet(place, { credentials: members, pool: { quarantine: SECOND } }, services)!
  const [a, b] = pool!.ranked(undefined, () => undefined)
  a!.refused(429, 0, true, 30 * SECOND)
  for (const status of [401, 429]) a!.refused(status, 0, true)
  expect(b!.othersInMs).toBe(30 * SECOND)
  now += 30 * SECOND
  expect(b!.othersInMs).toBe(0)
})

it.each([
  [{}, 'a, b, of those that can serve now the one whose unused quota comes back soonest'],
  [{ choose: 'round-robin' }, 'a, b, of those that can serve now each in turn'],
  [
    { affinity: { header: 'Session-Id' } },
    'a, b, of those that can serve now the one whose unused quota comes back soonest; calls with the same session-id stay on one, unless its quota takes more than 5s',
  ],
])('of %o sluice explain tells the credentials and the order', async (pool, told) => {
  const cwd = newFolder()
  const config = configOf('http://x.example', pool, { names: ['a', 'b'] })
  writeFileSync(join(cwd, 'sluice.yaml'), JSON.stringify(config))
  const { stdout } = await runCommand(['explain', 'GET', '/api/x'], { cwd })
  expect(stdout).toContain(`credential  api/main: ${told}\n`)
  const asJson = await runCommand(['explain', '--json', 'GET', '/api/x'], { cwd })
  expect(JSON.parse(asJson.stdout)).toMatchObject({ pool: { members: ['a', 'b'] } })
})

it('uses more of quotas that expire than the other ways to choose, for any seed', () => {
  const ways = ['expires-first', 'least-used', 'round-robin'] as const
  const total = ways.map(() => ({ used: 0, refused: 0 }))
  for (let seed = 1; seed <= 6; seed++) {
    const [first, ...others] = ways.map((way, i) => {
      const result = usedBy(way, seed)
      total[i]!.used += result.used
      total[i]!.refused += result.refused
      return result
    })
    for (const other of others) expect(first!.used).toBeGreaterThan(other.used)
  }
  const offered = 6 * 3 * 24 * NAMES.length * 100
  const percent = (part: number): string => ((100 * part) / offered).toFixed(1)
  for (const [i, { used, refused }] of total.entries())
    process.stdout.write(
      `${ways[i]}: ${percent(used)} % of the quota used, ${percent(offered - used)} % expired, ${refused} calls found none\n`,
    )
  const [first, leastUsed, inTurn] = total
  for (const other of [leastUsed!, inTurn!]) {
    expect(first!.used).toBeGreaterThan(1.02 * other.used)
    expect(first!.refused).toBeLessThan(0.9 * other.refused)
  }
})
