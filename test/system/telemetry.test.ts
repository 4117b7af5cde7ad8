import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text as textOf } from 'node:stream/consumers'
import { describe, expect, it, onTestFinished } from 'vitest'
import { inTextFormat, TEXT_FORMAT } from '../../src/observe/text-format.ts'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { everyOutcome } from '../support/every-outcome.ts'
import { hasPrometheus } from '../support/find-prometheus.ts'
import { deadPort, startRedisServer } from '../support/find-redis.ts'
import { harnessConfig, newFolder, startGateway, startUpstream, TOKEN } from '../support/gateway.ts'
import { type Answer, call, type CallOptions, RawClient } from '../support/http.ts'
import { parseMetrics, type Sample, valuesOf } from '../support/openmetrics.ts'
import { hasProgram } from '../support/packages.ts'
import { lintMetrics } from '../support/promtool.ts'
import { readmeBlock, readmeTable } from '../support/readme.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const OPENMETRICS = 'application/openmetrics-text; version=1.0.0; charset=utf-8'
const READ = '/harness/ng/api/projects'
const TEMPLATE = '/harness/template/api/templates/template_1'

describe('a gateway whose calls end in every way', () => {
  it('writes one line a call, with the fields that the README shows', async () => {
    const { expected, answers, output } = await everyOutcome()
    const lines = output
      .split('\n')
      .filter((line) => line.includes('"msg":"call"'))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(lines).toHaveLength(expected.size)
    expect(new Map(lines.map((line) => [line['correlationId'], line['outcome']]))).toEqual(expected)
    const statuses = new Map(lines.map((line) => [line['correlationId'], line['status']]))
    for (const { status, headers } of answers.filter(({ headers }) => 'x-correlation-id' in headers))
      expect(statuses.get(headers['x-correlation-id'])).toBe(String(status))

    const shown = Object.keys(JSON.parse(readmeBlock('json')) as object)
    const kinds = new Set(readmeTable('kind').map(({ kind }) => kind))
    for (const line of lines) {
      const isRefused = kinds.has(String(line['outcome']))
      // There is no route in a table where a rule decided; the others only calls have that were sent, and answered so.
      const sometimes = new Set(['route', 'tries', 'credential', 'upstreamRequestId'])
      const missing = shown.filter((field) => !sometimes.has(field) && !(field in line))
      // What a refusal came too early for.
      if (isRefused) expect(['upstream', 'account', 'class']).toEqual(expect.arrayContaining(missing))
      else expect(missing).toEqual([])
      const others = Object.keys(line).filter(
        (field) => ![...shown, 'wouldDeny', 'cache', 'expectedMs', 'heldBy', 'keyHash', 'userAgent'].includes(field),
      )
      expect(others).toEqual(isRefused ? ['reason'] : [])
    }
  })

  it('ends in every way that the README lists, and counts them', async () => {
    const { expected, metrics } = await everyOutcome()
    const possible = readmeTable('kind').filter((row) => !row['what to do']!.includes('not given by this version'))
    const outcomes = [...possible.map(({ kind }) => kind!), 'delivered', 'client_gone', 'broken_off']
    // A mistake of the gateway can't be ordered, and who is refused because it stops can't ask for metrics any more. The run
    // has no forward proxy: test/forward-proxy has.
    expect(new Set([...expected.values(), 'internal', 'draining', 'proxy_unauthenticated'])).toEqual(new Set(outcomes))
    const counts: Record<string, number> = {}
    for (const outcome of expected.values()) counts[outcome] = (counts[outcome] ?? 0) + 1
    expect(valuesOf(parseMetrics(metrics), 'sluice_requests_total', 'outcome')).toEqual(counts)
  })

  it('shows every metric of the README with its labels, and a call on each counter and histogram', async () => {
    const { expected, metrics } = await everyOutcome()
    const samples = parseMetrics(metrics)
    for (const { metric = '', labels = '' } of readmeTable('metric')) {
      const own = samples.filter(({ name }) => name.replace(/_(?:bucket|sum|count)$/, '') === metric)
      // Only there with credentials, keys and certificates that can be renewed or run out, with limits that are used for a while,
      // and with features that the run has not: test/deploy/alerts-fired.test.ts and the tests of these features have.
      const isNotHere =
        /^sluice_(?:credential_|(?:quota|[a-z]+_budget)_(?:burn|exhaustion)_|quota_region_|concurrency_limit$|tunnels_|webhook_)|_expires_seconds$/.test(
          metric,
        )
      if (own.length === 0 && isNotHere) continue
      const labelsShown = own.map((sample) => Object.keys(sample.labels).filter((name) => name !== 'le'))
      expect(new Set(labelsShown.map((names) => names.join(', '))), metric).toEqual(new Set([labels]))
    }
    const ids = [...expected.keys()]
    for (const { series, count, exemplars } of seriesOfCalls(samples)) {
      expect(exemplars.length > 0, series).toBe(count > 0)
      for (const id of exemplars) expect(ids, series).toContain(id)
    }
  })
})

describe('metrics in the OpenMetrics format', () => {
  it('stay so with a correlation id of 128 characters, which is no exemplar: cut, it would lead to no call', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const long = `"\\{}#,=${'x'.repeat(121)}`
    const exemplarsAfter = async (id: string) => {
      const { headers } = await call(gateway.url, READ, { headers: { 'x-correlation-id': id } })
      expect(headers['x-correlation-id']).toBe(id)
      return parseMetrics(await gateway.metrics()).flatMap(({ exemplar }) => exemplar ?? [])
    }
    expect(await exemplarsAfter(long)).toEqual([])
    const id = long.slice(0, 114)
    const exemplars = await exemplarsAfter(id)
    expect(exemplars).not.toEqual([])
    for (const { labels } of exemplars) expect(labels).toEqual({ correlation_id: id })
  })

  it.each([
    [
      'application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2',
      OPENMETRICS,
    ],
    ['*/*', OPENMETRICS],
    ['application/json', OPENMETRICS],
    ['text/plain', TEXT_FORMAT],
    ['text/*;q=0.5, application/openmetrics-text;q=0.1', TEXT_FORMAT],
    ['text/plain;version=0.0.4;q=1,*/*;q=0.1', TEXT_FORMAT],
  ])('come for Accept: %s in the format of that', async (accept, type) => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    await call(gateway.url, READ, { headers: { 'x-correlation-id': '"\\{}#,=' } })
    const response = await fetch(`${gateway.adminUrl}/metrics`, { headers: { accept } })
    expect(response.headers.get('content-type')).toBe(type)
    expect(response.headers.get('vary')).toBe('accept, accept-encoding')
    const text = await response.text()
    const isText = type === TEXT_FORMAT
    expect(text.endsWith('# EOF\n')).toBe(!isText)
    expect(text.includes(' # {correlation_id=')).toBe(!isText)
    expect(text).toContain(`# TYPE sluice_requests${isText ? '_total' : ''} counter\nsluice_requests_total{`)
  })

  it.skipIf(!hasPrometheus())('have nothing that promtool finds wrong', async () => {
    const { metrics } = await everyOutcome()
    expect(lintMetrics(await textOf(inTextFormat(Readable.from([metrics]))))).toBe('')
  })
})

describe('the metrics of a known sequence of calls', () => {
  /** A gateway in front of a sandbox, both with a clock that stands, and delays between attempts of no time. */
  async function setUp(upstream: object = {}, others: (url: string) => object = () => ({})) {
    const dir = newFolder()
    const clock = new SimulatedClock()
    const sandbox = await startSandbox({ clock })
    onTestFinished(() => sandbox.stop())
    const { upstreams, ...config } = harnessConfig(sandbox.url, upstream) as { upstreams: { harness: object } }
    const gateway = await startGateway(
      { ...config, store: { dir }, upstreams: { ...upstreams, ...others(sandbox.url) } },
      { clock, random: () => 0 },
    )
    /** Makes a call during which no time passes. */
    const ask = (path: string, options?: CallOptions) => atOnce(clock, call(gateway.url, path, options))
    /** Makes a call for which the upstream takes so long. */
    const askSlowly = async (path: string, latencyMs: number): Promise<Answer> => {
      const before = sandbox.seen().length
      sandbox.setFaults({ latencyMs, times: 1 })
      const calling = call(gateway.url, path)
      await expect.poll(() => sandbox.seen().length).toBe(before + 1)
      await clock.advance(latencyMs)
      return atOnce(clock, calling)
    }
    const values = async (name: string, ...labels: string[]) =>
      valuesOf(parseMetrics(await gateway.metrics()), name, ...labels)
    return { clock, sandbox, gateway, dir, ask, askSlowly, values }
  }

  it('tell how long calls took, and who had them meanwhile', async () => {
    const { gateway, askSlowly, values } = await setUp()
    await askSlowly(READ, 40)
    await askSlowly(READ, 300)
    expect(gateway.lines).toMatchObject([
      { waitMs: 0, upstreamMs: 40, gatewayMs: 0, durationMs: 40 },
      { waitMs: 0, upstreamMs: 300, gatewayMs: 0, durationMs: 300 },
    ])
    for (const name of ['sluice_request_duration_seconds', 'sluice_upstream_duration_seconds']) {
      expect(await values(`${name}_sum`, 'class')).toEqual({ read: expect.closeTo(0.34) })
      expect(await values(`${name}_bucket`, 'le')).toMatchObject({ 0.025: 0, 0.05: 1, 0.25: 1, 0.5: 2, '+Inf': 2 })
    }
    expect(await values('sluice_gateway_overhead_seconds_bucket', 'le')).toMatchObject({ 0.0001: 2, '+Inf': 2 })
    expect(await values('sluice_queue_wait_seconds_count', 'class')).toEqual({ read: 0 })
  })

  it('do not blame the gateway, nor the upstream, for what a client did not wait for', async () => {
    const { clock, sandbox, gateway, values } = await setUp()
    sandbox.setFaults({ stall: 'headers' })
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await expect.poll(() => sandbox.seen().length).toBe(1)
    await clock.advance(70)
    client.socket.destroy()
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'client_gone', upstreamMs: 70, gatewayMs: 0 }])
    expect(await values('sluice_gateway_overhead_seconds_sum', 'class')).toEqual({ read: 0 })
    expect(await values('sluice_upstream_duration_seconds_count', 'class')).toEqual({ read: 0 })
  })

  it('tell how long the upstream took for its headers, even if the client left in the middle of the body', async () => {
    const { clock, sandbox, gateway, values } = await setUp()
    sandbox.setFaults({ latencyMs: 70, stall: 'body' })
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await expect.poll(() => sandbox.seen().length).toBe(1)
    await clock.advance(70)
    await client.until(/200 OK/)
    client.socket.destroy()
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'client_gone', status: '200', upstreamMs: 70 }])
    expect(await values('sluice_upstream_duration_seconds_count', 'class')).toEqual({ read: 1 })
  })

  it('tell why attempts were made, and which 429s there is an explanation for', async () => {
    const port = await deadPort()
    const retry = { retries: 1 }
    const read = [
      { requests: 100, window: '60s' },
      { requests: 5, window: '90s', enforce: false },
    ]
    const throttle = { pause: '0s' }
    const { sandbox, ask, values } = await setUp({ limits: { read }, retry, throttle }, () => ({
      dead: {
        url: `http://127.0.0.1:${port}`,
        accounts: { main: {} },
        limits: { read: [{ requests: 5, window: '60s' }] },
        retry,
      },
    }))
    for (const status of [429, 429, 503]) {
      sandbox.setFaults({ status, times: 1 })
      expect((await ask(READ)).status).toBe(200)
    }
    sandbox.setFaults({ status: 429 })
    expect((await ask(READ, { headers: { 'x-sluice-retry': 'off' } })).status).toBe(429)
    expect((await ask('/dead/x')).status).toBe(502)
    expect(await values('sluice_attempts_total', 'upstream', 'reason')).toEqual({
      'harness first': 4,
      'harness status_429': 2,
      'harness status_503': 1,
      'dead first': 1,
      'dead unreachable': 1,
    })
    // The last one came after the gateway had let through more than a limit that it does not enforce.
    expect(await values('sluice_upstream_throttled_total', 'upstream', 'explained')).toEqual({
      'harness yes': 1,
      'harness no': 2,
      'dead yes': 0,
      'dead no': 0,
    })
    expect(await values('sluice_quota_limit', 'upstream', 'class', 'window')).toMatchObject({
      'harness read 1m': 100,
      'dead read 1m': 5,
    })
    // Of what can't be reached, nothing is charged.
    expect(await values('sluice_quota_used', 'upstream', 'class', 'window')).toMatchObject({
      'harness read 1m': 7,
      'dead read 1m': 0,
    })
  })

  it('tell who found no quota, who waits, and for how long', async () => {
    const { clock, gateway, ask, values } = await setUp({
      limits: { template: [{ requests: 2, window: '10s' }] },
      queue: { maxWait: '30s' },
    })
    for (let i = 0; i < 2; i++) await ask(TEMPLATE)
    expect(await values('sluice_quota_denied_total')).toEqual({})
    expect((await ask(TEMPLATE, { headers: { 'x-sluice-max-wait': '0' } })).status).toBe(429)
    expect(await values('sluice_quota_denied_total', 'class', 'client')).toEqual({ 'template anonymous': 1 })
    expect(await values('sluice_quota_used', 'class')).toMatchObject({ template: 2, read: 2, write: 0 })

    const waiting = call(gateway.url, TEMPLATE)
    await expect.poll(() => values('sluice_queue_depth', 'class')).toEqual({ template: 1 })
    await clock.advance(11_000)
    expect((await atOnce(clock, waiting)).status).toBe(200)
    const { waitMs = 0 } = gateway.lines.at(-1) ?? {}
    expect(waitMs).toBeGreaterThanOrEqual(10_000)
    expect(await values('sluice_queue_wait_seconds_count', 'class')).toEqual({ template: 1 })
    expect(await values('sluice_queue_wait_seconds_sum', 'class')).toEqual({ template: expect.closeTo(waitMs / 1_000) })
    // As the forecast was the same, the wait was over no more than a little later or sooner.
    const { expectedMs = 0 } = gateway.lines.at(-1) ?? {}
    const wrongBy = Math.abs(waitMs - expectedMs) / 1_000
    const side = waitMs > expectedMs ? 'later' : 'sooner'
    expect(await values('sluice_queue_eta_error_seconds_sum', 'than_forecast')).toEqual({
      [side]: expect.closeTo(wrongBy),
    })
    expect(expectedMs).toBeGreaterThan(9_000)
    expect(await values('sluice_quota_denied_total', 'class', 'client')).toEqual({ 'template anonymous': 2 })
    expect(await values('sluice_queue_depth', 'class')).toEqual({ template: 0 })
    expect(await values('sluice_quota_used', 'class')).toMatchObject({ template: 1, read: 3 })
  })

  it('tell what the breakers do, and which retries the budget did not allow', async () => {
    const { sandbox, ask, values } = await setUp(
      { retry: { retries: 0 }, breaker: { failures: 3, reset: '1h' } },
      (url) => ({
        flaky: {
          url,
          accounts: { main: { credential: { header: 'x-api-key', value: TOKEN } } },
          limits: { read: [] },
          retry: { retries: 20, budget: '0%' },
          breaker: { failures: 1_000 },
        },
      }),
    )
    const states = () => values('sluice_breaker_state', 'upstream')
    sandbox.setFaults({ status: 503 })
    for (const state of [0, 0, 2]) {
      expect((await ask(READ)).headers['x-sluice-error']).toBeUndefined()
      expect(await states()).toEqual({ harness: state, flaky: 0 })
    }
    expect((await ask(READ)).headers['x-sluice-error']).toBe('breaker_open')
    // Ten retries are saved up at the start, and no time passes in which there would be more.
    await ask('/flaky/x')
    expect(await values('sluice_attempts_total', 'upstream', 'reason')).toEqual({
      'harness first': 3,
      'flaky first': 1,
      'flaky status_503': 10,
    })
    expect(await values('sluice_retry_budget_exhausted_total', 'upstream')).toEqual({ harness: 0, flaky: 1 })
  })

  it('tell when a breaker lets a call probe the upstream', async () => {
    const breaker = { failures: 1, reset: '1s' }
    const { clock, sandbox, ask, values } = await setUp({ retry: { retries: 0 }, breaker })
    sandbox.setFaults({ status: 500, times: 1 })
    await ask(READ)
    expect(await values('sluice_breaker_state', 'upstream')).toEqual({ harness: 2 })
    await clock.advance(1_000)
    expect(await values('sluice_breaker_state', 'upstream')).toEqual({ harness: 1 })
    await ask(READ)
    expect(await values('sluice_breaker_state', 'upstream')).toEqual({ harness: 0 })
  })

  it('tell that the embedded store can not be written', async () => {
    const { clock, gateway, dir, ask, values } = await setUp({
      limits: { read: [{ requests: 1, window: '10s' }] },
      queue: { maxWait: '12s' },
    })
    expect(await values('sluice_store_errors_total')).toEqual({ '': 0 })
    await ask(READ)
    const waiting = call(gateway.url, READ)
    await expect.poll(() => values('sluice_queue_depth')).toEqual({ '': 1 })
    rmSync(join(dir, 'quota'), { recursive: true })
    // It could come back while the call still may wait.
    await clock.advance(12_000)
    expect((await atOnce(clock, waiting)).headers['x-sluice-error']).toBe('store_unavailable')
    expect(await values('sluice_store_errors_total')).toEqual({ '': 1 })
    const { waitMs, gatewayMs, durationMs } = gateway.lines.at(-1)!
    expect({ waitMs, gatewayMs }).toEqual({ waitMs: durationMs, gatewayMs: 0 })
    mkdirSync(join(dir, 'quota'))
  })
})

describe.skipIf(!hasProgram('redis-server'))('the metrics of a gateway whose Redis goes away', () => {
  it('tell it, and still show everything else', async () => {
    const redis = await startRedisServer()
    onTestFinished(() => redis.stop())
    const upstream = await startUpstream()
    const store = { kind: 'redis', url: redis.url, commandTimeout: '2s', onOutage: 'closed' }
    const gateway = await startGateway({ ...harnessConfig(upstream.url), store })
    const values = async (name: string, ...labels: string[]) =>
      valuesOf(parseMetrics(await gateway.metrics()), name, ...labels)
    expect((await call(gateway.url, READ)).status).toBe(200)
    expect(await values('sluice_store_degraded')).toEqual({ '': 0 })
    expect(await values('sluice_quota_used', 'class')).toMatchObject({ read: 1 })
    await redis.stop()
    await expect.poll(() => values('sluice_store_degraded')).toEqual({ '': 1 })
    expect((await call(gateway.url, READ)).headers['x-sluice-error']).toBe('store_unavailable')
    expect(await values('sluice_store_errors_total')).toEqual({ '': 1 })
    expect(await values('sluice_quota_used', 'class')).toEqual({})
    expect(await values('sluice_requests_total', 'outcome')).toEqual({ delivered: 1, store_unavailable: 1 })
  })
})

/** What a promise comes to while no time passes; delays of 0 ms are over as soon as they begin. */
async function atOnce<T>(clock: SimulatedClock, promise: Promise<T>): Promise<T> {
  let isOver = false
  const end = (): void => void (isOver = true)
  promise.then(end, end)
  while (!isOver) await clock.advance(0)
  return promise
}

interface CallSeries {
  readonly series: string
  readonly count: number
  /** The correlation ids that it has as exemplars. */
  readonly exemplars: readonly string[]
}

/** Every series of our counters and histograms. */
const NOT_OF_CALLS = new Set(['sluice_config_reload_total', 'sluice_credential_renewals_total'])

function seriesOfCalls(samples: readonly Sample[]): CallSeries[] {
  const found = new Map<string, CallSeries>()
  for (const {
    name,
    labels: { le: _, ...labels },
    value,
    exemplar,
  } of samples) {
    // A reload is no call, and a token is had for many.
    if (!/^sluice_\w+_(?:total|bucket)$/.test(name) || NOT_OF_CALLS.has(name)) continue
    const series = `${name} ${JSON.stringify(labels)}`
    const before = found.get(series)?.exemplars ?? []
    // The last bucket, like a counter, has all.
    found.set(series, {
      series,
      count: value,
      exemplars: [...before, ...(exemplar === undefined ? [] : [exemplar.labels['correlation_id'] ?? ''])],
    })
  }
  return [...found.values()]
}
