import type { Clock, Timer } from '../clock.ts'
import type { Capacity } from './capacity.ts'
import {
  allowedOf,
  type Grant,
  type Ledger,
  type Lesson,
  type LimitUsage,
  type Meter,
  StoreUnavailableError,
} from './ledger.ts'
import type { Limit } from './limit.ts'
import type { Schedule } from './schedule.ts'

/** How soon the ledger is asked again for those that wait, after it could not be. */
const STORE_RETRY_MS = 100

/** A call that may be sent now. Exactly one of `settle`, `abandon` and `refund` must follow, then `leave`. */
export class Permit {
  readonly #room: WaitingRoom
  readonly #grant: Grant

  constructor(room: WaitingRoom, grant: Grant) {
    this.#room = room
    this.#grant = grant
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
    if (this.#isCounted) this.#room.ledger.settle(this.#grant)
  }

  /** It was given up after it was sent: the upstream may count it a little later than now. */
  abandon(): void {
    if (this.#isCounted) this.#room.ledger.abandon(this.#grant)
  }

  /** No byte of it was sent. */
  refund(): void {
    if (this.#isCounted) this.#room.ledger.refund(this.#grant)
  }

  /** What its answer taught of the account or its limits. */
  learn(lesson: Lesson): void {
    this.#room.ledger.learn(this.#grant, lesson)
  }

  /** It is not in flight any more. */
  leave(): void {
    if (this.#isCounted) this.#room.ledger.leave(this.#grant)
    this.#room.leave()
  }

  get #isCounted(): boolean {
    return this.#grant.meter.limits.length > 0
  }
}

/** Why nobody can wait any more: the account was taken out of the configuration, or the gateway stops. */
export type Closing = 'removed' | 'draining'

/** What there is too little of: calls that may be sent in the window, or places for calls in flight. */
export type Shortage = 'quota' | 'concurrency'

export type Admission =
  /** `because` is why it had to wait; undefined if it did not. */
  | { readonly kind: 'admitted'; readonly permit: Permit; readonly because: Shortage | undefined }
  /** Its turn would come later than it may wait; `waitMs` from now is when it could be. */
  | {
      readonly kind: 'quota_exhausted'
      readonly because: Shortage
      readonly waitMs: number
      readonly usage: readonly LimitUsage[]
    }
  | {
      readonly kind: 'queue_full'
      readonly because: Shortage
      readonly waitMs: number
      readonly usage: readonly LimitUsage[]
    }
  /** It would have to wait, and nobody can any more. */
  | { readonly kind: 'closed'; readonly because: Closing }
  /** It left by itself: the client has gone. */
  | { readonly kind: 'gone'; readonly because: Shortage }

export interface Waiter {
  readonly meter: Meter
  readonly maxWaitMs: number
  /** Called with a function that makes the waiter leave the room, and with undefined once it need not any more. */
  onLeaveable(leave: (() => void) | undefined): void
}

interface Place {
  readonly meter: Meter
  readonly because: Shortage
  end(admission: Admission): void
  fail(error: unknown): void
}

export interface RoomOptions {
  readonly ledger: Ledger
  readonly clock: Clock
  /** Of all rooms of the same account and class. */
  readonly capacity: Capacity
}

/**
 * Where calls that need the same quota wait for it, first come, first served: those of one account and class. A call
 * for which there is quota passes without waiting; one that can't be admitted in the time it may wait is refused at once.
 */
export class WaitingRoom {
  readonly ledger: Ledger
  readonly #clock: Clock
  readonly #capacity: Capacity
  /** In the order of arrival; a Set so that whoever leaves does so in one step. */
  readonly #places = new Set<Place>()
  /** The latest that is known of when quota comes back, or of how much was left then. */
  #schedule: Schedule | undefined
  #left = 1
  /** The ledger's latest answer about calls that had to wait. */
  #told: { readonly meter: Meter; readonly usage: readonly LimitUsage[]; readonly at: number } | undefined
  #wakeUp: Timer | undefined
  #isServing = false
  #closing: Closing | undefined
  /** Why the ledger could not be asked for those that wait; undefined while it can. */
  #storeError: StoreUnavailableError | undefined

  constructor({ ledger, clock, capacity }: RoomOptions) {
    this.ledger = ledger
    this.#clock = clock
    this.#capacity = capacity
  }

  get waiting(): number {
    return this.#places.size
  }

  /** Throws, or rejects with, `StoreUnavailableError` when the ledger can't be asked. */
  enter(waiter: Waiter): Admission | Promise<Admission> {
    if (this.#places.size > 0 || this.#capacity.free <= 0) return this.#wait(waiter)
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
        this.leave()
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
    return { kind: 'admitted', permit: new Permit(this, grant), because: undefined }
  }

  /** Ends the wait of everyone here, now and from now on. Who need not wait still passes: a running call may finish. */
  close(because: Closing): void {
    this.#closing = because
    for (const place of this.#places) place.end({ kind: 'closed', because })
  }

  leave(): void {
    this.#capacity.release(1)
    if (this.#places.size > 0) void this.#serve()
  }

  #charge(meter: Meter, wanted: number): Grant | Promise<Grant> {
    return this.ledger.charge(meter, wanted)
  }

  #learn(meter: Meter, { schedule, usage }: Grant): void {
    this.#schedule = schedule
    this.#told = { meter, usage, at: this.#clock.now() }
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

  #wait({ meter, maxWaitMs, onLeaveable }: Waiter): Promise<Admission> | Admission {
    if (this.#closing !== undefined) return { kind: 'closed', because: this.#closing }
    const waitMs = this.#schedule?.waitMs(this.#places.size + 1, this.#clock.now()) ?? 0
    const because = waitMs > maxWaitMs ? 'quota' : this.#shortage
    if (waitMs > maxWaitMs || maxWaitMs === 0)
      return { kind: 'quota_exhausted', because, waitMs, usage: this.#usageOf(meter) }
    if (this.#capacity.waiting >= this.#capacity.maxWaiting)
      return { kind: 'queue_full', because, waitMs, usage: this.#usageOf(meter) }
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        if (this.#places.delete(place)) this.#capacity.waiting--
        if (this.#places.size === 0) this.#cancelWakeUp()
        deadline.cancel()
        onLeaveable(undefined)
      }
      const place: Place = {
        meter,
        because,
        end: (admission) => {
          leave()
          resolve(admission)
        },
        fail: (error) => {
          leave()
          reject(error)
        },
      }
      // Others may have come first since the wait was computed, those of other gateways for instance.
      const deadline = this.#clock.schedule(maxWaitMs, () => {
        if (this.#storeError !== undefined) return place.fail(this.#storeError)
        const waitMs = this.#schedule?.waitMs(1, this.#clock.now()) ?? 0
        return place.end({ kind: 'quota_exhausted', because: this.#shortage, waitMs, usage: this.#usageOf(meter) })
      })
      this.#places.add(place)
      this.#capacity.waiting++
      // Last, because a call that is gone already leaves at once.
      onLeaveable(() => place.end({ kind: 'gone', because }))
      this.#wakeLater()
    })
  }

  /** Admits from the front as many as there is quota and concurrency for. */
  async #serve(): Promise<void> {
    if (this.#isServing) return
    this.#isServing = true
    this.#cancelWakeUp()
    try {
      for (;;) {
        const wanted = this.#countServable()
        const [first] = this.#places
        if (first === undefined || wanted === 0) return
        const grant = await this.#chargeInFlight(first.meter, wanted)
        this.#storeError = undefined
        this.#learn(first.meter, grant)
        this.#left = leftIn(grant)
        this.#capacity.release(wanted - this.#handOut(first.meter, grant, wanted))
        if (grant.granted < wanted) return
      }
    } catch (error) {
      // Those that wait may see it come back; who has no time left is told.
      if (error instanceof StoreUnavailableError) this.#storeError = error
      else for (const place of this.#places) place.fail(error)
    } finally {
      this.#isServing = false
      this.#wakeLater()
    }
  }

  /** They count as in flight before the answer, so that all rooms of a class together keep to the concurrency. */
  async #chargeInFlight(meter: Meter, wanted: number): Promise<Grant> {
    this.#capacity.inFlight += wanted
    try {
      return await this.#charge(meter, wanted)
    } catch (error) {
      this.#capacity.release(wanted)
      throw error
    }
  }

  /** How many at the front can be charged together: the same meter, free concurrency, and no more than may be free. */
  #countServable(): number {
    const room = Math.min(this.#capacity.free, this.#places.size)
    const free = Math.max(1, this.#schedule?.freeAt(this.#clock.now()) ?? this.#left)
    let count = 0
    let meter: Meter | undefined
    for (const place of this.#places) {
      if (count >= room || count >= free || (meter !== undefined && place.meter !== meter)) break
      meter = place.meter
      count++
    }
    return count
  }

  /** Returns how many were admitted. */
  #handOut(meter: Meter, grant: Grant, wanted: number): number {
    let admitted = 0
    const granted = Math.min(grant.granted, wanted)
    for (const place of this.#places) {
      if (admitted === granted || place.meter !== meter) break
      admitted++
      place.end({ kind: 'admitted', permit: new Permit(this, grant), because: place.because })
    }
    // Some have left while the ledger was asked.
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
  }

  #wakeLater(): void {
    if (this.#places.size === 0 || this.#isServing || this.#wakeUp !== undefined) return
    // Full concurrency is no matter of time: whoever leaves calls.
    if (this.#capacity.free <= 0) return this.#capacity.onRelease(this.#onRelease)
    // At least a millisecond, because timers may be early by a part of one.
    const leastMs = this.#storeError === undefined ? 1 : STORE_RETRY_MS
    const delayMs = Math.max(leastMs, this.#schedule?.waitMs(1, this.#clock.now()) ?? 1)
    this.#wakeUp = this.#clock.schedule(delayMs, () => {
      this.#wakeUp = undefined
      void this.#serve()
    })
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
