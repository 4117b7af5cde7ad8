import { Registry } from '@prometheus-io/client'
import { OPENMETRICS } from './metrics.ts'
import { isCount } from './worker-counts.ts'

/** The gauges of one process, as the library gives them. */
export type ProcessGauges = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

/** The gauges of several processes as if they were one, in the OpenMetrics format, without its end. */
export async function gaugesOfAll(processes: readonly ProcessGauges[]): Promise<string> {
  const registry = Registry.aggregate([...processes])
  registry.setContentType(OPENMETRICS)
  return (await registry.metrics()).replace(/# EOF\n$/, '')
}

/** What says how it is now: everything but counters and histograms. */
export function gaugesOf(registry: Registry): Promise<ProcessGauges> {
  const all = registry.getMetricsAsArray() as unknown as {
    readonly type?: string
    get(): Promise<ProcessGauges[number]>
  }[]
  return Promise.all(all.filter((metric) => !isCount(metric)).map((metric) => metric.get()))
}
