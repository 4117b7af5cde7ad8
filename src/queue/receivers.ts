import type { ChargeSet } from '../ledger/ledger.ts'
import type { QueueState } from './queue-state.ts'
import type { QueuedCall } from './queued-call.ts'

/**
 * The calls that get what was granted: the chosen ones that still wait. A chosen call that has left is replaced by the next in order, if
 * that one has the same charge set.
 */
export class Receivers {
  readonly #state: Pick<QueueState, 'waiting' | 'scheduler'>
  readonly #chargeSet: ChargeSet
  readonly #chosen: Iterator<QueuedCall>
  /** The order of all calls that wait. To make it is to look at every client, so it is kept until the next pause: only then may calls leave. */
  #order: Iterator<{ readonly queuedCall: QueuedCall }> | undefined

  constructor(state: Pick<QueueState, 'waiting' | 'scheduler'>, chargeSet: ChargeSet, chosen: readonly QueuedCall[]) {
    this.#state = state
    this.#chargeSet = chargeSet
    this.#chosen = chosen.values()
  }

  /** Must be called after each pause, because calls may have left. */
  forgetOrder(): void {
    this.#order = undefined
  }

  /** The next call to admit; undefined if none is left. The caller must admit it before it asks for another one. */
  next(): QueuedCall | undefined {
    for (let next = this.#chosen.next(); next.done !== true; next = this.#chosen.next()) {
      if (next.value.isWaiting) return next.value
    }
    // Without calls of its own, the order would be searched to the last call of the other gateways.
    if (this.#state.waiting === 0) return undefined
    this.#order ??= this.#state.scheduler().next(Infinity)
    const next = this.#order.next().value?.queuedCall
    // A call that could not be taken out of its queue stands there still, but does not wait.
    return next?.isWaiting === true && next.chargeSet === this.#chargeSet ? next : undefined
  }
}
