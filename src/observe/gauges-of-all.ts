import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Metric } from '@prometheus-io/client'
import { Registry } from '../packages/prometheus.ts'
import { OPENMETRICS } from './metrics.ts'
import { TimeSlice } from './time-slice.ts'
import { isCount } from './worker-counts.ts'

/** A gauge of one process, or a part of one, as the library gives it. */
export type GaugeValues = Awaited<ReturnType<Registry['getMetricsAsJSON']>>[number]

/** How many values of a gauge are in a part. */
const VALUES_A_PART = 200

/** The gauges of several processes as if they were one, in the OpenMetrics format and in pieces, without its end. */
export async function* gaugesOfAll(gauges: Iterable<GaugeValues>): AsyncGenerator<string, void, void> {
  for (const parts of Map.groupBy(gauges, ({ name }) => name).values()) {
    const registry = Registry.aggregate(parts.map((part) => [part]))
    registry.setContentType(OPENMETRICS)
    // The registry is empty if the library does not add up metrics of that name.
    for (const metric of registry.getMetricsAsArray() as unknown as Metric[]) {
      yield `${await registry.getMetricsAsString(metric)}\n`
    }
    await nextTurn()
  }
}

/** The gauges of a registry: everything but counters and histograms. They come in parts, between which calls go on. */
export async function* gaugesOf(registry: Registry): AsyncGenerator<GaugeValues, void, void> {
  const slice = new TimeSlice()
  const scrape = {}
  for (const metric of registry.getMetricsAsArray() as unknown as {
    readonly type?: string
    get(scrape: object): Promise<GaugeValues & { readonly values: readonly unknown[] }>
  }[]) {
    if (isCount(metric)) continue
    const { values, ...about } = await metric.get(scrape)
    for (let from = 0; from === 0 || from < values.length; from += VALUES_A_PART) {
      yield { ...about, values: values.slice(from, from + VALUES_A_PART) }
      await slice.endIfOver()
    }
  }
}
