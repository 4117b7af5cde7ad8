import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { call as callRaw } from '../support/http.ts'
import { startGateway, startUpstream, stores } from '../support/gateway.ts'

const AT_ONCE = { 'x-sluice-max-wait': '0' }

describe.each(Object.entries(stores))('with %s', (_, store) => {
  async function start(limits: object, upstream: object = {}) {
    const { url, seen } = await startUpstream()
    const it = { url, accounts: { main: {} }, limits: { read: [], write: [], ...limits }, ...upstream }
    const gateway = await startGateway({
      server: { port: 0 },
      admin: { port: 0 },
      store: store(),
      upstreams: { it },
    })
    const call = (method: string, path = '/x', init: RequestInit = {}) =>
      fetch(`${gateway.url}/it${path}`, { method, ...init, headers: { ...AT_ONCE, ...(init.headers as object) } })
    return { gateway, seen, call }
  }

  it('a limit that is not enforced lets all through, and tells in metrics and log whom it would have held back', async () => {
    const { gateway, call } = await start({
      read: [
        { requests: 2, window: '60s', enforce: false },
        { requests: 10, window: '1h' },
      ],
    })
    const responses = [await call('GET'), await call('GET'), await call('GET')]
    expect(responses.map(({ status }) => status)).toEqual([200, 200, 200])
    // The headers are about the limit that is kept.
    expect(responses[2]!.headers.get('ratelimit-policy')).toBe('"read";q=10;w=3600')
    expect(responses[2]!.headers.get('x-ratelimit-remaining')).toBe('7')
    expect(gateway.lines.map(({ wouldDeny }) => wouldDeny)).toEqual([undefined, undefined, ['read 1m shadow']])
    const metrics = await gateway.metrics()
    expect(metrics).toContain(
      'sluice_quota_would_deny_total{upstream="it",account="main",class="read",window="1m shadow",client="anonymous"} 1',
    )
    expect(metrics).toContain('sluice_quota_used{upstream="it",account="main",class="read",window="1m shadow"} 3')
  })

  it('a limit of units, one on all accounts and one on calls at once are charged together or not at all', async () => {
    const limits = {
      all: [
        { requests: 10, window: '60s', cost: { GET: 1, default: 5 } },
        { requests: 4, window: '60s', scope: 'upstream' },
        { concurrent: 2 },
      ],
    }
    const { gateway, call } = await start(limits, { accounts: { a: {}, b: {} } })
    const by = (account: string) => ({ headers: { 'x-sluice-account': account } })
    const statuses = []
    for (const [method, account] of [
      ['PUT', 'a'],
      ['PUT', 'a'],
      ['GET', 'a'], // 11 units
      ['GET', 'b'],
      ['GET', 'b'],
      ['GET', 'b'], // the fifth at the upstream
    ] as const) {
      statuses.push((await call(method, '/x', by(account))).status)
    }
    expect(statuses).toEqual([200, 200, 429, 200, 200, 429])
    const metrics = await gateway.metrics()
    for (const line of [
      'account="*",class="all",window="1m per upstream"} 4',
      'account="a",class="all",window="1m by method"} 10',
      'account="b",class="all",window="1m by method"} 2',
      'account="a",class="all",window="at once"} 0',
    ]) {
      expect(metrics).toContain(`sluice_quota_used{upstream="it",${line}`)
    }
  })

  it('calls in flight follow what the upstream can take, within their bounds', async () => {
    let inFlight = 0
    let most = 0
    const { url } = await startUpstream(async (_, response) => {
      most = Math.max(most, ++inFlight)
      response.statusCode = inFlight > 4 ? 503 : 200
      await new Promise((resolve) => setTimeout(resolve, response.statusCode === 200 ? 20 : 1))
      inFlight--
      response.end()
    })
    const it = {
      url,
      accounts: { main: {} },
      limits: { read: [], write: [] },
      concurrency: { read: { min: 1, max: 40 } },
      queue: { maxWait: '10m' },
    }
    const gateway = await startGateway({ server: { port: 0 }, admin: { port: 0 }, store: store(), upstreams: { it } })
    const headers = { 'x-sluice-retry': 'off', 'x-sluice-max-wait': '10m' }
    const answers = await Promise.all(Array.from({ length: 600 }, () => fetch(`${gateway.url}/it/x`, { headers })))
    const refused = answers.filter(({ status }) => status === 503).length
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(600 - refused)
    expect(most).toBeGreaterThan(1)
    expect(most).toBeLessThanOrEqual(40)
    expect(refused).toBeLessThan(200)
    const [, limit] = /sluice_concurrency_limit\{upstream="it",account="main",class="read"\} (\d+)/.exec(
      await gateway.metrics(),
    )!
    expect(Number(limit)).toBeGreaterThanOrEqual(1)
    expect(Number(limit)).toBeLessThan(20)
  })

  it('each limit is published by a name of its own, and without a window that the fields can’t say', async () => {
    const { call } = await start({
      read: [
        { requests: 3, window: '60s' },
        { requests: 9, window: '1h' },
      ],
      write: [{ requests: 7, window: '90500ms' }],
    })
    const [first, write] = [await call('GET'), await call('POST')]
    expect(first.headers.get('ratelimit-policy')).toBe('"read 1m";q=3;w=60')
    expect(first.headers.get('ratelimit')).toMatch(/^"read 1m";r=2;t=6\d$/)
    expect(write.headers.get('ratelimit-policy')).toBe('"write";q=7')
    await call('GET')
    await call('GET')
    const refused = await call('GET', '/x', { headers: { accept: 'application/problem+json' } })
    expect(await refused.json()).toMatchObject({
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      title: 'Request cannot be satisfied as assigned quota has been exceeded',
      status: 429,
      kind: 'quota_exhausted',
      'violated-policies': ['read 1m'],
    })
  })

  it('a body of unknown length is refused where a limit depends on its length', async () => {
    const { gateway, seen, call } = await start({ write: [{ requests: 100, window: '60s', cost: { bytes: 10 } }] })
    const response = await call('POST', '/x', { body: '0123456789a' })
    expect(response.headers.get('x-ratelimit-remaining')).toBe('98')
    const chunked = await callRaw(gateway.url, '/it/x', { method: 'POST', body: Readable.from(['a']) })
    expect(chunked.status).toBe(400)
    expect(chunked.body).toContain('the request needs a Content-Length')
    expect(seen).toHaveLength(1)
  })
})
