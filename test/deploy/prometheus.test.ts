import { type DisposableTempDir, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { type Running, runGateway } from '../../src/process/run.ts'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { hasPrometheus } from '../support/find-prometheus.ts'
import { hasProgram } from '../support/packages.ts'
import { deadPort } from '../support/find-redis.ts'
import { lintMetrics } from '../support/promtool.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { ALERT_CASES } from './alert-cases.ts'
import { healthCheckOf } from './compose.ts'
import { boardQueries, boards, interpolate, labelValues } from './boards.ts'
import { atPort, run } from './process.ts'
import { PrometheusServer } from './prometheus-server.ts'
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
  it('sees the rules fire in the cases for them, and only in those', { timeout: 600_000 }, () => {
    const test = {
      rule_files: [`${ROOT}/${PROMETHEUS}/alerts.yml`],
      // Of the time that this takes, a quarter of what the samples' own interval would need.
      evaluation_interval: '1m',
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

const LIMIT = 'upstream="h",account="p",class="read",window="1m"'
/**
 * Gateways in one Prometheus with a large and a small limit and budget under one name; and one of a region, which has half of the
 * limit.
 */
const FIGURES = {
  [`sluice_quota_limit{${LIMIT}`]: { prod: 1000, staging: 100, eu: 1000 },
  [`sluice_quota_region_share{${LIMIT}`]: { eu: 500 },
  [`sluice_quota_effective_limit{${LIMIT}`]: { prod: 1000, staging: 90, eu: 500 },
  [`sluice_quota_used{${LIMIT}`]: { prod: 200, staging: 150, eu: 400 },
  'sluice_queue_depth{upstream="h",account="p",class="read"': { prod: 0, staging: 0, eu: 3 },
  'sluice_client_budget_limit{client="bot",window="day"': { prod: 1000, staging: 100 },
  'sluice_client_budget_used{client="bot",window="day"': { prod: 200, staging: 150 },
  'sluice_team_budget_limit{team="ads",window="day"': { prod: 1000, staging: 100 },
  'sluice_team_budget_used{team="ads",window="day"': { prod: 200, staging: 150 },
}

describe.skipIf(!isThere)('the boards', () => {
  it.each([
    ['Over-admitted', 50],
    ['Quota used', 1],
    ['Foreign use', 10],
    ['Waste', 100],
    ['My budget', 1.5],
    ['Budgets of teams and organisations', 1.5],
  ])('show in "%s" what is so at one of several gateways', (title, value) => {
    const { target } = boardQueries.find(({ panel }) => panel === title)!
    const series = Object.entries(FIGURES).flatMap(([name, figures]) =>
      Object.entries(figures).map(([instance, figure]) => ({
        series: `${name},job="sluice",namespace="x",instance="${instance}"}`,
        values: `${figure}x20`,
      })),
    )
    const test = {
      tests: [
        {
          interval: '15s',
          input_series: series,
          promql_expr_test: [
            { expr: `sum(${interpolate(target.expr)})`, eval_time: '2m', exp_samples: [{ labels: '{}', value }] },
          ],
        },
      ],
    }
    using folder = temporaryFolder('boards')
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
    const calls = await makeCalls(gateway.url)
    await prometheus.sees(`sum(sluice_requests_total) == ${calls}`)
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
    expect(run(atPort(healthCheck, 9090, await deadPort())).code).not.toBe(0)
  })

  it('finds its target up', async () => {
    // On a busy machine one scrape may take longer than it may.
    const target = { health: 'up', lastError: '', labels: { job: 'sluice' } }
    await expect
      .poll(() => prometheus.targets())
      .toEqual([expect.objectContaining({ ...target, labels: expect.objectContaining(target.labels) })])
    await expect.poll(() => prometheus.query('up{job="sluice"} == 1')).toHaveLength(1)
  })

  it('evaluates every alert without an error', async () => {
    for (const { name, health, lastError } of await prometheus.rules()) {
      expect({ name, health, lastError: lastError ?? '' }).toEqual({ name, health: 'ok', lastError: '' })
    }
  })

  it('shows the correlation id that a client gave its call', async () => {
    const series = await prometheus.exemplars('sluice_request_duration_seconds_bucket{class="webhook"}')
    const ids = series.flatMap(({ exemplars }) => exemplars.map(({ labels }) => labels['correlation_id']))
    expect(ids).toContain('event')
  })

  it('shows the longest correlation id that an exemplar may have', async () => {
    const series = await prometheus.exemplars('sluice_requests_total{outcome="unknown_upstream"}')
    const ids = series.flatMap(({ exemplars }) => exemplars.map(({ labels }) => labels['correlation_id']))
    expect(new Set(ids)).toEqual(new Set(['x'.repeat(114)]))
  })

  it.each(
    boards.flatMap(({ name, templating }) =>
      templating.list.filter(({ type }) => type === 'query').map((variable) => ({ board: name, variable })),
    ),
  )('has values to choose from for $variable.name of the board $board', async ({ variable }) => {
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
  })

  it('would find nothing wrong with our metrics in the text format', async () => {
    const response = await fetch(`${gateway.adminUrl}/metrics`, { headers: { accept: 'text/plain' } })
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
        },
      },
      clients: { first: { keys: [hashKey('slk_first')] }, second: { keys: [hashKey('slk_second')] } },
    },
    'test',
  )
  return runGateway(config, { log: createLog(config.log) })
}

/** Makes calls of every class, by two clients. Returns how many. */
async function makeCalls(url: string): Promise<number> {
  const calls: readonly [path: string, method: string, headers: Record<string, string>][] = [
    ['/harness/ng/api/projects', 'GET', { 'x-sluice-key': 'slk_first' }],
    ['/harness/ng/api/projects', 'POST', { 'x-sluice-key': 'slk_second' }],
    ['/harness/template/api/templates/template_1', 'GET', { 'x-sluice-key': 'slk_first' }],
    ['/harness/ng/api/webhook', 'POST', { 'x-sluice-key': 'slk_first', 'x-correlation-id': 'event' }],
    ['/harness/ng/api/projects', 'GET', { 'x-sluice-key': 'slk_unknown', 'x-correlation-id': '"\\{}#,=' }],
    ['/nowhere', 'GET', { 'x-sluice-key': 'slk_first', 'x-correlation-id': 'x'.repeat(114) }],
  ]
  for (const [path, method, headers] of calls) await (await fetch(`${url}${path}`, { method, headers })).arrayBuffer()
  return calls.length
}
