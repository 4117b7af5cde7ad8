import { Registry } from '@prometheus-io/client'
import { OPENMETRICS } from './metrics.ts'

/** The metrics of one process, as `registry.getMetricsAsJSON()` gives them. */
export type ProcessMetrics = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

/** The parts of a metric that are used here. The library's types lack exemplars. */
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
 * Merges the metrics of several processes, in the OpenMetrics format. The library adds the values but drops the
 * exemplars, so each series gets its latest one back.
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

/** Removes `_total`, which the library appends when it aggregates, even to a name that ends with it. */
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
