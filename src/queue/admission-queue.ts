import type { Clock } from '../time/clock.ts'
import type { Admission, Closing, Full, Shortage, Waiter, WaitRecord } from './admission.ts'
import type { ClassCapacity } from './capacity.ts'
import { choose } from './choose.ts'
import { Claims } from './claims.ts'
import type { QueuedClient } from './client-queue.ts'
import { FairScheduler, type Known } from './fair-scheduler.ts'
import { estimateEta } from './eta.ts'
import type { PeerDemand, Priority } from '../ledger/demand.ts'
import { type Grant, type Ledger, type ChargeSet, StoreUnavailableError } from '../ledger/ledger.ts'
import { Peers } from './peers.ts'
import { AvailabilityForecast } from './forecast.ts'
import { Permit } from './permit.ts'
import { QueuedCall } from './queued-call.ts'
import { ClientQueues } from './client-queues.ts'
import { RecentlyServed } from './recently-served.ts'
import { VirtualService } from './virtual-service.ts'
import { WakeUp } from './wake-up.ts'

/** How soon the ledger is asked again for those that wait, after it could not be. */
const STORE_RETRY_MS = 100
const LOOK_NO_SOONER_MS = 10
/** How soon it is asked again while the ledger does without its store, which may be back long before any quota. */
const LOOK_FOR_STORE_MS = 250

export interface AdmissionQueueOptions {
  readonly ledger: Ledger
  readonly clock: Clock
  /** Its name at all gateways, and what it is in front of. */
  readonly name: string
  readonly partition: string
  /** Of all queues of the same account and class. */
  readonly capacity: ClassCapacity
}

/** Who waits in a queue, for the admin API. */
export interface QueueView {
  readonly client: string
  readonly waiting: number
  /** When the first of them will be admitted, as far as is known now. */
  readonly nextInMs: number
  readonly lastInMs: number
}

/**
 * Where calls that need the same quota wait for it: those of one account and class, at all gateways. Clients are served by
 * weighted fair queueing, the calls of a client by priority and then in the order in which they came. A call for which
 * there is quota, and nobody who waits for it, passes without waiting; one that can't be admitted in the time it may wait is
 * refused at once.
 */
export class AdmissionQueue {
  readonly ledger: Ledger
  readonly name: string
  readonly partition: string
  readonly #clock: Clock
  readonly #capacity: ClassCapacity
  readonly #clientQueues: ClientQueues
  readonly #forecast: AvailabilityForecast
  readonly #peers: Peers
  readonly #claims: Claims
  #virtualService = new VirtualService()
  readonly #recentlyServed = new RecentlyServed()
  readonly #wakeUp: WakeUp
  #isServing = false
  #closing: Closing | undefined
  /** Why the ledger could not be asked for those that wait; undefined while it can. */
  #storeError: StoreUnavailableError | undefined

  constructor({ ledger, clock, name, partition, capacity }: AdmissionQueueOptions) {
    this.ledger = ledger
    this.name = name
    this.partition = partition
    this.#clock = clock
    this.#capacity = capacity
    this.#clientQueues = new ClientQueues(clock, capacity)
    this.#claims = new Claims(clock)
    this.#forecast = new AvailabilityForecast(clock)
    this.#wakeUp = new WakeUp(clock, () => void this.#serve(true))
    this.#peers = new Peers({
      ledger,
      clock,
      partition,
      queue: name,
      demands: () => this.#clientQueues.demands(),
      onHeard: (peerDemand, granted) => this.#heard(peerDemand, granted),
    })
  }

  get waiting(): number {
    return this.#clientQueues.size
  }

  /** Who waits here, and for how long still. */
  view(): QueueView[] {
    const scheduler = this.#scheduler()
    const now = this.#clock.now() // the same for both, else the last one would come before the first if time passed between
    const waiting = [...this.#clientQueues.byClient.values()].filter((queue) => queue.size > queue.claims)
    return waiting.map(({ client, size, claims }) => ({
      client: client.name,
      waiting: size - claims,
      nextInMs: this.#forecast.waitMs(scheduler.positionOfFirst(client.name), now),
      lastInMs: this.#forecast.waitMs(scheduler.positionOfLast(client.name), now),
    }))
  }

  /** Throws, or rejects with, `StoreUnavailableError` when the ledger can't be asked. */
  enter(waiter: Waiter): Admission | Promise<Admission> {
    if (!this.#claims.isEmpty) {
      const permit = this.#claims.take(waiter.client.name, waiter.chargeSet)
      if (permit !== undefined) return { kind: 'admitted', permit, because: undefined }
    }
    if (this.waiting > 0 || this.#capacity.free <= 0 || this.#peers.areAhead) return this.#wait(waiter)
    const grant = this.ledger.charge(waiter.chargeSet, 1)
    if (!(grant instanceof Promise)) return this.#enterWith(grant, waiter)
    // Taken before the answer, so that calls that enter meanwhile don't exceed the concurrency.
    this.#capacity.inFlight++
    return grant.then(
      (granted) => {
        this.#capacity.inFlight--
        try {
          return this.#enterWith(granted, waiter)
        } finally {
          // Others may have come to wait for the slot that was kept.
          this.#capacity.release(0)
          this.#wakeLater()
        }
      },
      (error: unknown) => {
        this.left(true)
        throw error
      },
    )
  }

  #enterWith(grant: Grant, waiter: Waiter): Admission | Promise<Admission> {
    this.#storeError = undefined
    if (grant.granted === 0) {
      this.#noteGrant(grant)
      return this.#wait(waiter)
    }
    this.#capacity.inFlight++
    return { kind: 'admitted', permit: new Permit(this, grant, this.#clock.now()), because: undefined }
  }

  /** Ends the wait of everyone here, now and from now on. Who need not wait still passes: a running call may finish. */
  close(because: Closing): void {
    this.#closing = because
    this.#claims.clear()
    for (const queuedCall of this.#clientQueues.all()) queuedCall.end({ kind: 'closed', because })
  }

  /** Those that wait are charged otherwise now, and so may not have to wait as long any more. */
  replaceChargeSets(chargeSetNow: (chargeSet: ChargeSet) => ChargeSet): void {
    for (const queuedCall of this.#clientQueues.all()) queuedCall.chargeSet = chargeSetNow(queuedCall.chargeSet)
    this.refunded()
  }

  /** Of a call that was sent at `since` the response headers are here. */
  committed(since: number): void {
    this.#forecast.committed(since)
  }

  /** Quota came back sooner than was known. */
  refunded(): void {
    this.#forecast.expectMore()
    if (this.waiting > 0) void this.#serve()
  }

  /** A call is not in flight any more. */
  left(wasCountedUntilNow: boolean): void {
    this.#capacity.release(1)
    if (wasCountedUntilNow) this.refunded()
  }

  #noteGrant(grant: Grant): void {
    this.#peers.charged(grant)
    this.#forecast.update(grant)
  }

  #heard(peerDemand: PeerDemand | undefined, granted: number): void {
    this.#forecast.others(granted)
    if (peerDemand !== undefined) this.#virtualService = new VirtualService(peerDemand.virtualService)
    this.#wakeLater()
  }

  #scheduler(newcomer?: { client: QueuedClient; priority: Priority }): FairScheduler<QueuedCall> {
    const known: Known<QueuedCall> = {
      now: this.#clock.now(),
      queues: this.#clientQueues.byClient,
      virtualService: this.#virtualService.costs,
      perSecond: this.#clientQueues.perSecond,
      peerDemand: this.#peers.peerDemand,
      told: this.#peers.told,
      admittedElsewhere: this.#peers.admitted,
    }
    return new FairScheduler(known, newcomer)
  }

  get #shortage(): Shortage {
    return this.#capacity.free <= 0 ? 'concurrency' : 'quota'
  }

  #wait(waiter: Waiter): Promise<Admission> | Admission {
    if (this.#closing !== undefined) return { kind: 'closed', because: this.#closing }
    const { chargeSet, maxWaitMs, client } = waiter
    const scheduler = this.#scheduler(waiter)
    const { position, waitMs, isTooLate, isBecauseOfOthers } = estimateEta(scheduler, this.#forecast, waiter)
    const because = isTooLate ? 'quota' : this.#shortage
    const heldBy = because === 'quota' ? this.#forecast.heldBy(position) : undefined
    const servedCount = this.#recentlyServed.count
    const wait = {
      because,
      heldBy,
      usage: this.#forecast.usageOf(chargeSet),
      position,
      expectedMs: waitMs,
      servedCount,
      served: undefined,
    }
    if (isTooLate || maxWaitMs === 0) {
      const kind = isBecauseOfOthers ? 'share_exceeded' : 'quota_exhausted'
      const toldMs = this.#claim(waiter, because, waitMs)
      return { kind, because, waitMs: toldMs, usage: this.#forecast.usageOf(chargeSet, toldMs), wait }
    }
    const full = this.#makeSpace(client)
    if (full !== undefined) return { kind: 'queue_full', full, because, waitMs, usage: wait.usage, wait }
    if (!this.#clientQueues.has(client.name))
      this.#virtualService.begin(client.name, scheduler.leastService, this.#clientQueues.has)
    return this.#takePlace(waiter, wait)
  }

  /** Keeps the turn of a call that is refused while others wait; returns when it is to come back. */
  #claim(waiter: Waiter, because: Shortage, waitMs: number): number {
    const { client, chargeSet } = waiter
    const haveOthers = this.#clientQueues.size > this.#clientQueues.claims || this.#peers.haveWaiting
    const isKept = waiter.comesBack === true && because === 'quota' && haveOthers && !this.#capacity.isBounded
    if (!isKept) return waitMs
    const due = this.#claims.dueNow(client.name, chargeSet)
    if (due !== undefined) {
      const leftMs = this.#forecast.waitMs(this.#scheduler().positionOfFirst(client.name))
      this.#claims.tellAgain(due, leftMs)
      return leftMs
    }
    if (!this.#claims.mayAdd(client.name, chargeSet)) return waitMs
    if (!this.#clientQueues.has(client.name)) {
      this.#virtualService.begin(client.name, this.#scheduler().leastService, this.#clientQueues.has)
    }
    const taken = { because, arrivedAt: this.#clock.now(), onEnd: this.#onEnd, isClaim: true }
    const queuedCall = new QueuedCall(waiter, taken)
    this.#clientQueues.add(queuedCall)
    this.#peers.waitingHere(this.waiting)
    // A call of the client that does wait has use for it at once.
    this.#claims.add(queuedCall, waitMs, (permit) => this.#giveTo(queuedCall, permit))
    this.#wakeLater()
    return waitMs
  }

  #giveTo({ client, chargeSet }: QueuedCall, permit: Permit): boolean {
    const queue = this.#clientQueues.byClient.get(client.name)
    for (let queuedCall = queue?.first; queuedCall !== undefined; queuedCall = queue?.after(queuedCall)) {
      if (queuedCall.isClaim || queuedCall.chargeSet !== chargeSet) continue
      const { because, wait } = queuedCall
      if (!queuedCall.end({ kind: 'admitted', permit, because, ...(wait && { wait }) })) permit[Symbol.dispose]()
      return true
    }
    return false
  }

  /** Undefined if one more call of the client may wait; else what is full. */
  #makeSpace(client: QueuedClient): Full | undefined {
    const fullFor = this.#clientQueues.fullFor(client)
    if (fullFor?.outdone === undefined) return fullFor?.full
    const { full, outdone } = fullFor
    const { because, chargeSet, wait } = outdone
    const [waitMs, usage] = [this.#forecast.waitMs(1), this.#forecast.usageOf(chargeSet)]
    outdone.end({ kind: 'queue_full', full, because, waitMs, usage, wait })
    return undefined
  }

  #takePlace(waiter: Waiter, wait: WaitRecord): Promise<Admission> {
    const { because } = wait
    const queuedCall = new QueuedCall(waiter, { because, wait, arrivedAt: this.#clock.now(), onEnd: this.#onEnd })
    this.#clientQueues.add(queuedCall)
    try {
      // Others may come first although it was computed that it will be in time, those with a better claim for instance.
      queuedCall.deadline = this.#clock.schedule(waiter.maxWaitMs, () => this.#timeIsUp(queuedCall))
      this.#peers.waitingHere(this.waiting)
      // Last, because a call that is gone already leaves at once.
      const leave = (): void => void queuedCall.end({ kind: 'gone', because, wait })
      queuedCall.cancellation = waiter.cancellation?.subscribe(leave)
      const isFirst = this.#clientQueues.byClient.get(waiter.client.name)?.first === queuedCall
      if (isFirst || !this.#wakeUp.isSet) this.#wakeLater()
    } catch (error) {
      queuedCall.fail(error)
    }
    return queuedCall.ended
  }

  #timeIsUp(queuedCall: QueuedCall): void {
    if (this.#storeError !== undefined) return queuedCall.fail(this.#storeError)
    try {
      const [waitMs, usage] = [this.#forecast.waitMs(1), this.#forecast.usageOf(queuedCall.chargeSet)]
      queuedCall.end({ kind: 'quota_exhausted', because: this.#shortage, waitMs, usage, wait: queuedCall.wait })
    } catch (error) {
      queuedCall.fail(error)
    }
  }

  readonly #onEnd = (queuedCall: QueuedCall): void => {
    this.#clientQueues.remove(queuedCall)
    if (queuedCall.wait !== undefined) queuedCall.wait.served = this.#recentlyServed.since(queuedCall.wait.servedCount)
    this.#peers.waitingHere(this.waiting)
    if (this.waiting > 0) return
    this.#wakeUp.cancel()
    if (this.ledger.exchange === undefined) this.#virtualService.clear()
  }

  /**
   * Admits as many as there is quota and concurrency for, those that are next by the shares of their clients. Of quota that
   * is free for a while those that wait here may have all: a gateway has died, or clients left.
   */
  async #serve(isTime = false): Promise<void> {
    if (this.#isServing || this.waiting === 0) return
    this.#isServing = true
    this.#wakeUp.cancel()
    try {
      if (isTime && this.#isStoreAway) this.#forecast.expectMore()
      // What the others know is what decides between us; if there are none, it is enough to hear of them now and then.
      if (this.#peers.haveWaiting) {
        await this.#peers.exchange()
        if (!this.#forecast.isKnown) await this.#look()
      }
      while (await this.#serveOnce());
    } catch (error) {
      // Those that wait may see it come back; who has no time left is told.
      if (error instanceof StoreUnavailableError) this.#storeError = error
      else this.#failAll(error)
    } finally {
      this.#isServing = false
      this.#wakeLater()
    }
  }

  /** Whether all that were chosen were admitted, so that there may be quota for more. */
  async #serveOnce(): Promise<boolean> {
    const most = Math.min(this.#capacity.free, this.waiting)
    if (most <= 0) return false
    const { haveWaiting } = this.#peers
    const scheduler = this.#scheduler()
    const unclaimed = haveWaiting ? this.#forecast.unclaimed : 0
    const { chosen, isTurnOfOthers } = choose(scheduler, most, this.#forecast.free(), unclaimed)
    if (chosen.length === 0) {
      if (haveWaiting && this.#forecast.isUnclaimedUnsure) await this.#look()
      return false
    }
    const grant = await this.#chargeInFlight(chosen, scheduler)
    const granted = Math.min(grant.granted, chosen.length)
    let admitted = 0
    try {
      this.#storeError = undefined
      this.#noteGrant(grant)
      const isAll = grant.granted >= chosen.length
      this.#forecast.wasGranted(isAll, isTurnOfOthers)
      const now = this.#clock.now()
      for (const queuedCall of this.#receivers(grant, granted, chosen)) {
        const { because, wait, client } = queuedCall
        this.#virtualService.add(client.name, scheduler.costOf(client.name))
        const permit = new Permit(this, grant, now)
        // If so, it is for whoever waited to give it back.
        if (queuedCall.end({ kind: 'admitted', permit, because, ...(wait && { wait }) })) admitted++
        this.#recentlyServed.add(client.name)
      }
      return isAll
    } finally {
      // Nobody was there to take them, or an exception came before.
      for (let left = granted - admitted; left > 0 && grant.chargeSet.limits.length > 0; left--) {
        this.ledger.refund(grant)
        this.ledger.leave(grant)
      }
      this.#capacity.release(chosen.length - admitted)
    }
  }

  /** Asks when quota comes back, for those that may not ask for any before others do. */
  async #look(): Promise<void> {
    const { any } = this.#clientQueues
    if (any !== undefined) this.#noteGrant(await this.ledger.charge(any.chargeSet, 0, { queue: this.name, costs: [] }))
  }

  /** They count as in flight before the answer, so that all queues of a class together keep to the concurrency. */
  async #chargeInFlight(chosen: readonly QueuedCall[], scheduler: FairScheduler<QueuedCall>): Promise<Grant> {
    this.#capacity.inFlight += chosen.length
    try {
      const costs = chosen.map(({ client }) => [client.name, scheduler.costOf(client.name)] as const)
      return await this.ledger.charge(chosen[0]!.chargeSet, chosen.length, { queue: this.name, costs })
    } catch (error) {
      this.#capacity.release(chosen.length)
      throw error
    }
  }

  /** Who gets what was granted: those that were chosen, and in the place of those that left meanwhile whoever is next. */
  *#receivers({ chargeSet }: Grant, granted: number, chosen: readonly QueuedCall[]): Iterable<QueuedCall> {
    let found = 0
    for (let i = 0; found < granted && i < chosen.length; i++) {
      if (!chosen[i]!.isWaiting) continue
      found++
      yield chosen[i]!
    }
    while (found < granted && this.waiting > 0) {
      const { value: next } = this.#scheduler().next(Infinity).next()
      if (next === undefined || next.queuedCall.chargeSet !== chargeSet) return
      found++
      yield next.queuedCall
    }
  }

  readonly #onRelease = (): void => void this.#serve()

  get #isStoreAway(): boolean {
    return this.#storeError !== undefined || this.#forecast.isLocal
  }

  /** A mistake of the gateway: without this those that wait here would not hear of it before their time is up. */
  #failAll(error: unknown): void {
    for (const queuedCall of this.#clientQueues.all()) queuedCall.fail(error)
  }

  /** Wakes when the first of those that wait here has its turn. */
  #wakeLater(): void {
    try {
      this.#planWakeUp()
    } catch (error) {
      this.#failAll(error)
    }
  }

  #planWakeUp(): void {
    if (this.waiting === 0 || this.#isServing) return
    // Full concurrency is no matter of time: whoever leaves calls.
    if (this.#capacity.free <= 0) {
      this.#peers.blocked()
      return this.#capacity.onRelease(this.#onRelease)
    }
    // At least a millisecond, because timers may be early by a part of one.
    const leastMs = this.#storeError !== undefined ? STORE_RETRY_MS : this.#peers.haveWaiting ? LOOK_NO_SOONER_MS : 1
    const turnMs = this.#forecast.turnMs(this.#scheduler().firstPosition)
    this.#wakeUp.in(Math.max(leastMs, this.#isStoreAway ? Math.min(turnMs, LOOK_FOR_STORE_MS) : turnMs))
  }
}
