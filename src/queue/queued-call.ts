import type { Subscription } from '../time/cancellation.ts'
import type { Timer } from '../time/clock.ts'
import type { Admission, Full, QueuedClient, Shortage, Waiter, WaitRecord } from './admission.ts'
import type { Priority } from '../ledger/demand.ts'
import type { ChargeSet } from '../ledger/ledger.ts'

interface Taken {
  readonly because: Shortage
  /** Undefined for a claim. */
  readonly wait?: WaitRecord
  readonly arrivedAt: number
  /** Called once when the wait ends, before `ended` settles. */
  readonly onEnd: (queuedCall: QueuedCall) => void
  /** Called to end the wait, because another call gets the place. Undefined for a claim, which takes none. */
  readonly onOutdone?: (queuedCall: QueuedCall, full: Full) => void
  /** It stands for a call that was refused and told to come back, so no call waits. */
  readonly isClaim?: boolean
}

/** A call that waits, until its wait ends in one way or another. */
export class QueuedCall {
  chargeSet: ChargeSet
  readonly client: QueuedClient
  readonly priority: Priority
  readonly because: Shortage
  readonly wait: WaitRecord | undefined
  readonly arrivedAt: number
  readonly isClaim: boolean
  before: QueuedCall | undefined
  behind: QueuedCall | undefined
  /** Ends the wait when its time is up. */
  deadline: Timer | undefined
  /** Ends the wait when the client has gone. */
  cancellation: Subscription | undefined
  isWaiting = true
  readonly ended: Promise<Admission>
  readonly #onEnd: Taken['onEnd']
  readonly #onOutdone: Taken['onOutdone']
  readonly #resolve: (admission: Admission) => void
  readonly #reject: (error: unknown) => void

  constructor(waiter: Waiter, { because, wait, arrivedAt, onEnd, onOutdone, isClaim = false }: Taken) {
    this.chargeSet = waiter.chargeSet
    this.client = waiter.client
    this.priority = waiter.priority
    this.because = because
    this.wait = wait
    this.arrivedAt = arrivedAt
    this.isClaim = isClaim
    this.#onEnd = onEnd
    this.#onOutdone = onOutdone
    const { promise, resolve, reject } = Promise.withResolvers<Admission>()
    this.ended = promise
    this.#resolve = resolve
    this.#reject = reject
  }

  /**
   * Ends the wait with `admission`, and returns true. If an error prevents that, `ended` rejects with the error, and it
   * returns false.
   */
  end(admission: Admission): boolean {
    try {
      this.#leave()
    } catch (error) {
      this.#reject(error)
      return false
    }
    this.#resolve(admission)
    return true
  }

  /** Another call gets its place. */
  outdone(full: Full): void {
    this.#onOutdone?.(this, full)
  }

  fail(error: unknown): void {
    try {
      this.#leave()
    } catch {
      // The call is told of the first error.
    }
    this.#reject(error)
  }

  #leave(): void {
    if (!this.isWaiting) return
    this.isWaiting = false
    this.#onEnd(this)
    this.deadline?.cancel()
    this.cancellation?.[Symbol.dispose]()
  }
}
