/*
 * src/queue: calls that wait for quota, whose turn it is, and when that will be, over all gateways.
 * It imports only ledger, http and time.
 * A change here must prove that nobody starves, and that whoever leaves gives back all that it held (test/queue,
 * test/simulation).
 */

import type { ChargeSet, Grant, Ledger } from '../ledger/ledger.ts'
import type { Limit } from '../ledger/limit.ts'
import type { Admission, Closing, Full, QueuedClient, Shortage, Waiter, WaitRecord } from './admission.ts'
import { Claims } from './claims.ts'
import { Dispatcher } from './dispatcher.ts'
import { estimateEta } from './forecast.ts'
import { type Issuer, Permit } from './permit.ts'
import { QueuedCall } from './queued-call.ts'
import { type AdmissionQueueOptions, QueueState } from './queue-state.ts'

/** The calls of one client that wait in a queue, for the admin API. */
export interface QueueView {
  readonly client: string
  readonly waiting: number
  /** Milliseconds until the first of these calls is admitted, as expected now; `lastInMs` says the same of the last. */
  readonly nextInMs: number
  readonly lastInMs: number
}

/**
 * The queue in which the calls of one account and class wait for the same quota. The queues of one name at all gateways act as one.
 * Clients are served by weighted fair queueing. The calls of one client are served by priority, then in the order of their arrival. A
 * call passes at once if there is quota and nobody waits. A call that is expected to wait longer than it may is refused at once.
 */
export class AdmissionQueue implements Issuer {
  readonly ledger: Ledger
  readonly name: string
  readonly partition: string
  readonly #state: QueueState
  readonly #dispatcher: Dispatcher
  readonly #claims: Claims
  #closing: Closing | undefined

  constructor(options: AdmissionQueueOptions) {
    this.ledger = options.ledger
    this.name = options.name
    this.partition = options.partition
    this.#state = new QueueState(options, () => this.#dispatcher.wakeLater())
    this.#dispatcher = new Dispatcher(this.#state, this)
    this.#claims = new Claims(options.clock)
  }

  get waiting(): number {
    return this.#state.waiting
  }

  /** Each client whose calls wait here, and how much longer they wait. */
  view(): QueueView[] {
    const { clock, forecast, clientQueues } = this.#state
    const scheduler = this.#state.scheduler()
    // One instant for both times: if time passed between them, the last call could seem to come before the first.
    const now = clock.now()
    const queues = [...clientQueues.byClient.values()].filter(({ waiting }) => waiting > 0)
    return queues.map(({ client, waiting }) => ({
      client: client.name,
      waiting,
      nextInMs: forecast.waitMs(scheduler.positionOfFirst(client.name), now),
      lastInMs: forecast.waitMs(scheduler.positionOfLast(client.name), now),
    }))
  }

  /**
   * Admits a call, refuses it, or lets it wait for at most `maxWaitMs` milliseconds. Throws, or rejects with, `StoreUnavailableError`
   * if the ledger can't be asked.
   */
  enter(waiter: Waiter): Admission | Promise<Admission> {
    const { capacity, peers } = this.#state
    if (waiter.comesBack !== false && !this.#claims.isEmpty) {
      const permit = this.#claims.take(waiter.client.name, waiter.chargeSet)
      if (permit !== undefined) return { kind: 'admitted', permit, because: undefined }
    }
    if (this.waiting > 0 || capacity.free <= 0 || peers.areAhead) return this.#wait(waiter)
    const grant = this.ledger.charge(waiter.chargeSet, 1)
    if (!(grant instanceof Promise)) return this.#enterWith(grant, waiter)
    // The call takes its slot before the ledger answers. Otherwise calls that enter meanwhile would exceed the concurrency.
    capacity.inFlight++
    return grant.then(
      (granted) => {
        capacity.inFlight--
        try {
          return this.#enterWith(granted, waiter)
        } finally {
          // Other calls may have begun to wait for the slot that this call held.
          capacity.release(0)
          this.#dispatcher.wakeLater()
        }
      },
      (error: unknown) => {
        this.left(true)
        throw error
      },
    )
  }

  #enterWith(grant: Grant, waiter: Waiter): Admission | Promise<Admission> {
    this.#dispatcher.storeError = undefined
    if (grant.granted === 0) {
      this.#state.noteGrant(grant)
      return this.#wait(waiter)
    }
    this.#state.capacity.inFlight++
    return { kind: 'admitted', permit: new Permit(this, grant, this.#state.clock.now()), because: undefined }
  }

  /** Ends the wait of all calls here. From now on no call may wait, but a call that need not wait still passes. */
  close(because: Closing): void {
    this.#closing = because
    this.#claims.clear()
    void this.#state.clientQueues.endAll((queuedCall) => queuedCall.end({ kind: 'closed', because }))
  }

  /**
   * Gives the calls that wait the charge sets of a new configuration. A call that now costs more than a limit ever allows is refused,
   * because it would hold up all calls behind it. All claims end, because no call with their charge sets comes any more.
   */
  replaceChargeSets(chargeSetNow: (chargeSet: ChargeSet) => ChargeSet): void {
    this.#claims.clear()
    const { clientQueues } = this.#state
    for (const queuedCall of clientQueues.all()) {
      const chargeSet = chargeSetNow(queuedCall.chargeSet)
      const excess = excessOf(chargeSet)
      if (excess === undefined) clientQueues.charge(queuedCall, chargeSet)
      else {
        const { because, wait } = queuedCall
        queuedCall.end({ kind: 'too_expensive', because, wait, ...excess })
      }
    }
    this.refunded()
  }

  committed(since: number): void {
    this.#state.forecast.committed(since)
  }

  /** Tells the queue that quota came back sooner than expected. */
  refunded(): void {
    this.#state.rivals.gaveBack(this.#dispatcher)
  }

  left(isCounted: boolean): void {
    this.#state.capacity.release(1)
    if (isCounted) this.refunded()
  }

  get #shortage(): Shortage {
    return this.#state.capacity.free <= 0 ? 'concurrency' : 'quota'
  }

  #wait(waiter: Waiter): Promise<Admission> | Admission {
    if (this.#closing !== undefined) return { kind: 'closed', because: this.#closing }
    const { forecast, recentlyServed } = this.#state
    const { chargeSet, maxWaitMs, client } = waiter
    const scheduler = this.#state.scheduler(waiter)
    const { position, waitMs, isTooLate, isBecauseOfOthers } = estimateEta(scheduler, forecast, waiter)
    const because = isTooLate ? 'quota' : this.#shortage
    const wait: WaitRecord = {
      because,
      heldBy: because === 'quota' ? forecast.heldBy(position, chargeSet) : undefined,
      usage: forecast.usageOf(chargeSet),
      position,
      expectedMs: waitMs,
      servedCount: recentlyServed.count,
      served: undefined,
    }
    const excess = waitMs === Infinity ? excessOf(chargeSet) : undefined
    if (excess !== undefined) return { kind: 'too_expensive', because, wait: undefined, ...excess }
    if (isTooLate || maxWaitMs === 0) {
      const kind = isBecauseOfOthers ? 'share_exceeded' : 'quota_exhausted'
      const toldMs = this.#claim(waiter, because, waitMs)
      return { kind, because, waitMs: toldMs, usage: forecast.usageOf(chargeSet, toldMs), wait }
    }
    const full = this.#makeSpace(client)
    if (full !== undefined) return { kind: 'queue_full', full, because, waitMs, usage: wait.usage, wait }
    this.#state.beginService(client.name, scheduler.leastService)
    return this.#enqueue(waiter, wait)
  }

  /** Keeps the turn of a call that is refused while others wait. Returns after how many milliseconds its client is to come back. */
  #claim(waiter: Waiter, because: Shortage, waitMs: number): number {
    const state = this.#state
    const { clientQueues, peers, capacity, forecast } = state
    const { client, chargeSet } = waiter
    const haveOthers = clientQueues.size > clientQueues.claims || peers.haveWaiting
    const isKept = waiter.comesBack === true && because === 'quota' && haveOthers && !capacity.isBounded
    if (!isKept) return waitMs
    const due = this.#claims.dueNow(client.name, chargeSet)
    if (due !== undefined) {
      const leftMs = forecast.waitMs(state.scheduler().positionOfFirst(client.name))
      this.#claims.tellAgain(due, leftMs)
      return leftMs
    }
    if (!this.#claims.mayAdd(client.name, chargeSet)) return waitMs
    if (!clientQueues.has(client.name)) state.beginService(client.name, state.scheduler().leastService)
    const claimed = { because, arrivedAt: state.clock.now(), onEnd: this.#onEnd, isClaim: true }
    const queuedCall = new QueuedCall(waiter, claimed)
    clientQueues.add(queuedCall)
    peers.waitingHere(this.waiting)
    // If a call of the same client and charge set waits when the claim's turn comes, it takes the permit at once.
    this.#claims.add(queuedCall, waitMs, (permit) => this.#giveTo(queuedCall, permit))
    this.#dispatcher.wakeLater()
    return waitMs
  }

  #giveTo({ client, chargeSet }: QueuedCall, permit: Permit): boolean {
    const queue = this.#state.clientQueues.byClient.get(client.name)
    for (let queuedCall = queue?.first; queuedCall !== undefined; queuedCall = queue?.after(queuedCall)) {
      if (queuedCall.isClaim || queuedCall.chargeSet !== chargeSet) continue
      const { because, wait } = queuedCall
      if (!queuedCall.end({ kind: 'admitted', permit, because, ...(wait && { wait }) })) permit[Symbol.dispose]()
      return true
    }
    return false
  }

  /** Returns undefined if one more call of the client may wait, else what is full. May end the wait of another client's last call. */
  #makeSpace(client: QueuedClient): Full | undefined {
    const fullFor = this.#state.capacity.fullFor(client)
    if (fullFor?.outdone === undefined) return fullFor?.full
    fullFor.outdone.outdone(fullFor.full)
    return undefined
  }

  readonly #onOutdone = (queuedCall: QueuedCall, full: Full): void => {
    const { forecast } = this.#state
    const { because, chargeSet, wait } = queuedCall
    const [waitMs, usage] = [forecast.waitMs(1), forecast.usageOf(chargeSet)]
    queuedCall.end({ kind: 'queue_full', full, because, waitMs, usage, wait })
  }

  #enqueue(waiter: Waiter, wait: WaitRecord): Promise<Admission> {
    const { clock, clientQueues, peers } = this.#state
    const { because } = wait
    const [onEnd, onOutdone] = [this.#onEnd, this.#onOutdone]
    const queuedCall = new QueuedCall(waiter, { because, wait, arrivedAt: clock.now(), onEnd, onOutdone })
    clientQueues.add(queuedCall)
    try {
      // The call was expected to be in time. But calls that go first may still arrive.
      queuedCall.deadline = clock.schedule(waiter.maxWaitMs, () => this.#timeIsUp(queuedCall))
      peers.waitingHere(this.waiting)
      // `subscribe` comes last, because it ends the call at once if the client has gone already.
      const leave = (): void => void queuedCall.end({ kind: 'gone', because, wait })
      queuedCall.cancellation = waiter.cancellation?.subscribe(leave)
      const isFirst = clientQueues.byClient.get(waiter.client.name)?.first === queuedCall
      if (isFirst || !this.#dispatcher.isWakeUpSet) this.#dispatcher.wakeLater()
    } catch (error) {
      queuedCall.fail(error)
    }
    return queuedCall.ended
  }

  #timeIsUp(queuedCall: QueuedCall): void {
    const { forecast } = this.#state
    const { storeError } = this.#dispatcher
    if (storeError !== undefined) return queuedCall.fail(storeError)
    try {
      const [waitMs, usage] = [forecast.waitMs(1), forecast.usageOf(queuedCall.chargeSet)]
      queuedCall.end({ kind: 'quota_exhausted', because: this.#shortage, waitMs, usage, wait: queuedCall.wait })
    } catch (error) {
      queuedCall.fail(error)
    }
  }

  readonly #onEnd = (queuedCall: QueuedCall): void => {
    const { clientQueues, recentlyServed, peers, virtualService } = this.#state
    clientQueues.remove(queuedCall)
    if (queuedCall.wait !== undefined) queuedCall.wait.served = recentlyServed.since(queuedCall.wait.servedCount)
    peers.waitingHere(this.waiting)
    if (this.waiting > 0) {
      // The next call may need fewer units, so its turn may be now.
      if (clientQueues.differFrom(queuedCall)) this.#dispatcher.wakeSoon()
      return
    }
    this.#dispatcher.rest()
    if (this.ledger.exchange === undefined) virtualService.clear()
  }
}

/** The enforced limit that one call exceeds all alone, and the units that it is charged there; undefined if there is none. */
function excessOf({ limits, units }: ChargeSet): { limit: Limit; units: number } | undefined {
  const i = limits.findIndex(({ isEnforced, requests }, n) => isEnforced && units[n]! > requests)
  return i < 0 ? undefined : { limit: limits[i]!, units: units[i]! }
}
