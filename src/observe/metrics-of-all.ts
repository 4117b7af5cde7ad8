import { Registry } from '@prometheus-io/client'
import { OPENMETRICS } from './metrics.ts'

/** The metrics of one process, as `registry.getMetricsAsJSON()` gives them. */
export type ProcessMetrics = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

/** What of them matters here; the library's types know no exemplars. */
interface Exemplar {
  readonly timestamp: number
}
interface Metric {
  readonly name: string
  readonly values: {
    readonly metricName?: string
    readonly labels: object
    exemplar?: Exemplar | null | undefined
  }[]
}

/**
 * The metrics of several processes as if they were one, in the OpenMetrics format. The library adds the values up but
 * drops the exemplars: each series gets its latest back.
 */
export function metricsOfAll(processes: readonly ProcessMetrics[]): Promise<string> {
  const named = processes.map((metrics) => metrics.map(withoutTotal))
  const registry = Registry.aggregate(named)
  registry.setContentType(OPENMETRICS)
  const latest = latestExemplars(named)
  for (const metric of registry.getMetricsAsArray() as unknown as Metric[]) {
    for (const value of metric.values) value.exemplar = latest.get(seriesOf(metric, value))
  }
  return registry.metrics()
}

/** The library adds `_total` to the name of a counter's values; here, other than for one process, even if it ends so. */
function withoutTotal(metric: ProcessMetrics[number]): ProcessMetrics[number] {
  return metric.type === 'counter' ? { ...metric, name: metric.name.replace(/_total$/, '') } : metric
}

function latestExemplars(processes: readonly (readonly Metric[])[]): Map<string, Exemplar> {
  const latest = new Map<string, Exemplar>()
  for (const metric of processes.flat()) {
    for (const value of metric.values) {
      if (!value.exemplar) continue
      const series = seriesOf(metric, value)
      if (value.exemplar.timestamp > (latest.get(series)?.timestamp ?? 0)) latest.set(series, value.exemplar)
    }
  }
  return latest
}

function seriesOf({ name }: Metric, { metricName = name, labels }: Metric['values'][number]): string {
  return `${metricName} ${JSON.stringify(labels)}`
}
