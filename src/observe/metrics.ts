import { collectDefaultMetrics, Gauge, Registry } from '@prometheus-io/client'
import { allowedOf, type LimitUsage } from '../quota/ledger.ts'
import type { BreakerState } from '../resilience/breaker.ts'
import { CounterSeries, Family, HistogramSeries } from './series.ts'

/** What the cache did for a call: `collapsed` waited for another's answer, `unavailable` found no store to look into. */
export type CacheResult = 'hit' | 'stale' | 'revalidated' | 'collapsed' | 'miss' | 'bypass' | 'unavailable'

/** Labels of one account and class. */
export interface LaneLabels {
  readonly upstream: string
  readonly account: string
  readonly class: string
}

export interface RoomOccupancy {
  readonly labels: LaneLabels
  readonly waiting: number
  readonly inFlight: number
}

/** How the credentials of an account are. */
export interface CredentialState {
  readonly upstream: string
  readonly account: string
  readonly quarantined: number | undefined
  readonly expiries: readonly { readonly credential: string; readonly inMs: number }[]
}

/** What the gauges show; asked for at every scrape. */
export interface Observed {
  rooms(): Iterable<RoomOccupancy>
  connections(): Iterable<{ upstream: string; connections: number; waiting: number; webSockets: number }>
  clientConnections(): Promise<number>
  breakers(): Iterable<{ upstream: string; group: string | undefined; state: BreakerState }>
  usage(): Promise<Iterable<{ labels: LaneLabels; usage: LimitUsage }>>
  /** Expiries in milliseconds from now. */
  credentials(): Iterable<CredentialState>
  readonly isStoreDegraded: boolean
}

/** What can take longer than it may: a part of the way upstream, all of it, or a client's sending of its body. */
export type TimeoutPhase = 'connect' | 'tls' | 'headers' | 'idle' | 'total' | 'client'

/** What became of a reload of the configuration. */
export type ReloadResult = 'applied' | 'unchanged' | 'rejected'

export const OPENMETRICS = Registry.OPENMETRICS_CONTENT_TYPE

const LANE = ['upstream', 'account', 'class'] as const
const QUOTA = [...LANE, 'window'] as const
const DURATIONS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120]
const OVERHEADS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1]
const STATE_VALUE = { closed: 0, 'half-open': 1, open: 2 } satisfies Record<BreakerState, number>

/**
 * Every metric of the gateway, under the names of its contract. Always in the OpenMetrics format, because only that has
 * exemplars; the correlation id is one, never a label.
 */
export class Metrics {
  readonly registry = new Registry(OPENMETRICS)
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
  readonly queueWait = this.#histogram('queue_wait', 'Time that a call waited for quota, if it did.', DURATIONS)
  readonly attempts = this.#counter('attempts', 'Attempts sent upstream, by why: first, or how the one before ended.')
  readonly #quotaDenied = this.#counter(
    'quota_denied',
    'Calls that found no quota when they came: they waited, or were refused.',
  )
  readonly #quotaWouldDeny = this.#counter(
    'quota_would_deny',
    'Attempts that a limit with enforce: false would have held back.',
  )
  readonly quotaLow = this.#counter('quota_low', 'How often less than a tenth of a limit was left; once an episode.')
  readonly #timeouts = this.#counter('timeouts', 'What took longer than it may, by its phase.')
  readonly budgetExhausted = this.#counter(
    'retry_budget_exhausted',
    'Repeats left out because the retry budget was spent.',
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
  readonly #cacheErrors = this.#counter('cache_errors', 'Questions to the cache’s store, and orders, that failed.')
  readonly credentialRollbacks = this.#counter(
    'credential_rollbacks',
    'New credentials that the upstream refused, after which the old ones stayed in force.',
  )
  readonly credentialsScrubbed = this.#counter(
    'credentials_scrubbed',
    'Responses in which an upstream repeated the credential that it was sent, and from which that was removed.',
  )
  readonly #storeErrors = this.#counter('store_errors', 'Calls refused because the quota store did not answer.')
  readonly reloads = reloadCounts(this.registry)
  #observed: Observed | undefined

  constructor() {
    collectDefaultMetrics({ register: this.registry })
    this.#storeErrors.of({})
    this.#cacheErrors.of({})
    const showQueues = (gauge: Gauge<(typeof LANE)[number]>, observed: Observed): void => {
      for (const { labels, waiting } of observed.rooms()) gauge.set({ ...labels }, waiting)
    }
    this.#gauge(
      'queue_depth',
      'Calls that wait now, for quota or for others in flight to end.',
      LANE,
      showQueues,
      'sum',
    )
    this.#gauge(
      'in_flight',
      'Calls that hold a permit: sent, and not answered to the end.',
      LANE,
      (gauge, observed) => {
        for (const { labels, inFlight } of observed.rooms()) gauge.set({ ...labels }, inFlight)
      },
      'sum',
    )
    this.#gauge(
      'upstream_connections',
      'Connections to the upstream that are open, idle ones included.',
      ['upstream'],
      (gauge, observed) => {
        for (const { upstream, connections } of observed.connections()) gauge.set({ upstream }, connections)
      },
      'sum',
    )
    this.#gauge(
      'connection_waiting',
      'Calls that wait for a connection to the upstream.',
      ['upstream'],
      (gauge, observed) => {
        for (const { upstream, waiting } of observed.connections()) gauge.set({ upstream }, waiting)
      },
      'sum',
    )
    this.#gauge(
      'websockets',
      'WebSockets that are open, or about to be.',
      ['upstream'],
      (gauge, observed) => {
        for (const { upstream, webSockets } of observed.connections()) gauge.set({ upstream }, webSockets)
      },
      'sum',
    )
    this.#gauge(
      'client_connections',
      'Connections of clients that are open, idle ones included.',
      [],
      async (gauge, observed) => gauge.set(await observed.clientConnections()),
      'sum',
    )
    this.#gauge('breaker_state', '0 closed, 1 half-open, 2 open.', ['upstream', 'group'], (gauge, observed) => {
      for (const { upstream, group, state } of observed.breakers()) {
        gauge.set(group === undefined ? { upstream } : { upstream, group }, STATE_VALUE[state])
      }
    })
    this.#gauge(
      'store_degraded',
      '1 while the quota store can not be asked, or some quotas are kept without it.',
      [],
      (gauge, observed) => {
        gauge.set(observed.isStoreDegraded ? 1 : 0)
      },
    )
    this.#gauge(
      'credential_expires_seconds',
      'Until a credential of which that is known stops being valid; negative afterwards.',
      ['upstream', 'account', 'credential'],
      (gauge, observed) => {
        for (const { upstream, account, expiries } of observed.credentials()) {
          for (const { credential, inMs } of expiries) gauge.set({ upstream, account, credential }, inMs / 1_000)
        }
      },
    )
    this.#gauge(
      'credential_quarantined',
      'Credentials of a pool that are left out for a while, because the upstream refused them.',
      ['upstream', 'account'],
      (gauge, observed) => {
        for (const { upstream, account, quarantined } of observed.credentials()) {
          if (quarantined !== undefined) gauge.set({ upstream, account }, quarantined)
        }
      },
    )
    this.#gauge('quota_limit', 'Calls that a limit allows in its window.', QUOTA, async (gauge, observed) => {
      for (const { labels, usage } of await observed.usage())
        gauge.set(quotaLabels(labels, usage), usage.limit.requests)
    })
    this.#gauge(
      'quota_effective_limit',
      'What of a limit can be used now: less than it while the upstream lets less through, or others use it.',
      QUOTA,
      async (gauge, observed) => {
        for (const { labels, usage } of await observed.usage()) gauge.set(quotaLabels(labels, usage), allowedOf(usage))
      },
    )
    this.#gauge('quota_used', 'Calls that count against a limit now.', QUOTA, async (gauge, observed) => {
      for (const { labels, usage } of await observed.usage()) gauge.set(quotaLabels(labels, usage), usage.used)
    })
  }

  /** Names what the gauges show; until then they show nothing. */
  observe(observed: Observed): void {
    this.#observed = observed
  }

  quotaDenied(labels: LaneLabels, client: string, id: string): void {
    this.#quotaDenied.of({ ...labels, client }).increment(id)
  }

  /** `labels` has the class of the limit. */
  quotaWouldDeny(labels: LaneLabels, window: string, client: string, id: string): void {
    this.#quotaWouldDeny.of({ ...labels, window, client }).increment(id)
  }

  timeoutsOf(upstream: string): Record<TimeoutPhase, CounterSeries> {
    const of = (phase: TimeoutPhase): CounterSeries => this.#timeouts.of({ upstream, phase })
    return {
      connect: of('connect'),
      tls: of('tls'),
      headers: of('headers'),
      idle: of('idle'),
      total: of('total'),
      client: of('client'),
    }
  }

  storeFailed(id: string): void {
    this.#storeErrors.of({}).increment(id)
  }

  cacheFailed(): void {
    this.#cacheErrors.of({}).increment()
  }

  #counter(name: string, help: string): Family<CounterSeries> {
    return counterFamily(this.registry, name, help)
  }

  #histogram(name: string, help: string, bounds: readonly number[]): Family<HistogramSeries> {
    const about = { name: `sluice_${name}_seconds`, help, type: 'histogram' as const }
    return new Family(this.registry, about, (labels) => new HistogramSeries(labels, bounds))
  }

  #gauge<L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    show: (gauge: Gauge<L>, observed: Observed) => void | Promise<void>,
    aggregator: 'sum' | 'max' = 'max',
  ): void {
    const observed = (): Observed | undefined => this.#observed
    new Gauge({
      name: `sluice_${name}`,
      help,
      labelNames,
      // What workers have in common is shown once.
      aggregator,
      registers: [this.registry],
      async collect() {
        const now = observed()
        // What is gone since the last scrape must not stay behind.
        this.reset()
        if (now !== undefined) await show(this, now)
      },
    })
  }
}

function counterFamily(registry: Registry, name: string, help: string): Family<CounterSeries> {
  // The library appends `_total` to the values, as OpenMetrics wants it.
  const about = { name: `sluice_${name}`, help, type: 'counter' as const }
  return new Family(registry, about, (labels) => new CounterSeries(labels))
}

/** Counts reloads in a registry: of several workers the first process alone, for all of them. */
export function reloadCounts(registry: Registry): Record<ReloadResult, CounterSeries> {
  const family = counterFamily(registry, 'config_reload', 'Reloads of the configuration, by what became of them.')
  return {
    applied: family.of({ result: 'applied' }),
    unchanged: family.of({ result: 'unchanged' }),
    rejected: family.of({ result: 'rejected' }),
  }
}

function quotaLabels({ upstream, account }: LaneLabels, { limit }: LimitUsage): Record<(typeof QUOTA)[number], string> {
  return { upstream, account, class: limit.class, window: limit.label }
}
