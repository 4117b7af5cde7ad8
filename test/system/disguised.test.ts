import { setTimeout as sleep } from 'node:timers/promises'
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { newFolder, startGateway, startUpstream, type TestGateway } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const LIMITED = JSON.stringify({
  data: null,
  errors: [{ type: 'OTHER' }, { type: 'RATE_LIMITED', message: 'too many' }],
})
const TWICE = brotliCompressSync(gzipSync(LIMITED))
const GOOD = JSON.stringify({ data: { ok: true } })
const JSON_TYPE = { 'content-type': 'application/json; charset=utf-8' }

interface Answer {
  readonly status?: number
  readonly headers?: Record<string, string>
  readonly body?: string | Buffer
}

const when = [
  { status: 200, classes: ['graphql'], body: { '/errors/*/type': ['RATE_LIMITED', 'THROTTLED'] } },
  { status: [200, 503], header: { 'X-Throttled': ['yes', 'true'] } },
  { status: 509 },
]

describe('a refusal for rate that has another status', () => {
  const start = async (answers: Answer[]): Promise<TestGateway> => {
    const { url } = await startUpstream((_, response) => {
      const { status = 200, headers = JSON_TYPE, body = GOOD } = answers.shift() ?? {}
      response.writeHead(status, headers).end(body)
    })
    const it = {
      url,
      accounts: { main: {} },
      limits: { graphql: [], read: [] },
      routes: [
        { path: '/graphql', class: 'graphql' },
        { path: '/cached', class: 'graphql', cache: { freshFor: '60s' } },
        { path: '/*', class: 'read' },
      ],
      throttle: { when, pause: '0s', retry: 'any' },
      retry: { retries: 1 },
      breaker: { failures: 1 },
    }
    return startGateway({ server: { port: 0 }, admin: { port: 0 }, store: { dir: newFolder() }, upstreams: { it } })
  }

  /** The upstream answers so in turn; then the call, and how many attempts it took. */
  const ask = async (answers: Answer[], path = '/graphql') => {
    const gateway = await start(answers)
    const answer = await call(gateway.url, `/it${path}`, { method: 'POST', body: '{}' })
    return { status: answer.status, body: answer.body, attempts: answer.headers['x-sluice-attempts'] ?? '1' }
  }

  it.each<[string, Answer]>([
    ['its body', { body: LIMITED }],
    ['its body in gzip', { headers: { ...JSON_TYPE, 'content-encoding': 'gzip' }, body: gzipSync(LIMITED) }],
    ['its body in Brotli', { headers: { ...JSON_TYPE, 'content-encoding': 'br' }, body: brotliCompressSync(LIMITED) }],
    ['its body in zstd', { headers: { ...JSON_TYPE, 'content-encoding': 'zstd' }, body: zstdCompressSync(LIMITED) }],
    ['its body in deflate', { headers: { ...JSON_TYPE, 'content-encoding': 'deflate' }, body: deflateSync(LIMITED) }],
    ['its raw deflate', { headers: { ...JSON_TYPE, 'content-encoding': 'deflate' }, body: deflateRawSync(LIMITED) }],
    ['its body in two codings', { headers: { ...JSON_TYPE, 'content-encoding': 'gzip, br' }, body: TWICE }],
    [
      'its body, which is not in the coding that it names',
      { headers: { ...JSON_TYPE, 'content-encoding': 'br' }, body: LIMITED },
    ],
    [
      'its body in a coding that nobody knows',
      { headers: { ...JSON_TYPE, 'content-encoding': 'utf-8' }, body: LIMITED },
    ],
    ['its body behind a byte order mark', { body: `\uFEFF${LIMITED}` }],
    ['its JSON of another type', { headers: { 'content-type': 'application/vnd.x+json' }, body: LIMITED }],
    ['a header', { headers: { 'x-throttled': 'TRUE' }, body: 'no' }],
    ['a header beside a 5xx', { status: 503, headers: { 'x-throttled': 'yes' } }],
    ['a status that means nothing else here', { status: 509 }],
  ])('is known by %s, and the call goes back to its place, a POST, too', async (_, refusal) => {
    // Were it no refusal for rate, a 5xx would open the breaker, and a POST would be sent once.
    expect(await ask([refusal, {}])).toEqual({ status: 200, body: GOOD, attempts: '2' })
  })

  it.each<[string, Answer, string?]>([
    ['another error', { body: '{"errors":[{"type":"NOT_FOUND"}]}' }],
    ['a class that is not named', { body: LIMITED }, '/other'],
    ['a status that is not named', { status: 404, body: LIMITED }],
    ['text that only mentions it', { headers: { 'content-type': 'text/plain' }, body: LIMITED }],
    ['a broken body', { body: LIMITED.slice(1) }],
    ['a body of another coding than it says', { headers: { ...JSON_TYPE, 'content-encoding': 'gzip' }, body: 'x' }],
    ['a coding that nobody knows', { headers: { ...JSON_TYPE, 'content-encoding': 'x-own' }, body: gzipSync(LIMITED) }],
    ['a body that is longer than a refusal', { body: `${' '.repeat(70_000)}${LIMITED}` }],
    ['no body', { status: 200, body: '' }],
  ])('is not seen in %s, which is passed on as it came', async (_, answer, path) => {
    const got = await ask([answer], path)
    expect(got).toMatchObject({ status: answer.status ?? 200, attempts: '1' })
    if (answer.headers?.['content-encoding'] === undefined) expect(got.body).toBe(answer.body)
  })

  it('is what the client gets, as it was sent, where the call may not be sent again', async () => {
    expect(await ask([{ body: LIMITED }, { body: LIMITED }])).toEqual({ status: 200, body: LIMITED, attempts: '2' })
  })

  it('is not kept by the cache, and counts as throttled', async () => {
    const gateway = await start([{ body: LIMITED }, { body: LIMITED }, {}])
    expect((await call(gateway.url, '/it/cached')).body).toBe(LIMITED)
    expect((await call(gateway.url, '/it/cached')).body).toBe(GOOD)
    expect(await gateway.metrics()).toMatch(/sluice_upstream_throttled_total\{[^}]*class="graphql"[^}]*\} [1-9]/)
    expect(gateway.lines[0]!.tries![0]).toMatchObject({ status: 200, end: 'retried', error: 'refused for rate' })
  })
})

describe('an answer that may be a refusal in disguise', () => {
  const config = (url: string) => ({
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: {
      it: { url, accounts: { main: {} }, throttle: { when: [{ body: { '/ok': false } }], retry: 'any', pause: '0s' } },
    },
  })

  it('is passed on when its body is slow to come, and not taken for one then', async () => {
    const clock = new SimulatedClock()
    let finish = (): void => undefined
    const upstream = await startUpstream((_, response) => {
      response.writeHead(200, JSON_TYPE).write('{"ok":')
      finish = () => response.end('false}')
    })
    const gateway = await startGateway(config(upstream.url), { clock })
    const answer = fetch(`${gateway.url}/it/x`)
    await expect.poll(() => clock.waits.some((ms) => Math.abs(ms - 1_000) < 1)).toBe(true)
    await clock.advance(1_001)
    const response = await answer
    finish()
    expect([response.status, await response.text()]).toEqual([200, '{"ok":false}'])
  })

  it('is passed on at once where it is a stream of events', async () => {
    let finish = (): void => undefined
    const upstream = await startUpstream((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: {"ok":false}\n\n')
      finish = () => response.end()
    })
    const gateway = await startGateway(config(upstream.url), { clock: new SimulatedClock() })
    const response = await fetch(`${gateway.url}/it/x`)
    finish()
    expect(await response.text()).toBe('data: {"ok":false}\n\n')
  })

  it('that breaks off has not begun for its client, so that a read is sent again', async () => {
    const upstream = await startUpstream(async (_, response) => {
      if (upstream.seen.length > 1) return response.writeHead(200, JSON_TYPE).end('{"ok":true}')
      response.writeHead(200, { ...JSON_TYPE, 'content-length': 100 }).write('{"ok":')
      await sleep(1)
      return response.destroy()
    })
    const once = config(upstream.url)
    const gateway = await startGateway({
      ...once,
      upstreams: { it: { ...once.upstreams.it, retry: { baseDelay: '1ms' } } },
    })
    expect(await call(gateway.url, '/it/x')).toMatchObject({ status: 200, body: '{"ok":true}' })
  })
})

describe('the configuration of refusals in disguise', () => {
  const problem = (entry: object): string => {
    const it = { url: 'https://x.example', accounts: { main: {} }, throttle: { when: [entry] } }
    try {
      checkConfig({ upstreams: { it } }, 'test')
    } catch (error) {
      return (error as Error).message
    }
    return ''
  }

  it.each([
    [{}, 'every such answer would be a refusal'],
    [{ status: [200, 500] }, 'every such answer would be a refusal'],
    [{ header: {} }, 'throttle.when[0].header: must not be an empty mapping'],
    [{ body: {} }, 'throttle.when[0].body: must not be an empty mapping'],
    [{ status: 100, header: { a: 'b' } }, 'a status from 200 to 599'],
    [{ body: { errors: 1 } }, 'throttle.when[0].body'],
    [{ classes: ['reed'], body: { '/a': 1 } }, 'throttle.when[0].classes[0]: there is no such class'],
  ])('refuses %o', (entry, message) => {
    expect(problem(entry)).toContain(message)
  })

  it('takes a status of an error alone', () => {
    expect(problem({ status: 503 })).toBe('')
  })
})

describe.each([
  ['github', '/graphql', LIMITED],
  ['slack', '/chat.postMessage', '{"ok":false,"error":"ratelimited"}'],
])('the preset %s', (preset, path, refusal) => {
  it('knows the refusals that its vendor sends with 200', async () => {
    const upstream = await startUpstream((_, response) => {
      response.writeHead(200, JSON_TYPE).end(upstream.seen.length === 1 ? refusal : GOOD)
    })
    const it = { preset, url: upstream.url, accounts: { main: { credential: { value: 'x' } } } }
    const gateway = await startGateway({
      server: { port: 0 },
      admin: { port: 0 },
      store: { dir: newFolder() },
      upstreams: { it: { ...it, throttle: { pause: '0s' }, limits: {} } },
    })
    expect(await call(gateway.url, `/it${path}`, { method: 'POST', body: '{}' })).toMatchObject({
      body: GOOD,
      headers: { 'x-sluice-attempts': '2' },
    })
  })
})
