import { describe, expect, it } from 'vitest'
import { Metrics } from '../../src/observe/metrics.ts'
import { metricsOfAll, type ProcessMetrics } from '../../src/observe/metrics-of-all.ts'
import { parseMetrics } from '../support/openmetrics.ts'

/** What a process tells of one counter; of calls to `other` it knows no example. */
function counted(value: number, id: string, timestamp: number): ProcessMetrics {
  const exemplar = { labelSet: { correlation_id: id }, value: 1, timestamp }
  const values = [
    { labels: { upstream: 'harness' }, value, exemplar },
    { labels: { upstream: 'other' }, value, exemplar: null },
  ]
  return [{ name: 'sluice_requests', help: 'Calls.', type: 'counter', aggregator: 'sum', values }] as never
}

describe('the metrics of several processes', () => {
  it('are added up, and each series has the latest exemplar of all', async () => {
    const text = await metricsOfAll([counted(1, 'first', 1), counted(2, 'latest', 3), counted(4, 'second', 2)])
    expect(parseMetrics(text)).toEqual([
      {
        name: 'sluice_requests_total',
        labels: { upstream: 'harness' },
        value: 7,
        exemplar: { labels: { correlation_id: 'latest' }, value: 1 },
      },
      { name: 'sluice_requests_total', labels: { upstream: 'other' }, value: 7, exemplar: undefined },
    ])
  })

  it('have counters of the names that they have in one process', async () => {
    const { registry } = new Metrics()
    const namesIn = (text: string) =>
      new Set(parseMetrics(text).flatMap(({ name }) => (name.endsWith('_total') ? name : [])))
    const metrics = await registry.getMetricsAsJSON()
    expect(namesIn(await metricsOfAll([metrics, metrics]))).toEqual(namesIn(await registry.metrics()))
  })
})
