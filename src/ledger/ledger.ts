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
  /** Whether a call may cost more or less in the end than it is charged; see `Ledger.commit`. */
  readonly isSettled: boolean
  /** `atEnd` has the limits that are settled at the end of a response, `atHead` the others. Undefined if none is settled at the end. */
  readonly parts: { readonly atHead: ChargeSet; readonly atEnd: ChargeSet } | undefined
  /** Whether a limit counts calls in flight. It counts a call until the call is over, even after its response headers. */
  readonly hasConcurrent: boolean
  /** Milliseconds between two renewals of the charges of calls in flight. */
  readonly renewMs: number
}

/**
 * Units that one call spends of each class. All limits of a class count the same call, so only the largest amount is taken. Limits on
 * money or on calls in flight are left out.
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
  // They may be more than a function takes as arguments: an account may count each client apart.
  const renewMs = limits.reduce((least, one) => Math.min(least, one.renewMs), Infinity)
  return {
    partition,
    account,
    limits,
    units: charges.map(({ units = 1 }) => units),
    isSettled: limits.some(({ settles }) => settles !== 'at-once'),
    parts: undefined,
    hasConcurrent: limits.some(({ kind }) => kind === 'concurrent'),
    renewMs,
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
  /** Units that this region may use now, if the limit is split over regions. */
  readonly share?: number | undefined
  /** Units that no region may use now, because they are on their way from one region to another. */
  readonly stranded?: number | undefined
  /**
   * Units that are used or leased, as far as they are known by the store: never fewer than its script counts, or all that may be used
   * where leases do not fit beside what is used.
   */
  readonly committed?: number | undefined
  /** Whether the store was not asked. Then units that may not be spent without asking it count as used, even if nobody used them. */
  readonly isLocal?: true | undefined
}

/** Units of the limit that may be used now. */
export function allowedOf({ limit, effective, share }: LimitUsage): number {
  return effective ?? share ?? limit.requests
}

/** What the upstream's answer to one call says of its limits. `limit` is the number of a limit in the call's charge set. */
export type UpstreamFeedback =
  /**
   * The upstream has counted `units`, which may be off by `tolerance`; see `AdaptiveLimit`. `isRefused`: it refused the call because
   * nothing remains until the reset.
   */
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

/** The answer to a charge: how many calls may be sent now, and how many of them are still in flight. */
export class Grant implements Member<Grant> {
  readonly chargeSet: ChargeSet
  /** The limits that are told by this grant what becomes of its calls. The other limits are told by `rest`. */
  readonly part: ChargeSet
  /** The same calls, for the limits that are settled at the end of their responses. */
  readonly rest: Grant | undefined
  /** How many of the calls asked for may be sent; the others were not charged. */
  readonly granted: number
  /** Usage of each limit, in the charge set's order. */
  readonly usage: readonly LimitUsage[]
  /** When more will be free. Undefined if all were granted, unless they had a `QueueTurn` and a limit counts them. */
  readonly schedule: Schedule | undefined
  /** How many calls of the same queue were granted so far after a wait, at all gateways, these included. Undefined without a `QueueTurn`. */
  readonly turns: number | undefined
  /** The ledger's time of the charge. */
  readonly chargedAt: number
  /** The ledger's time of the charge, or of its last renewal. */
  at: number
  /** Calls whose response headers are not here yet. */
  uncommitted: number
  /** Calls that are not over. */
  open: number
  /** Whether the calls were charged to a lease, without asking the store. */
  readonly isLocal: boolean
  before: Grant | undefined
  after: Grant | undefined
  isListed = false
  /** The number by which a worker and the first process know this grant; see `WorkerLedger`. */
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
export interface QueueTurn {
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
 * A call is charged when it is dispatched, and charged anew, at the later time, when its response headers arrive. While it is in
 * flight, its charge is renewed. The charge is dated a little ahead (`inFlightLeaseMs`), so it outlives a gateway that dies. A call
 * that was given up counts for `countingToleranceMs` longer. If no byte of a call was sent, its charge is taken back.
 *
 * Where a limit is settled at the end of responses, the call is in flight until then, and its charge is a reservation. An upstream that
 * counts what the call really costs, at any instant between its dispatch and the end of its response, never counts more than the
 * limit as long as no call costs more than was reserved for it. If calls cost more, a window may exceed the limit by these excesses.
 * An excess is charged as soon as it is known, and later calls wait for it. If the cost never becomes known, the reservation stays
 * charged.
 *
 * A calendar window may last 31 days, and a day 25 hours. A call counts in every window in which the vendor may count it, if the two
 * clocks differ by at most `countingToleranceMs`. A charge stays until its window ends, in both stores, over restarts and changes of
 * the time zone's rules. Redis forgets it one window later.
 *
 * The guarantee holds as long as:
 * - No gateway stands still for longer than a window. With a call that was granted but not sent, it stands still for at most
 *   half of a calendar window, or ten seconds if that is less, because the call is charged to the window in which it was granted.
 * - The upstream counts nothing later than `countingToleranceMs` (at most a window) after a call was given up or its gateway died.
 * - Calendar windows of both sides begin within `countingToleranceMs` of each other.
 *
 * If a gateway stands still for longer, a window may exceed the limit by the calls that it had in flight or had not sent yet.
 *
 * The price: a saturated account gets `window / (window + mean latency)` of its quota. Counting in buckets takes at most a hundredth
 * more.
 */
export interface Ledger {
  /**
   * Charges up to `wanted` calls. Calls that do not fit into every enforced limit of the charge set are not granted and not charged.
   * Throws, or rejects with, `StoreUnavailableError` if the store can't be asked and there is no lease to spend. A `turn` says that the
   * calls have waited. The grant then has a schedule even if all are granted, unless no limit counts them.
   */
  charge(chargeSet: ChargeSet, wanted: number, turn?: QueueTurn): Grant | Promise<Grant>
  /**
   * Tells other gateways which calls wait in a queue here (none if `demands` is empty). Resolves with the calls that wait there, or with
   * undefined if that can't be asked now. The property itself is undefined if there are no other gateways. What a gateway has told is
   * forgotten after REPORT_TERM_MS, so a dead gateway does not hold up the others.
   */
  readonly exchange:
    | ((partition: string, queue: string, demands: readonly Demand[]) => Promise<PeerDemand | undefined>)
    | undefined
  /**
   * The response headers of one call are here or, for `grant.rest`, its response has ended. The upstream can't count the call later
   * than now. `units` are what the call has cost each limit of `grant.part`; without them, the cost is the charge. What the call has
   * not spent is free at once. What it has spent beyond its charge is charged even beyond the limit, and later calls wait for it.
   */
  commit(grant: Grant, units?: readonly number[]): void
  /** One call was given up after it was sent. Its charge stays, because the upstream may count it up to `countingToleranceMs` from now. */
  abandon(grant: Grant): void
  /** No byte of one call was sent. Its charges to `grant` and to `grant.rest` are taken back. `leave` must still be called. */
  refund(grant: Grant): void
  /** One call is not in flight any more, whatever became of it. `concurrent` limits count it no longer. */
  leave(grant: Grant): void
  /** Applies what the answer to one call says of its limits. It holds for all later charges, by any gateway. */
  applyFeedback(grant: Grant, feedback: UpstreamFeedback): void
  /** Usage of each limit now, for metrics and the admin API. */
  usage(chargeSet: ChargeSet): Promise<readonly LimitUsage[]>
  /** Whether charges can be expected to work. */
  readonly isReady: boolean
  /** Whether quotas are kept in another way than usual, such as by leases, because the store can't be used. */
  readonly isDegraded: boolean
  /** Why the ledger is not ready, or is degraded, in words for people. Undefined if it is neither, or if no more is known. */
  readonly problem?: string | undefined
  /** Why this region may use only its reserve, in words for people. Undefined if it may use more. */
  readonly regionProblem?: string | undefined
  close(): Promise<void>
}

/** For how long other gateways rely on what a gateway has told them of its waiting calls. */
export const REPORT_TERM_MS = 3_500

/** What happens while the store can't be asked: calls are charged to leases, refused, or sent without being counted. */
export type OutagePolicy = 'lease' | 'closed' | 'open'

/** The store could not be asked, or did not answer in time. Whether the charge was made is unknown. */
export class StoreUnavailableError extends Error {
  /** Why calls may not be charged now although the store answers, as a clause. Undefined for any other cause. */
  readonly held: string | undefined

  constructor(cause: unknown, held?: string) {
    super(held ?? 'the quota store did not answer', { cause })
    this.held = held
    this.name = 'StoreUnavailableError'
  }
}
