import { once } from 'node:events'
import { constants, createServer, type ServerHttp2Stream } from 'node:http2'
import type { ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PassThrough } from 'node:stream'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { harnessConfig, startGateway, startServer, startUpstream } from '../support/gateway.ts'
import { call, open } from '../support/http.ts'
import { startProcess } from '../support/process.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const READ = '/harness/ng/api/projects'
const SECOND = 1_000
const ONCE = { retry: { retries: 0 } }

/** An upstream that fails on paths with `sick` in them while it is sick. */
async function startSick() {
  const health = { isSick: true }
  const upstream = await startUpstream((seen, response) => {
    response.writeHead(health.isSick && seen.url.includes('sick') ? 500 : 200).end()
  })
  return { ...upstream, health }
}

const errorOf = async (url: string, path: string, options = {}) =>
  (await call(url, path, options)).headers['x-sluice-error']

describe('a breaker', () => {
  it('is that of a group of routes where they name one: others go on', async () => {
    const { url } = await startSick()
    const routes = [
      { path: '/sick/*', class: 'read', breaker: 'search' },
      { path: '/also-sick/*', class: 'read', breaker: 'search' },
    ]
    const gateway = await startGateway(harnessConfig(url, { ...ONCE, routes, breaker: { failures: 2 } }))
    await call(gateway.url, '/harness/sick/a')
    await call(gateway.url, '/harness/also-sick/a')
    const refused = await call(gateway.url, '/harness/sick/b')
    expect(refused).toMatchObject({
      status: 503,
      headers: { 'x-sluice-error': 'breaker_open', 'x-sluice-breaker': 'open' },
    })
    expect(await errorOf(gateway.url, '/harness/also-sick/b')).toBe('breaker_open')
    expect((await call(gateway.url, READ)).status).toBe(200)
    const metrics = await gateway.metrics()
    expect(metrics).toContain('sluice_breaker_state{upstream="harness"} 0')
    expect(metrics).toContain('sluice_breaker_state{upstream="harness",group="search"} 2')
    expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200)
  })

  it('is that of a class where it is configured so', async () => {
    const { url } = await startSick()
    const gateway = await startGateway(harnessConfig(url, { ...ONCE, breaker: { failures: 1, per: 'class' } }))
    await call(gateway.url, '/harness/ng/api/sick', { method: 'PUT' })
    expect(await errorOf(gateway.url, '/harness/ng/api/sick', { method: 'PUT' })).toBe('breaker_open')
    expect((await call(gateway.url, READ)).status).toBe(200)
    expect(await gateway.metrics()).toContain('sluice_breaker_state{upstream="harness",group="write"} 2')
  })

  it('counts calls that were slow, by the time to their headers that the upstream took', async () => {
    const clock = new SimulatedClock()
    const pending: (() => void)[] = []
    const url = await startServer((_, response) => void pending.push(() => response.end()))
    const gateway = await startGateway(harnessConfig(url, { ...ONCE, breaker: { failures: 2, slow: '10s' } }), {
      clock,
    })
    for (const [i, seconds] of [11, 10, 11, 11].entries()) {
      const answer = call(gateway.url, READ)
      await expect.poll(() => pending.length).toBe(i + 1)
      await clock.advance(seconds * SECOND)
      pending[i]!()
      expect((await answer).status).toBe(200)
    }
    expect(await errorOf(gateway.url, READ)).toBe('breaker_open')
  })

  it('counts bodies that break off', async () => {
    const url = await startServer((request, response) => {
      response.writeHead(200, { 'content-length': 100 }).write('half')
      setImmediate(() => request.socket.destroy())
    })
    const gateway = await startGateway(harnessConfig(url, { ...ONCE, breaker: { failures: 2 } }))
    for (let i = 0; i < 2; i++) await expect(call(gateway.url, READ)).rejects.toThrow()
    expect(await errorOf(gateway.url, READ)).toBe('breaker_open')
  })

  it('counts streams that their clients end, and those that go on for long, as successes between failures', async () => {
    const clock = new SimulatedClock()
    const streams: ServerResponse[] = []
    const url = await startServer((request, response) => {
      if (request.url!.includes('sick')) return void response.writeHead(500).end()
      streams.push(response)
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n')
    })
    const gateway = await startGateway(harnessConfig(url, { ...ONCE, breaker: { failures: 2, reset: '60s' } }), {
      clock,
    })
    const fail = async (): Promise<void> => expect((await call(gateway.url, '/harness/sick')).status).toBe(500)
    const stream = await open(gateway.url, READ)
    await once(stream, 'data')
    await fail()
    stream.destroy()
    await expect.poll(() => gateway.lines).toMatchObject([{ status: '500' }, { outcome: 'client_gone' }])
    await fail()
    const long = await open(gateway.url, READ)
    await once(long, 'data')
    await clock.advance(60 * SECOND)
    streams.at(-1)!.write('data: 2\n\n')
    await once(long, 'data')
    await fail()
    expect((await call(gateway.url, '/harness/sick')).status).toBe(500)
    expect(await errorOf(gateway.url, READ)).toBe('breaker_open')
    long.destroy()
  })

  it('counts no stream as a success of which its client saw nothing', async () => {
    const url = await startServer((request, response) => {
      if (request.url!.includes('sick')) response.writeHead(500).end()
      else response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    })
    const gateway = await startGateway(harnessConfig(url, { ...ONCE, breaker: { failures: 2, reset: '60s' } }))
    expect((await call(gateway.url, '/harness/sick')).status).toBe(500)
    const stream = await open(gateway.url, READ)
    stream.destroy()
    await expect.poll(() => gateway.lines).toMatchObject([{ status: '500' }, { outcome: 'client_gone' }])
    expect((await call(gateway.url, '/harness/sick')).status).toBe(500)
    expect(await errorOf(gateway.url, READ)).toBe('breaker_open')
  })

  it.each([
    ['is too large', (_: SimulatedClock, body: PassThrough) => void body.write(Buffer.alloc(20_000)), 0],
    ['stalls', (clock: SimulatedClock) => clock.advance(77 * SECOND), 1],
  ])('does not count an upload that %s behind the head of its answer', async (_, fail, timeouts) => {
    const clock = new SimulatedClock()
    const url = await startServer((request, response) => {
      request.on('error', () => undefined)
      if (request.method === 'PUT') response.writeHead(200).write('begun')
      else response.end()
    })
    const config = { ...ONCE, maxBody: 10_000, timeouts: { idle: '77s' }, breaker: { failures: 1 } }
    const gateway = await startGateway(harnessConfig(url, config), { clock })
    const body = new PassThrough()
    body.write('x')
    const upload = await open(gateway.url, READ, { method: 'PUT', body })
    await fail(clock, body)
    await expect(upload.toArray()).rejects.toThrow('aborted')
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'broken_off' }])
    expect((await call(gateway.url, READ)).status).toBe(200)
    expect(await gateway.metrics()).toMatch(new RegExp(`^sluice_timeouts_total\\{.*phase="client"\\} ${timeouts}`, 'm'))
  })

  it('counts bodies that break off together with their heads', async () => {
    const server = createServer().on('stream', (stream: ServerHttp2Stream) => {
      stream.on('error', () => undefined)
      stream.respond({ ':status': 200 })
      stream.write('half')
      // Head, body and reset come in one piece, so that nobody has the response yet when it breaks off.
      stream.close(constants.NGHTTP2_INTERNAL_ERROR)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const gateway = await startGateway(harnessConfig(url, { ...ONCE, http2: true, breaker: { failures: 2 } }))
    for (let i = 0; i < 2; i++) await expect(call(gateway.url, READ)).rejects.toThrow()
    expect(await errorOf(gateway.url, READ)).toBe('breaker_open')
  })

  it('counts no refusals of the gateway’s own', async () => {
    const upstream = await startUpstream()
    const limits = { read: [{ requests: 1, window: '1h' }] }
    const gateway = await startGateway(harnessConfig(upstream.url, { limits, breaker: { failures: 1 } }))
    await call(gateway.url, READ)
    const now = { headers: { 'x-sluice-max-wait': '0' } }
    for (let i = 0; i < 3; i++) expect(await errorOf(gateway.url, READ, now)).toBe('quota_exhausted')
    expect(await gateway.metrics()).toContain('sluice_breaker_state{upstream="harness"} 0')
  })

  it('says of a probe’s response that it was one, and stays open longer when that fails', async () => {
    const clock = new SimulatedClock()
    const { url, health } = await startSick()
    const gateway = await startGateway(harnessConfig(url, { ...ONCE, breaker: { failures: 1, reset: '60s' } }), {
      clock,
    })
    await call(gateway.url, '/harness/ng/api/sick')
    await clock.advance(60 * SECOND)
    const probe = await call(gateway.url, '/harness/ng/api/sick')
    expect(probe).toMatchObject({ status: 500, headers: { 'x-sluice-breaker': 'half-open' } })
    expect((await call(gateway.url, READ)).headers).toMatchObject({ 'x-sluice-breaker': 'open', 'retry-after': '120' })
    health.isSick = false
    await clock.advance(120 * SECOND)
    expect((await call(gateway.url, READ)).headers['x-sluice-breaker']).toBe('half-open')
    expect((await call(gateway.url, READ)).headers['x-sluice-breaker']).toBeUndefined()
  })

  it('is not kept from closing by a slow upload that probes', async () => {
    const clock = new SimulatedClock()
    let isUploading = false
    const url = await startServer((request, response) => {
      isUploading ||= request.method === 'PUT'
      request.resume().on('end', () => response.writeHead(request.url?.includes('sick') ? 500 : 200).end())
    })
    const gateway = await startGateway(harnessConfig(url, { ...ONCE, breaker: { failures: 1, reset: '60s' } }), {
      clock,
    })
    await call(gateway.url, '/harness/ng/api/sick')
    await clock.advance(60 * SECOND)
    const body = new PassThrough()
    const upload = call(gateway.url, READ, { method: 'PUT', body })
    body.write('x')
    await expect.poll(() => isUploading).toBe(true)
    expect(await errorOf(gateway.url, READ)).toBe('breaker_open')
    await clock.advance(60 * SECOND)
    expect((await call(gateway.url, READ)).headers['x-sluice-breaker']).toBe('half-open')
    expect((await call(gateway.url, READ)).headers['x-sluice-breaker']).toBeUndefined()
    body.end()
    expect((await upload).status).toBe(200)
  })

  it('is neither opened nor closed by an answer to what was sent before it opened', async () => {
    const clock = new SimulatedClock()
    const pending: ((status: number) => void)[] = []
    const upstream = await startUpstream((seen, response) => {
      if (seen.url.includes('slow')) pending.push((status) => response.writeHead(status).end())
      else response.writeHead(500).end()
    })
    const breaker = { failures: 1, reset: '60s' }
    const gateway = await startGateway(harnessConfig(upstream.url, { ...ONCE, breaker }), { clock })
    const slow = [call(gateway.url, '/harness/slow/1'), call(gateway.url, '/harness/slow/2')]
    await expect.poll(() => pending.length).toBe(2)
    await call(gateway.url, READ)
    await clock.advance(50 * SECOND)
    pending[0]!(200)
    pending[1]!(500)
    expect((await Promise.all(slow)).map(({ status }) => status)).toEqual(expect.arrayContaining([200, 500]))
    const refused = await call(gateway.url, READ)
    expect(refused.headers).toMatchObject({ 'x-sluice-error': 'breaker_open', 'retry-after': '10' })
  })
})

describe('POST /v1/upstreams/{name}/breaker', () => {
  it('opens a breaker until it is closed the same way, whatever calls tell, and a reload leaves it so', async () => {
    const upstream = await startUpstream()
    const routes = [{ path: '/search/*', class: 'read', breaker: 'search' }]
    const config = harnessConfig(upstream.url, { routes }, { admin: { port: 0, token: 'admin-token' } })
    const gateway = await startGateway(config)
    const headers = { authorization: 'Bearer admin-token', 'content-type': 'application/json' }
    const path = '/v1/upstreams/harness/breaker'
    const order = (body: unknown, to = path) =>
      call(gateway.adminUrl, to, { method: 'POST', headers, body: JSON.stringify(body) })
    expect((await call(gateway.adminUrl, path, { method: 'POST', body: '{"state":"open"}' })).status).toBe(401)
    for (const [body, error] of [
      [{ state: 'half-open' }, { path: 'state', message: expect.stringContaining('must be one of open, closed') }],
      [{}, { path: 'state', message: 'the key "state" is missing' }],
      // Without its group, the order would be for the whole upstream.
      [
        { state: 'open', gruop: 'search' },
        { path: 'gruop', message: 'unknown key "gruop"; did you mean "group"?' },
      ],
      [
        { state: 'open', group: 1 },
        { path: 'group', message: expect.stringContaining('must be a text') },
      ],
    ] as const) {
      const refused = await order(body)
      expect([refused.status, refused.json().errors]).toEqual([400, [error]])
    }
    const { data } = (await call(gateway.adminUrl, '/v1/breakers', { headers })).json() as { data: object[] }
    for (const breaker of data) expect(breaker).toMatchObject({ state: 'closed' })
    expect((await order({ state: 'open', group: 'nobody' })).status).toBe(404)
    expect((await order({ state: 'open' }, '/v1/upstreams/nobody/breaker')).status).toBe(404)

    const opened = await order({ state: 'open' })
    expect(opened.json()).toEqual({
      data: { upstream: 'harness', state: 'open', byHand: true, retryAfterMs: 60_000 },
    })
    const refused = await call(gateway.url, READ)
    expect(refused.headers['x-sluice-error']).toBe('breaker_open')
    expect(refused.json().message).toContain('until an operator allows them again')
    expect((await call(gateway.url, '/harness/search/x')).status).toBe(200)
    expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200)
    const { upstreams, ...rest } = config as { upstreams: { harness: object } }
    const changed = { ...upstreams.harness, breaker: { failures: 7 } }
    expect(await gateway.reloadWith({ ...rest, upstreams: { harness: changed } })).toMatchObject({ result: 'applied' })
    expect(await errorOf(gateway.url, READ)).toBe('breaker_open')

    expect((await order({ state: 'closed' })).json().data).toMatchObject({ state: 'closed', byHand: false })
    expect((await call(gateway.url, READ)).status).toBe(200)
    await order({ state: 'open', group: 'search' })
    expect((await call(gateway.adminUrl, '/v1/breakers', { headers })).json()).toEqual({
      data: [
        { upstream: 'harness', state: 'closed', byHand: false },
        { upstream: 'harness', group: 'search', state: 'open', byHand: true, retryAfterMs: 60_000 },
      ],
    })
  })

  it('does so in all workers', async () => {
    const upstream = await startUpstream()
    const store = { kind: 'redis', url: inject('redisUrl'), prefix: `breakers-${process.pid}`, commandTimeout: '2s' }
    const gateway = await startProcess({ ...harnessConfig(upstream.url), server: { port: 0, workers: 2 }, store })
    const order = async (state: string) => {
      const body = JSON.stringify({ state })
      const headers = { 'content-type': 'application/json' }
      const answer = await call(gateway.adminUrl, '/v1/upstreams/harness/breaker', { method: 'POST', headers, body })
      expect(answer.json().data).toMatchObject({ state, byHand: state === 'open' })
      const calls = await Promise.all(Array.from({ length: 20 }, () => call(gateway.url, READ)))
      return [...new Set(calls.map(({ status }) => status))]
    }
    expect(await order('open')).toEqual([503])
    expect(await order('closed')).toEqual([200])
  })

  it.each([
    ['an answer', '/sick', 'status 500'],
    ['a connection that is refused', undefined, 'unreachable (ECONNREFUSED)'],
    ['a connection that breaks', '/cut', 'interrupted (UND_ERR_SOCKET)'],
  ])('says in the log what opened it, and in which call: %s', async (_, path, because) => {
    const url = await startServer((request, response) => {
      if (request.url?.includes('cut') === true) request.socket.destroy()
      else response.writeHead(500).end()
    })
    const upstream = path === undefined ? 'http://127.0.0.1:1' : url
    const config = harnessConfig(upstream, { ...ONCE, breaker: { failures: 2 } })
    const gateway = await startProcess({ ...config, log: { format: 'json' } })
    for (const id of ['first', 'second']) {
      await call(gateway.url, `/harness${path ?? ''}/x`, { headers: { 'x-correlation-id': id } })
    }
    const line = JSON.parse(await gateway.line(/the breaker changed its state/)) as object
    expect(line).toMatchObject({
      upstream: 'harness',
      state: 'open',
      because,
      correlationId: 'second',
      isByHand: false,
    })
  })
})
