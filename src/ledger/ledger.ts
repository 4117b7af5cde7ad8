/*
 * src/ledger: who has used what of which limit: limits, rolling windows, adaptive limits, and the interface of both
 * stores.
 * It imports only http and time. Its two stores are folders of their own.
 * A change here must prove that no window is ever exceeded (npm run simulate, test/ledger, the mutation tests of
 * test/simulation).
 */

import type { PeerDemand, Demand } from './demand.ts'
import type { Limit } from './limit.ts'
import { Schedule } from './schedule.ts'

/** All limits that one kind of call is charged to, together or not at all, and how many units to each. */
export interface ChargeSet {
  /** Where the limits are counted, usually `upstream/account`: one step can charge everything of one partition. */
  readonly partition: string
  /** Whose calls are held back together when the upstream wants none of them for a while. */
  readonly account: string
  readonly limits: readonly Limit[]
  /** Units that one call is charged, in the order of the limits. */
  readonly units: readonly number[]
  /** Whether a call also counts after its response headers, until it is over. */
  readonly hasConcurrent: boolean
  /** How often the charges of calls in flight are renewed. */
  readonly renewMs: number
}

/** What one call spends of each class. A class may have several limits, which all count the same call. */
export function unitsByClass({ limits, units }: ChargeSet): Map<string, number> {
  const spent = new Map<string, number>()
  for (const [i, limit] of limits.entries()) {
    if (limit.kind !== 'concurrent') spent.set(limit.class, Math.max(spent.get(limit.class) ?? 0, units[i]!))
  }
  return spent
}

export function chargeSetOf(
  partition: string,
  charges: readonly { limit: Limit; units?: number }[],
  account = partition,
): ChargeSet {
  const limits = charges.map(({ limit }) => limit)
  return {
    partition,
    account,
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
  /** Units that may be used now, where the upstream lets through less than the limit, or others use it. */
  readonly effective?: number | undefined
}

/** Units of it that may be used now. */
export function allowedOf({ limit, effective }: LimitUsage): number {
  return effective === undefined ? limit.requests : effective
}

/** What the upstream's answer to one call teaches. `limit` is the number of a limit in the call's charge set. */
export type UpstreamFeedback =
  /** So many units it has counted; see `AdaptiveLimit`. It refused the call, maybe, because nothing remains until the reset. */
  | {
      readonly kind: 'counted'
      readonly limit: number
      readonly units: number
      readonly tolerance: number
      readonly resetMs: number
      readonly isRefused: boolean
    }
  /** It refused the call although there should be quota: somebody else uses it, or there is less of it. */
  | { readonly kind: 'refused'; readonly limit: number }
  /** It wants no calls of the account for so long. */
  | { readonly kind: 'pause'; readonly ms: number }

/** The answer to a charge: calls that may be sent now, and what has become of them since. */
export class Grant {
  readonly chargeSet: ChargeSet
  /** How many of the calls asked for may be sent; the others were not charged. */
  readonly granted: number
  /** Usage of each limit, in the charge set's order. */
  readonly usage: readonly LimitUsage[]
  /** When more will be free; undefined if everything asked for was granted to calls that had not waited. */
  readonly schedule: Schedule | undefined
  /** How many calls that waited in the same queue all gateways were granted so far, these included; undefined without a turn. */
  readonly turns: number | undefined
  /** The ledger's time of the charge. */
  readonly chargedAt: number
  /** The ledger's time of the charge, or of its last renewal. */
  at: number
  /** Calls of which no response headers are here yet, and calls that are not over. */
  uncommitted: number
  open: number
  /** Whether it was charged to a lease, without asking the store. */
  readonly isLocal: boolean

  constructor(
    chargeSet: ChargeSet,
    at: number,
    granted: number,
    usage: readonly LimitUsage[],
    { schedule, turns, isLocal = false }: GrantOptions = {},
  ) {
    this.chargeSet = chargeSet
    this.chargedAt = at
    this.at = at
    this.granted = granted
    this.usage = usage
    this.schedule = schedule
    this.turns = turns
    this.isLocal = isLocal
    this.uncommitted = granted
    this.open = granted
  }

  /** Whether the ledger still has to renew it. */
  get isInFlight(): boolean {
    return this.uncommitted > 0 || (this.open > 0 && this.chargeSet.hasConcurrent)
  }
}

interface GrantOptions {
  readonly schedule?: Schedule | undefined
  readonly turns?: number | undefined
  readonly isLocal?: boolean
}

/** The grant of calls that are charged to nothing: all of them, or none while the upstream wants none. */
export function uncounted(chargeSet: ChargeSet, wanted: number, now: number, pausedUntil: number): Grant {
  if (pausedUntil <= now) return new Grant(chargeSet, now, wanted, [])
  return new Grant(chargeSet, now, 0, [], { schedule: new Schedule(now, [], pausedUntil) })
}

/** Calls that are charged after they have waited. */
export interface Turn {
  /** Name of the queue, at all gateways. */
  readonly queue: string
  /** Of each call, in the order in which they are to be granted: its client, and what it costs that in fair queueing. */
  readonly costs: readonly (readonly [client: string, cost: number])[]
}

/**
 * Counts calls against quotas. The guarantee: an upstream that counts each call once, at any instant between its dispatch
 * and its response headers, never counts more than the limit in any window of that length, whatever the latencies.
 *
 * A call is charged when it is dispatched and charged anew, at the later time, when its response headers arrive. While it
 * is in flight its charge is renewed, and stands a little ahead (`inFlightLeaseMs`), so that it also outlives a gateway that dies.
 * A call that was given up counts for `countingToleranceMs` longer; one of which no byte was sent is taken back.
 *
 * It holds as long as: no gateway stands still for longer than a window (than half of a calendar window, or ten seconds, with
 * a call granted and not sent: that is charged to the window in which it was granted); the upstream counts nothing later than
 * `countingToleranceMs` (at most a window) after a call was given up or its gateway died; calendar windows of both sides begin within
 * `countingToleranceMs` of each other. A gateway that stands still for longer adds what it had in flight, and what was granted it and not
 * sent.
 * Its price: a saturated account is used to `window / (window + mean latency)`, less at most one in a hundred for counting in
 * buckets.
 */
export interface Ledger {
  /**
   * Charges up to `wanted` calls; those that do not fit into every limit of the charge set are refused and not charged. Throws,
   * or rejects with, `StoreUnavailableError` when the store can't be asked and there is no lease to spend. For calls that
   * have waited, which is what a `turn` says, the grant has a schedule in any case.
   */
  charge(chargeSet: ChargeSet, wanted: number, turn?: Turn): Grant | Promise<Grant>
  /**
   * Tells other gateways who waits in a queue here (nobody, where `demands` are empty), and who waits there; undefined where
   * there are none, or where they can't be asked now. What was told is forgotten after REPORT_TERM_MS, so a gateway that has
   * died is reckoned with no longer.
   */
  readonly exchange:
    | ((partition: string, queue: string, demands: readonly Demand[]) => Promise<PeerDemand | undefined>)
    | undefined
  /** The response headers of one call are here: the upstream can't count it later than now. */
  commit(grant: Grant): void
  /** One call was given up after it was sent: the upstream may count it a little later than now. */
  abandon(grant: Grant): void
  /** No byte of one call was sent: its charge is taken back. */
  refund(grant: Grant): void
  /** One call is not in flight any more, whatever became of it: it does not count any more among those at once. */
  leave(grant: Grant): void
  /** What the answer to one call taught; holds for every call that is charged later, by whatever gateway. */
  applyFeedback(grant: Grant, feedback: UpstreamFeedback): void
  /** What counts now, for metrics and the admin API. */
  usage(chargeSet: ChargeSet): Promise<readonly LimitUsage[]>
  /** Whether charges can be expected to work. */
  readonly isReady: boolean
  /** Whether quotas are kept otherwise than usual (such as by leases), because the store is away. */
  readonly isDegraded: boolean
  /** Why it is not ready or degraded, in words for people, if it is, and more is known than that the store is away. */
  readonly problem?: string | undefined
  close(): Promise<void>
}

/** How long other gateways reckon with what one has told them of those that wait there. */
export const REPORT_TERM_MS = 3_500

/** What happens while the store can't be asked: charges to leases, refusals, or calls that are not counted. */
export type OutagePolicy = 'lease' | 'closed' | 'open'

/** The store could not be asked, or did not answer in time. Whether the charge was made is unknown. */
export class StoreUnavailableError extends Error {
  /** Where the store answers, but calls may not be charged now: why, as a clause. */
  readonly held: string | undefined

  constructor(cause: unknown, held?: string) {
    super(held ?? 'the quota store did not answer', { cause })
    this.held = held
    this.name = 'StoreUnavailableError'
  }
}
