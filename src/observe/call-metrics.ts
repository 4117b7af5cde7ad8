import type { CacheResult, Metrics } from './metrics.ts'
import type { CounterSeries, HistogramSeries, ClassLabels } from './series.ts'

/** The series of all calls of one account and class. They are looked up once, not for each call. */
export class CallMetrics {
  readonly requestDuration: HistogramSeries
  readonly gatewayOverhead: HistogramSeries
  readonly requestBytes: CounterSeries
  readonly responseBytes: CounterSeries
  protected readonly metrics: Metrics
  protected readonly labels: ClassLabels
  /** Series by client, then status, then outcome. A joined key would make a string for each call. */
  readonly #requests = new Map<string, Map<string, Map<string, CounterSeries>>>()

  constructor(metrics: Metrics, labels: ClassLabels) {
    this.metrics = metrics
    this.labels = labels
    this.requestDuration = metrics.requestDuration.of({ ...labels })
    this.gatewayOverhead = metrics.gatewayOverhead.of({ ...labels })
    this.requestBytes = metrics.requestBytes.of({ ...labels })
    this.responseBytes = metrics.responseBytes.of({ ...labels })
  }

  requests(client: string, status: string, outcome: string): CounterSeries {
    const known = this.#requests.get(client)?.get(status)?.get(outcome)
    if (known !== undefined) return known
    const series = this.metrics.requests.of({ ...this.labels, client, status, outcome })
    const ofClient = this.#requests.getOrInsertComputed(client, () => new Map())
    ofClient.getOrInsertComputed(status, () => new Map()).set(outcome, series)
    return series
  }
}

/** The series of `CallMetrics`, and those of admitted calls. */
export class ClassMetrics extends CallMetrics {
  readonly upstreamDuration: HistogramSeries
  readonly queueWait: HistogramSeries
  /** Responses 429. `explained` counts those that came when our own count said that the quota was used up. */
  readonly throttled: { readonly explained: CounterSeries; readonly unexplained: CounterSeries }
  /** Counts for all classes of the account together. */
  readonly credentialRefused: CounterSeries
  readonly #attempts = new Map<string, CounterSeries>()
  readonly #etaErrors = new Map<'later' | 'sooner', HistogramSeries>()
  readonly #cached = new Map<CacheResult, CounterSeries>()

  constructor(metrics: Metrics, labels: ClassLabels) {
    super(metrics, labels)
    this.upstreamDuration = metrics.upstreamDuration.of({ ...labels })
    this.queueWait = metrics.queueWait.of({ ...labels })
    this.credentialRefused = metrics.credentialRefused.of({ upstream: labels.upstream, account: labels.account })
    this.throttled = {
      explained: metrics.throttled.of({ ...labels, explained: 'yes' }),
      unexplained: metrics.throttled.of({ ...labels, explained: 'no' }),
    }
  }

  attempts(reason: string): CounterSeries {
    return this.#attempts.getOrInsertComputed(reason, () => this.metrics.attempts.of({ ...this.labels, reason }))
  }

  /** A call waited for quota for `waitedMs`; the forecast was `expectedMs`. */
  waited(waitedMs: number, expectedMs: number, id: string): void {
    const thanForecast = waitedMs > expectedMs ? 'later' : 'sooner'
    this.#etaErrors
      .getOrInsertComputed(thanForecast, () =>
        this.metrics.queueEtaError.of({ ...this.labels, than_forecast: thanForecast }),
      )
      .observeMs(Math.abs(waitedMs - expectedMs), id)
  }

  cached(result: CacheResult): CounterSeries {
    return this.#cached.getOrInsertComputed(result, () => this.metrics.cache.of({ ...this.labels, result }))
  }
}
