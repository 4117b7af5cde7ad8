import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { FAILURES } from '../../src/gateway/failure.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { registerProcessInfo } from '../../src/observe/process-info.ts'
import { ReloadCounts } from '../../src/observe/reload-counts.ts'
import { builtBoards } from '../../deploy/grafana/boards/build.ts'
import { THRESHOLDS, type Thresholds } from '../../deploy/grafana/boards/thresholds.ts'
import { WebhookCounts } from '../../src/webhooks/counts.ts'
import { boardQueries, boards, BOARDS } from './boards.ts'
import { readText } from './repository.ts'

interface Rule {
  readonly record?: string
  readonly alert: string
  readonly expr: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
}

const { groups } = parse(readText('deploy/prometheus/alerts.yml')) as { groups: { rules: Rule[] }[] }
const all = groups.flatMap((group) => group.rules)
const rules = all.filter(({ alert }) => alert !== undefined)

describe('the boards', () => {
  it('are what `npm run boards` makes of deploy/grafana/boards', () => {
    const built = builtBoards()
    expect(Object.keys(built).toSorted()).toEqual(BOARDS.map((name) => `${name}.json`).toSorted())
    // Run it, and commit what it writes.
    for (const [file, text] of Object.entries(built))
      expect(readText(`deploy/grafana/${file}`) === text, file).toBe(true)
  })

  it.each(boardQueries)(
    '$board: $panel is about the gateways that were chosen: $target.expr',
    ({ target: { expr } }) => {
      // Alerts say themselves whom they are about; what is joined to a metric that was chosen needs no choice of its own.
      const asked = expr.replaceAll(/and on \(job, instance\) (?:last_over_time\()?sluice_build_info(?:\[1d\]\))?/g, '')
      for (const [, labels = ''] of asked.matchAll(/\b(?:sluice|process|nodejs)_\w+(\{[^}]*\})?/g)) {
        for (const name of ['job', 'namespace', 'instance']) expect(labels).toContain(`${name}=~"$${name}"`)
      }
    },
  )

  it('show a call behind every latency, and behind what goes wrong', () => {
    const withExemplars = boardQueries.filter(({ target }) => target.exemplar).map(({ panel }) => panel)
    const panels = ['Request', 'Upstream', 'Gateway overhead', 'Queue wait', 'Refusals by kind', '429s of the upstream']
    expect(withExemplars).toEqual(expect.arrayContaining(panels))
  })
})

describe.each(boards)('the board $name', ({ name, panels, templating, annotations }) => {
  it('lets one choose gateways by job, namespace and instance, and upstream, account, class and client', () => {
    const choices = templating.list.filter(({ type }) => type === 'query')
    const names = ['job', 'namespace', 'instance', 'upstream', 'account', 'class']
    const isOfOne = name === 'my-client'
    expect(choices.map((choice) => choice.name)).toEqual(isOfOne ? ['client', ...names] : [...names, 'client'])
    for (const choice of choices) {
      expect(choice.multi).toBe(!(isOfOne && choice.name === 'client'))
      if (choice.multi) expect(choice.allValue).toBe('.*')
    }
  })

  it('uses only variables that there are', () => {
    const known = [...templating.list.map((variable) => variable.name), '__rate_interval', '__range']
    const marks = annotations.list.flatMap(({ expr }) => expr ?? [])
    for (const expr of [...panels.flatMap(({ targets = [] }) => targets.map((target) => target.expr)), ...marks])
      for (const [, variable] of expr.matchAll(/\$\{?(\w+)/g)) expect(known, expr).toContain(variable)
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

  it('marks when alerts fired, when a configuration was taken or not, and when gateways and breakers changed', () => {
    expect(annotations.list.map((mark) => mark.name)).toEqual([
      'Annotations & Alerts',
      'Alerts',
      'Reloads',
      'Restarts',
      'Breakers opened',
    ])
  })
})

describe('boards and alerts', () => {
  it.each([
    ['SluiceQuotaNearlyUsed', THRESHOLDS.quota, 0.89, 0.91],
    ['SluiceQuotaNearlyUsed', THRESHOLDS.nearlyFull, 0.89, 0.91],
    ['SluiceBudgetNearlyUsed', THRESHOLDS.quota, 0.89, 0.91],
    ['SluiceHighRefusals', THRESHOLDS.refused, 0.09, 0.11],
    ['SluiceUpstreamErrors', THRESHOLDS.errors, 0.09, 0.11],
    ['SluiceQueueSlow', THRESHOLDS.wait, 4.9, 5.1],
    ['SluiceQuotaExhaustionAhead', THRESHOLDS.exhaustion, 59, 61],
    ['SluiceBudgetExhaustionAhead', THRESHOLDS.exhaustion, 59, 61],
  ] as const)('have one idea of what is wrong: %s', (name, steps: Thresholds, well, wrong) => {
    const { expr } = rules.find(({ alert }) => alert === name)!
    const colorAt = (value: number) => steps.findLast(([from]) => from === null || value >= from)![1]
    const bound = Number(/(?:> |^)([\d.]+)(?=$|\s| < )/m.exec(expr)![1])
    expect(well < bound && bound < wrong, `${bound} of ${name}`).toBe(true)
    expect(colorAt(well)).not.toBe('red')
    expect(colorAt(wrong)).toBe('red')
  })

  it('have one idea of what ends too soon', () => {
    for (const { alert, expr } of rules.filter(({ alert }) => alert.endsWith('ExhaustionAhead')))
      expect(expr, alert).toContain('< 2 * 3600')
    const [, , [soon], [late, color]] = THRESHOLDS.exhaustion
    expect([soon < 7_200, late, color]).toEqual([true, 7_200, 'green'])
  })

  it('ask only for metrics that the gateway has', async () => {
    const known = await sampleNames()
    const asked = [...boardQueries.map(({ target }) => target.expr), ...all.map(({ expr }) => expr)]
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
    expect([...failures, ...reasons].toSorted()).toEqual([...Object.keys(FAILURES), 'broken_off'].toSorted())
  })

  it('that goes by refusals knows every kind of them, once', () => {
    const kinds = rules
      .filter(({ alert }) => alert === 'SluiceHighRefusals' || alert === 'SluiceCallersRejected')
      .flatMap(({ expr }) => /outcome=~"([^"]*)"/.exec(expr)?.[1]?.split('|') ?? [])
    expect(kinds.toSorted()).toEqual(Object.keys(FAILURES).toSorted())
  })
})

/** The names under which samples appear: a counter ends in _total, a histogram has three. */
async function sampleNames(): Promise<string[]> {
  const { registry } = new Metrics()
  new ReloadCounts(registry)
  registerProcessInfo(registry)
  new WebhookCounts(registry)
  const text = await registry.metrics()
  return [...text.matchAll(/^# TYPE (\w+) (\w+)$/gm)].flatMap(([, name = '', type]) => {
    if (type === 'counter') return [`${name}_total`]
    return type === 'histogram' ? ['bucket', 'sum', 'count'].map((part) => `${name}_${part}`) : [name]
  })
}
