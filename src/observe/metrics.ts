/*
 * src/observe: metrics and the log.
 * It imports only schema and resilience, and takes figures from those who have them.
 * A change here must keep the names of docs/metrics.md and docs/logs.md, bound the number of series, and leak no secret
 * (test/observe, test/system/leaks.test.ts).
 */

import { collectDefaultMetrics, type Gauge, Registry } from '../packages/prometheus.ts'
import { BoundedLabels, DEFAULT_BOUNDS, type LabelBounds } from './bounded-labels.ts'
import { exposition } from './exposition.ts'
import type { Observed } from './gauges.ts'
import { registerGauges } from './observed-gauge.ts'
import { counterFamily, type CounterSeries, Family, HistogramSeries, type Labels } from './series.ts'

/**
 * What the cache did for a call. `collapsed`: it waited for another call's answer. `unavailable`: the store could not
 * be read.
 */
export type CacheResult = 'hit' | 'stale' | 'revalidated' | 'collapsed' | 'miss' | 'bypass' | 'unavailable'

/**
 * How often the library measures the delay of timers and the load of the event loop, in ms. Its defaults, 10 and 100,
 * would wake an idle process that much more often: see `npm run bench:idle`.
 */
const SELDOM = { eventLoopMonitoringPrecision: 50, eventLoopUtilizationTimeout: 1_000 }

/** What a timeout ended: a phase of the way upstream, all of it, or the client's sending of its body. */
export type TimeoutPhase = (typeof PHASES)[number]
const PHASES = ['connect', 'tls', 'headers', 'idle', 'total', 'client'] as const

export const OPENMETRICS = Registry.OPENMETRICS_CONTENT_TYPE

const DURATIONS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120]
/** For how wrong a forecast was. */
const ERRORS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const OVERHEADS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1]

/**
 * Every metric of the gateway, under its documented name. The format is always OpenMetrics, because only that has
 * exemplars. The correlation id is an exemplar and never a label.
 */
export class Metrics {
  readonly registry = new Registry(OPENMETRICS)
  readonly #labels: BoundedLabels
  readonly #shown = (labels: Labels): Labels => this.#labels.of(labels)
  readonly requests = this.#counter('requests', 'Calls, by how they ended.')
  readonly requestDuration = this.#histogram(
    'request_duration',
    'From the arrival of a call to the end of its response.',
    DURATIONS,
  )
  readonly upstreamDuration = this.#histogram(
    'upstream_duration',
    'From the dispatch of an attempt to the headers of its response, or to its failure.',
    DURATIONS,
  )
  readonly gatewayOverhead = this.#histogram(
    'gateway_overhead',
    'Time of a call that was spent neither upstream, nor waiting for quota, nor between attempts.',
    OVERHEADS,
  )
  readonly requestBytes = this.#counter(
    'request_bytes',
    'Bytes of the bodies that clients sent; those of WebSockets are not counted.',
  )
  readonly responseBytes = this.#counter(
    'response_bytes',
    'Bytes of the bodies that clients were sent; those of WebSockets are not counted.',
  )
  readonly queueWait = this.#histogram('queue_wait', 'Time that a call waited for quota, if it did.', DURATIONS)
  readonly queueEtaError = this.#histogram(
    'queue_eta_error',
    'By how much a wait for quota was later, or sooner, over than was forecast when it began.',
    ERRORS,
  )
  readonly attempts = this.#counter('attempts', 'Attempts sent upstream, by why: first, or how the one before ended.')
  readonly quotaCharged = this.#counter(
    'quota_charged',
    'Units that attempts were charged, by the class of the limit and the client; once where a class has several limits.',
  )
  readonly moneySpent = this.#counter(
    'money_spent',
    'What calls have cost by the prices of their upstream, in its currency, by client; once a call, as budgets are charged.',
  )
  readonly clientWaits = this.#counter(
    'client_waits',
    'Waits of calls for quota that ended with their turn, by client.',
  )
  readonly clientWaitSeconds = this.#counter(
    'client_wait_seconds',
    'Time that calls waited for quota until they had it, by client.',
  )
  readonly quotaDenied = this.#counter(
    'quota_denied',
    'Calls that found no quota when they came: they waited, or were refused.',
  )
  readonly quotaWouldDeny = this.#counter(
    'quota_would_deny',
    'Attempts that a limit with enforce: false would have held back.',
  )
  readonly quotaLow = this.#counter('quota_low', 'How often less than a tenth of a limit was left; once an episode.')
  readonly budgetLow = this.#counter(
    'budget_low',
    'How often so much of a budget was used that it is warned of; once an episode.',
  )
  readonly #timeouts = this.#counter('timeouts', 'What took longer than it may, by its phase.')
  readonly budgetExhausted = this.#counter(
    'retry_budget_exhausted',
    'Retries left out because the retry budget was spent.',
  )
  readonly throttled = this.#counter(
    'upstream_throttled',
    'Refusals of an upstream because of too many calls; explained is "no" where there should have been quota.',
  )
  readonly credentialRenewals = this.#counter(
    'credential_renewals',
    'Tokens that were had, or not, of accounts whose credential is one that expires.',
  )
  readonly cache = this.#counter('cache', 'Calls of cached routes, by what the cache did for them.')
  readonly quotaSaved = this.#counter(
    'quota_saved',
    'Units that calls were not charged, because they were answered without asking upstream.',
  )
  readonly cacheErrors = this.#counter('cache_errors', 'Questions to the cache’s store, and orders, that failed.')
  readonly credentialRefused = this.#counter(
    'credential_refused',
    'Attempts with a credential of the gateway that the upstream answered with 401.',
  )
  readonly credentialRollbacks = this.#counter(
    'credential_rollbacks',
    'New credentials that the upstream refused, after which the old ones stayed in force.',
  )
  readonly credentialsScrubbed = this.#counter(
    'credentials_scrubbed',
    'Responses in which an upstream repeated the credential that it was sent, and from which that was removed.',
  )
  readonly tunnels = this.#counter(
    'tunnels',
    'Tunnels of the forward proxy, by kind: intercepted, where TLS was ended for an upstream, or passed on to another host.',
  )
  readonly #storeDurations = this.#histogram(
    'store_duration',
    'From a question to Redis about quotas to its answer: its own time, the way there and back, and the event loop.',
    OVERHEADS,
  )
  readonly storeErrors = this.#counter('store_errors', 'Calls refused because the quota store did not answer.')
  readonly usageUnwritten = this.#counter(
    'usage_unwritten',
    'How often what clients have used could not be written by the day; it is kept, and written later.',
  )
  readonly storeLosses = this.#counter('store_losses', 'How often Redis was found to have lost what it keeps for good.')
  readonly spansDropped = this.#counter(
    'trace_spans_dropped',
    'Spans that were not exported, because the collector did not take them or too many waited.',
  )
  readonly logDropped = droppedLines(this.registry)
  /** Looked up once, because every answer of Redis is observed. */
  readonly storeDuration: HistogramSeries
  #observed: Observed | undefined

  /**
   * `hasProcess`: whether to collect the metrics of the process, such as its memory, which one registry of each process
   * does.
   */
  constructor(bounds: LabelBounds = DEFAULT_BOUNDS, { hasProcess = true } = {}) {
    this.#labels = new BoundedLabels(bounds)
    if (hasProcess) collectProcessMetrics(this.registry)
    this.storeErrors.of({})
    this.usageUnwritten.of({})
    this.storeDuration = this.#storeDurations.of({})
    this.cacheErrors.of({})
    registerGauges(this.registry, this.#labels, () => this.#observed)
  }

  /**
   * Begins the counters of an account at zero, before its first call. Otherwise a series would appear with its first
   * event, and Prometheus would see no increase in that. `classes`: those that have limits.
   */
  beginAccount(upstream: string, account: string, hasCredential: boolean, classes: readonly string[]): void {
    for (const name of classes)
      for (const explained of ['yes', 'no']) this.throttled.of({ upstream, account, class: name, explained })
    if (!hasCredential) return
    this.credentialRefused.of({ upstream, account })
    this.credentialRollbacks.of({ upstream, account })
  }

  /** Sets what the gauges show. Until then they show nothing. */
  observe(observed: Observed): void {
    this.#observed = observed
  }

  timeoutsOf(upstream: string): Record<TimeoutPhase, CounterSeries> {
    const series = PHASES.map((phase) => [phase, this.#timeouts.of({ upstream, phase })])
    return Object.fromEntries(series) as Record<TimeoutPhase, CounterSeries>
  }

  /** All metrics in the OpenMetrics format, in pieces. */
  exposition(): AsyncIterable<string> {
    return exposition(this.registry)
  }

  #counter(name: string, help: string): Family<CounterSeries> {
    return counterFamily(this.registry, name, help, this.#shown)
  }

  #histogram(name: string, help: string, bounds: readonly number[]): Family<HistogramSeries> {
    const about = { name: `sluice_${name}_seconds`, help, type: 'histogram' as const }
    return new Family(this.registry, about, (labels) => new HistogramSeries(labels, bounds), this.#shown)
  }
}

/**
 * Collects what the library knows of the process. Where a gateway has several processes, their sums are shown. For the delay of the event
 * loop the largest is shown: the mean would hide a process that stands still, and all may wait for it. Node measures that delay as the
 * whole time between two runs of a timer; the gauges show how late the timer was. If the timer did not run since the last scrape, a gauge
 * keeps its value.
 */
export function collectProcessMetrics(register: Registry): void {
  collectDefaultMetrics({ register, ...SELDOM })
  for (const which of ['min', 'max', 'mean', 'p50', 'p90', 'p99']) {
    const gauge = register.getSingleMetric(`nodejs_eventloop_lag_${which}_seconds`) as Gauge
    const set: (labels: object, value: number) => void = gauge.set.bind(gauge)
    Object.assign(gauge, {
      aggregator: which === 'min' ? 'min' : 'max',
      set(labels: object, value: number) {
        if (value < NO_RUNS) set(labels, Math.max(0, value - SELDOM.eventLoopMonitoringPrecision / 1_000))
      },
    })
  }
}

/** In seconds: Node's minimum, where the timer did not run, is 2^63 ns; the mean is not a number. */
const NO_RUNS = 1e9

/** Counts dropped lines of the log. Each process has its own counter, as it has its own log. */
export function droppedLines(registry: Registry): CounterSeries {
  return counterFamily(registry, 'log_dropped', 'Lines of the log that were dropped, because nobody read them.').of({})
}
