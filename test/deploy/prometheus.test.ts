import { type DisposableTempDir, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { type Running, runGateway } from '../../src/process/run.ts'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { hasPrometheus } from '../support/find-prometheus.ts'
import { hasProgram } from '../support/packages.ts'
import { freePort } from '../support/find-redis.ts'
import { lintMetrics } from '../support/promtool.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { ALERT_CASES } from './alert-cases.ts'
import { healthCheckOf } from './compose.ts'
import { dashboardQueries, interpolate, labelValues, readDashboard } from './dashboard.ts'
import { atPort, run } from './process.ts'
import { PrometheusServer, type Series } from './prometheus-server.ts'
import { ROOT } from './repository.ts'

/** A gateway that is scraped, and says so. */
const UP = { 'up{job="sluice",instance="a"}': '1x240', 'sluice_build_info{job="sluice",instance="a"}': '1x240' }

const isThere = hasPrometheus()
const PROMETHEUS = 'deploy/prometheus'

describe.skipIf(!isThere)('promtool', () => {
  it.each([
    ['configuration', ['check', 'config', `${ROOT}/${PROMETHEUS}/prometheus.yml`]],
    ['rules', ['check', 'rules', `${ROOT}/${PROMETHEUS}/alerts.yml`]],
  ])('finds nothing wrong with the %s', (_, argv) => {
    const { code, output } = run(['promtool', ...argv])
    expect(code, output).toBe(0)
  })

  // In one run, because each reads all rules: it says the name of a case that fails.
  it('sees the rules fire in the cases for them, and only in those', () => {
    const test = {
      rule_files: [`${ROOT}/${PROMETHEUS}/alerts.yml`],
      // Of the time that this takes, half of what the samples' own interval would need.
      evaluation_interval: '30s',
      tests: ALERT_CASES.map(({ name, series, at, firing }) => ({
        name,
        interval: '15s',
        input_series: Object.entries({ ...UP, ...series }).map(([name, values]) => ({ series: name, values })),
        promql_expr_test: [
          {
            expr: 'count by (alertname) (ALERTS{alertstate="firing"})',
            eval_time: at,
            exp_samples: firing.map((name) => ({ labels: `{alertname="${name}"}`, value: 1 })),
          },
        ],
      })),
    }
    using folder = temporaryFolder('alerts')
    const file = join(folder.path, 'test.yml')
    writeFileSync(file, JSON.stringify(test))
    const { code, output } = run(['promtool', 'test', 'rules', file])
    expect(code, output).toBe(0)
  })
})

describe.skipIf(!isThere)('a real Prometheus that scrapes a real gateway', () => {
  let store: DisposableTempDir
  let sandbox: Sandbox
  let gateway: Running
  let prometheus: PrometheusServer

  beforeAll(async () => {
    store = temporaryFolder('store')
    sandbox = await startSandbox()
    gateway = await startGateway(sandbox.url, store.path)
    prometheus = await PrometheusServer.start([gateway.adminUrl])
    // Twice: rates need every series in two scrapes, with something in between.
    let calls = 0
    for (const round of ['first', 'second']) {
      calls += await makeEverythingHappen(gateway.url, sandbox, store.path, round)
      await prometheus.sees(`sum(sluice_requests_total) == ${calls}`)
    }
  })
  afterAll(async () => {
    await prometheus?.stop()
    await gateway?.stop()
    await sandbox?.stop()
    store.remove()
  })

  it.skipIf(!hasProgram('wget'))('is healthy by the health check of the Compose file', async () => {
    const healthCheck = healthCheckOf('prometheus')
    expect(run(atPort(healthCheck, 9090, prometheus.port)).code).toBe(0)
    expect(run(atPort(healthCheck, 9090, await freePort())).code).not.toBe(0)
  })

  it('finds its target up', async () => {
    const [target, ...others] = await prometheus.targets()
    expect(target).toMatchObject({ health: 'up', lastError: '', labels: { job: 'sluice' } })
    expect(others).toEqual([])
    expect(await prometheus.query('up{job="sluice"} == 1')).toHaveLength(1)
  })

  it('evaluates every alert without an error', async () => {
    for (const { name, health, lastError } of await prometheus.rules()) {
      expect({ name, health, lastError: lastError ?? '' }).toEqual({ name, health: 'ok', lastError: '' })
    }
  })

  it('fires for the 429s that our own count does not explain, and for the retry budget', async () => {
    for (const name of ['SluiceUpstreamThrottledUnexplained', 'SluiceRetryBudgetExhausted']) {
      await prometheus.sees(`ALERTS{alertname="${name}",alertstate="firing"}`)
    }
    expect(await prometheus.query('ALERTS{alertname="SluiceDown"}')).toEqual([])
  })

  it.each(dashboardQueries())('has data for "$panel": $target.expr', async ({ target: { expr, instant } }) => {
    const query = interpolate(expr)
    const series = instant ? await prometheus.query(query) : await prometheus.queryRange(query)
    expect(series.flatMap(numbersOf).filter(Number.isFinite)).not.toEqual([])
  })

  it.each(dashboardQueries().filter(({ target }) => target.exemplar))(
    'has calls with their correlation ids behind "$panel"',
    async ({ target }) => {
      const series = await prometheus.exemplars(interpolate(target.expr))
      const labels = series.flatMap(({ exemplars }) => exemplars.map((exemplar) => exemplar.labels))
      expect(labels).not.toEqual([])
      for (const label of labels) expect(Object.keys(label)).toEqual(['correlation_id'])
    },
  )

  it('shows the correlation id that a client gave its call', async () => {
    const series = await prometheus.exemplars('sluice_request_duration_seconds_bucket{class="webhook"}')
    const ids = series.flatMap(({ exemplars }) => exemplars.map(({ labels }) => labels['correlation_id']))
    expect(ids).toContain('event-of-second')
  })

  it('shows of the longest correlation id as much as an exemplar may have', async () => {
    const series = await prometheus.exemplars('sluice_requests_total{outcome="unknown_upstream"}')
    const ids = series.flatMap(({ exemplars }) => exemplars.map(({ labels }) => labels['correlation_id']))
    expect(new Set(ids)).toEqual(new Set(['x'.repeat(114)]))
  })

  it.each(readDashboard().templating.list.filter(({ type }) => type === 'query'))(
    'has values to choose from for $name',
    async (variable) => {
      const { series, label } = labelValues(variable)
      const values = await prometheus.labelValues(label, interpolate(series))
      const expected = {
        job: ['sluice'],
        // Prometheus of a cluster adds it.
        namespace: [],
        instance: [new URL(gateway.adminUrl).host],
        upstream: ['harness'],
        account: ['demo'],
        class: ['read', 'template', 'webhook', 'write'],
        client: ['first', 'second'],
      }
      expect(values).toEqual(expect.arrayContaining(expected[variable.name as keyof typeof expected]))
    },
  )

  it('would find nothing wrong with our metrics in the text format', async () => {
    const response = await fetch(`${gateway.adminUrl}/metrics`)
    expect(lintMetrics(await response.text())).toBe('')
  })
})

const ACCOUNT = 'demo1234'

function startGateway(upstreamUrl: string, store: string): Promise<Running> {
  const config = checkConfig(
    {
      server: { port: 0 },
      admin: { port: 0 },
      store: { kind: 'memory', dir: store },
      log: { level: 'silent' },
      upstreams: {
        harness: {
          preset: 'harness',
          url: upstreamUrl,
          accounts: { demo: { id: ACCOUNT, credential: { value: `pat.${ACCOUNT}.sandbox.nosecret` } } },
          // Short, so that calls wait, but not for long.
          limits: {
            template: [
              { requests: 5, window: '500ms' },
              { requests: 1, window: '90s', enforce: false },
            ],
          },
          throttle: { pause: '5ms' },
          retry: { retries: 1, baseDelay: '5ms', maxDelay: '5ms', statuses: [425] },
          breaker: { failures: 5, reset: '1h' },
        },
        cached: {
          preset: 'harness',
          url: upstreamUrl,
          accounts: { demo: { id: ACCOUNT, credential: { value: `pat.${ACCOUNT}.sandbox.nosecret` } } },
          cache: { routes: 'proposed', freshFor: '1h' },
        },
        // One that has failed must not keep calls from the other.
        failing: {
          url: upstreamUrl,
          accounts: { demo: { credential: { header: 'x-api-key', value: `pat.${ACCOUNT}.sandbox.nosecret` } } },
          limits: { read: [], write: [] },
          retry: { retries: 0 },
          breaker: { failures: 5, reset: '1h' },
        },
      },
      clients: { first: { keys: [hashKey('slk_first')] }, second: { keys: [hashKey('slk_second')] } },
    },
    'test',
  )
  return runGateway(config, { log: createLog(config.log) })
}

/** Makes calls that end in every way that a panel shows, as the client `round`. Returns how many calls it made. */
async function makeEverythingHappen(url: string, sandbox: Sandbox, store: string, round: string): Promise<number> {
  let calls = 0
  const call = async (path: string, { headers = {}, ...init }: CallOptions = {}): Promise<void> => {
    calls++
    const response = await fetch(`${url}${path}`, { ...init, headers: { 'x-sluice-key': `slk_${round}`, ...headers } })
    await response.arrayBuffer()
  }
  const times = async (count: number, path: string, options?: CallOptions): Promise<void> => {
    await Promise.all(Array.from({ length: count }, () => call(path, options)))
  }
  await times(10, '/harness/ng/api/projects')
  for (let reads = 0; reads < 3; reads++) await call('/cached/ng/api/projects')
  await call('/harness/ng/api/webhook', { method: 'POST', headers: { 'x-correlation-id': `event-of-${round}` } })
  await call('/harness/ng/api/projects', { headers: { 'x-sluice-key': 'slk_unknown', 'x-correlation-id': '"\\{}#,=' } })
  await call('/nowhere', { headers: { 'x-correlation-id': 'x'.repeat(128) } })
  // Five find quota, five wait for it; and of the next ten, who would not wait, half are refused.
  await times(10, '/harness/template/api/templates/template_1')
  await times(10, '/harness/template/api/templates/template_1', { headers: { 'x-sluice-max-wait': '0' } })
  // 429s that our own count does not explain: these calls wait for their turn again.
  sandbox.setFaults({ status: 429, times: 4 })
  await times(4, '/harness/ng/api/projects')
  // Ten retries are saved up, and the calls pay for eight more.
  sandbox.setFaults({ status: 425 })
  await times(40, '/harness/ng/api/projects')
  sandbox.setFaults({ status: 503 })
  for (let failures = 0; failures < 6; failures++) await call('/failing/anything')
  sandbox.clearFaults()
  // Before some of these calls the store must be written, and can't be.
  rmSync(join(store, 'quota'), { recursive: true })
  await times(20, '/harness/ng/api/projects', { method: 'POST' })
  mkdirSync(join(store, 'quota'))
  return calls
}

interface CallOptions {
  readonly method?: string
  readonly headers?: Record<string, string>
}

function numbersOf({ value, values = [] }: Series): number[] {
  return [...(value === undefined ? [] : [value]), ...values].map(([, number]) => Number(number))
}
