import type { Grant, Lesson, LimitUsage } from './ledger.ts'
import type { Limit } from './limit.ts'
import type { WaitingRoom } from './waiting-room.ts'

/** A call that may be sent now. Exactly one of `settle`, `abandon` and `refund` must follow, then `leave`; or `giveBack`. */
export class Permit {
  readonly #room: WaitingRoom
  readonly #grant: Grant
  readonly #since: number

  constructor(room: WaitingRoom, grant: Grant, since: number) {
    this.#room = room
    this.#grant = grant
    this.#since = since
  }

  /** Usage of the limits it was charged to, as of the charge; empty where the call is not limited. */
  get usage(): readonly LimitUsage[] {
    return this.#grant.usage
  }

  /** The limits it was charged to, in the order of their usage. */
  get limits(): readonly Limit[] {
    return this.#grant.meter.limits
  }

  /** Whether it was charged to a lease, because the store could not be asked. */
  get isLocal(): boolean {
    return this.#grant.isLocal
  }

  /** Its response headers are here: the upstream can't count it later than now. */
  settle(): void {
    if (!this.#isCounted) return
    this.#room.ledger.settle(this.#grant)
    this.#room.settled(this.#since)
  }

  /** It was given up after it was sent: the upstream may count it a little later than now. */
  abandon(): void {
    if (this.#isCounted) this.#room.ledger.abandon(this.#grant)
  }

  /** No byte of it was sent. */
  refund(): void {
    if (!this.#isCounted) return
    this.#room.ledger.refund(this.#grant)
    this.#room.refunded()
  }

  /** What its answer taught of the account or its limits. */
  learn(lesson: Lesson): void {
    this.#room.ledger.learn(this.#grant, lesson)
  }

  /** It is not in flight any more. */
  leave(): void {
    if (this.#isCounted) this.#room.ledger.leave(this.#grant)
    this.#room.left(this.#grant.meter.hasConcurrent)
  }

  /** It will not be sent. */
  giveBack(): void {
    this.refund()
    this.leave()
  }

  get #isCounted(): boolean {
    return this.#grant.meter.limits.length > 0
  }
}
