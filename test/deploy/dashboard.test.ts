import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { STATUS_OF } from '../../src/gateway/failure.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { registerProcessInfo } from '../../src/observe/process-info.ts'
import { ReloadCounts } from '../../src/observe/reload-counts.ts'
import { dashboardQueries, readDashboard } from './dashboard.ts'
import { readText } from './repository.ts'

interface Rule {
  readonly record?: string
  readonly alert: string
  readonly expr: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
}

const { panels, templating, annotations } = readDashboard()
const queries = dashboardQueries()
const { groups } = parse(readText('deploy/prometheus/alerts.yml')) as { groups: { rules: Rule[] }[] }
const all = groups.flatMap((group) => group.rules)
const rules = all.filter(({ alert }) => alert !== undefined)

describe('the dashboard', () => {
  it('lets one choose gateways by job, namespace and instance, and upstream, account, class and client', () => {
    const choices = templating.list.filter(({ type }) => type === 'query')
    expect(choices.map(({ name }) => name)).toEqual([
      'job',
      'namespace',
      'instance',
      'upstream',
      'account',
      'class',
      'client',
    ])
    for (const { multi, allValue } of choices) expect({ multi, allValue }).toEqual({ multi: true, allValue: '.*' })
  })

  it.each(queries)('$panel uses only variables that there are: $target.expr', ({ target }) => {
    const known = [...templating.list.map(({ name }) => name), '__rate_interval', '__range']
    for (const [, name] of target.expr.matchAll(/\$\{?(\w+)/g)) expect(known).toContain(name)
  })

  it.each(queries)('$panel is about the gateways that were chosen: $target.expr', ({ target: { expr } }) => {
    // Alerts say themselves whom they are about; what is joined to a metric that was chosen needs no choice of its own.
    const asked = expr.replaceAll(/and on \(job, instance\) (?:last_over_time\()?sluice_build_info(?:\[1d\]\))?/g, '')
    for (const [, labels = ''] of asked.matchAll(/\b(?:sluice|process|nodejs)_\w+(\{[^}]*\})?/g)) {
      for (const name of ['job', 'namespace', 'instance']) expect(labels).toContain(`${name}=~"$${name}"`)
    }
  })

  it('says of every panel what it shows', () => {
    for (const { type, title, description } of panels) {
      if (type !== 'row' && type !== 'text') expect(description, title).toBeTruthy()
    }
  })

  it('has no two panels in the same place', () => {
    const taken = new Map<string, string>()
    for (const { title, gridPos } of panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.get(`${x},${y}`), `${title} over another at ${x},${y}`).toBeUndefined()
          taken.set(`${x},${y}`, title)
        }
      }
    }
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
  })

  it('shows a call behind every latency', () => {
    const withExemplars = queries.filter(({ target }) => target.exemplar).map(({ panel }) => panel)
    expect(withExemplars).toEqual(expect.arrayContaining(['Request', 'Upstream', 'Gateway overhead', 'Queue wait']))
  })

  it('marks when alerts fired', () => {
    expect(annotations.list.map(({ expr }) => expr)).toContain('ALERTS{alertname=~"Sluice.+",alertstate="firing"}')
  })
})

describe('dashboard and alerts', () => {
  it('ask only for metrics that the gateway has', async () => {
    const known = await sampleNames()
    const asked = [...queries.map(({ target }) => target.expr), ...all.map(({ expr }) => expr)]
    for (const expr of asked) {
      for (const [name] of expr.matchAll(/\b(?:sluice|nodejs|process)_\w+/g)) expect(known, expr).toContain(name)
    }
  })
})

describe('every alert', () => {
  /** Those for which the caller is the reason. */
  const rejections = rules
    .filter(({ alert }) => alert === 'SluiceCallersRejected')
    .flatMap(({ expr }) => /outcome=~"([^"]*)"/.exec(expr)?.[1]?.split('|') ?? [])

  it.each(rules)('$alert says how urgent it is, what is wrong and what to do', ({ alert, labels, annotations }) => {
    expect(alert).toMatch(/^Sluice[A-Z]/)
    expect(['page', 'ticket']).toContain(labels['severity'])
    expect(annotations['summary']).toBeTruthy()
    expect(annotations['description']?.length).toBeGreaterThan(80)
  })

  it('that goes by an error budget calls nothing a failure of its own that a caller, or a quota, is the reason for', () => {
    const failures = all
      .filter(({ record }) => record?.endsWith('ratio_rate1h'))
      .flatMap(({ expr }) => /outcome=~"([^"]*)"/.exec(expr)?.[1]?.split('|') ?? [])
    const reasons = ['quota_exhausted', 'queue_full', 'share_exceeded', ...rejections]
    expect([...failures, ...reasons].toSorted()).toEqual([...Object.keys(STATUS_OF), 'broken_off'].toSorted())
  })

  it('that goes by refusals knows every kind of them, once', () => {
    const kinds = rules
      .filter(({ alert }) => alert === 'SluiceHighRefusals' || alert === 'SluiceCallersRejected')
      .flatMap(({ expr }) => /outcome=~"([^"]*)"/.exec(expr)?.[1]?.split('|') ?? [])
    expect(kinds.toSorted()).toEqual(Object.keys(STATUS_OF).toSorted())
  })
})

/** The names under which samples appear: a counter ends in _total, a histogram has three. */
async function sampleNames(): Promise<string[]> {
  const { registry } = new Metrics()
  new ReloadCounts(registry)
  registerProcessInfo(registry)
  const text = await registry.metrics()
  return [...text.matchAll(/^# TYPE (\w+) (\w+)$/gm)].flatMap(([, name = '', type]) => {
    if (type === 'counter') return [`${name}_total`]
    return type === 'histogram' ? ['bucket', 'sum', 'count'].map((part) => `${name}_${part}`) : [name]
  })
}
