import type { Clock, Timer } from '../time/clock.ts'
import { Turns } from '../time/turns.ts'
import { type Grant, StoreUnavailableError } from '../ledger/ledger.ts'
import type { FairScheduler } from './fair-scheduler.ts'
import { type Issuer, Permit } from './permit.ts'
import type { QueuedCall } from './queued-call.ts'
import { Receivers } from './receivers.ts'
import type { QueueState } from './queue-state.ts'

/** How soon the ledger is asked again for calls that wait, after it could not be asked. */
const STORE_RETRY_MS = 100
/** The shortest time between two charges while calls wait at other gateways, too. */
const LOOK_NO_SOONER_MS = 10
/**
 * How soon the ledger is asked again while it works without its store. The store may be back long before any quota is.
 */
const LOOK_FOR_STORE_MS = 250
/** Timers that are set for the same time go off within this. */
const SAME_TIME_MS = 2
/**
 * How many calls are charged together. Each choice looks at every client, so to choose thousands at once would hold up
 * the event loop, and then Redis. The last of them would also be charged long before they are sent.
 */
const MOST_TOGETHER = 256

/**
 * Admits the calls that wait in one queue. It wakes when the first of them has its turn, when quota comes back early,
 * when a call that held a slot leaves, and when other gateways report.
 */
export class Dispatcher {
  readonly #state: QueueState
  readonly #issuer: Issuer
  readonly #wakeUp: WakeUp
  #isServing = false
  /** Why the ledger could not be asked for those that wait; undefined while it can. */
  storeError: StoreUnavailableError | undefined

  constructor(state: QueueState, issuer: Issuer) {
    this.#state = state
    this.#issuer = issuer
    this.#wakeUp = new WakeUp(state.clock, () => this.#onTime())
  }

  get isWakeUpSet(): boolean {
    return this.#wakeUp.isSet
  }

  /** When it wakes next; Infinity if that is not planned. */
  get dueAt(): number {
    return this.#wakeUp.at
  }

  /** The last call has left: there is nobody to wake up for. */
  rest(): void {
    this.#state.rivals.delete(this)
    this.#wakeUp.cancel()
  }

  /** Asks the ledger, although less quota may be free than is known of. */
  ask(): void {
    this.#state.forecast.expectMore()
    if (this.#state.waiting > 0) void this.serve()
  }

  #onTime(): void {
    const { rivals, clock } = this.#state
    rivals.letOthersAsk(this, clock.now() + SAME_TIME_MS)
    void this.serve(true)
  }

  /**
   * Admits as many calls as there is quota and concurrency for, in the order of the fair scheduler. Quota that stays
   * free for a while goes to the calls that wait here, even if it is the turn of others: their gateway may have died,
   * or their clients may have left. `isWakeUp`: the planned time of the wake-up has come.
   */
  async serve(isWakeUp = false): Promise<void> {
    const { forecast, peers } = this.#state
    if (this.#isServing || this.#state.waiting === 0) return
    this.#isServing = true
    this.#wakeUp.cancel()
    try {
      if (isWakeUp && this.#isStoreAway) forecast.expectMore()
      // Where calls wait at several gateways, what the others know decides whose turn it is. Where they wait at this one only, it
      // is enough to hear of the others now and then.
      if (peers.haveWaiting) {
        await peers.exchange()
        if (!forecast.isKnown) await this.#look()
      }
      while (await this.#serveOnce());
    } catch (error) {
      // The store may come back while calls still have time to wait. A call whose time is up is told of the error.
      if (error instanceof StoreUnavailableError) this.storeError = error
      else this.#failAll(error)
    } finally {
      this.#isServing = false
      this.wakeLater()
    }
  }

  /**
   * Plans to wake up shortly, because another call may be first now. When many calls leave at once, their order is
   * computed only once.
   */
  wakeSoon(): void {
    if (!this.#isServing) this.#wakeUp.in(this.#leastMs)
  }

  /** Plans to wake up when the first call that waits here has its turn. */
  wakeLater(): void {
    try {
      this.#planWakeUp()
    } catch (error) {
      this.#failAll(error)
    }
  }

  /**
   * Admits one batch of calls. Returns whether there may be quota for more: all chosen calls were granted, or quota
   * came back meanwhile.
   */
  async #serveOnce(): Promise<boolean> {
    const state = this.#state
    const { forecast, capacity, ledger, peers } = state
    const most = Math.min(capacity.free, state.waiting, MOST_TOGETHER)
    if (most <= 0) return false
    const { haveWaiting } = peers
    const scheduler = this.#order()
    const unclaimed = haveWaiting ? forecast.unclaimed : 0
    const { chosen, isTurnOfOthers } = scheduler.choose(most, forecast.free(), unclaimed)
    if (chosen.length === 0) {
      if (haveWaiting && forecast.isUnclaimedUnsure) await this.#look()
      return false
    }
    const grant = await this.#chargeInFlight(chosen, scheduler)
    const granted = Math.min(grant.granted, chosen.length)
    let admitted = 0
    try {
      this.storeError = undefined
      state.noteGrant(grant)
      const isAll = grant.granted >= chosen.length
      forecast.wasGranted(isAll, isTurnOfOthers)
      const now = state.clock.now()
      const turns = Turns.of(state.clock)
      const receivers = new Receivers(state, grant.chargeSet, chosen)
      while (admitted < granted) {
        // Calls may leave during this pause. So it comes before the next call is chosen.
        for (let full = turns.full(); full !== undefined; full = turns.full()) {
          await full
          receivers.forgetOrder()
        }
        const queuedCall = receivers.next()
        if (queuedCall === undefined) break
        const { because, wait, client } = queuedCall
        state.virtualService.add(client.name, scheduler.costOf(queuedCall))
        const permit = new Permit(this.#issuer, grant, now)
        // Once `end` returns true, the admitted call has to give the permit back.
        if (queuedCall.end({ kind: 'admitted', permit, because, ...(wait && { wait }) })) admitted++
        state.recentlyServed.add(client.name)
      }
      if (admitted > 0) state.rivals.served(this)
      // Quota that came back meanwhile is not charged to anybody yet, and the ledger's answer may be older than that.
      return isAll || forecast.isMoreFree
    } finally {
      // Grants that no call took go back: the calls left meanwhile, or an exception came before they were told.
      const left = grant.chargeSet.limits.length > 0 ? granted - admitted : 0
      for (let i = 0; i < left; i++) {
        ledger.refund(grant)
        ledger.leave(grant)
      }
      capacity.release(chosen.length - admitted)
      // Each time one other queue is asked.
      for (let i = 0; i < left; i++) state.rivals.gaveBack(this)
    }
  }

  /**
   * Returns the order of all calls that wait now. Makes the forecast one for calls like the first call that waits here.
   */
  #order(): FairScheduler {
    const { clientQueues, forecast } = this.#state
    const scheduler = this.#state.scheduler()
    const first = clientQueues.areVaried ? scheduler.next(Infinity).next().value?.queuedCall : clientQueues.any
    if (first !== undefined) forecast.startWith(first.chargeSet)
    return scheduler
  }

  /** Asks the ledger when quota comes back, without a charge, because it is the turn of calls at other gateways. */
  async #look(): Promise<void> {
    const { clientQueues, ledger, name } = this.#state
    const { any } = clientQueues
    if (any !== undefined) this.#state.noteGrant(await ledger.charge(any.chargeSet, 0, { queue: name, costs: [] }))
  }

  /** The calls count as in flight before the ledger answers. Else queues of one class could together exceed its concurrency. */
  async #chargeInFlight(chosen: readonly QueuedCall[], scheduler: FairScheduler): Promise<Grant> {
    const { capacity, ledger, name } = this.#state
    capacity.inFlight += chosen.length
    try {
      const costs = chosen.map((one) => [one.client.name, scheduler.costOf(one)] as const)
      return await ledger.charge(chosen[0]!.chargeSet, chosen.length, { queue: name, costs })
    } catch (error) {
      capacity.release(chosen.length)
      throw error
    }
  }

  readonly #onRelease = (): void => void this.serve()

  get #isStoreAway(): boolean {
    return this.storeError !== undefined || this.#state.forecast.isLocal
  }

  /**
   * The shortest time until a wake-up. It is at least a millisecond, because a timer may go off a fraction of one too
   * early, and would then find nothing free.
   */
  get #leastMs(): number {
    if (this.storeError !== undefined) return STORE_RETRY_MS
    return this.#state.peers.haveWaiting ? LOOK_NO_SOONER_MS : 1
  }

  /**
   * Fails all calls that wait, because the gateway has a bug. Otherwise they would hear of it only when their time is
   * up.
   */
  #failAll(error: unknown): void {
    void this.#state.clientQueues.endAll((queuedCall) => queuedCall.fail(error))
  }

  #planWakeUp(): void {
    const state = this.#state
    const { capacity, peers, forecast } = state
    if (state.waiting === 0 || this.#isServing) return
    state.rivals.add(this)
    // No timer can tell when a call in flight ends. The call itself tells, when it leaves its slot.
    if (capacity.free <= 0) {
      peers.blocked()
      return capacity.onRelease(this.#onRelease)
    }
    // Quota that came back while nobody could ask for it is asked for now. This is no busy loop, because `free` resets
    // `isMoreFree`.
    const turnMs = forecast.isMoreFree ? 0 : forecast.turnMs(this.#order().firstPosition)
    this.#wakeUp.in(Math.max(this.#leastMs, this.#isStoreAway ? Math.min(turnMs, LOOK_FOR_STORE_MS) : turnMs))
  }
}

/** A timer that goes off once, at the soonest of the times for which it is set. */
class WakeUp {
  readonly #clock: Clock
  readonly #onTime: () => void
  #timer: Timer | undefined
  #at = Infinity

  constructor(clock: Clock, onTime: () => void) {
    this.#clock = clock
    this.#onTime = onTime
  }

  get isSet(): boolean {
    return this.#timer !== undefined
  }

  get at(): number {
    return this.#at
  }

  in(delayMs: number): void {
    const at = this.#clock.now() + delayMs
    if (at >= this.#at) return
    this.cancel()
    this.#at = at
    this.#timer = this.#clock.schedule(delayMs, () => {
      this.cancel()
      this.#onTime()
    })
  }

  cancel(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#at = Infinity
  }
}
