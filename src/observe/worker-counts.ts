import type { ProcessMetrics } from './metrics-of-all.ts'

type Metric = ProcessMetrics[number]
interface Value {
  readonly labels: object
  readonly metricName?: string
  readonly value: number
}
/** One metric of a process, or of several, with its values by series. */
interface Counted {
  readonly metric: Metric
  readonly values: Map<string, Value>
}
type Counts = Map<string, Counted>

/**
 * What workers have counted: the latest values of each that runs, and the sums of those that have ended. So counters
 * and histograms never decrease, whatever happens to a worker.
 */
export class WorkerCounts {
  readonly #running = new Map<number, Counts>()
  readonly #ended: Counts = new Map()

  /** Takes the metrics of a worker. If messages arrive out of order, the greater value counts. */
  note(worker: number, metrics: ProcessMetrics): void {
    const known = this.#running.getOrInsertComputed(worker, () => new Map())
    combine(known, metrics, (before, now) => (now.value >= before.value ? now : before))
  }

  /** The worker has ended: what it counted stays. */
  end(worker: number): void {
    const counts = this.#running.get(worker)
    if (counts === undefined) return
    this.#running.delete(worker)
    combine(this.#ended, metricsOf(counts), (before, now) => ({ ...now, value: before.value + now.value }))
  }

  /** Of every worker that runs, and of all that ended together. */
  *all(): Generator<ProcessMetrics> {
    yield metricsOf(this.#ended)
    for (const counts of this.#running.values()) yield metricsOf(counts)
  }
}

/** Whether a metric only grows: a counter or a histogram. */
export function isCount({ type }: { readonly type?: unknown }): boolean {
  return type === 'counter' || type === 'histogram'
}

function combine(counts: Counts, metrics: ProcessMetrics, merge: (before: Value, now: Value) => Value): void {
  for (const metric of metrics) {
    if (!isCount(metric)) continue
    const { values } = counts.getOrInsertComputed(metric.name, () => ({ metric, values: new Map<string, Value>() }))
    for (const value of metric.values as Value[]) {
      const series = `${value.metricName} ${JSON.stringify(value.labels)}`
      const before = values.get(series)
      values.set(series, before === undefined ? value : merge(before, value))
    }
  }
}

function metricsOf(counts: Counts): ProcessMetrics {
  return [...counts.values()].map(({ metric, values }) => Object.assign({}, metric, { values: [...values.values()] }))
}
