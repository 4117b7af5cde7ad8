import type { CacheResult, Metrics } from './metrics.ts'
import type { CounterSeries, HistogramSeries, ClassLabels } from './series.ts'

/** The series of every call of one account and class, found once. */
export class CallMetrics {
  readonly requestDuration: HistogramSeries
  readonly gatewayOverhead: HistogramSeries
  readonly requestBytes: CounterSeries
  readonly responseBytes: CounterSeries
  protected readonly metrics: Metrics
  protected readonly labels: ClassLabels
  readonly #requests = new Map<string, CounterSeries>()

  constructor(metrics: Metrics, labels: ClassLabels) {
    this.metrics = metrics
    this.labels = labels
    this.requestDuration = metrics.requestDuration.of({ ...labels })
    this.gatewayOverhead = metrics.gatewayOverhead.of({ ...labels })
    this.requestBytes = metrics.requestBytes.of({ ...labels })
    this.responseBytes = metrics.responseBytes.of({ ...labels })
  }

  requests(client: string, status: string, outcome: string): CounterSeries {
    const key = `${client}\n${status}\n${outcome}`
    return this.#requests.getOrInsertComputed(key, () =>
      this.metrics.requests.of({ ...this.labels, client, status, outcome }),
    )
  }
}

/** And those of calls that are let in. */
export class ClassMetrics extends CallMetrics {
  readonly upstreamDuration: HistogramSeries
  readonly queueWait: HistogramSeries
  /** Responses 429, which our own count would have led to expect or not. */
  readonly throttled: { readonly explained: CounterSeries; readonly unexplained: CounterSeries }
  readonly #attempts = new Map<string, CounterSeries>()
  readonly #cached = new Map<CacheResult, CounterSeries>()

  constructor(metrics: Metrics, labels: ClassLabels) {
    super(metrics, labels)
    this.upstreamDuration = metrics.upstreamDuration.of({ ...labels })
    this.queueWait = metrics.queueWait.of({ ...labels })
    // There from the start, because the first event of a series that appears with it can't be seen as an increase.
    this.throttled = {
      explained: metrics.throttled.of({ ...labels, explained: 'yes' }),
      unexplained: metrics.throttled.of({ ...labels, explained: 'no' }),
    }
  }

  attempts(reason: string): CounterSeries {
    return this.#attempts.getOrInsertComputed(reason, () => this.metrics.attempts.of({ ...this.labels, reason }))
  }

  cached(result: CacheResult): CounterSeries {
    return this.#cached.getOrInsertComputed(result, () => this.metrics.cache.of({ ...this.labels, result }))
  }

  /** `className` is the class of the limit. */
  quotaSaved(className: string, units: number, id: string): void {
    this.metrics.quotaSaved.of({ ...this.labels, class: className }).increment(id, units)
  }
}

/** Counts what calls of one kind are charged, by their client. */
export class Spending {
  readonly #metrics: Metrics
  readonly #labels: ClassLabels
  readonly #units: ReadonlyMap<string, number>
  readonly #byClient = new Map<string, readonly { readonly series: CounterSeries; readonly units: number }[]>()

  /** `units` says how many one call is charged of each class. */
  constructor(metrics: Metrics, labels: ClassLabels, units: ReadonlyMap<string, number>) {
    this.#metrics = metrics
    this.#labels = labels
    this.#units = units
  }

  count(client: string, id: string): void {
    const charges = this.#byClient.getOrInsertComputed(client, () =>
      [...this.#units].map(([className, units]) => ({
        series: this.#metrics.quotaCharged.of({ ...this.#labels, class: className, client }),
        units,
      })),
    )
    for (const { series, units } of charges) series.increment(id, units)
  }
}
