import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { ADVICE_OF } from '../../src/gateway/failure.ts'
import { harnessConfig, startGateway, startServer, startUpstream, stores, TOKEN } from '../support/gateway.ts'
import { call, open, RawClient } from '../support/http.ts'
import { listRequests, storiesOf, storyOf } from '../support/requests.ts'

const READ = '/harness/ng/api/projects'
const id = (name: string): Record<string, string> => ({ 'x-correlation-id': name })
/** A window in which all calls of a test have come, on a busy machine too. */
const SMALL = { limits: { read: [{ requests: 2, window: '10s' }] }, queue: { maxWait: '60s' } }

describe.each(Object.keys(stores) as (keyof typeof stores)[])('the story of a request, with %s', (kind) => {
  it('tells of client, route, limits, and each attempt with its delay and credential', async () => {
    let count = 0
    const upstream = await startUpstream((_, response) => {
      response.statusCode = ++count === 1 ? 503 : 200
      response.setHeader('x-request-id', `vendor-${count}`).end('{}')
    })
    const clients = { bot: { keys: [hashKey('slk_bot')] } }
    const config = harnessConfig(upstream.url, { retry: { baseDelay: '30ms', jitter: 'equal' } }, { clients })
    const gateway = await startGateway({ ...config, store: stores[kind]() })
    const path = `${READ}/list?accountIdentifier=acct1234&search=hush`
    expect((await call(gateway.url, path, { headers: { ...id('a-1'), 'x-sluice-key': 'slk_bot' } })).status).toBe(200)
    const story = await storyOf(gateway.adminUrl, 'a-1')
    expect(story).toMatchObject({
      client: 'bot',
      address: expect.stringContaining('127.0.0.1'),
      upstream: 'harness',
      account: 'prod',
      class: 'read',
      method: 'GET',
      path: `${READ}/list`,
      status: '200',
      outcome: 'delivered',
      route: {
        pattern: '/ng/api/projects/list',
        line: 'GET /ng/api/projects/list',
        charges: ['read'],
        retry: 'safe',
      },
      asked: { maxWaitMs: 10_000, retry: true },
      limits: [{ limit: 'read 1m', requests: 1_000, used: 2, remaining: 998, units: 1, enforced: true }],
      heldBy: null,
      waits: [],
      breaker: { state: 'closed', openedBy: null },
      cache: null,
      refusal: null,
    })
    const credential = { credential: 'harness/prod', credentialVersion: expect.any(Number) }
    expect(story.tries).toMatchObject([
      { number: 1, delayMs: 0, status: 503, end: 'retried', requestId: 'vendor-1', ...credential },
      { number: 2, status: 200, end: 'delivered', requestId: 'vendor-2', ...credential },
    ])
    expect(story.tries[1]!.delayMs).toBeGreaterThanOrEqual(14)
    expect(story.backoffMs).toBeGreaterThan(10)
    const text = JSON.stringify(story)
    for (const secret of ['slk_bot', 'hush', TOKEN, 'topsecret']) expect(text).not.toContain(secret)
  })

  it('tells of a wait what held it back, its place, what was promised, and who was served before', async () => {
    const upstream = await startUpstream()
    const keys = { noisy: { keys: [hashKey('slk_noisy')] }, bot: { keys: [hashKey('slk_bot')] } }
    const config = harnessConfig(upstream.url, SMALL, { clients: keys })
    const gateway = await startGateway({ ...config, store: stores[kind]() })
    const send = (name: string, client: string) =>
      call(gateway.url, READ, { headers: { ...id(name), 'x-sluice-key': `slk_${client}` } })
    await Promise.all([send('b-1', 'noisy'), send('b-2', 'noisy')])
    const waiting = [send('b-3', 'noisy'), send('b-4', 'noisy')]
    const depth = async () => (await listRequests(gateway.adminUrl)).data.filter(({ isRunning }) => isRunning).length
    await expect.poll(depth).toBe(2)
    const last = send('b-5', 'noisy')
    await expect.poll(depth).toBe(3)
    const { data } = await storiesOf(gateway.adminUrl, 'b-5')
    expect(data).toMatchObject([{ isRunning: true, outcome: 'running', status: 'none', client: 'noisy' }])
    await Promise.all([...waiting, last])
    const story = await storyOf(gateway.adminUrl, 'b-5')
    expect(story).toMatchObject({ heldBy: 'read 10s', status: '200' })
    const [wait, ...others] = story.waits
    expect(others).toEqual([])
    expect(wait).toMatchObject({ beforeAttempt: 1, because: 'quota', heldBy: 'read 10s', place: 3, ended: 'admitted' })
    expect(wait!.limits).toMatchObject([{ limit: 'read 10s', requests: 2, used: 2, remaining: 0 }])
    expect(wait!.servedBefore).toEqual({ calls: 2, byClient: { noisy: 2 } })
    expect(wait!.promisedMs).toBeGreaterThan(1_000)
    expect(Math.abs(wait!.waitedMs - story.waitMs)).toBeLessThanOrEqual(1)
    // The log line says it, too.
    expect(gateway.lines.find(({ correlationId }) => correlationId === 'b-5')).toMatchObject({ heldBy: 'read 10s' })
  })

  it('tells of a refusal which limit it was, and what to do', async () => {
    const upstream = await startUpstream()
    const limits = { read: [{ requests: 2, window: '1h' }] }
    const gateway = await startGateway({ ...harnessConfig(upstream.url, { limits }), store: stores[kind]() })
    const now = { ...id('c'), 'x-sluice-max-wait': '0' }
    await call(gateway.url, READ)
    await call(gateway.url, READ)
    const refused = await call(gateway.url, READ, { headers: now })
    expect(refused.json()).toMatchObject({ correlationId: 'c' })
    const story = await storyOf(gateway.adminUrl, 'c')
    const { message } = refused.json() as { message: string }
    const refusal = { kind: 'quota_exhausted', message, whatToDo: ADVICE_OF.quota_exhausted }
    expect(story).toMatchObject({ status: '429', heldBy: 'read 1h', tries: [], asked: { maxWaitMs: 0 }, refusal })
    expect(story.refusal!.retryAfterMs).toBeGreaterThan(0)
    expect(story.waits).toMatchObject([{ ended: 'quota_exhausted', servedBefore: null }])
  })
})

describe('the story of a request', () => {
  it('tells which call opened the breaker that refused it, and how that failed', async () => {
    const upstream = await startUpstream((_, response) => response.writeHead(500).end())
    const config = harnessConfig(upstream.url, { breaker: { failures: 1 }, retry: { retries: 0 } })
    const gateway = await startGateway(config)
    await call(gateway.url, READ, { headers: id('first') })
    await call(gateway.url, READ, { headers: id('second') })
    expect(await storyOf(gateway.adminUrl, 'first')).toMatchObject({ status: '500', breaker: { state: 'closed' } })
    expect(await storyOf(gateway.adminUrl, 'second')).toMatchObject({
      breaker: { state: 'open', openedBy: { because: 'status 500', correlationId: 'first' } },
      refusal: { kind: 'breaker_open', whatToDo: ADVICE_OF.breaker_open },
    })
  })

  it('tells what the cache did, and why', async () => {
    const upstream = await startUpstream((_, response) => response.setHeader('cache-control', 'max-age=60').end('x'))
    const routes = [{ method: ['GET'], path: '/items*', class: 'read', cache: true }]
    const api = { url: upstream.url, accounts: { main: {} }, routes, limits: { read: [] } }
    const gateway = await startGateway({ ...harnessConfig(upstream.url), upstreams: { api } })
    const read = (name: string, more = {}) => call(gateway.url, '/api/items', { headers: { ...id(name), ...more } })
    await read('miss')
    await read('hit')
    await read('bypass', { 'cache-control': 'no-store' })
    expect((await storyOf(gateway.adminUrl, 'miss')).cache).toEqual({
      result: 'miss',
      status: 'sluice; fwd=uri-miss; stored',
    })
    expect((await storyOf(gateway.adminUrl, 'hit')).cache).toMatchObject({
      result: 'hit',
      status: expect.stringMatching(/^sluice; hit; ttl=\d+$/),
    })
    expect((await storyOf(gateway.adminUrl, 'bypass')).cache).toMatchObject({
      result: 'bypass',
      status: expect.stringContaining('fwd=bypass; detail='),
    })
  })

  it('tells of attempts that nobody waited for any more, and of a response that broke off', async () => {
    const url = await startServer((request, response) => {
      if (request.url!.includes('slow')) return
      response.writeHead(200, { 'content-length': '10' }).write('half')
      setImmediate(() => response.destroy())
    })
    const gateway = await startGateway(harnessConfig(url))
    const leaving = await RawClient.connect(gateway.url)
    leaving.write(`GET ${READ}/slow HTTP/1.1\r\nHost: x\r\nX-Correlation-Id: left\r\n\r\n`)
    const isSent = async () => (await listRequests(gateway.adminUrl)).data.filter(({ attempts }) => attempts > 0).length
    await expect.poll(isSent).toBe(1)
    leaving.socket.destroy()
    expect(await storyOf(gateway.adminUrl, 'left')).toMatchObject({
      outcome: 'client_gone',
      status: 'none',
      tries: [{ status: null, error: null, end: 'client_gone', credential: 'harness/prod' }],
    })
    await call(gateway.url, READ, { headers: id('broken') }).catch(() => undefined)
    expect(await storyOf(gateway.adminUrl, 'broken')).toMatchObject({
      outcome: 'broken_off',
      tries: [{ status: 200, end: 'broken_off' }],
    })
  })

  it.each([
    ['a method that there is not', `FETCH /x HTTP/1.1\r\nHost: x\r\n\r\n`],
    ['a head that is too large', `GET /x HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(20_000)}\r\n\r\n`],
    ['HTTP/2 with prior knowledge', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['a request target that can not be read', `GET /harness/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`],
    ['CONNECT', `CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n`],
    ['no HTTP at all', `\u0016\u0003\u0001 hello\r\n\r\n`],
  ])('is found by the id in the answer to %s', async (_, text) => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    const client = await RawClient.connect(gateway.url)
    client.write(text)
    const received = await client.closed()
    const [, named] = /^x-correlation-id: (\S+)/im.exec(received) ?? []
    const body = JSON.parse(received.slice(received.indexOf('\r\n\r\n'))) as { correlationId: string; message: string }
    expect(body.correlationId).toBe(named)
    const story = await storyOf(gateway.adminUrl, named!)
    expect(story).toMatchObject({ status: '400', refusal: { kind: 'invalid_request', message: body.message } })
  })

  it('is there of every call under an id that its client uses again', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    for (let i = 0; i < 3; i++) await call(gateway.url, READ, { headers: id('again') })
    await expect.poll(async () => (await storiesOf(gateway.adminUrl, 'again')).data.length).toBe(3)
  })

  it.each(['a/b?c=%2F#d', '..', '%', '"\\', '~'.repeat(128), '%'.repeat(128)])(
    'is found under any id that a client may have: %s',
    async (name) => {
      const upstream = await startUpstream()
      const gateway = await startGateway(harnessConfig(upstream.url))
      await call(gateway.url, READ, { headers: id(name) })
      const url = `${gateway.adminUrl}/v1/requests/`
      // A URL has no segment `..`, whatever is escaped of it.
      if (name === '..') return expect((await fetch(`${url}${encodeURIComponent(name)}`)).status).toBe(404)
      expect((await storyOf(gateway.adminUrl, name)).correlationId).toBe(name)
    },
  )

  it.each(['a%20b', 'a%00', '%C3%BC', 'x'.repeat(129), '%20'])(
    'is not asked for by what is no id: %s',
    async (name) => {
      const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
      const answer = await call(gateway.adminUrl, `/v1/requests/${name}`)
      expect(answer).toMatchObject({ status: 400 })
      expect(answer.json()).toMatchObject({
        detail: 'a correlation id is 1 to 128 visible ASCII characters, and neither . nor ..',
      })
    },
  )

  it('is not known of an id that nobody used, and says where else to look', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    const answer = await call(gateway.adminUrl, '/v1/requests/nobody')
    expect(answer).toMatchObject({ status: 404 })
    expect((answer.json() as { detail: string }).detail).toMatch(/"nobody".*requests\.keep/)
  })

  it('is for those who have a token', async () => {
    const admin = { port: 0, token: 'admin-token' }
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', { retry: { retries: 0 } }, { admin }))
    await call(gateway.url, READ, { headers: id('mine') })
    for (const path of ['/v1/requests', '/v1/requests/mine']) {
      expect((await call(gateway.adminUrl, path)).status).toBe(401)
      const headers = { authorization: 'Bearer admin-token' }
      expect((await call(gateway.adminUrl, path, { headers })).status).toBe(200)
    }
  })

  it('is kept of a bounded number of calls, which reloads do not change', async () => {
    const upstream = await startUpstream()
    const config = harnessConfig(upstream.url, {}, { requests: { keep: 2 } })
    const gateway = await startGateway(config)
    for (const name of ['one', 'two', 'three']) await call(gateway.url, READ, { headers: id(name) })
    const ids = async () => (await listRequests(gateway.adminUrl)).data.map(({ correlationId }) => correlationId)
    await expect.poll(ids).toEqual(['three', 'two'])
    const reloaded = await gateway.reloadWith({ ...config, requests: { keep: 1 } })
    expect(reloaded).toMatchObject({ needRestart: ['requests.keep'] })
    expect(await ids()).toEqual(['three', 'two'])
  })
})

describe('the list of requests', () => {
  it('is filtered by client, account, class, status, outcome and time, the newest first', async () => {
    const upstream = await startUpstream((seen, response) =>
      response.writeHead(seen.url.includes('missing') ? 404 : 200).end(),
    )
    const clients = { bot: { keys: [hashKey('slk_bot')] }, tool: { keys: [hashKey('slk_tool')] } }
    const gateway = await startGateway(harnessConfig(upstream.url, {}, { clients }))
    const send = (name: string, client: string, path = READ, method = 'GET') =>
      call(gateway.url, path, { method, headers: { ...id(name), 'x-sluice-key': `slk_${client}` } })
    await send('1', 'bot')
    await send('2', 'tool')
    await send('3', 'bot', `${READ}/missing`)
    await send('4', 'bot', READ, 'POST')
    await send('5', 'nobody')
    const ids = async (query: string) =>
      (await listRequests(gateway.adminUrl, query)).data.map(({ correlationId }) => correlationId)
    await expect.poll(() => ids('')).toEqual(['5', '4', '3', '2', '1'])
    const since = (await listRequests(gateway.adminUrl)).data[2]!.time
    for (const [query, expected] of [
      ['?client=bot', ['4', '3', '1']],
      ['?client=unknown', ['5']],
      ['?account=prod', ['4', '3', '2', '1']],
      ['?account=harness/prod&class=write', ['4']],
      ['?account=other', []],
      ['?upstream=harness&status=404', ['3']],
      ['?status=4xx', ['5', '3']],
      ['?outcome=unauthenticated', ['5']],
      [`?until=${since}`, ['2', '1']],
      ['?since=1h', ['5', '4', '3', '2', '1']],
      ['?since=0s', []],
      ['?search=MISSING', ['3']],
      ['?search=404', ['3']],
      ['?search=correlation', []],
      ['?limit=2&offset=1', ['4', '3']],
    ] as const) {
      expect(await ids(query), query).toEqual(expected)
    }
  })

  it.each([
    ['?status=abc', 'status must be'],
    ['?status=6xx', 'status must be'],
    ['?since=yesterday', 'since must be a time such as 2027-01-31T18:00Z, or a duration such as 15m'],
    ['?since=2027-01-31T18:00%20or%20so', 'since must be a time such as'],
    ['?since=2027-02-31', 'since must be a day that exists'],
    ['?until=', 'until must be'],
    ['?client=', 'client must not be empty'],
    ['?search=', 'search must not be empty'],
    ['?client=a&client=b', 'client is given twice'],
    ['?user=a', 'unknown query parameter "user"'],
    ['?limit=1001', 'limit must be'],
    ['?limit=1000&offset=1', 'offset and limit together'],
  ])('refuses %s with a clear word', async (query, word) => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    const answer = await call(gateway.adminUrl, `/v1/requests${query}`)
    expect(answer).toMatchObject({ status: 400 })
    expect((answer.json() as { detail: string }).detail).toContain(word)
  })

  it('has a call that is under way, to its end', async () => {
    const url = await startServer((_, response) => void response.writeHead(200).write('first'))
    const gateway = await startGateway(harnessConfig(url))
    const response = await open(gateway.url, READ, { headers: id('streaming') })
    response.on('error', () => undefined)
    expect((await listRequests(gateway.adminUrl)).data).toMatchObject([{ isRunning: true, correlationId: 'streaming' }])
    response.destroy()
    expect(await storyOf(gateway.adminUrl, 'streaming')).toMatchObject({ isRunning: false, outcome: 'client_gone' })
  })

  it.each([
    [
      'once',
      100,
      [
        { correlationId: 'slow', isRunning: false },
        { correlationId: 'first', isRunning: false },
      ],
    ],
    ['though no ended ones are kept', 0, [{ correlationId: 'slow', isRunning: true }]],
  ])('has a call %s while its client still reads the response', async (_, keep, expected) => {
    const fields = { 'content-length': 8_000_000, 'cache-control': 'max-age=60' }
    const url = await startServer((_, response) => void response.writeHead(200, fields).end(Buffer.alloc(8_000_000)))
    const routes = [{ path: '/ng/api/projects', class: 'read', cache: true }]
    const rest = { cache: { maxEntryBytes: 8_000_000 }, requests: { keep } }
    const gateway = await startGateway(harnessConfig(url, { routes }, rest))
    await call(gateway.url, READ, { headers: id('first') })
    // What is kept is handed to the connection at once, whether or not the client takes it.
    const response = await open(gateway.url, READ, { headers: id('slow') })
    response.on('error', () => undefined)
    expect((await listRequests(gateway.adminUrl)).data).toMatchObject(expected)
    response.destroy()
  })
})
