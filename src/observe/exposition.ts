import type { Metric, Registry } from '@prometheus-io/client'
import { ObservedGauge } from './observed-gauge.ts'
import { Family } from './series.ts'
import { TimeSlice } from './time-slice.ts'

/**
 * The content of a registry in the OpenMetrics format, in pieces. Calls go on between two pieces, so that a large scrape
 * delays none. The lines of a series are in one piece, because its buckets, sum and count belong together.
 */
export async function* exposition(registry: Registry): AsyncGenerator<string, void, void> {
  const slice = new TimeSlice()
  const scrape = {}
  for (const metric of registry.getMetricsAsArray() as unknown[]) {
    const own = metric instanceof Family || metric instanceof ObservedGauge
    for await (const piece of own ? metric.pieces(slice, scrape) : [textOf(registry, metric as LibraryMetric)]) {
      yield piece
      await slice.endIfOver()
    }
  }
  yield '# EOF\n'
}

type LibraryMetric = Metric<string> & { name: string; readonly type?: string }

async function textOf(registry: Registry, metric: LibraryMetric): Promise<string> {
  // The library appends `_total` to a counter's name, even to one that has it.
  if (metric.type === 'counter') metric.name = metric.name.replace(/_total$/, '')
  return `${await registry.getMetricsAsString(metric)}\n`
}
