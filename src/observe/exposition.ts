import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Metric, Registry } from '@prometheus-io/client'
import { Family } from './series.ts'

/**
 * The content of a registry in the OpenMetrics format, in pieces. The event loop turns between two pieces, so that a
 * large scrape delays no call. The lines of a series are in one piece, because its buckets, sum and count belong
 * together.
 */
export async function* exposition(registry: Registry): AsyncGenerator<string, void, void> {
  const metrics = registry.getMetricsAsArray() as unknown[]
  // All gauges at once: those of one scrape share one question to the quota store.
  const gauges = metrics
    .filter((metric) => !(metric instanceof Family))
    .map((metric) => textOf(registry, metric as LibraryMetric))
  for (const text of await Promise.all(gauges)) yield text
  for (const family of metrics) {
    if (!(family instanceof Family)) continue
    for (const piece of family.pieces()) {
      yield piece
      await nextTurn()
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
