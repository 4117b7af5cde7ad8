import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { type AddressInfo, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { ACCOUNT, harnessConfig, startGateway, startServer, startUpstream, stores, TOKEN } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'
import { SimulatedClock, stepUntilDone } from '../support/simulated-clock.ts'

const READ = '/harness/ng/api/projects'
const SECOND = 1_000
const WAITS = /sluice_queue_depth\{[^}]*class="read"\} (\d+)/

/** One configuration again and again, with a change each time: the folder of its store stays. */
function versions(url: string, rest: object = {}) {
  const first = harnessConfig(url, {}, rest) as { upstreams: { harness: object } }
  return (upstream: object = {}, others: object = {}) => ({
    ...first,
    ...others,
    upstreams: { harness: { ...first.upstreams.harness, ...upstream } },
  })
}

const accountWith = (value: string) => ({ accounts: { prod: { id: ACCOUNT, credential: { value } } } })

/** An upstream that never answers by itself, and tells how many connections it has. */
async function startHolding() {
  const responses: ServerResponse[] = []
  const sockets = new Set<Socket>()
  const server = createServer((_, response) => void responses.push(response))
  server.keepAliveTimeout = 60_000
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, responses, sockets }
}

describe('a reload', () => {
  it('is in force for the next call, on a connection that stays', async () => {
    const upstream = await startUpstream()
    const version = versions(upstream.url)
    const gateway = await startGateway(version())
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await client.until(/200 OK/)
    const reloaded = await gateway.reloadWith(version(accountWith('other-key')))
    expect(reloaded).toEqual({ result: 'applied', changed: ['upstreams.harness.accounts'], needRestart: [] })
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await client.until(/200 OK[^]*200 OK/)
    expect(client.isClosed).toBe(false)
    expect(upstream.seen.map(({ headers }) => headers['x-api-key'])).toEqual([TOKEN, 'other-key'])
    client.socket.destroy()
  })

  it('lets running calls finish as they began, and closes the connections that only they use after the last of them', async () => {
    const old = await startHolding()
    const upstream = await startUpstream((_, response) => response.end('new'))
    const version = versions(old.url)
    const gateway = await startGateway(version())
    const running = call(gateway.url, READ)
    await expect.poll(() => old.responses.length).toBe(1)
    await gateway.reloadWith(version({ url: upstream.url }))
    expect(await call(gateway.url, READ)).toMatchObject({ status: 200, body: 'new' })
    expect(old.sockets.size).toBe(1)
    old.responses[0]!.end('old')
    expect(await running).toMatchObject({ status: 200, body: 'old' })
    await expect.poll(() => old.sockets.size).toBe(0)
  })

  it('leaves a call that is retried the connections that it began with, two reloads later', async () => {
    const clock = new SimulatedClock()
    let count = 0
    const upstream = await startUpstream((_, response) => response.writeHead(count++ === 0 ? 503 : 200).end('old'))
    const version = versions(upstream.url)
    const gateway = await startGateway(version(), { clock, random: () => 0.5 })
    const running = call(gateway.url, READ)
    await expect.poll(() => clock.waits).toContain(500)
    // The connections are those of the first and the second version, and none of the third's.
    await gateway.reloadWith(version({ retry: { retries: 1 } }))
    await gateway.reloadWith(version({ url: 'http://127.0.0.1:9' }))
    await clock.advance(500)
    expect(await running).toMatchObject({ status: 200, body: 'old' })
    expect(upstream.seen).toHaveLength(2)
  })

  it('keeps the connections to an upstream of which something else has changed', async () => {
    const upstream = await startHolding()
    const version = versions(upstream.url)
    const gateway = await startGateway(version())
    for (const [i, limits] of [{}, { read: [{ requests: 7, window: '1m' }] }].entries()) {
      if (i > 0) await gateway.reloadWith(version({ limits }))
      const answer = call(gateway.url, READ)
      await expect.poll(() => upstream.responses.length).toBe(i + 1)
      upstream.responses[i]!.end()
      await answer
    }
    expect(upstream.sockets.size).toBe(1)
    expect(new Set(upstream.responses.map(({ req }) => req.socket.remotePort)).size).toBe(1)
  })

  it('changes nothing if anything is wrong, and reports every problem', async () => {
    const upstream = await startUpstream()
    const version = versions(upstream.url)
    const gateway = await startGateway(version())
    const wrong = version({ ...accountWith('other-key'), retry: { retries: -1 }, quueue: {} })
    expect(await gateway.reloadWith(wrong)).toEqual({
      result: 'rejected',
      problems: [
        expect.stringContaining('upstreams.harness.quueue: unknown key "quueue"; did you mean "queue"?'),
        expect.stringContaining('upstreams.harness.retry.retries: must be at least 0'),
      ],
    })
    expect((await call(gateway.url, READ)).status).toBe(200)
    expect(upstream.seen[0]!.headers['x-api-key']).toBe(TOKEN)
    expect(await gateway.reloadWith(version())).toEqual({ result: 'unchanged', needRestart: [] })
    expect(await gateway.reloadWith(version({ hosts: ['named.example'] }))).toMatchObject({ result: 'applied' })
    const samples = parseMetrics(await gateway.metrics())
    expect(valuesOf(samples, 'sluice_config_reload_total', 'result')).toEqual({ applied: 1, unchanged: 1, rejected: 1 })
  })

  it('says what only a restart changes, and puts the rest in force', async () => {
    const upstream = await startUpstream()
    const version = versions(upstream.url)
    const gateway = await startGateway(version())
    const next = version(accountWith('other-key'), {
      server: { port: 1, workers: 1, drain: '1s' },
      store: { dir: '/elsewhere' },
      log: { level: 'debug' },
    })
    expect(await gateway.reloadWith(next)).toEqual({
      result: 'applied',
      changed: ['server.drain', 'upstreams.harness.accounts'],
      needRestart: ['server.port', 'store.dir', 'log.level'],
    })
    await call(gateway.url, READ)
    expect(upstream.seen[0]!.headers['x-api-key']).toBe('other-key')
  })

  it('is refused where it would only be right with a listener that it can’t have', async () => {
    const key = `sha256:${'0'.repeat(64)}`
    const version = versions('http://127.0.0.1:9', {
      server: { port: 0, host: '0.0.0.0' },
      clients: { a: { keys: [key] } },
    })
    const gateway = await startGateway(version())
    const open = { ...version({}, { server: { port: 0 } }), clients: undefined }
    expect(await gateway.reloadWith(open)).toEqual({
      result: 'rejected',
      problems: [expect.stringContaining('clients must be configured')],
    })
    expect((await call(gateway.url.replace('0.0.0.0', '127.0.0.1'), READ)).status).toBe(401)
  })

  it('takes effect for keys of clients on connections that are open', async () => {
    const upstream = await startUpstream()
    const clients = { tool: { keys: [hashKey('first')] } }
    const version = versions(upstream.url, { clients })
    const gateway = await startGateway(version())
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\nX-Sluice-Key: first\r\n\r\n`)
    await client.until(/200 OK/)
    await gateway.reloadWith(version({}, { clients: { tool: { keys: [hashKey('second')] } } }))
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\nX-Sluice-Key: first\r\n\r\n`)
    expect(await client.until(/HTTP\/1.1 401[^]*INVALID_TOKEN/)).toContain('INVALID_TOKEN')
    client.socket.destroy()
  })
})

describe('what calls have left behind survives a reload', () => {
  it('a breaker that is open, unless it is configured otherwise now', async () => {
    const upstream = await startUpstream((_, response) => response.writeHead(500).end())
    const version = versions(upstream.url)
    const one = { retry: { retries: 0 }, breaker: { failures: 1 } }
    const gateway = await startGateway(version(one))
    await call(gateway.url, READ)
    expect((await call(gateway.url, READ)).headers['x-sluice-error']).toBe('breaker_open')
    await gateway.reloadWith(version({ ...one, ...accountWith('other-key') }))
    expect((await call(gateway.url, READ)).headers['x-sluice-error']).toBe('breaker_open')
    await gateway.reloadWith(version({ ...one, breaker: { failures: 2 } }))
    expect((await call(gateway.url, READ)).status).toBe(500)
  })

  it('a retry budget that is spent', async () => {
    const upstream = await startUpstream((_, response) => response.writeHead(503).end())
    const version = versions(upstream.url)
    const quick = { retry: { retries: 20, baseDelay: '1ms', maxDelay: '1ms', budget: '0%' }, breaker: { failures: 99 } }
    const clock = new SimulatedClock()
    const gateway = await startGateway(version(quick), { clock, random: () => 0 })
    const spend = async () => {
      const answer = call(gateway.url, READ)
      const lines = gateway.lines.length
      while (gateway.lines.length === lines) await clock.advance(0)
      return (await answer).headers['x-sluice-attempts']
    }
    expect(await spend()).toBe('11')
    await gateway.reloadWith(version({ ...quick, ...accountWith('other-key') }))
    expect(await spend()).toBeUndefined()
  })

  it('what counts against a quota, also one that is another now', async () => {
    const upstream = await startUpstream()
    const version = versions(upstream.url)
    const reads = (requests: number) => ({ limits: { read: [{ requests, window: '1h' }] }, queue: { maxWait: '0s' } })
    const gateway = await startGateway(version(reads(2)))
    const statuses = async (calls: number) => {
      const all: number[] = []
      for (let i = 0; i < calls; i++) all.push((await call(gateway.url, READ)).status)
      return all
    }
    expect(await statuses(3)).toEqual([200, 200, 429])
    await gateway.reloadWith(version(reads(4)))
    expect(await statuses(3)).toEqual([200, 200, 429])
    await gateway.reloadWith(version(reads(3)))
    expect(await statuses(1)).toEqual([429])
  })

  it('the order of those who wait, whom a larger quota sets free', async () => {
    const clock = new SimulatedClock()
    const upstream = await startUpstream()
    const version = versions(upstream.url)
    const reads = (requests: number) => ({ limits: { read: [{ requests, window: '60s' }] }, queue: { maxWait: '5m' } })
    const gateway = await startGateway(version(reads(1)), { clock })
    await call(gateway.url, `${READ}/0`)
    const waiting = []
    for (let i = 1; i <= 3; i++) {
      waiting.push(call(gateway.url, `${READ}/${i}`))
      await expect.poll(async () => WAITS.exec(await gateway.metrics())?.[1]).toBe(String(i))
    }
    await gateway.reloadWith(version(reads(2)))
    await expect.poll(() => upstream.seen.length).toBe(2)
    waiting.push(call(gateway.url, `${READ}/4`))
    await expect.poll(async () => WAITS.exec(await gateway.metrics())?.[1]).toBe('3')
    for (let i = 0; i < 4; i++) await clock.advance(61 * SECOND)
    expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual([200, 200, 200, 200])
    expect(upstream.seen.map(({ url }) => url.at(-1))).toEqual(['0', '1', '2', '3', '4'])
  })

  it.each(Object.entries(stores))('those who wait, whom a larger quota lets go, with %s', async (_, store) => {
    const upstream = await startUpstream()
    const version = versions(upstream.url, { store: store() })
    const reads = (requests: number) => ({ limits: { read: [{ requests, window: '1h' }] }, queue: { maxWait: '9h' } })
    const gateway = await startGateway(version(reads(1)))
    const calls = Array.from({ length: 5 }, (_, i) => call(gateway.url, `${READ}/${i}`))
    await expect.poll(async () => WAITS.exec(await gateway.metrics())?.[1]).toBe('4')
    await gateway.reloadWith(version(reads(4)))
    await expect.poll(() => upstream.seen.length).toBe(4)
    await gateway.reloadWith(version(reads(5)))
    expect((await Promise.all(calls)).map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
  })

  it.each(Object.entries(stores))(
    'those who wait, whom a smaller quota lets wait longer, with %s',
    async (name, store) => {
      const upstream = await startUpstream()
      const version = versions(upstream.url, { store: store() })
      const limits = (requests: number) => ({
        limits: { read: [{ requests, window: '10s' }] },
        queue: { maxWait: '2m' },
      })
      // Redis counts by its own clock, which can not be stepped.
      const clock = name === 'Redis' ? undefined : new SimulatedClock()
      const gateway = await startGateway(version(limits(4)), clock && { clock })
      const calls = Array.from({ length: 8 }, (_, i) => call(gateway.url, `${READ}/${i}`))
      await expect.poll(() => upstream.seen.length).toBe(4)
      await expect.poll(async () => WAITS.exec(await gateway.metrics())?.[1]).toBe('4')
      await gateway.reloadWith(version(limits(1)))
      const served = expect.poll(() => upstream.seen.length).toBe(5)
      await (clock === undefined ? served : stepUntilDone(clock, served, 50))
      await expect.poll(async () => WAITS.exec(await gateway.metrics())?.[1]).toBe('3')
      // And they need not wait for long if the quota is larger again.
      await gateway.reloadWith(version(limits(100)))
      expect((await Promise.all(calls)).map(({ status }) => status)).toEqual(Array.from(calls, () => 200))
    },
  )

  it('those who wait, whom a smaller pace lets wait longer', async () => {
    const clock = new SimulatedClock()
    const upstream = await startUpstream()
    const version = versions(upstream.url)
    const paced = (requests: number) => ({
      limits: { read: [{ requests, window: '60s', pace: 'even', burst: 1 }] },
      queue: { maxWait: '5m' },
    })
    const gateway = await startGateway(version(paced(600)), { clock })
    const calls = Array.from({ length: 7 }, (_, i) => call(gateway.url, `${READ}/${i}`))
    await expect.poll(async () => WAITS.exec(await gateway.metrics())?.[1]).toBe('6')
    await gateway.reloadWith(version(paced(60)))
    await clock.advance(2 * SECOND)
    expect(Number(WAITS.exec(await gateway.metrics())![1])).toBeGreaterThanOrEqual(3)
    await stepUntilDone(clock, Promise.all(calls), 100)
    expect(upstream.seen).toHaveLength(7)
  })

  it('those in flight, who count against the concurrency that is configured now', async () => {
    const upstream = await startHolding()
    const version = versions(upstream.url)
    const gateway = await startGateway(version({ concurrency: { read: 1 } }))
    const first = call(gateway.url, READ)
    await expect.poll(() => upstream.responses.length).toBe(1)
    await gateway.reloadWith(version({ concurrency: { read: 1 }, ...accountWith('other-key') }))
    expect((await call(gateway.url, READ, { headers: { 'x-sluice-max-wait': '0' } })).status).toBe(429)
    const waiting = call(gateway.url, READ)
    await expect.poll(async () => WAITS.exec(await gateway.metrics())?.[1]).toBe('1')
    await gateway.reloadWith(version({ concurrency: { read: 2 } }))
    await expect.poll(() => upstream.responses.length).toBe(2)
    for (const response of upstream.responses) response.end()
    expect([(await first).status, (await waiting).status]).toEqual([200, 200])
  })
})

it('an account that is removed refuses those who wait for it, and lets those in flight finish', async () => {
  const responses: ServerResponse[] = []
  const url = await startServer((_, response) => void responses.push(response))
  const version = versions(url)
  const other = { id: 'other', credential: { value: 'other-key' } }
  const both = { accounts: { ...accountWith(TOKEN).accounts, other } }
  const limits = { limits: { read: [{ requests: 1, window: '1h' }] }, queue: { maxWait: '2h' } }
  const gateway = await startGateway(version({ ...both, ...limits }))
  const asProd = { headers: { 'x-sluice-account': 'prod' } }
  const running = call(gateway.url, READ, asProd)
  await expect.poll(() => responses.length).toBe(1)
  const waiting = call(gateway.url, READ, asProd)
  await expect.poll(async () => WAITS.exec(await gateway.metrics())?.[1]).toBe('1')
  await gateway.reloadWith(version({ accounts: { other }, ...limits }))
  const refused = await waiting
  expect(refused).toMatchObject({
    status: 503,
    headers: { 'x-sluice-error': 'credential_unavailable', 'retry-after': '1' },
  })
  expect(refused.json().message).toContain('harness/prod was taken out of the configuration')
  responses[0]!.end('done')
  expect(await running).toMatchObject({ status: 200, body: 'done' })
  expect((await call(gateway.url, READ, asProd)).status).toBe(400)
})

describe('POST /v1/reload', () => {
  it('reloads, and says what became of it', async () => {
    const version = versions('http://127.0.0.1:9')
    const gateway = await startGateway(version({}, { admin: { port: 0, token: 'admin-token' } }))
    const headers = { authorization: 'Bearer admin-token' }
    expect((await call(gateway.adminUrl, '/v1/reload', { method: 'POST' })).status).toBe(401)
    const answer = await call(gateway.adminUrl, '/v1/reload', { method: 'POST', headers })
    expect(answer).toMatchObject({ status: 200 })
    expect(answer.json()).toEqual({ data: { result: 'unchanged', needRestart: [] } })
    await gateway.reloadWith({})
    const wrong = await call(gateway.adminUrl, '/v1/reload', { method: 'POST', headers })
    expect(wrong.status).toBe(422)
    expect(wrong.headers['content-type']).toContain('application/problem+json')
    expect(wrong.json()).toMatchObject({
      code: 'INVALID_CONFIG',
      errors: [{ message: expect.stringContaining('upstreams') }],
    })
  })
})
