import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { checkConfig } from '../../src/config/load.ts'
import { openStore } from '../../src/secrets/open.ts'
import { RefusedSecretError } from '../../src/secrets/secret-store.ts'
import type { Answer } from '../../src/secrets/source.ts'
import { systemClock } from '../../src/time/clock.ts'
import {
  newFolder,
  startConfigured,
  startGateway,
  startUpstream,
  type TestGateway,
  type TestUpstream,
} from '../support/gateway.ts'
import { call, type CallOptions } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { startTokenServer } from '../support/token-server.ts'
import { loadConfigFile } from '../support/load-config.ts'

const SECOND = 1_000

function configOf(url: string, account: object, rest: object = {}): object {
  return {
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: { api: { url, accounts: { main: account }, limits: { read: [], write: [] }, ...rest } },
  }
}

/** An upstream that answers by the key that it is sent, 200 if nothing is said of it. */
function startJudging(statusOf: Record<string, number> = {}, headers: Record<string, string> = {}) {
  return startUpstream((seen, response) => {
    const status = statusOf[seen.headers.authorization ?? ''] ?? 200
    response.writeHead(status, status === 200 ? {} : headers).end(seen.body)
  })
}

const rotating = { credential: { value: 'old', next: { value: 'new' }, canary: '20%' } }

function keysOf(upstream: TestUpstream): (string | undefined)[] {
  return upstream.seen.map(({ headers }) => headers.authorization)
}

async function rollbacksOf(gateway: TestGateway): Promise<number> {
  const text = await gateway.metrics()
  return Number(/^sluice_credential_rollbacks_total\{[^}]*\} (\d+)/m.exec(text)?.[1] ?? 0)
}

describe('a new credential beside the old one', () => {
  it('gets its share of the calls', async () => {
    const upstream = await startJudging()
    let drawn = 0
    const gateway = await startGateway(configOf(upstream.url, rotating), { random: () => (drawn++ % 10) / 10 })
    for (let i = 0; i < 20; i++) await call(gateway.url, '/api/x')
    expect(keysOf(upstream).filter((key) => key === 'new')).toHaveLength(4)
    expect(await rollbacksOf(gateway)).toBe(0)
  })

  it.each([401, 403])(
    'that is answered %i under load costs no call, gets no more, and the alert metric moves',
    async (status) => {
      const upstream = await startJudging({ new: status })
      const gateway = await startGateway(configOf(upstream.url, rotating))
      const one = async (i: number) => {
        const isPost = i % 2 === 0
        const options: CallOptions = isPost ? { method: 'POST', body: `body ${i}` } : {}
        const answer = await call(gateway.url, '/api/x', options)
        return answer.status === 200 && answer.body === (isPost ? `body ${i}` : '')
      }
      for (let round = 0; round < 5; round++) {
        const all = await Promise.all(Array.from({ length: 100 }, (_, i) => one(i)))
        expect(all.filter((isGood) => !isGood)).toEqual([])
      }
      expect(await rollbacksOf(gateway)).toBe(1)
      const before = upstream.seen.length
      for (let i = 0; i < 50; i++) await call(gateway.url, '/api/x')
      expect(keysOf(upstream).slice(before)).not.toContain('new')
    },
  )

  it('is not to blame for a call that the old one is forbidden, too', async () => {
    const upstream = await startJudging({ new: 403, old: 403 })
    const gateway = await startGateway(configOf(upstream.url, rotating), { random: () => 0 })
    for (let i = 0; i < 3; i++) expect((await call(gateway.url, '/api/x')).status).toBe(403)
    expect(keysOf(upstream)).toEqual(['new', 'old', 'new', 'old', 'new', 'old'])
    expect(await rollbacksOf(gateway)).toBe(0)
  })

  it('is not to blame for a call that it is forbidden and that can not be sent again', async () => {
    const upstream = await startJudging({ new: 403 })
    const gateway = await startGateway(configOf(upstream.url, rotating), { random: () => 0 })
    const once = { headers: { 'x-sluice-retry': 'off' } }
    for (let i = 0; i < 3; i++) expect((await call(gateway.url, '/api/x', once)).status).toBe(403)
    expect(keysOf(upstream)).toEqual(['new', 'new', 'new'])
    expect(await rollbacksOf(gateway)).toBe(0)
  })

  it.each([403, 200])(
    'is not to blame where a call goes out with it again, late, and is answered %i',
    async (status) => {
      const clock = new SimulatedClock(1_700_002_800_000)
      const statusOf: Record<string, number> = { new: 403 }
      const upstream = await startJudging(statusOf)
      const limits = { read: [{ requests: 1, window: '90s' }], write: [] }
      const config = configOf(upstream.url, rotating, { limits, timeouts: { total: '10m' }, queue: { maxWait: '5m' } })
      const gateway = await startGateway(config, { random: () => 0, clock })
      const late = call(gateway.url, '/api/x')
      await expect.poll(() => clock.waits.some((ms) => ms > 60 * SECOND)).toBe(true)
      await expect.poll(() => upstream.seen.length).toBe(1)
      statusOf['new'] = status
      await clock.advance(100 * SECOND)
      expect((await late).status).toBe(status)
      expect(keysOf(upstream)).toEqual(['new', 'new'])
      expect(await rollbacksOf(gateway)).toBe(0)
    },
  )

  it.each([404, 429, 503])(
    'is not to blame where the old one is answered %i, which says nothing of either',
    async (status) => {
      const upstream = await startJudging({ new: 403, old: status })
      const config = configOf(upstream.url, rotating, { retry: { retries: 0 } })
      const gateway = await startGateway(config, { random: () => 0 })
      await call(gateway.url, '/api/x')
      expect(keysOf(upstream)).toEqual(['new', 'old'])
      expect(await rollbacksOf(gateway)).toBe(0)
    },
  )

  it('is rolled back by a call, too, that can not be retried, which then has its answer', async () => {
    const upstream = await startJudging({ new: 401 })
    const gateway = await startGateway(configOf(upstream.url, rotating), { random: () => 0 })
    expect((await call(gateway.url, '/api/x', { headers: { 'x-sluice-retry': 'off' } })).status).toBe(401)
    expect((await call(gateway.url, '/api/x')).status).toBe(200)
    expect(await rollbacksOf(gateway)).toBe(1)
  })

  it.each([
    [503, { error: 'temporarily_unavailable' }, 0],
    [429, { error: 'slow_down' }, 0],
    [401, { error: 'invalid_client' }, 1],
    [400, { error: 'unauthorized_client' }, 1],
  ])(
    'for which a token endpoint answers %i costs no call, and is to blame %o %i times',
    async (status, extra, times) => {
      const upstream = await startJudging()
      const [good, other] = [await startTokenServer(), await startTokenServer()]
      Object.assign(other, { status, extra })
      const oauth2 = { type: 'oauth2', clientId: 'me', clientSecret: 'client-secret' }
      const credential = { ...oauth2, tokenUrl: good.url, next: { ...oauth2, tokenUrl: other.url }, canary: '100%' }
      const clock = new SimulatedClock(Date.now())
      const gateway = await startGateway(configOf(upstream.url, { credential }), { clock })
      for (let i = 0; i < 3; i++) expect((await call(gateway.url, '/api/x')).status).toBe(200)
      expect(await rollbacksOf(gateway)).toBe(times)
      expect(other.requests).toHaveLength(1)
      Object.assign(other, { status: 200, extra: { access_token: 'of-the-new' } })
      await clock.advance(60 * SECOND)
      expect((await call(gateway.url, '/api/x')).status).toBe(200)
      expect(keysOf(upstream).at(-1)).toMatch(times === 0 ? /^Bearer of-the-new$/ : /^Bearer token-\d-secret$/)
    },
  )

  it('comes and goes in the store, and gets a new trial with a new value', async () => {
    const upstream = await startJudging({ 'Key bad': 401 })
    const folder = newFolder()
    const secrets = { key: randomBytes(32).toString('base64') }
    const credential = { value: 'Key ${secret:api}', canary: '100%' }
    const config = { ...configOf(upstream.url, { credential }), secrets }
    const { secrets: checked, store: place } = checkConfig(JSON.parse(JSON.stringify(config)) as object, 'test')
    const store = openStore({ secrets: checked, store: place }, systemClock)!
    await store.set('api', 'old', undefined)
    const file = join(folder, 'sluice.yaml')
    writeFileSync(file, stringify(config))
    const fetched = new Map([['secret:api', { text: 'old' }]])
    const gateway = await startConfigured(loadConfigFile(file, { fetched }))
    const sent = async () => {
      expect((await call(gateway.url, '/api/x')).status).toBe(200)
      return upstream.seen.at(-1)!.headers.authorization
    }
    expect(await sent()).toBe('Key old')
    await store.rotate('api', 'bad', undefined)
    await expect.poll(async () => (await sent(), rollbacksOf(gateway))).toBe(1)
    expect(await sent()).toBe('Key old')
    const isNextRefused = async () => (await store.list()).find(({ version }) => version === 'next')?.isRefused
    await expect.poll(isNextRefused).toBe(true)
    await expect(store.finish('api')).rejects.toThrow(RefusedSecretError)
    await store.rotate('api', 'good', undefined)
    expect(await isNextRefused()).toBe(false)
    await expect.poll(sent).toBe('Key good')
    await store.cancel('api')
    await expect.poll(sent).toBe('Key old')
    await store.rotate('api', 'good', undefined)
    await store.finish('api')
    await expect.poll(sent).toBe('Key good')
    expect(await rollbacksOf(gateway)).toBe(1)
    await store.close()
  })
})

it('a next value that was replaced is refused late: that is not noted against the one after it', async () => {
  const held = Promise.withResolvers<void>()
  const upstream = await startUpstream(async ({ headers }, response) => {
    const isSecond = headers.authorization === 'second'
    if (isSecond) await held.promise
    response.writeHead(isSecond ? 401 : 200).end()
  })
  const config = checkConfig(
    JSON.parse(JSON.stringify(configOf(upstream.url, { credential: { value: 'first', canary: '100%' } }))) as object,
    'test',
  )
  const { value } = config.upstreams['api']!.accounts['main']!.credential!
  let refusals = 0
  value!.template = { text: '${secret:api}', folder: '/' }
  value!.nextRefused = () => refusals++
  value!.replace('first', 'second')
  const gateway = await startConfigured(config)
  const late = call(gateway.url, '/api/x')
  await expect.poll(() => keysOf(upstream)).toEqual(['second'])
  value!.replace('first', 'third')
  held.resolve()
  expect((await late).status).toBe(200)
  expect(refusals).toBe(0)
  expect(await rollbacksOf(gateway)).toBe(0)
  expect((await call(gateway.url, '/api/x')).status).toBe(200)
  expect(keysOf(upstream).at(-1)).toBe('third')
})

describe('several credentials of an account', () => {
  const credentials = ['a', 'b', 'c'].map((name) => ({ name, value: `key-${name}` }))

  it('are used in turn', async () => {
    const upstream = await startJudging()
    const pool = { credentials, pool: { choose: 'round-robin' } }
    const gateway = await startGateway(configOf(upstream.url, pool))
    for (let i = 0; i < 6; i++) await call(gateway.url, '/api/x')
    expect(keysOf(upstream)).toEqual(['key-a', 'key-b', 'key-c', 'key-a', 'key-b', 'key-c'])
  })

  it('are used by how many calls each has in flight', async () => {
    const held = Promise.withResolvers<void>()
    const upstream = await startUpstream(async ({ headers, url }, response) => {
      if (url === '/slow') await held.promise
      response.end(headers.authorization)
    })
    const gateway = await startGateway(configOf(upstream.url, { credentials }))
    const slow = [call(gateway.url, '/api/slow'), call(gateway.url, '/api/slow')]
    await expect.poll(() => upstream.seen.length).toBe(2)
    const busy = new Set(keysOf(upstream))
    for (let i = 0; i < 6; i++) expect(busy).not.toContain((await call(gateway.url, '/api/x')).body)
    held.resolve()
    await Promise.all(slow)
    const free = new Set<string>()
    for (let i = 0; i < 6; i++) free.add((await call(gateway.url, '/api/x')).body)
    expect(free.size).toBe(3)
  })

  it.each([401, 403])(
    'of which one is answered %i: the call goes on with another, and that one is left out for a while',
    async (status) => {
      const clock = new SimulatedClock()
      const statusOf: Record<string, number> = { 'key-b': status }
      const upstream = await startJudging(statusOf)
      const pool = { credentials, pool: { choose: 'round-robin', quarantine: '30s' } }
      const gateway = await startGateway(configOf(upstream.url, pool), { clock })
      for (let i = 0; i < 9; i++) {
        const answer = await call(gateway.url, '/api/x', { method: 'POST', body: 'body' })
        expect(answer).toMatchObject({ status: 200, body: 'body' })
      }
      expect(keysOf(upstream).filter((key) => key === 'key-b')).toHaveLength(1)
      expect(await gateway.metrics()).toContain('sluice_credential_quarantined{upstream="api",account="main"} 1')
      delete statusOf['key-b']
      await clock.advance(30 * SECOND)
      for (let i = 0; i < 3; i++) await call(gateway.url, '/api/x')
      expect(keysOf(upstream).slice(-3)).toContain('key-b')
      expect(await gateway.metrics()).toContain('sluice_credential_quarantined{upstream="api",account="main"} 0')
    },
  )

  it('are all used on where a call is forbidden to each of them, and where it can be sent with one only', async () => {
    const upstream = await startUpstream(({ url }, response) => {
      response.writeHead(url.startsWith('/forbidden') ? 403 : 200).end()
    })
    const pool = { credentials, pool: { choose: 'round-robin' } }
    const gateway = await startGateway(configOf(upstream.url, pool))
    for (let i = 0; i < 3; i++) expect((await call(gateway.url, '/api/forbidden')).status).toBe(403)
    const pairs = [0, 2, 4].map((i) => new Set(keysOf(upstream).slice(i, i + 2)).size)
    expect([pairs, upstream.seen.length]).toEqual([[2, 2, 2], 6])
    for (let i = 0; i < 3; i++) await call(gateway.url, '/api/forbidden', { headers: { 'x-sluice-retry': 'off' } })
    expect(upstream.seen).toHaveLength(9)
    expect(await gateway.metrics()).toContain('sluice_credential_quarantined{upstream="api",account="main"} 0')
    for (let i = 0; i < 3; i++) await call(gateway.url, '/api/x')
    expect(new Set(keysOf(upstream).slice(-3)).size).toBe(3)
  })

  it.each([503, 404])(
    'of which one is answered 403, and the next one %i, which says nothing of that: it is used on',
    async (status) => {
      const upstream = await startJudging({ 'key-a': 403, 'key-b': status, 'key-c': status })
      const pool = { credentials, pool: { choose: 'round-robin' } }
      const gateway = await startGateway(configOf(upstream.url, pool, { retry: { retries: 0 } }))
      for (let i = 0; i < 3; i++) await call(gateway.url, '/api/x')
      expect(keysOf(upstream)).toContain('key-a')
      expect(await gateway.metrics()).toContain('sluice_credential_quarantined{upstream="api",account="main"} 0')
    },
  )

  it('of which one is throttled: a read goes on at once with another, for as long as Retry-After says', async () => {
    const clock = new SimulatedClock()
    const upstream = await startJudging({ 'key-a': 429 }, { 'retry-after': '90' })
    const pool = { credentials, pool: { choose: 'round-robin', quarantine: '30s' } }
    const gateway = await startGateway(configOf(upstream.url, pool), { clock })
    for (let i = 0; i < 4; i++) expect((await call(gateway.url, '/api/x')).status).toBe(200)
    await clock.advance(89 * SECOND)
    for (let i = 0; i < 3; i++) await call(gateway.url, '/api/x')
    expect(keysOf(upstream).filter((key) => key === 'key-a')).toHaveLength(1)
    await clock.advance(2 * SECOND)
    for (let i = 0; i < 3; i++) await call(gateway.url, '/api/x')
    expect(keysOf(upstream).filter((key) => key === 'key-a')).toHaveLength(2)
  })

  it('that are all refused are used all the same: the answer is the upstream’s to give', async () => {
    const upstream = await startJudging({ 'key-a': 401, 'key-b': 401, 'key-c': 401 })
    const gateway = await startGateway(configOf(upstream.url, { credentials }))
    for (let i = 0; i < 5; i++) expect((await call(gateway.url, '/api/x')).status).toBe(401)
    // Each call twice, however many there are.
    expect(upstream.seen).toHaveLength(10)
  })

  it('have a count each where a limit is by credential, and one together where it is by account', async () => {
    const clock = new SimulatedClock(1_700_002_800_000)
    for (const [scope, allowed] of [
      ['credential', 6],
      ['account', 2],
    ] as const) {
      const upstream = await startJudging()
      const limits = { read: [{ requests: 2, window: '60s', scope }], write: [] }
      const pool = { credentials, pool: { choose: 'round-robin' } }
      const gateway = await startGateway(configOf(upstream.url, pool, { limits }), { clock })
      const statuses: number[] = []
      for (let i = 0; i < 7; i++) {
        statuses.push((await call(gateway.url, '/api/x', { headers: { 'x-sluice-max-wait': '0' } })).status)
      }
      expect(statuses.filter((status) => status === 200)).toHaveLength(allowed)
      expect(statuses.at(-1)).toBe(429)
    }
  })
})

it.each([
  [{ credential: { value: 'x' }, credentials: [{ name: 'a', value: 'x' }] }, 'only one of credential and credentials'],
  [
    {
      credentials: [
        { name: 'a', value: 'x' },
        { name: 'a', value: 'y' },
      ],
    },
    'credentials[1].name: another credential',
  ],
  [{ credentials: [{ name: 'a' }] }, 'credentials[0].value: the key "value" is missing'],
  [{ credential: { value: 'x' }, pool: {} }, 'pool belongs to credentials'],
  [{ credential: { value: 'x', next: { type: 'basic' } } }, 'credential.next.username: the key "username" is missing'],
])('what several credentials can not be is an error: %j', (account, expected) => {
  expect(() => checkConfig(configOf('http://127.0.0.1', account), 'test')).toThrow(expected)
})

it('when a credential expires is a metric, as the configuration or the store knows it', async () => {
  const clock = new SimulatedClock(Date.UTC(2030, 0, 1))
  const credential = { value: 'old', expires: '2030-01-02', next: { value: 'new', expires: '2030-01-04T00:00:00Z' } }
  const gateway = await startGateway(configOf('http://127.0.0.1:9', { credential }), { clock })
  const text = await gateway.metrics()
  expect(text).toContain(
    'sluice_credential_expires_seconds{upstream="api",account="main",credential="api/main"} 172800',
  )
  expect(text).toContain(
    'sluice_credential_expires_seconds{upstream="api",account="main",credential="api/main next"} 259200',
  )
})

it('when the next value of a stored secret expires is a metric, too', async () => {
  const secrets = { key: randomBytes(32).toString('base64') }
  const config = { ...configOf('http://127.0.0.1:9', { credential: { value: '${secret:api}' } }), secrets }
  const { secrets: checked, store: place } = checkConfig(JSON.parse(JSON.stringify(config)) as object, 'test')
  const store = openStore({ secrets: checked, store: place }, systemClock)!
  const inDays = (days: number): number => Date.now() + days * 86_400 * SECOND
  await store.set('api', 'old', inDays(10))
  const file = join(newFolder(), 'sluice.yaml')
  writeFileSync(file, stringify(config))
  const start = async () => {
    const answers = [...(await store.read(['api']))].map(([name, answer]): [string, Answer] => [
      `secret:${name}`,
      answer,
    ])
    return startConfigured(loadConfigFile(file, { fetched: new Map(answers) }))
  }
  const daysLeft = async (gateway: TestGateway, name: string) => {
    const row = new RegExp(String.raw`^sluice_credential_expires_seconds\{.*credential="${name}"\} (\S+)$`, 'm')
    return Math.round(Number(row.exec(await gateway.metrics())?.[1]) / 86_400)
  }
  const gateway = await start()
  expect(await daysLeft(gateway, 'api/main')).toBe(10)
  await store.rotate('api', 'new', inDays(20))
  await expect.poll(() => daysLeft(gateway, 'api/main next')).toBe(20)
  expect(await daysLeft(gateway, 'api/main')).toBe(10)
  expect(await daysLeft(await start(), 'api/main next')).toBe(20)
  await store.close()
})
