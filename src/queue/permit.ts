import type { ChargeSet, Grant, Ledger, UpstreamFeedback, LimitUsage } from '../ledger/ledger.ts'
import type { Limit } from '../ledger/limit.ts'

/** Gives permits, and is told what becomes of them. */
export interface Issuer {
  readonly ledger: Ledger
  /** The response headers of a call that was admitted at `since` are here. */
  committed(since: number): void
  /** The charge of a call was taken back. */
  refunded(): void
  /** A call is not in flight any more; `isCounted`: its limits count calls in flight. */
  left(isCounted: boolean): void
}

const NOTHING: readonly number[] = []

/**
 * Leave to send one call, which is charged and counts as in flight. Declare the permit with `using`: at the end of the
 * scope, even after an exception, it ends the charge (`giveUp`) and the time in flight (`leave`). If it is known sooner
 * how the call ended, one of `commit`, `abandon` and `refund` says so. `settle` and `leave` do the same for the cost
 * and the slot. A second telling is ignored.
 */
export class Permit implements Disposable {
  readonly #issuer: Issuer
  readonly #grant: Grant
  #since: number
  #isCharged = true
  /** Whether there is still a reservation to settle. */
  #isReserved: boolean
  /** What the call costs the limits of `atHead` and `atEnd`. */
  #head: readonly number[]
  #end: readonly number[]
  #isInFlight = true
  #isSent = false

  constructor(issuer: Issuer, grant: Grant, since: number) {
    this.#issuer = issuer
    this.#grant = grant
    this.#since = since
    this.#isReserved = grant.rest !== undefined
    this.#head = grant.part.units
    this.#end = grant.rest?.part.units ?? NOTHING
  }

  /** Whether the call may cost another amount than it was charged. */
  get isSettled(): boolean {
    return this.#grant.chargeSet.isSettled
  }

  /**
   * The limits whose cost `commit` tells, with what the call was charged there. `atEnd` has those whose cost `settle`
   * tells.
   */
  get atHead(): ChargeSet {
    return this.#grant.part
  }

  get atEnd(): ChargeSet | undefined {
    return this.#grant.rest?.part
  }

  get chargeSet(): ChargeSet {
    return this.#grant.chargeSet
  }

  /**
   * Units that the call costs each limit of its charge set. Where the cost is not known yet, they are what was charged.
   */
  get spent(): number[] {
    let [head, end] = [0, 0]
    return this.limits.map(({ settles }) => (settles === 'at-end' ? this.#end[end++]! : this.#head[head++]!))
  }

  /** Usage of the limits it was charged to, as of the charge; empty where the call is not limited. */
  get usage(): readonly LimitUsage[] {
    return this.#grant.usage
  }

  /** The limits it was charged to, in the order of their usage. */
  get limits(): readonly Limit[] {
    return this.#grant.chargeSet.limits
  }

  /** Whether it was charged to a lease, because the store could not be asked. */
  get isLocal(): boolean {
    return this.#grant.isLocal
  }

  /** Counts the time of the call from `now`, because the permit was kept for a call that came only now. */
  startAt(now: number): void {
    this.#since = now
  }

  /** From now on the upstream may have seen a byte of the call. */
  sent(): void {
    this.#isSent = true
  }

  /**
   * The response headers of the call are here: the upstream can't count it later than now. `units`: what it costs the
   * limits of `atHead`.
   */
  commit(units?: readonly number[]): void {
    if (!this.#takeCharge()) return
    this.#head = units ?? this.#head
    this.#issuer.ledger.commit(this.#grant, units)
    this.#issuer.committed(this.#since)
    this.#giveBack(this.#grant, units)
  }

  /** The call is over, and has cost the limits of `atEnd` these units. Without `settle` they keep what was reserved. */
  settle(units: readonly number[]): void {
    const { rest } = this.#grant
    if (rest === undefined || !this.#takeReservation()) return
    this.#end = units
    this.#issuer.ledger.commit(rest, units)
    this.#giveBack(rest, units)
  }

  /**
   * Tells the issuer if the call cost less than it was charged, because calls that wait may have the difference at
   * once.
   */
  #giveBack({ part }: Grant, units: readonly number[] | undefined): void {
    if (units?.some((spent, i) => spent < part.units[i]!) === true) this.#issuer.refunded()
  }

  /** The call was given up after it was sent: the upstream may count it a little later than now. */
  abandon(): void {
    const { ledger } = this.#issuer
    if (this.#takeCharge()) {
      this.#isReserved = false
      ledger.abandon(this.#grant)
    } else if (this.#takeReservation()) ledger.abandon(this.#grant.rest!)
  }

  /** No byte of the call was sent, so its charge is taken back. */
  refund(): void {
    if (!this.#takeCharge()) return
    this.#isReserved = false
    this.#head = this.#head.map(() => 0)
    this.#end = this.#end.map(() => 0)
    this.#issuer.ledger.refund(this.#grant)
    this.#issuer.refunded()
  }

  /** Applies what the answer says of the account or its limits. */
  applyFeedback(feedback: UpstreamFeedback): void {
    this.#issuer.ledger.applyFeedback(this.#grant, feedback)
  }

  /** The call is not in flight any more. */
  leave(): void {
    if (!this.#isInFlight) return
    this.#isInFlight = false
    try {
      if (this.#isCounted) this.#issuer.ledger.leave(this.#grant)
    } finally {
      this.#issuer.left(this.#grant.chargeSet.hasConcurrent)
    }
  }

  /** The call ended without a response, as far as is known: `abandon`, or `refund` where no byte was sent. */
  giveUp(): void {
    if (this.#isSent) this.abandon()
    else this.refund()
  }

  [Symbol.dispose](): void {
    try {
      this.giveUp()
    } finally {
      this.leave()
    }
  }

  #takeCharge(): boolean {
    if (!this.#isCharged) return false
    this.#isCharged = false
    return this.#isCounted
  }

  #takeReservation(): boolean {
    const isReserved = this.#isReserved
    this.#isReserved = false
    return isReserved
  }

  get #isCounted(): boolean {
    return this.#grant.chargeSet.limits.length > 0
  }
}
