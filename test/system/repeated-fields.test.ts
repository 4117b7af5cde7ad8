import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { call } from '../support/http.ts'
import { newFolder, startGateway, startUpstream, stores } from '../support/gateway.ts'

/** One account of an upstream with 100 calls a minute, in front of a server that answers the first call as told. */
async function behind(
  store: object,
  status: number,
  fields: readonly (readonly [string, string])[],
  rest: object = {},
) {
  let isFirst = true
  const upstream = await startUpstream((_, response) => {
    if (!isFirst) return response.end()
    isFirst = false
    return response.writeHead(status, fields.flat()).end('first')
  })
  const own = { url: upstream.url, accounts: { main: {} }, limits: { read: [{ requests: 100, window: '60s' }] } }
  const gateway = await startGateway({
    server: { port: 0 },
    admin: { port: 0 },
    store,
    upstreams: { it: { ...own, ...rest } },
  })
  return { gateway, upstream }
}

function twice(name: string, value: string, other = value): [string, string][] {
  return [
    [name, value],
    [name, other],
  ]
}

const soon = (ms: number): string => new Date(Date.now() + ms).toUTCString()

describe.each(Object.entries(stores))('with %s a refusal is understood', (_, store) => {
  it.each<[string, () => (readonly [string, string])[]]>([
    ['Retry-After twice', () => twice('Retry-After', '30')],
    ['Retry-After on two lines that differ', () => twice('Retry-After', '1', '30')],
    ['Retry-After as a list', () => [['Retry-After', '30, 30']]],
    ['Retry-After with a fraction', () => [['Retry-After', '30.0']]],
    ['Retry-After between blanks', () => [['Retry-After', '  30  ']]],
    ['Retry-After as two dates', () => twice('Retry-After', soon(30_000))],
    ['Retry-After of asctime', () => [['Retry-After', asctime(30_000)]]],
    [
      'Retry-After by a clock that is an hour behind, told twice',
      () => [['Retry-After', soon(30_000 - 3_600_000)], ...twice('Date', soon(-3_600_000))],
    ],
    ['X-RateLimit as lists', () => [...quota('x-ratelimit', '0, 0', '100, 100', '30, 30')]],
    [
      'X-RateLimit on two lines',
      () => [...quota('x-ratelimit', '0', '100', '30'), ...quota('x-ratelimit', '0', '100', '30')],
    ],
    [
      'RateLimit-* on two lines',
      () => [...quota('ratelimit', '0', '100', '30'), ...quota('ratelimit', '0', '100', '30')],
    ],
    [
      'RateLimit on two lines, of which the second is about the limit',
      () => [
        ...twice('RateLimit', '"burst";r=9;t=1', '"main";r=0;t=30'),
        ...twice('RateLimit-Policy', '"burst";q=10;w=1', '"main";q=100;w=60'),
      ],
    ],
  ])('%s', async (_, fields) => {
    // Now, since dates among them are soon past.
    const { gateway, upstream } = await behind(store(), 429, fields())
    const off = { headers: { 'x-sluice-retry': 'off', 'x-sluice-max-wait': '0' } }
    const first = await call(gateway.url, '/it/x', off)
    expect(first).toMatchObject({ status: 429, body: 'first' })
    expect(first.headers['x-sluice-error']).toBeUndefined()
    await expect
      .poll(async () => {
        const { status, headers } = await call(gateway.url, '/it/x', off)
        return [status, headers['x-sluice-error'], Number(headers['retry-after']) > 10]
      })
      .toEqual([429, 'quota_exhausted', true])
    expect(upstream.seen.length).toBeLessThanOrEqual(2)
  })
})

function quota(prefix: string, remaining: string, limit: string, reset: string): [string, string][] {
  return [
    [`${prefix}-remaining`, remaining],
    [`${prefix}-limit`, limit],
    [`${prefix}-reset`, reset],
  ]
}

/** `Sun Nov  6 08:49:37 1994`, in GMT. */
function asctime(inMs: number): string {
  const [, day = '', month, year, time] = soon(inMs).split(' ')
  return `${new Date(Date.now() + inMs).toUTCString().slice(0, 3)} ${month} ${day.replace(/^0/, ' ')} ${time} ${year}`
}

describe('a response is passed on as it is', () => {
  const CACHE = { cache: {}, routes: [{ path: '/x', class: 'read', cache: { freshFor: '60s' } }] }
  const UNSAFE = { 'cache-control': 'no-cache' }
  it.each<[string, string]>([
    ['Retry-After', '0'],
    ['Cache-Control', 'max-age=60'],
    ['Date', soon(0)],
    ['ETag', '"a"'],
    ['Last-Modified', soon(-60_000)],
    ['Expires', soon(60_000)],
    ['Age', '1'],
    ['Vary', 'Accept'],
    ['Content-Type', 'text/plain'],
    ['Content-Encoding', 'identity'],
    ['WWW-Authenticate', 'Basic'],
    ['Location', '/it/y'],
    ['Content-Location', '/it/y'],
    ['Connection', 'keep-alive'],
    ['Via', '1.1 x'],
    ['Server-Timing', 'x'],
  ])('with %s on two lines, also where its answers are kept, asked for anew, and changed', async (name, value) => {
    const { gateway, upstream } = await behind({ kind: 'memory' }, 200, twice(name, value), CACHE)
    for (const [method, headers] of [
      ['GET', {}],
      ['GET', UNSAFE],
      ['GET', {}],
      ['POST', {}],
    ] as const) {
      const answer = await call(gateway.url, '/it/x', { method, headers })
      expect([answer.status, answer.headers['x-sluice-error']]).toEqual([200, undefined])
      if (method === 'GET' && headers !== UNSAFE && upstream.seen.length === 1) expect(answer.body).toBe('first')
    }
    const statuses = ['401', '403', '404', '429', '500', '503'].map(Number)
    for (const status of statuses) {
      const { gateway } = await behind({ kind: 'memory' }, status, twice(name, value), CACHE)
      const answer = await call(gateway.url, '/it/x', { headers: { 'x-sluice-retry': 'off' } })
      expect([answer.status, answer.body, answer.headers['x-sluice-error']]).toEqual([status, 'first', undefined])
    }
  })
})

it('a 304 with its ETag on two lines confirms what is kept', async () => {
  const etag = twice('ETag', '"a"').flat()
  const upstream = await startUpstream(({ headers }, response) => {
    const isKnown = headers['if-none-match'] !== undefined
    response.writeHead(isKnown ? 304 : 200, [...etag, 'Cache-Control', 'no-cache']).end(isKnown ? '' : 'first')
  })
  const routes = [{ path: '/x', class: 'read', cache: {} }]
  const it = { url: upstream.url, accounts: { main: {} }, limits: { read: [], write: [] }, routes, cache: {} }
  const gateway = await startGateway({
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: { it },
  })
  for (const cached of ['stored', 'fwd-status=304'])
    expect(await call(gateway.url, '/it/x')).toMatchObject({
      status: 200,
      body: 'first',
      headers: { 'cache-status': expect.stringContaining(cached) as string },
    })
  expect(upstream.seen).toHaveLength(2)
})

describe('a request with a field on two lines', () => {
  it.each([
    ['x-sluice-max-wait', '1s', '2s'],
    ['x-sluice-retry', 'off', 'on'],
    ['x-sluice-timeout', '10s', '20s'],
    ['x-sluice-priority', 'batch', 'normal'],
    ['x-sluice-account', 'main', 'other'],
  ])('%s is obeyed if they are equal, and refused if they are not', async (name, value, other) => {
    const { gateway, upstream } = await behind({ kind: 'memory' }, 200, [])
    expect((await call(gateway.url, '/it/x', { headers: { [name]: [value, value] } })).status).toBe(200)
    const refused = await call(gateway.url, '/it/x', { headers: { [name]: [value, other] } })
    expect([refused.status, refused.headers['x-sluice-error']]).toEqual([400, 'invalid_request'])
    expect(upstream.seen).toHaveLength(1)
  })

  it('has the id that both of them name', async () => {
    const { gateway } = await behind({ kind: 'memory' }, 200, [])
    const { headers } = await call(gateway.url, '/it/x', { headers: { 'x-correlation-id': ['a,b', 'a,b'] } })
    expect(headers['x-correlation-id']).not.toBe('')
    const same = await call(gateway.url, '/it/x', { headers: { 'x-correlation-id': ['abc', 'abc'] } })
    expect(same.headers['x-correlation-id']).toBe('abc')
  })

  it('names the account by each of them, so that none can name another', async () => {
    const claims = { accountClaims: { headers: ['x-org'] }, accounts: { main: { id: 'one' } } }
    const { gateway } = await behind({ kind: 'memory' }, 200, [], claims)
    expect((await call(gateway.url, '/it/x', { headers: { 'x-org': ['one', 'one'] } })).status).toBe(200)
    const two = await call(gateway.url, '/it/x', { headers: { 'x-org': ['one', 'two'] } })
    expect(two.headers['x-sluice-error']).toBe('account_mismatch')
  })

  it('is repeated by an Idempotency-Key only if both are one key', async () => {
    const retry = { retry: { idempotencyKey: 'honoured', baseDelay: '1ms' } }
    for (const [keys, attempts] of [
      [['a', 'a'], 2],
      [['a', 'b'], 1],
    ] as const) {
      const { gateway, upstream } = await behind({ kind: 'memory' }, 503, [], retry)
      await call(gateway.url, '/it/x', { method: 'POST', headers: { 'idempotency-key': [...keys] } })
      expect(upstream.seen).toHaveLength(attempts)
    }
  })

  it('is let in with a key that it shows twice', async () => {
    const key = 'k'.repeat(40)
    const upstream = await startUpstream()
    const gateway = await startGateway({
      server: { port: 0 },
      admin: { port: 0 },
      store: { dir: newFolder() },
      clients: { one: { keys: [hashKey(key)] } },
      upstreams: { it: { url: upstream.url, accounts: { main: {} } } },
    })
    expect((await call(gateway.url, '/it/x', { headers: { 'x-sluice-key': [key, key] } })).status).toBe(200)
    expect((await call(gateway.url, '/it/x', { headers: { 'x-sluice-key': [key, 'other'] } })).status).toBe(401)
  })
})
