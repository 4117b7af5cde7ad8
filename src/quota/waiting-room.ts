import type { Clock, Timer } from '../clock.ts'
import { Arrivals } from './arrivals.ts'
import type { Capacity } from './capacity.ts'
import { type Claimant, ClientQueue, type Demand, type Queued } from './client-queue.ts'
import { type Board, Contention, type Known } from './contention.ts'
import type { Priority } from './fair-share.ts'
import {
  allowedOf,
  type Grant,
  type Ledger,
  type LimitUsage,
  type Meter,
  StoreUnavailableError,
  type Turn,
} from './ledger.ts'
import { Neighbours } from './neighbours.ts'
import { Permit } from './permit.ts'
import type { Schedule } from './schedule.ts'
import { Served } from './served.ts'

/** How soon the ledger is asked again for those that wait, after it could not be. */
const STORE_RETRY_MS = 100
const LOOK_NO_SOONER_MS = 10
/** How soon it is asked again while the ledger does without its store, which may be back long before any quota. */
const LOOK_FOR_STORE_MS = 250
/**
 * For how long quota must have been free until nobody else is taken to want it: longer than it takes until gateways have given
 * back what they hold in lease, which those whose turn it is may be waiting for.
 */
const UNCLAIMED_MS = 400
/** How often it is computed anew who comes while a call waits, because that is known only once it is known how long. */
const ROUNDS = 3
/** A wait for what calls will give back that are still to be admitted may become longer by such a part of it. */
const UNCERTAIN = 0.03
/** How much the latest latency counts in the mean of all. */
const LATEST = 1 / 32

/** Why nobody can wait any more: the account was taken out of the configuration, or the gateway stops. */
export type Closing = 'removed' | 'draining'

/** What there is too little of: calls that may be sent in the window, or places for calls in flight. */
export type Shortage = 'quota' | 'concurrency'

interface Refusal {
  readonly because: Shortage
  /** From now on, when its turn could be. */
  readonly waitMs: number
  readonly usage: readonly LimitUsage[]
}

export type Admission =
  /** `because` is why it had to wait; undefined if it did not. Its turn was expected `expectedMs` after it came. */
  | {
      readonly kind: 'admitted'
      readonly permit: Permit
      readonly because: Shortage | undefined
      readonly expectedMs?: number
    }
  /** Its turn would come later than it may wait. */
  | ({ readonly kind: 'quota_exhausted' } & Refusal)
  /** So it would only because of other clients, which have had less of the quota. */
  | ({ readonly kind: 'share_exceeded' } & Refusal)
  /** `full` says where: as many calls wait as may. */
  | ({ readonly kind: 'queue_full'; readonly full: { readonly most: number; readonly of: string } } & Refusal)
  /** It would have to wait, and nobody can any more. */
  | { readonly kind: 'closed'; readonly because: Closing }
  /** It left by itself: the client has gone. */
  | { readonly kind: 'gone'; readonly because: Shortage }

export interface Waiter {
  readonly meter: Meter
  readonly maxWaitMs: number
  readonly client: Claimant
  /** Not above the client's own. */
  readonly priority: Priority
  /** Called with a function that makes the waiter leave the room, and with undefined once it need not any more. */
  onLeaveable(leave: (() => void) | undefined): void
}

interface Place extends Queued {
  meter: Meter
  readonly because: Shortage
  readonly client: Claimant
  readonly expectedMs: number
  isTaken: boolean
  end(admission: Admission): void
  fail(error: unknown): void
}

export interface RoomOptions {
  readonly ledger: Ledger
  readonly clock: Clock
  /** Its name at all gateways, and what it is in front of. */
  readonly name: string
  readonly home: string
  /** Of all rooms of the same account and class. */
  readonly capacity: Capacity
}

/** Who waits in a room, for the admin API. */
export interface RoomView {
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
export class WaitingRoom {
  readonly ledger: Ledger
  readonly name: string
  readonly home: string
  readonly #clock: Clock
  readonly #capacity: Capacity
  readonly #queues = new Map<string, ClientQueue<Place>>()
  #served = new Served()
  readonly #neighbours: Neighbours
  /** Of the calls that come to wait. */
  readonly #arrivals: Arrivals
  #size = 0
  /** The latest that is known of when quota comes back, or of how much was left then. */
  #schedule: Schedule | undefined
  #left = 1
  /** How much may be asked for of what nobody else seems to want: more each time that it proves true. */
  #unclaimed = 1
  /** The ledger's latest answer about calls that had to wait. */
  #told:
    | { readonly meter: Meter; readonly usage: readonly LimitUsage[]; readonly at: number; readonly isLocal: boolean }
    | undefined
  /** Quota may have come back that the schedule does not know of. */
  #isMoreFree = false
  /** From dispatch to response headers, on average. */
  #latencyMs = 0
  #wakeUp: Timer | undefined
  #wakesAt = Infinity
  #isServing = false
  #closing: Closing | undefined
  /** Why the ledger could not be asked for those that wait; undefined while it can. */
  #storeError: StoreUnavailableError | undefined

  constructor({ ledger, clock, name, home, capacity }: RoomOptions) {
    this.ledger = ledger
    this.name = name
    this.home = home
    this.#clock = clock
    this.#capacity = capacity
    this.#arrivals = new Arrivals(clock)
    this.#neighbours = new Neighbours({
      ledger,
      clock,
      home,
      queue: name,
      demands: () => this.#demands(),
      onHeard: (board, granted) => this.#heard(board, granted),
    })
  }

  get waiting(): number {
    return this.#size
  }

  /** Who waits here, and for how long still. */
  view(): RoomView[] {
    const contention = this.#contention()
    return [...this.#queues.values()].map(({ client, size }) => ({
      client: client.name,
      waiting: size,
      nextInMs: this.#waitMs(contention.positionOfFirst(client.name)),
      lastInMs: this.#waitMs(contention.positionOfLast(client.name)),
    }))
  }

  /** Throws, or rejects with, `StoreUnavailableError` when the ledger can't be asked. */
  enter(waiter: Waiter): Admission | Promise<Admission> {
    if (this.#size > 0 || this.#capacity.free <= 0 || this.#neighbours.areAhead) return this.#wait(waiter)
    const grant = this.#charge(waiter.meter, 1)
    if (!(grant instanceof Promise)) return this.#enterWith(grant, waiter)
    // Taken before the answer, so that calls that enter meanwhile don't exceed the concurrency.
    this.#capacity.inFlight++
    return grant.then(
      (granted) => {
        this.#capacity.inFlight--
        const admission = this.#enterWith(granted, waiter)
        // Others may have come to wait for the place that was kept.
        this.#capacity.release(0)
        this.#wakeLater()
        return admission
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
      this.#learn(waiter.meter, grant)
      return this.#wait(waiter)
    }
    this.#capacity.inFlight++
    return { kind: 'admitted', permit: new Permit(this, grant, this.#clock.now()), because: undefined }
  }

  /** Ends the wait of everyone here, now and from now on. Who need not wait still passes: a running call may finish. */
  close(because: Closing): void {
    this.#closing = because
    for (const queue of this.#queues.values())
      while (queue.first !== undefined) queue.first.end({ kind: 'closed', because })
  }

  /** Those that wait are charged otherwise now, and so may not have to wait as long any more. */
  charge(meterNow: (meter: Meter) => Meter): void {
    for (const queue of this.#queues.values()) {
      for (let place = queue.first; place !== undefined; place = queue.after(place)) place.meter = meterNow(place.meter)
    }
    this.refunded()
  }

  /** Of a call that was sent at `since` the response headers are here. */
  settled(since: number): void {
    this.#latencyMs += (this.#clock.now() - since - this.#latencyMs) * LATEST
  }

  /** Quota came back sooner than the schedule knew. */
  refunded(): void {
    this.#isMoreFree = true
    if (this.#size > 0) void this.#serve()
  }

  /** A call is not in flight any more. */
  left(wasCountedUntilNow: boolean): void {
    this.#capacity.release(1)
    if (wasCountedUntilNow) this.refunded()
  }

  #charge(meter: Meter, wanted: number, turn?: Turn): Grant | Promise<Grant> {
    return this.ledger.charge(meter, wanted, turn)
  }

  #learn(meter: Meter, grant: Grant): void {
    this.#neighbours.charged(grant)
    this.#schedule = grant.schedule
    this.#told = { meter, usage: grant.usage, at: this.#clock.now(), isLocal: grant.isLocal }
  }

  #demands(): Demand[] {
    const now = this.#clock.now()
    const demands: Demand[] = []
    for (const queue of this.#queues.values()) demands.push(...queue.demands(now, this.#perSecond(queue.client.name)))
    return demands
  }

  #heard(board: Board | undefined, granted: number): void {
    if (granted > 0) this.#schedule = this.#schedule?.without(granted, this.#clock.now())
    if (board !== undefined) this.#served = new Served(board.served)
    this.#wakeLater()
  }

  readonly #perSecond = (client: string): number => this.#arrivals.perSecond(client)

  readonly #isWaiting = (client: string): boolean => this.#queues.has(client)

  #contention(newcomer?: { client: Claimant; priority: Priority }): Contention<Place> {
    const known: Known<Place> = {
      now: this.#clock.now(),
      queues: this.#queues,
      served: this.#served.costs,
      perSecond: this.#perSecond,
      board: this.#neighbours.board,
      told: this.#neighbours.told,
      admittedElsewhere: this.#neighbours.admitted,
    }
    return new Contention(known, newcomer)
  }

  /** What is known of the meter's limits without asking again: until its oldest charge leaves, no less of one is used. */
  #usageOf(meter: Meter): readonly LimitUsage[] {
    if (this.#told?.meter !== meter) return []
    const agoMs = this.#clock.now() - this.#told.at
    const stillTrue = this.#told.usage.filter(({ resetMs }) => resetMs >= agoMs)
    return stillTrue.map(({ limit, used, resetMs, effective }) => ({
      limit,
      used,
      resetMs: resetMs - agoMs,
      effective,
    }))
  }

  get #shortage(): Shortage {
    return this.#capacity.free <= 0 ? 'concurrency' : 'quota'
  }

  /** Milliseconds until so many calls can have been admitted. */
  #waitMs(calls: number): number {
    return this.#schedule?.waitMs(calls, this.#clock.now(), this.#latencyMs) ?? 0
  }

  #wait(waiter: Waiter): Promise<Admission> | Admission {
    if (this.#closing !== undefined) return { kind: 'closed', because: this.#closing }
    const { meter, maxWaitMs, client, priority } = waiter
    const contention = this.#contention(waiter)
    let waitMs = 0
    let place = contention.positionOfNext(client.name, priority, 0)
    // While it waits others come, and of these some go first.
    for (let round = 0; round < ROUNDS; round++) {
      waitMs = this.#waitMs(place.position)
      place = contention.positionOfNext(client.name, priority, waitMs)
    }
    const { position, alone } = place
    waitMs = this.#waitMs(position)
    const isTooLate = this.#isLate(waitMs, position, maxWaitMs)
    const because = isTooLate ? 'quota' : this.#shortage
    const usage = this.#usageOf(meter)
    if (isTooLate || maxWaitMs === 0) {
      const isOthers = isTooLate && position > alone && !this.#isLate(this.#waitMs(alone), alone, maxWaitMs)
      return { kind: isOthers ? 'share_exceeded' : 'quota_exhausted', because, waitMs, usage }
    }
    const full = this.#makeRoom(client)
    if (full !== undefined) return { kind: 'queue_full', full, because, waitMs, usage }
    if (!this.#queues.has(client.name)) this.#served.begin(client.name, contention.leastServed, this.#isWaiting)
    return this.#takePlace(waiter, because, waitMs)
  }

  /** Whoever would have its turn at the very end of its time may as well wait all of it in vain. */
  #isLate(waitMs: number, calls: number, maxWaitMs: number): boolean {
    const isCertain = this.#schedule?.isWithinWindow(calls) ?? true
    return waitMs * (isCertain ? 1 : 1 + UNCERTAIN) > maxWaitMs
  }

  #takePlace({ meter, maxWaitMs, client, priority, onLeaveable }: Waiter, because: Shortage, expectedMs: number) {
    return new Promise<Admission>((resolve, reject) => {
      const leave = (): void => {
        this.#remove(place)
        deadline.cancel()
        onLeaveable(undefined)
      }
      const place: Place = {
        meter,
        because,
        client,
        priority,
        expectedMs,
        arrivedAt: this.#clock.now(),
        isTaken: true,
        before: undefined,
        behind: undefined,
        end: (admission) => {
          leave()
          resolve(admission)
        },
        fail: (error) => {
          leave()
          reject(error)
        },
      }
      // Others may have come first since the wait was computed, those with a better claim for instance.
      const deadline = this.#clock.schedule(maxWaitMs, () => {
        if (this.#storeError !== undefined) return place.fail(this.#storeError)
        const waitMs = this.#waitMs(1)
        return place.end({
          kind: 'quota_exhausted',
          because: this.#shortage,
          waitMs,
          usage: this.#usageOf(place.meter),
        })
      })
      this.#add(place)
      // Last, because a call that is gone already leaves at once.
      onLeaveable(() => place.end({ kind: 'gone', because }))
      const isFirst = this.#queues.get(client.name)?.first === place
      if (isFirst || this.#wakeUp === undefined) this.#wakeLater()
    })
  }

  #add(place: Place): void {
    const { client } = place
    const queue = this.#queues.getOrInsertComputed(client.name, () => new ClientQueue<Place>(client))
    queue.client = client // a reload may have changed its weight
    queue.add(place)
    this.#size++
    this.#capacity.wait(1)
    this.#arrivals.add(client.name)
    this.#neighbours.waitingHere(this.#size)
  }

  #remove(place: Place): void {
    if (!place.isTaken) return
    place.isTaken = false
    const queue = this.#queues.get(place.client.name)!
    queue.remove(place)
    if (queue.size === 0) this.#queues.delete(place.client.name)
    this.#size--
    this.#capacity.wait(-1)
    this.#neighbours.waitingHere(this.#size)
    if (this.#size > 0) return
    this.#cancelWakeUp()
    if (this.ledger.exchange === undefined) this.#served.clear()
  }

  /**
   * Undefined if one more call of the client may wait; else what is full. Where calls of a client that has many more of them
   * waiting take up the places, the last of these has to go: one noisy client must not keep the others out.
   */
  #makeRoom(client: Claimant): { most: number; of: string } | undefined {
    const own = this.#queues.get(client.name)?.size ?? 0
    const { full, mostPerClient } = this.#capacity
    if (own >= mostPerClient) return { most: mostPerClient, of: `calls of ${client.name}` }
    if (full === undefined) return undefined
    let longest: ClientQueue<Place> | undefined
    for (const queue of this.#queues.values()) {
      if (longest === undefined || queue.size / queue.client.weight > longest.size / longest.client.weight)
        longest = queue
    }
    const { most, of } = full
    if (longest === undefined || longest.size / longest.client.weight <= (own + 1) / client.weight) return { most, of }
    const { last } = longest
    const { because, meter } = last!
    last!.end({ kind: 'queue_full', full: { most, of }, because, waitMs: this.#waitMs(1), usage: this.#usageOf(meter) })
    return undefined
  }

  /**
   * Admits as many as there is quota and concurrency for, those that are next by the shares of their clients. Of quota that
   * is free for a while those that wait here may have all: a gateway has died, or clients left.
   */
  async #serve(): Promise<void> {
    if (this.#isServing || this.#size === 0) return
    this.#isServing = true
    this.#cancelWakeUp()
    try {
      // What the others know is what decides between us; if there are none, it is enough to hear of them now and then.
      if (this.#neighbours.haveWaiting) {
        await this.#neighbours.exchange()
        if (this.#schedule === undefined) await this.#look()
      }
      for (;;) {
        const contention = this.#contention()
        const { chosen, isTurnOfOthers } = this.#choose(contention)
        if (chosen.length === 0) return await this.#lookWhetherUnclaimed()
        const { meter } = chosen[0]!
        const grant = await this.#chargeInFlight(meter, chosen, contention)
        this.#storeError = undefined
        this.#learn(meter, grant)
        this.#left = leftIn(grant)
        if (grant.granted < chosen.length || this.#left <= 0) this.#unclaimed = 1
        else if (isTurnOfOthers) this.#unclaimed *= 2
        this.#capacity.release(chosen.length - this.#handOut(meter, grant, chosen, contention))
        if (grant.granted < chosen.length) return
      }
    } catch (error) {
      // Those that wait may see it come back; who has no time left is told.
      if (error instanceof StoreUnavailableError) this.#storeError = error
      else for (const queue of this.#queues.values()) while (queue.first !== undefined) queue.first.fail(error)
    } finally {
      this.#isServing = false
      this.#wakeLater()
    }
  }

  /** Asks when quota comes back, for those that may not ask for any before others do. */
  async #look(): Promise<void> {
    const { value: queue } = this.#queues.values().next()
    if (queue?.first === undefined) return
    const { meter } = queue.first
    this.#learn(meter, await this.#charge(meter, 0, { queue: this.name, costs: [] }))
  }

  /** Quota seems to have been free for a while, though it is the turn of others: it can be taken once that is certain. */
  async #lookWhetherUnclaimed(): Promise<void> {
    const since = this.#clock.now() - UNCLAIMED_MS
    const { haveWaiting } = this.#neighbours
    if (!haveWaiting || this.#schedule === undefined || this.#capacity.free <= 0) return
    if (this.#schedule.freeSince(since) === 0 && this.#schedule.waitMs(1, since) === 0) await this.#look()
  }

  /** Those that can be charged together: the same meter, free concurrency, and no more than may be free. */
  #choose(contention: Contention<Place>): { chosen: Place[]; isTurnOfOthers: boolean } {
    const room = Math.min(this.#capacity.free, this.#size)
    const chosen: Place[] = []
    let isTurnOfOthers = false
    if (room <= 0) return { chosen, isTurnOfOthers }
    const now = this.#clock.now()
    const free = this.#freeAt(now)
    // What has been free for a while nobody else wants, by what is known.
    const unclaimed = this.#neighbours.haveWaiting
      ? Math.min(this.#unclaimed, this.#schedule?.freeSince(now - UNCLAIMED_MS) ?? 0)
      : 0
    for (const { place, position } of contention.next(unclaimed > 0 ? Infinity : free)) {
      const isOurTurn = position <= free || chosen.length < unclaimed
      if (!isOurTurn || chosen.length >= room || (chosen.length > 0 && place.meter !== chosen[0]!.meter)) break
      chosen.push(place)
      isTurnOfOthers = position > free
    }
    return { chosen, isTurnOfOthers }
  }

  #freeAt(now: number): number {
    const free = this.#schedule?.freeAt(now) ?? Math.max(1, this.#left)
    if (!this.#isMoreFree) return free
    this.#isMoreFree = false
    return Math.max(1, free)
  }

  /** They count as in flight before the answer, so that all rooms of a class together keep to the concurrency. */
  async #chargeInFlight(meter: Meter, chosen: readonly Place[], contention: Contention<Place>): Promise<Grant> {
    this.#capacity.inFlight += chosen.length
    const costs = chosen.map(({ client }) => [client.name, contention.costOf(client.name)] as const)
    try {
      return await this.#charge(meter, chosen.length, { queue: this.name, costs })
    } catch (error) {
      this.#capacity.release(chosen.length)
      throw error
    }
  }

  /** Returns how many were admitted. */
  #handOut(meter: Meter, grant: Grant, chosen: readonly Place[], contention: Contention<Place>): number {
    const now = this.#clock.now()
    const granted = Math.min(grant.granted, chosen.length)
    let admitted = 0
    const admit = (place: Place): void => {
      const { because, expectedMs, client } = place
      this.#served.add(client.name, contention.costOf(client.name))
      admitted++
      place.end({ kind: 'admitted', permit: new Permit(this, grant, now), because, expectedMs })
    }
    for (let i = 0; admitted < granted && i < chosen.length; i++) if (chosen[i]!.isTaken) admit(chosen[i]!)
    // Some have left while the ledger was asked: others come in their place.
    while (admitted < granted && this.#size > 0) {
      const { value: next } = this.#contention().next(Infinity).next()
      if (next === undefined || next.place.meter !== meter) break
      admit(next.place)
    }
    for (let left = granted - admitted; left > 0 && meter.limits.length > 0; left--) {
      this.ledger.refund(grant)
      this.ledger.leave(grant)
    }
    return admitted
  }

  readonly #onRelease = (): void => void this.#serve()

  #cancelWakeUp(): void {
    this.#wakeUp?.cancel()
    this.#wakeUp = undefined
    this.#wakesAt = Infinity
  }

  /** Wakes when the first of those that wait here has its turn. */
  #wakeLater(): void {
    if (this.#size === 0 || this.#isServing) return
    // Full concurrency is no matter of time: whoever leaves calls.
    if (this.#capacity.free <= 0) return this.#capacity.onRelease(this.#onRelease)
    // At least a millisecond, because timers may be early by a part of one.
    const leastMs =
      this.#storeError !== undefined ? STORE_RETRY_MS : this.#neighbours.haveWaiting ? LOOK_NO_SOONER_MS : 1
    const isStoreAway = this.#storeError !== undefined || this.#told?.isLocal === true
    const delayMs = Math.max(leastMs, isStoreAway ? Math.min(this.#turnMs, LOOK_FOR_STORE_MS) : this.#turnMs)
    const at = this.#clock.now() + delayMs
    if (at >= this.#wakesAt) return
    this.#cancelWakeUp()
    this.#wakesAt = at
    this.#wakeUp = this.#clock.schedule(delayMs, () => {
      this.#cancelWakeUp()
      this.#isMoreFree ||= isStoreAway
      void this.#serve()
    })
  }

  get #turnMs(): number {
    if (this.#size === 0) return Infinity
    // As if calls in flight ended now: rather ask too soon than leave quota unused.
    const waitMs = (calls: number): number => this.#schedule?.waitMs(calls, this.#clock.now()) ?? 0
    const first = this.#contention().firstPosition
    return first === 1 ? waitMs(1) : Math.min(waitMs(first), waitMs(1) + UNCLAIMED_MS)
  }
}

/** How many more calls fit into the limits, as far as the answer tells. */
function leftIn({ meter, usage }: Grant): number {
  let left = Infinity
  for (const [i, one] of usage.entries()) {
    if (one.limit.isEnforced) left = Math.min(left, Math.floor((allowedOf(one) - one.used) / meter.units[i]!))
  }
  return left
}
