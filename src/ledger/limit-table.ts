import type { ChargeSet, Grant } from './ledger.ts'
import type { Limit } from './limit.ts'

/** One limit of a partition, with the charges that count against it. Times are the ledger's, in milliseconds. */
export interface CountedLimit {
  limit: Limit
  /** The upstream can't count `units` of the grant later than `laterMs` after `now`. */
  commit(grant: Grant, units: number, now: number, laterMs: number): void
  refund(grant: Grant, units: number, now: number): void
  /** Charges `units` that a call has cost beyond its charge, even beyond the limit. */
  chargeMore(grant: Grant, units: number, now: number, laterMs: number): void
  /** Moves the charge of calls in flight to the time `to`. */
  renew(grant: Grant, units: number, now: number, to: number): void
}

/** When the limit charged the call of a grant that is in flight. A renewal moves the charge, but not that of a `smoothing` limit. */
export function chargedAt(grant: Grant, { kind }: Limit): number {
  return kind === 'smoothing' ? grant.chargedAt : grant.at
}

/**
 * The limits of one partition. This file has what both ledgers do alike: find the limits of a charge set, commit, refund, leave and
 * renew calls, and pause accounts.
 */
export class LimitTable<Counted extends CountedLimit> {
  readonly #make: (limit: Limit) => Counted
  readonly byId = new Map<string, Counted>()
  readonly #byChargeSet = new WeakMap<ChargeSet, readonly Counted[]>()

  constructor(make: (limit: Limit) => Counted) {
    this.#make = make
  }

  get all(): Iterable<Counted> {
    return this.byId.values()
  }

  /** The limits of a charge set, in its order. If a reload has changed what a limit allows, its charges stay. */
  of(chargeSet: ChargeSet): readonly Counted[] {
    let all = this.#byChargeSet.get(chargeSet)
    if (all === undefined) {
      all = chargeSet.limits.map((limit) => {
        const counted = this.byId.getOrInsertComputed(limit.id, () => this.#make(limit))
        if (limit.order > counted.limit.order) counted.limit = limit
        return counted
      })
      this.#byChargeSet.set(chargeSet, all)
    }
    return all
  }

  /**
   * The response headers of one call are here, or the call was given up (`isAbandoned`). `driftMs` is by how much the ledger's clock may
   * be behind. `spent` is what the call has cost each limit of `grant.part`; without it, the cost is the charge.
   */
  commit(grant: Grant, isAbandoned: boolean, now: number, driftMs = 0, spent?: readonly number[]): void {
    const { units } = grant.part
    const all = this.of(grant.part)
    for (let i = 0; i < all.length; i++) {
      const { kind, countingToleranceMs } = all[i]!.limit
      if (kind === 'concurrent') continue
      const laterMs = driftMs + (isAbandoned ? countingToleranceMs : 0)
      const surplus = spent === undefined || kind === 'smoothing' ? 0 : units[i]! - spent[i]!
      all[i]!.commit(grant, units[i]! - Math.max(0, surplus), now, laterMs)
      if (surplus > 0) all[i]!.refund(grant, surplus, now)
      else if (surplus < 0) all[i]!.chargeMore(grant, -surplus, now, laterMs)
    }
  }

  /** No byte of one call was sent, so no window counts it any more. `concurrent` limits count it until `leave`. */
  refund(grant: Grant, now: number): void {
    this.#takeBack(grant, false, now)
  }

  /** One call is over, so `concurrent` limits count it no longer. */
  leave(grant: Grant, now: number): void {
    this.#takeBack(grant, true, now)
  }

  #takeBack(grant: Grant, isConcurrent: boolean, now: number): void {
    const { units } = grant.part
    const all = this.of(grant.part)
    for (let i = 0; i < all.length; i++) {
      if ((all[i]!.limit.kind === 'concurrent') === isConcurrent) all[i]!.refund(grant, units[i]!, now)
    }
  }

  /** Moves the charges of all calls of a grant that are in flight to the time `to`. */
  renew(grant: Grant, now: number, to: number): void {
    const { part, open, uncommitted } = grant
    const all = this.of(part)
    for (let i = 0; i < all.length; i++) {
      const { kind } = all[i]!.limit
      if (kind === 'smoothing') continue // it counts calls when they are sent, and never again
      all[i]!.renew(grant, (kind === 'concurrent' ? open : uncommitted) * part.units[i]!, now, to)
    }
  }
}

/** Until when the upstream wants no calls, for each account. Times are milliseconds of the gateway's clock. */
export class Pauses {
  readonly #until = new Map<string, number>()

  /** A pause never becomes shorter. */
  add({ account }: Pick<ChargeSet, 'account'>, now: number, ms: number): void {
    this.#until.set(account, Math.max(this.#until.get(account) ?? 0, now + ms))
  }

  /** When the account's pause ends; 0 if the account is not paused. */
  until({ account }: ChargeSet, now: number): number {
    if (this.#until.size === 0) return 0
    const until = this.#until.get(account) ?? 0
    if (until > now) return until
    this.#until.delete(account)
    return 0
  }
}
