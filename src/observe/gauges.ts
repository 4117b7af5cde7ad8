import type { BreakerState } from '../resilience/breaker.ts'
import type { ClassLabels, Labels } from './series.ts'

export interface QueueOccupancy {
  readonly labels: ClassLabels
  readonly waiting: number
  readonly inFlight: number
  /** How many calls may be in flight; undefined where that is not adapted. */
  readonly adapted: number | undefined
}

interface TransportUse {
  readonly upstream: string
  readonly connections: number
  readonly waiting: number
  readonly webSockets: number
}

/** The state of the credentials of an account. */
export interface CredentialState {
  readonly upstream: string
  readonly account: string
  readonly quarantined: number | undefined
  readonly expiries: readonly { readonly credential: string; readonly inMs: number }[]
}

/** How fast a limit is spent. */
export interface Burn {
  /**
   * Milliseconds until nothing of the limit is left, if calls go on as in the last minutes; 0 while nothing is left.
   * Null if enough comes back in time, if a calendar window ends before, or if no rate is known.
   */
  readonly exhaustionInMs: number | null
  /**
   * The rate of charges in the last minutes divided by the rate that the limit allows for ever, and at least 1 while nothing is
   * left; null where no rate is known.
   */
  readonly burnRatio: number | null
}

/**
 * How much of one limit of an account is used, in units. `effective` is what may be used now, which is less than the limit while the
 * upstream allows less, or others use it.
 */
export interface ObservedUsage extends Burn {
  readonly labels: ClassLabels
  readonly window: string
  readonly limit: number
  readonly effective: number
  /** What this region may use, and what no region may for now, where limits are split over regions. */
  readonly share?: number | undefined
  readonly stranded?: number | undefined
  readonly used: number
  /**
   * True if the use is not known: the store could not be asked, and what may not be spent without it counts as used.
   */
  readonly isLocal?: true | undefined
}

/** What a client is due of a quota, from 0 to 1. */
export interface ClientDue extends ClassLabels {
  readonly client: string
  readonly due: number
}

/** How much of its budget a client, a team or an organisation has used. */
export interface BudgetUse extends Burn {
  readonly level: 'client' | 'team' | 'organisation'
  /** Empty where clients have no names. */
  readonly name: string
  readonly window: string
  readonly limit: number
  readonly used: number
  /** As in `ObservedUsage`. */
  readonly isLocal?: true | undefined
}

/** What the gauges show. It is asked for at every scrape. */
export interface Observed {
  queues(): Iterable<QueueOccupancy>
  /** Counts the open tunnels of the forward proxy; undefined where there is none. */
  readonly tunnels?: (() => number) | undefined
  connections(): Iterable<TransportUse>
  clientConnections(): Promise<number>
  breakers(): Iterable<{ upstream: string; group: string | undefined; state: BreakerState }>
  usage(): Promise<Iterable<ObservedUsage>>
  dues(): Promise<Iterable<ClientDue>>
  budgets(): Promise<Iterable<BudgetUse>>
  /** Expiries in milliseconds from now. */
  credentials(): Iterable<CredentialState>
  /** Keys of clients that expire, in milliseconds from now. */
  clientKeys(): Iterable<{ client: string; key: string; inMs: number }>
  /** Milliseconds until the certificate of the clients' port expires; undefined without one. */
  readonly certificateInMs: number | undefined
  readonly isStoreDegraded: boolean
}

/** The labels and the value of one series. */
type Shown = readonly [Labels, number]

export interface GaugeOf {
  readonly name: string
  readonly help: string
  /**
   * How values with the same labels are combined: those of several workers, or of accounts that share a name. Default:
   * max.
   */
  readonly combine?: keyof typeof COMBINE
  /** Whether `show` yields labels whose number is bounded already. `BoundedLabels` is not applied to them again. */
  readonly isBounded?: boolean
  show(observed: Observed): Iterable<Shown> | AsyncIterable<Shown>
}

export const COMBINE = {
  sum: (a: number, b: number) => a + b,
  max: Math.max,
  min: Math.min,
}

const STATE_VALUE = { closed: 0, 'half-open': 1, open: 2 } satisfies Record<BreakerState, number>

/** Where there is no number, there is no series. */
type NumberOf<Row> = (row: Row) => number | null | undefined

/** Makes gauges of the same rows: one series for each row that has a number. */
function gaugesOf<Row>(
  rowsOf: (observed: Observed) => Iterable<Row> | Promise<Iterable<Row>>,
  labelsOf: (row: Row) => Labels,
  combined: keyof typeof COMBINE,
  isBounded = false,
) {
  return (name: string, help: string, numberOf: NumberOf<Row>, combine = combined): GaugeOf => ({
    name,
    help,
    combine,
    isBounded,
    async *show(observed) {
      for (const row of await rowsOf(observed)) {
        const number = numberOf(row)
        if (number !== null && number !== undefined) yield [labelsOf(row), number]
      }
    },
  })
}

const ofQueues = gaugesOf(
  (observed) => observed.queues(),
  ({ labels }) => ({ ...labels }),
  'sum',
)
const ofTransports = gaugesOf(
  (observed) => observed.connections(),
  ({ upstream }) => ({ upstream }),
  'sum',
)
const ofLimits = gaugesOf(
  (observed) => observed.usage(),
  ({ labels, window }) => ({ ...labels, window }),
  'max',
)

export const GAUGES: readonly GaugeOf[] = [
  ofQueues('queue_depth', 'Calls that wait now, for quota or for others in flight to end.', ({ waiting }) => waiting),
  ofQueues('in_flight', 'Calls that hold a permit: sent, and not answered to the end.', ({ inFlight }) => inFlight),
  ofQueues(
    'concurrency_limit',
    'Calls that may be in flight, where concurrency has bounds between which it is adapted.',
    ({ adapted }) => adapted,
  ),
  ofTransports(
    'upstream_connections',
    'Connections to the upstream that are open, idle ones included.',
    ({ connections }) => connections,
  ),
  ofTransports('connection_waiting', 'Calls that wait for a connection to the upstream.', ({ waiting }) => waiting),
  ofTransports('websockets', 'WebSockets that are open, or about to be.', ({ webSockets }) => webSockets),
  {
    name: 'tunnels_open',
    help: 'Tunnels of the forward proxy that are open.',
    combine: 'sum',
    *show({ tunnels }) {
      if (tunnels !== undefined) yield [{}, tunnels()]
    },
  },
  {
    name: 'client_connections',
    help: 'Connections of clients that are open, idle ones included.',
    combine: 'sum',
    async *show(observed) {
      yield [{}, await observed.clientConnections()]
    },
  },
  {
    name: 'breaker_state',
    help: '0 closed, 1 half-open, 2 open.',
    *show(observed) {
      for (const { upstream, group, state } of observed.breakers()) {
        yield [group === undefined ? { upstream } : { upstream, group }, STATE_VALUE[state]]
      }
    },
  },
  {
    name: 'store_degraded',
    help: '1 while the quota store can not be asked, or some quotas are kept without it.',
    *show({ isStoreDegraded }) {
      yield [{}, isStoreDegraded ? 1 : 0]
    },
  },
  {
    name: 'credential_expires_seconds',
    help: 'Until a credential of which that is known stops being valid; negative afterwards.',
    combine: 'min',
    *show(observed) {
      for (const { upstream, account, expiries } of observed.credentials()) {
        for (const { credential, inMs } of expiries) yield [{ upstream, account, credential }, inMs / 1_000]
      }
    },
  },
  {
    name: 'credential_quarantined',
    help: 'Credentials of a pool that are left out for a while, because the upstream refused them.',
    *show(observed) {
      for (const { upstream, account, quarantined } of observed.credentials()) {
        if (quarantined !== undefined) yield [{ upstream, account }, quarantined]
      }
    },
  },
  {
    name: 'client_key_expires_seconds',
    help: 'Until a key of a client is refused, of those that expire; absent afterwards.',
    combine: 'min',
    *show(observed) {
      for (const { client, key, inMs } of observed.clientKeys())
        // Old keys are meant to expire. Where keys share a name, one that has would hide the next one that does.
        if (inMs > 0) yield [{ client, key }, inMs / 1_000]
    },
  },
  {
    name: 'certificate_expires_seconds',
    help: 'Until the certificate of the port for clients stops being valid; negative afterwards.',
    combine: 'min',
    *show({ certificateInMs }) {
      if (certificateInMs !== undefined) yield [{}, certificateInMs / 1_000]
    },
  },
  {
    name: 'client_due_ratio',
    help: 'Part of a quota that is due to a client among those that used it within the hour, as this gateway sees it.',
    // Whoever sees more clients knows better.
    combine: 'min',
    async *show(observed) {
      for (const { upstream, account, class: name, client, due } of await observed.dues())
        yield [{ upstream, account, class: name, client }, due]
    },
  },
  ...(['client', 'team', 'organisation'] as const).flatMap(budgetGauges),
  ofLimits('quota_limit', 'Calls that a limit allows in its window.', ({ limit }) => limit),
  ofLimits(
    'quota_effective_limit',
    'What of a limit can be used now: less than it, or than the share of the region, while the upstream lets less through, or others use it.',
    ({ effective }) => effective,
  ),
  ofLimits(
    'quota_region_share',
    'What of a limit this region may use now, where limits are split over regions.',
    ({ share }) => share,
  ),
  ofLimits(
    'quota_region_stranded',
    'What of a limit no region may use now, because it is on its way from one to another.',
    ({ stranded }) => stranded,
  ),
  ofLimits('quota_used', 'Calls that count against a limit now; absent while that is not known.', knownUse),
  ofLimits(
    'quota_exhaustion_seconds',
    'Until nothing of a limit is left, if calls go on as in the last minutes; absent where that never happens.',
    ({ exhaustionInMs }) => exhaustionInMs && exhaustionInMs / 1_000,
    'min',
  ),
  ofLimits(
    'quota_burn_ratio',
    'The rate of the last minutes divided by the rate that a limit allows for ever.',
    ({ burnRatio }) => burnRatio,
  ),
]

/**
 * Without the store the use is not known: what a gateway may not spend then counts as used, although perhaps nobody
 * used it.
 */
function knownUse({ used, isLocal }: { readonly used: number; readonly isLocal?: true | undefined }): number | null {
  return isLocal === true ? null : used
}

/** What the budgets of one level allow, and what is used of them. */
function budgetGauges(level: BudgetUse['level']): GaugeOf[] {
  const whose = level === 'organisation' ? 'an organisation' : `a ${level}`
  const gauge = gaugesOf(
    async (observed) => [...(await observed.budgets())].filter((budget) => budget.level === level),
    ({ name, window }): Labels => (name === '' ? { window } : { [level]: name, window }),
    'max',
    true,
  )
  return [
    gauge(
      `${level}_budget_limit`,
      `Calls, or money, that the budget of ${whose} allows in its window.`,
      ({ limit }) => limit,
    ),
    gauge(
      `${level}_budget_used`,
      `Calls, or money, that count against the budget of ${whose} now; absent while that is not known.`,
      knownUse,
    ),
    gauge(
      `${level}_budget_exhaustion_seconds`,
      `Until nothing is left of the budget of ${whose}, if calls go on as in the last minutes; absent where that never happens.`,
      ({ exhaustionInMs }) => exhaustionInMs && exhaustionInMs / 1_000,
      'min',
    ),
    gauge(
      `${level}_budget_burn_ratio`,
      `The rate of the last minutes divided by the rate that the budget of ${whose} allows for ever.`,
      ({ burnRatio }) => burnRatio,
    ),
  ]
}

/**
 * Combines two limits that are shown as one: the fuller one, with the sooner end and the higher rate of both. A use
 * that the store told comes before one that counts as full because the store could not be asked.
 */
export function fullerOf<Row extends Burn & Pick<ObservedUsage, 'used' | 'limit' | 'isLocal'>>(a: Row, b: Row): Row {
  if (a.isLocal !== b.isLocal) return a.isLocal ? b : a
  return {
    ...(b.used / b.limit > a.used / a.limit ? b : a),
    exhaustionInMs: pick(Math.min, a.exhaustionInMs, b.exhaustionInMs),
    burnRatio: pick(Math.max, a.burnRatio, b.burnRatio),
  }
}

function pick(choose: (a: number, b: number) => number, a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : choose(a, b)
}
