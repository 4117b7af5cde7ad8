/*
 * src/ledger: who has used what of which limit: limits, rolling windows, adaptive limits, and the interface of both
 * stores.
 * It imports only http and time. Its two stores are folders of their own.
 * A change here must prove that no window is ever exceeded (npm run simulate, test/ledger, the mutation tests of
 * test/simulation).
 */

import type { Member } from '../time/roster.ts'
import type { PeerDemand, Demand } from './demand.ts'
import type { Limit } from './limit.ts'
import { Schedule } from './schedule.ts'

/** All limits that one kind of call is charged to, together or not at all, and how many units to each. */
export interface ChargeSet {
  /** Where the limits are counted, usually `upstream/account`. One step can charge limits of one partition only. */
  readonly partition: string
  /** The account whose calls are held back together when the upstream wants none of them for a while. */
  readonly account: string
  readonly limits: readonly Limit[]
  /** Units that one call is charged, in the order of the limits. */
  readonly units: readonly number[]
  /** Whether a call may cost another amount in the end than it is charged; see `Ledger.commit`. */
  readonly isSettled: boolean
  /** Where limits are settled at the end of a response: those that are not, and those that are. */
  readonly parts: { readonly atHead: ChargeSet; readonly atEnd: ChargeSet } | undefined
  /** Whether a limit counts calls in flight, so that a call counts after its response headers, too, until it is over. */
  readonly hasConcurrent: boolean
  /** How often the charges of calls in flight are renewed. */
  readonly renewMs: number
}

/**
 * Units that one call spends of each class. All limits of a class count the same call, so the largest counts once. What it costs in
 * money is no number of such units.
 */
export function unitsByClass({ limits, units }: Pick<ChargeSet, 'limits' | 'units'>): Map<string, number> {
  const spent = new Map<string, number>()
  for (const [i, limit] of limits.entries()) {
    if (limit.kind !== 'concurrent' && limit.unit === undefined)
      spent.set(limit.class, Math.max(spent.get(limit.class) ?? 0, units[i]!))
  }
  return spent
}

export function chargeSetOf(partition: string, charges: readonly Charge[], account = partition): ChargeSet {
  const atEnd = charges.filter(isSettledAtEnd)
  const whole = partOf(partition, charges, account)
  if (atEnd.length === 0) return whole
  const atHead = charges.filter((charge) => !isSettledAtEnd(charge))
  return {
    ...whole,
    parts: { atHead: partOf(partition, atHead, account), atEnd: partOf(partition, atEnd, account) },
  }
}

interface Charge {
  readonly limit: Limit
  readonly units?: number
}

function isSettledAtEnd({ limit }: Pick<Charge, 'limit'>): boolean {
  return limit.settles === 'at-end'
}

function partOf(partition: string, charges: readonly Charge[], account: string): ChargeSet {
  const limits = charges.map(({ limit }) => limit)
  return {
    partition,
    account,
    limits,
    units: charges.map(({ units = 1 }) => units),
    isSettled: limits.some(({ settles }) => settles !== 'at-once'),
    parts: undefined,
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
  /** Units that may be used now, if the upstream lets through less than the limit, or others use it. */
  readonly effective?: number | undefined
  /** What of the limit this region may use now, and what no region may, where it is split over regions. */
  readonly share?: number | undefined
  readonly stranded?: number | undefined
  /**
   * Units that are used or leased, as far as they are known by the store: never fewer than its script counts, or all that may be used
   * where leases do not fit beside what is used.
   */
  readonly committed?: number | undefined
  /** Whether the store was not asked: what may not be spent without it then counts as used, whether or not anybody used it. */
  readonly isLocal?: true | undefined
}

/** Units of the limit that may be used now. */
export function allowedOf({ limit, effective, share }: LimitUsage): number {
  return effective ?? share ?? limit.requests
}

/** What the upstream's answer to one call says of its limits. `limit` is the number of a limit in the call's charge set. */
export type UpstreamFeedback =
  /** It has counted so many units; see `AdaptiveLimit`. `isRefused`: it refused the call because nothing remains until the reset. */
  | {
      readonly kind: 'counted'
      readonly limit: number
      readonly units: number
      readonly tolerance: number
      readonly resetMs: number
      readonly isRefused: boolean
    }
  /** It refused the call although the limit has room: somebody else uses the limit, or it is smaller than configured. */
  | { readonly kind: 'refused'; readonly limit: number }
  /** It wants no calls of the account for `ms`. */
  | { readonly kind: 'pause'; readonly ms: number }

/** The answer to a charge: calls that may be sent now, and how many of them are still in flight. */
export class Grant implements Member<Grant> {
  readonly chargeSet: ChargeSet
  /** Those of its limits that are told what becomes of its calls by this grant, and not by `rest`. */
  readonly part: ChargeSet
  /** The same calls, for the limits that are settled at the end of their responses. */
  readonly rest: Grant | undefined
  /** How many of the calls asked for may be sent; the others were not charged. */
  readonly granted: number
  /** Usage of each limit, in the charge set's order. */
  readonly usage: readonly LimitUsage[]
  /** When more will be free; undefined if everything was granted, to calls that had not waited. */
  readonly schedule: Schedule | undefined
  /** How many calls that had waited in the same queue all gateways were granted so far, these included; undefined without a turn. */
  readonly turns: number | undefined
  /** The ledger's time of the charge. */
  readonly chargedAt: number
  /** The ledger's time of the charge, or of its last renewal. */
  at: number
  /** Calls without response headers so far, and calls that are not over. */
  uncommitted: number
  open: number
  /** Whether it was charged to a lease, without asking the store. */
  readonly isLocal: boolean
  before: Grant | undefined
  after: Grant | undefined
  isListed = false
  /** By which a worker and the first process know it; see `AskedLedger`. */
  slot = -1

  constructor(
    chargeSet: ChargeSet,
    at: number,
    granted: number,
    usage: readonly LimitUsage[],
    { schedule, turns, isLocal = false }: GrantOptions = {},
  ) {
    const { parts } = chargeSet
    this.chargeSet = chargeSet
    this.part = parts?.atHead ?? chargeSet
    this.rest =
      parts === undefined || granted === 0
        ? undefined
        : new Grant(parts.atEnd, at, granted, usage.filter(isSettledAtEnd), { isLocal })
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

  /** Usage of the limits of its part, in their order. */
  get partUsage(): readonly LimitUsage[] {
    return this.rest === undefined ? this.usage : this.usage.filter((one) => !isSettledAtEnd(one))
  }

  /** Whether the ledger still has to renew it. */
  get isInFlight(): boolean {
    const { limits, hasConcurrent } = this.part
    return (this.uncommitted > 0 && limits.length > 0) || (this.open > 0 && hasConcurrent)
  }
}

interface GrantOptions {
  readonly schedule?: Schedule | undefined
  readonly turns?: number | undefined
  readonly isLocal?: boolean
}

/** The grant of calls that no limit counts: all of them, or none while their account is paused. */
export function uncounted(chargeSet: ChargeSet, wanted: number, now: number, pausedUntil: number): Grant {
  if (pausedUntil <= now) return new Grant(chargeSet, now, wanted, [])
  return new Grant(chargeSet, now, 0, [], { schedule: new Schedule(now, [], pausedUntil) })
}

/** Says that the calls to charge have waited in a queue. */
export interface Turn {
  /** Name of the queue, at all gateways. */
  readonly queue: string
  /** For each call, in the order of granting: its client, and what the call costs the client in fair queueing. */
  readonly costs: readonly (readonly [client: string, cost: number])[]
}

/**
 * Counts calls against quotas.
 *
 * Guarantee: an upstream that counts each call once, at any instant between its dispatch and its response headers, never counts
 * more than the limit in any window of that length, whatever the latencies are.
 *
 * A call is charged when it is dispatched and charged anew, at the later time, when its response headers arrive. While it
 * is in flight its charge is renewed, and stands a little ahead (`inFlightLeaseMs`), so that it also outlives a gateway that dies.
 * A call that was given up counts for `countingToleranceMs` longer; one of which no byte was sent is taken back.
 *
 * Where a limit is settled at the end of responses, the call is in flight until then, and its charge is a reservation. An upstream that
 * counts what the call really costs, at any instant between its dispatch and the end of its response, never counts more than the
 * limit as long as no call costs more than was reserved for it. What one costs more is what a window may exceed the limit by: it is
 * charged when it is known, and later calls wait for it. A call of which the cost never becomes known is charged its reservation.
 *
 * A window of the calendar may last 31 days, and a day 25 hours. A call counts in every window in which the vendor may count it, by a
 * clock that differs by `countingToleranceMs`: so no window begins sooner here than it can there. What was charged stays until its
 * window ends, over restarts and in both stores, also if its rules of the time zone were changed meanwhile. Redis forgets it one window later.
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
   * Tells other gateways who waits in a queue here (nobody if `demands` is empty), and returns who waits there. Undefined if there
   * are no other gateways, or if they can't be asked now. What a gateway has told is forgotten after REPORT_TERM_MS, so a dead
   * gateway does not hold up the others.
   */
  readonly exchange:
    | ((partition: string, queue: string, demands: readonly Demand[]) => Promise<PeerDemand | undefined>)
    | undefined
  /**
   * The response headers of one call are here, or of `grant.rest` its end: the upstream can't count it later than now. `units` are what
   * the call has cost each limit of the grant's part, where that is not what it was charged: what is left of the charge is free at
   * once, and what is missing is charged even beyond the limit, so that later calls wait for it.
   */
  commit(grant: Grant, units?: readonly number[]): void
  /** One call was given up after it was sent: the upstream may still count it, as it was charged, a little later than now. */
  abandon(grant: Grant): void
  /** No byte of one call was sent: its charge is taken back. So is that of `grant.rest`. */
  refund(grant: Grant): void
  /** One call is not in flight any more, whatever became of it: limits of calls in flight count it no longer. */
  leave(grant: Grant): void
  /** Applies what the answer to one call says to every call that is charged later, by any gateway. */
  applyFeedback(grant: Grant, feedback: UpstreamFeedback): void
  /** Usage of each limit now, for metrics and the admin API. */
  usage(chargeSet: ChargeSet): Promise<readonly LimitUsage[]>
  /** Whether charges can be expected to work. */
  readonly isReady: boolean
  /** Whether quotas are kept otherwise than usual (such as by leases), because the store is away. */
  readonly isDegraded: boolean
  /** Why it is not ready or degraded, in words for people, if it is, and more is known than that the store is away. */
  readonly problem?: string | undefined
  /** Why the region has to do with its reserve, if quotas are split over regions and it has. */
  readonly regionProblem?: string | undefined
  close(): Promise<void>
}

/** For how long other gateways rely on what one has told them of its waiting calls. */
export const REPORT_TERM_MS = 3_500

/** What happens while the store can't be asked: calls are charged to leases, refused, or sent without being counted. */
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
