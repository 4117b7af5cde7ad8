import type { Limit } from './limit.ts'
import type { Schedule } from './schedule.ts'

/** All limits that one kind of call is charged to, together or not at all, and how many units to each. */
export interface Meter {
  /** Where the limits are counted, usually `upstream/account`: one step can charge everything of one home. */
  readonly home: string
  readonly limits: readonly Limit[]
  /** Units that one call is charged, in the order of the limits. */
  readonly units: readonly number[]
  /** Whether a call also counts after its response headers, until it is over. */
  readonly hasConcurrent: boolean
  /** How often the charges of calls in flight are renewed. */
  readonly renewMs: number
}

export function meterOf(home: string, charges: readonly { limit: Limit; units?: number }[]): Meter {
  const limits = charges.map(({ limit }) => limit)
  return {
    home,
    limits,
    units: charges.map(({ units = 1 }) => units),
    hasConcurrent: limits.some(({ kind }) => kind === 'concurrent'),
    renewMs: Math.min(...limits.map(({ renewMs }) => renewMs)),
  }
}

export interface LimitUsage {
  readonly limit: Limit
  /** Units that count against the limit, those just granted included. */
  readonly used: number
  /** Milliseconds until the oldest charge leaves the window. */
  readonly resetMs: number
}

/** The answer to a charge: calls that may be sent now, and what has become of them since. */
export class Grant {
  readonly meter: Meter
  /** How many of the calls asked for may be sent; the others were not charged. */
  readonly granted: number
  /** Usage of each limit, in the meter's order. */
  readonly usage: readonly LimitUsage[]
  /** When more will be free; undefined if everything asked for was granted. */
  readonly schedule: Schedule | undefined
  /** The ledger's time of the charge, or of its last renewal. */
  at: number
  /** Calls of which no response headers are here yet, and calls that are not over. */
  unsettled: number
  open: number
  /** Whether it was charged to a lease, without asking the store. */
  readonly isLocal: boolean

  constructor(
    meter: Meter,
    at: number,
    granted: number,
    usage: readonly LimitUsage[],
    { schedule, isLocal = false }: { schedule?: Schedule | undefined; isLocal?: boolean } = {},
  ) {
    this.meter = meter
    this.at = at
    this.granted = granted
    this.usage = usage
    this.schedule = schedule
    this.isLocal = isLocal
    this.unsettled = granted
    this.open = granted
  }

  /** Whether the ledger still has to renew it. */
  get isInFlight(): boolean {
    return this.unsettled > 0 || (this.open > 0 && this.meter.hasConcurrent)
  }
}

/**
 * Counts calls against quotas. The guarantee: an upstream that counts each call once, at any instant between its dispatch
 * and its response headers, never counts more than the limit in any window of that length, whatever the latencies.
 *
 * A call is charged when it is dispatched and charged anew, at the later time, when its response headers arrive. While it
 * is in flight its charge is renewed, and stands a little ahead (`holdMs`), so that it also outlives a gateway that dies.
 * A call that was given up counts for `slackMs` longer; one of which no byte was sent is taken back.
 *
 * It holds as long as: no gateway stands still for longer than a window; the upstream counts nothing later than `slackMs`
 * (at most a window) after a call was given up or its gateway died; calendar windows of both sides begin within `slackMs`
 * of each other. Its price: a saturated account is used to `window / (window + mean latency)`, less at most one in a
 * hundred for counting in buckets.
 */
export interface Ledger {
  /**
   * Charges up to `wanted` calls; those that do not fit into every limit of the meter are refused and not charged. Throws,
   * or rejects with, `StoreUnavailableError` when the store can't be asked and there is no lease to spend.
   */
  charge(meter: Meter, wanted: number): Grant | Promise<Grant>
  /** The response headers of one call are here: the upstream can't count it later than now. */
  settle(grant: Grant): void
  /** One call was given up after it was sent: the upstream may count it a little later than now. */
  abandon(grant: Grant): void
  /** No byte of one call was sent: its charge is taken back. */
  refund(grant: Grant): void
  /** One call is not in flight any more, whatever became of it: it does not count any more among those at once. */
  leave(grant: Grant): void
  /** What counts now, for metrics and the admin API. */
  usage(meter: Meter): Promise<readonly LimitUsage[]>
  /** Whether charges can be expected to work. */
  readonly isReady: boolean
  /** Whether quotas are kept by leases, because the store is away. */
  readonly isDegraded: boolean
  close(): Promise<void>
}

/** The store could not be asked, or did not answer in time. Whether the charge was made is unknown. */
export class StoreUnavailableError extends Error {
  constructor(cause: unknown) {
    super('the quota store did not answer', { cause })
    this.name = 'StoreUnavailableError'
  }
}
