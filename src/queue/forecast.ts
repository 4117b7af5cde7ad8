import type { Clock } from '../time/clock.ts'
import type { Waiter } from './admission.ts'
import type { FairScheduler } from './fair-scheduler.ts'
import { allowedOf, type Grant, type LimitUsage, type ChargeSet } from '../ledger/ledger.ts'
import type { Limit } from '../ledger/limit.ts'
import type { Schedule } from '../ledger/schedule.ts'

/**
 * For how long quota must have been free until nobody else is taken to want it: longer than it takes until gateways have given
 * back what they hold in lease, which those whose turn it is may be waiting for. Less each time that it proves true.
 */
const UNCLAIMED_MS = 400
const LEAST_UNCLAIMED_MS = 50
/** A wait for what calls will give back that are still to be admitted may become longer by such a part of it. */
const UNCERTAIN = 0.03
/** How much the latest latency counts in the mean of all. */
const LATEST = 1 / 32

/** What an admission queue knows of its quota: how much is free, and when more comes back. */
export class AvailabilityForecast {
  readonly #clock: Clock
  /** The latest that is known of when quota comes back, or of how much was left then. */
  #schedule: Schedule | undefined
  #left = 1
  /** The ledger's latest answer about calls that had to wait. */
  #told:
    | {
        readonly chargeSet: ChargeSet
        readonly usage: readonly LimitUsage[]
        readonly at: number
        readonly isLocal: boolean
      }
    | undefined
  /** Quota may have come back that the schedule does not know of. */
  #isMoreFree = false
  /** From dispatch to response headers, on average. */
  #latencyMs = 0
  /** How much may be asked for of what nobody else seems to want: more each time that it proves true. */
  #unclaimed = 1

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Whether it is known when quota comes back. */
  get isKnown(): boolean {
    return this.#schedule !== undefined
  }

  /** Whether the ledger answered last without asking its store. */
  get isLocal(): boolean {
    return this.#told?.isLocal === true
  }

  update(grant: Grant): void {
    const { chargeSet, schedule, usage, isLocal } = grant
    this.#schedule = schedule
    this.#told = { chargeSet, usage, at: this.#clock.now(), isLocal }
    this.#left = leftIn(grant)
  }

  /** Other gateways were granted so many calls since. */
  others(granted: number): void {
    if (granted > 0) this.#schedule = this.#schedule?.without(granted, this.#clock.now())
  }

  /** Of a call that was sent at `since` the response headers are here. */
  committed(since: number): void {
    this.#latencyMs += (this.#clock.now() - since - this.#latencyMs) * LATEST
  }

  /** Quota may have come back sooner than was known. */
  expectMore(): void {
    this.#isMoreFree = true
  }

  /** How many calls can be admitted now. */
  free(): number {
    const free = this.#schedule?.freeAt(this.#clock.now()) ?? Math.max(1, this.#left)
    if (!this.#isMoreFree) return free
    this.#isMoreFree = false
    return Math.max(1, free)
  }

  /** Milliseconds until so many calls can have been admitted. */
  waitMs(calls: number, now = this.#clock.now()): number {
    return this.#schedule?.waitMs(calls, now, this.#latencyMs) ?? 0
  }

  /** What decides when so many calls can have been admitted; undefined if it is not known when more comes back. */
  heldBy(calls: number): Limit | 'pause' | undefined {
    return this.#schedule?.heldBy(calls, this.#clock.now(), this.#latencyMs)
  }

  /** Whoever would have its turn at the very end of its time may as well wait all of it in vain. */
  isLate(waitMs: number, calls: number, maxWaitMs: number): boolean {
    const isCertain = this.#schedule?.isWithinWindow(calls) ?? true
    return waitMs * (isCertain ? 1 : 1 + UNCERTAIN) > maxWaitMs
  }

  /**
   * Milliseconds until it is worth asking for a call whose place in the order of all is `position`: its turn, or else the time at
   * which that of the others would have passed. As if calls in flight ended now: rather too soon than to leave quota unused.
   */
  turnMs(position: number): number {
    if (this.#schedule === undefined) return 0
    const now = this.#clock.now()
    const firstMs = this.#schedule.waitMs(1, now)
    return position === 1 ? firstMs : Math.min(this.#schedule.waitMs(position, now), firstMs + this.#unclaimedMs)
  }

  /** How many calls can be admitted although it is the turn of others: nobody has taken what is free for long. */
  get unclaimed(): number {
    return Math.min(this.#unclaimed, this.#schedule?.freeSince(this.#clock.now() - this.#unclaimedMs) ?? 0)
  }

  /** Whether there could be any, if what was expected to come back has come. */
  get isUnclaimedUnsure(): boolean {
    const since = this.#clock.now() - this.#unclaimedMs
    return this.#schedule?.freeSince(since) === 0 && this.#schedule.waitMs(1, since) === 0
  }

  /** What was asked for was granted, or not; `isTurnOfOthers` if it was more than what had its turn. */
  wasGranted(isAll: boolean, isTurnOfOthers: boolean): void {
    if (!isAll) this.#unclaimed = 1
    else if (isTurnOfOthers) this.#unclaimed *= 2
  }

  get #unclaimedMs(): number {
    return Math.max(LEAST_UNCLAIMED_MS, UNCLAIMED_MS / this.#unclaimed)
  }

  /**
   * What is known of the charge set's limits without asking again: until its oldest charge leaves, no less of one is used. Of a limit
   * that is used up nothing comes back for a call before its turn, in `turnMs`.
   */
  usageOf(chargeSet: ChargeSet, turnMs = 0): readonly LimitUsage[] {
    if (this.#told?.chargeSet !== chargeSet) return []
    const agoMs = this.#clock.now() - this.#told.at
    const stillTrue = this.#told.usage.filter(({ resetMs }) => resetMs >= agoMs)
    return stillTrue.map((one) => {
      const { limit, used, effective } = one
      const resetMs = one.resetMs - agoMs
      return { limit, used, effective, resetMs: used < allowedOf(one) ? resetMs : Math.max(resetMs, turnMs) }
    })
  }
}

/** How many more calls fit into the limits, as far as the answer tells. */
function leftIn({ chargeSet, usage }: Grant): number {
  let left = Infinity
  for (const [i, one] of usage.entries()) {
    if (one.limit.isEnforced) left = Math.min(left, Math.floor((allowedOf(one) - one.used) / chargeSet.units[i]!))
  }
  return left
}

/** How often it is computed anew who comes while a call waits, because that is known only once it is known how long. */
const ROUNDS = 3

export interface Eta {
  /** Its turn, from 1, in the order of those that wait now. */
  readonly position: number
  readonly waitMs: number
  readonly isTooLate: boolean
  /** Whether it would be in time if there were no other clients. */
  readonly isBecauseOfOthers: boolean
}

/** When a call that comes now will have its turn, by those that wait and those that will come and go first. */
export function estimateEta(
  scheduler: FairScheduler,
  forecast: AvailabilityForecast,
  { client, priority, maxWaitMs }: Waiter,
): Eta {
  const now = scheduler.positionOfNext(client.name, priority, 0)
  let turn = now
  for (let round = 0; round < ROUNDS; round++) {
    turn = scheduler.positionOfNext(client.name, priority, forecast.waitMs(turn.position))
  }
  const { position, alone } = turn
  const waitMs = forecast.waitMs(position)
  const isTooLate = forecast.isLate(waitMs, position, maxWaitMs)
  const isBecauseOfOthers = isTooLate && position > alone && !forecast.isLate(forecast.waitMs(alone), alone, maxWaitMs)
  return { position: now.position, waitMs, isTooLate, isBecauseOfOthers }
}
