import { type Member, Roster } from '../../time/roster.ts'
import type { Clock, Timer } from '../../time/clock.ts'
import type { ChargeSet } from '../ledger.ts'

/** Something of one charge set that is to be sent. */
export class Due implements Member<Due> {
  readonly chargeSet: ChargeSet
  /** When it is sent even without a charge; Infinity unless it waits. While it waits, `delayMs` is the duration that it was given. */
  dueAt = Infinity
  delayMs = 0
  before: Due | undefined
  after: Due | undefined
  isListed = false

  constructor(chargeSet: ChargeSet) {
    this.chargeSet = chargeSet
  }
}

/**
 * What waits for a charge that takes it along. If none comes in time, it is sent alone. Each duration has a queue and a timer
 * of its own, so there must be few different ones.
 */
export class Postponed {
  readonly #clock: Clock
  readonly #send: (chargeSet: ChargeSet) => void
  /** By duration: what waits, in the order in which it came. */
  readonly #queues = new Map<number, { readonly waiting: Roster<Due>; timer: Timer | undefined }>()

  constructor(clock: Clock, send: (chargeSet: ChargeSet) => void) {
    this.#clock = clock
    this.#send = send
  }

  /** Sends it after `delayMs`, unless it is due sooner already. */
  add(due: Due, delayMs: number): void {
    const dueAt = this.#clock.now() + delayMs
    if (due.dueAt <= dueAt) return
    this.remove(due)
    due.dueAt = dueAt
    due.delayMs = delayMs
    const queue = this.#queues.getOrInsertComputed(delayMs, () => ({ waiting: new Roster(), timer: undefined }))
    queue.waiting.add(due)
    queue.timer ??= this.#clock.schedule(delayMs, () => this.#onDue(delayMs))
  }

  remove(due: Due): void {
    due.dueAt = Infinity
    this.#queues.get(due.delayMs)?.waiting.delete(due)
  }

  close(): void {
    for (const { timer } of this.#queues.values()) timer?.cancel()
    this.#queues.clear()
  }

  #onDue(delayMs: number): void {
    const queue = this.#queues.get(delayMs)
    if (queue === undefined) return
    queue.timer = undefined
    const now = this.#clock.now()
    const due: Due[] = []
    let next = queue.waiting.first
    for (; next !== undefined && next.dueAt <= now; next = next.after) due.push(next)
    if (next !== undefined) queue.timer = this.#clock.schedule(next.dueAt - now, () => this.#onDue(delayMs))
    // Sending one may have sent others along with it: their `dueAt` is Infinity then.
    for (const { dueAt, chargeSet } of due) if (dueAt <= now) this.#send(chargeSet)
  }
}
