import { Counter } from '../counter.ts'
import type { Grant } from '../ledger.ts'
import type { Limit } from '../limit.ts'
import type { CountedLimit } from '../limit-table.ts'

/** What one gateway knows of one limit that it shares with others through Redis. Amounts are units. */
export class LimitState implements CountedLimit {
  #limit: Limit
  readonly #isOffline: () => boolean
  /** The calls of this gateway alone. */
  own: Counter
  /** Of these, what Redis has not been told, or has forgotten. */
  unreplicated: Counter | undefined
  /** Set aside for this gateway in Redis, for when Redis can't be asked. */
  lease = 0
  /** The lease as it was when Redis was lost. Redis sets it aside while the lease lasts, whatever is spent of it. */
  reserve = 0
  /** What calls without an answer yet may take out of the lease. */
  asked = 0
  /** What they may have taken when Redis was lost. In that case Redis counts as much for this gateway's calls. */
  doubtful = 0
  /** The most that this gateway's own calls may count while all gateways are without Redis. */
  cap = 0

  constructor(limit: Limit, isOffline: () => boolean) {
    this.#limit = limit
    this.#isOffline = isOffline
    this.own = new Counter(limit)
  }

  get limit(): Limit {
    return this.#limit
  }

  set limit(limit: Limit) {
    this.#limit = limit
    this.own.limit = limit
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
    if (this.unreplicated !== undefined) this.unreplicated = movedTo(time, this.unreplicated)
  }

  commit({ at, isLocal }: Grant, units: number, time: number, laterMs: number): void {
    this.own.commit(time, at, units, laterMs)
    if (!this.#isOffline()) return
    // Where Redis counts the call already it will count it twice for a while: more than there was, never less.
    if (isLocal) this.unreplicatedCounter().commit(time, at, units, laterMs)
    else this.unreplicatedCounter().addCommitted(time, at, units, laterMs)
  }

  refund({ at, isLocal }: Grant, units: number, time: number): void {
    this.own.refund(time, at, units)
    if (isLocal && this.#isOffline()) this.unreplicated?.refund(time, at, units)
  }

  owe({ at }: Grant, units: number, time: number, laterMs: number): void {
    this.own.addCommitted(time, at, units, laterMs)
    if (!this.#isOffline()) return
    this.unreplicatedCounter().addCommitted(time, at, units, laterMs)
    this.lease = Math.max(0, this.lease - units)
  }

  renew({ at, isLocal }: Grant, units: number, time: number, to: number): void {
    this.own.renew(time, at, to, units)
    if (!this.#isOffline()) return
    if (isLocal) this.unreplicatedCounter().renew(time, at, to, units)
    else this.unreplicatedCounter().charge(time, to, units)
  }
}

function movedTo(time: number, counter: Counter): Counter {
  const moved = new Counter(counter.limit)
  for (const { units } of counter.charges(-Infinity)) moved.charge(time, time, units)
  return moved
}
