import { Counter } from '../counter.ts'
import type { Grant } from '../ledger.ts'
import { BUCKETS, type Limit } from '../limit.ts'
import { chargedAt, type CountedLimit } from '../limit-table.ts'
import { NOTED_MS } from './answers.ts'

/**
 * A calendar window tells only how many units were charged, not when. For so long, the times are remembered as well: in short
 * steps for the first of these, and in longer steps for the last.
 */
const RECENT_MS = [600_000, NOTED_MS]

/** What one gateway knows of one limit that it shares with others through Redis. Amounts are units. */
export class LimitState implements CountedLimit {
  readonly #isOffline: () => boolean
  /** The calls of this gateway alone. */
  own: Counter
  /** For a calendar limit: the calls of the last RECENT_MS, by when they were charged. */
  #recent: Counter[] = []
  /**
   * What of own calls Redis has not been told, or has forgotten. While offline, each change to a call is made here as in `own`,
   * even if Redis counts the call already. In each bucket, Redis and this counter together then have no less than `own`: a
   * change takes as many units from this counter as from `own`, or this counter has fewer. If the units are those of another
   * call, Redis still has as many of this call in that bucket. So a call that was in flight when Redis went away counts there
   * once more each time that Redis is told, and not for each renewal. If Redis has lost what it counted, this counter is made
   * anew out of `own`.
   */
  unreplicated: Counter | undefined
  /** Units that Redis sets aside for this gateway, to be spent while Redis can't be asked. */
  lease = 0
  /** Until when Redis sets the lease aside, by the gateway's clock. */
  leasedUntil = 0
  /** The lease as it was when Redis was lost. Redis sets it aside while the lease lasts, whatever is spent of it. */
  reserve = 0
  /** What calls of the script that are not answered yet may take out of the lease. */
  asked = 0
  /** What such calls may have taken out of the lease when Redis was lost. If they did, Redis counts as much for this gateway's calls. */
  doubtful = 0
  /** The most that this gateway's own calls may count while all gateways are without Redis. */
  cap = 0

  constructor(limit: Limit, isOffline: () => boolean) {
    this.#isOffline = isOffline
    this.own = new Counter(limit)
    if (limit.kind === 'calendar' && limit.windowMs > RECENT_MS[0]!)
      this.#recent = RECENT_MS.map((ms) => new Counter(recentOf(limit, ms)))
  }

  get limit(): Limit {
    return this.own.limit
  }

  set limit(limit: Limit) {
    this.own.limit = limit
  }

  charge(time: number, at: number, units: number): void {
    this.own.charge(time, at, units)
    for (const recent of this.#recent) recent.charge(time, at, units)
  }

  /** Redis lacks what was charged, renewed or committed since `since`. Both times are by Redis's clock. */
  markUnreplicatedSince(since: number, time: number): void {
    const recent = this.#recent[RECENT_MS.findIndex((ms) => since >= time - ms)]
    const unreplicated = (this.unreplicated = new Counter(this.limit))
    if (recent === undefined) {
      // One bucket more than needed is taken: buckets begin here a rounding error before or after those of Redis. If the clock
      // was set back after `since`, the counter may have gone back with it. Then all of its buckets are before `since`, and all
      // are taken.
      const isAhead = this.own.bucketOf(since) > this.own.bucketOf(time) + this.limit.kept
      const first = isAhead ? -Infinity : this.own.bucketOf(since) - 1
      for (const { bucket, units } of this.own.charges(time))
        if (bucket >= first) unreplicated.restore(time, bucket, units)
      return
    }
    const first = recent.bucketOf(since) - 1
    for (const { bucket, units } of recent.charges(time)) {
      if (bucket < first) continue
      const aheadMs = bucket >= recent.bucketOf(time) ? this.limit.inFlightLeaseMs : 0
      unreplicated.addCommitted(time, recent.startOf(bucket) - aheadMs, units, recent.startOf(bucket + 1) - time)
    }
  }

  /** Units of own calls that count now. */
  used(time: number): number {
    return this.limit.requests - this.own.free(time)
  }

  /** What Redis keeps for own calls: those that it knows of, and the lease. What was spent of the lease comes back by itself. */
  reserved(time: number): number {
    const known = this.used(time) - (this.unreplicated?.used(time) ?? 0)
    return Math.max(0, known) + this.reserve
  }

  unreplicatedCounter(): Counter {
    return (this.unreplicated ??= new Counter(this.limit))
  }

  /** Everything was counted by another clock. From now on it counts as charged at `time`. */
  rebase(time: number): void {
    this.own = movedTo(time, this.own)
    this.#recent = this.#recent.map((recent) => movedTo(time, recent))
    if (this.unreplicated !== undefined) this.unreplicated = movedTo(time, this.unreplicated)
  }

  commit({ at }: Grant, units: number, time: number, laterMs: number): void {
    this.own.commit(time, at, units, laterMs)
    for (const recent of this.#recent) recent.commit(time, at, units, laterMs)
    if (this.#isOffline()) this.unreplicatedCounter().commit(time, at, units, laterMs)
  }

  refund(grant: Grant, units: number, time: number): void {
    const at = chargedAt(grant, this.limit)
    this.own.refund(time, at, units)
    for (const recent of this.#recent) recent.refund(time, at, units)
    if (this.#isOffline()) this.unreplicated?.refund(time, at, units)
  }

  chargeMore({ at }: Grant, units: number, time: number, laterMs: number): void {
    this.own.addCommitted(time, at, units, laterMs)
    for (const recent of this.#recent) recent.addCommitted(time, at, units, laterMs)
    if (!this.#isOffline()) return
    this.unreplicatedCounter().addCommitted(time, at, units, laterMs)
    this.lease = Math.max(0, this.lease - units)
  }

  renew({ at }: Grant, units: number, time: number, to: number): void {
    this.own.renew(time, at, to, units)
    for (const recent of this.#recent) recent.renew(time, at, to, units)
    if (this.#isOffline()) this.unreplicatedCounter().renew(time, at, to, units)
  }
}

function recentOf(limit: Limit, ms: number): Limit {
  return { ...limit, kind: 'rolling', calendar: undefined, bucketMs: ms / BUCKETS, kept: BUCKETS }
}

function movedTo(time: number, counter: Counter): Counter {
  const moved = new Counter(counter.limit)
  for (const { units } of counter.charges(-Infinity)) moved.charge(time, time, units)
  return moved
}
