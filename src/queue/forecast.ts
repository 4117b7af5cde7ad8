import type { Clock } from '../time/clock.ts'
import type { Waiter } from './admission.ts'
import type { FairScheduler } from './fair-scheduler.ts'
import { allowedOf, type Grant, type LimitUsage, type ChargeSet } from '../ledger/ledger.ts'
import type { Limit } from '../ledger/limit.ts'
import type { Schedule } from '../ledger/schedule.ts'

/**
 * Quota that has been free for this long is taken to be wanted by nobody else. Gateways give back their leases in less
 * time, and a call that has its turn may wait for that. Each time that the assumption proves true, the time is halved,
 * down to LEAST_UNCLAIMED_MS.
 */
const UNCLAIMED_MS = 400
const LEAST_UNCLAIMED_MS = 50
/** A wait that depends on calls that are not admitted yet may become longer by this part of it. */
const UNCERTAIN = 0.03
/** The weight of the latest latency in the mean. */
const LATEST = 1 / 32

/** What an admission queue knows of its quota: how much is free, and when more comes back. */
export class AvailabilityForecast {
  readonly #clock: Clock
  /** When quota comes back, as last known. While that is not known, `#left` says for how many calls quota was left. */
  #schedule: Schedule | undefined
  #left = 1
  /** The charge set of the calls that the schedule is for. */
  #chargeSet: ChargeSet | undefined
  /** The ledger's latest answer about calls that had to wait. */
  #told:
    | {
        readonly chargeSet: ChargeSet
        readonly usage: readonly LimitUsage[]
        readonly at: number
        readonly isLocal: boolean
      }
    | undefined
  /** Quota may have come back that the schedule does not know of. `free` counts it once. */
  isMoreFree = false
  /** Milliseconds from the admission of a call to its response headers, as a moving mean. */
  #latencyMs = 0
  /** How many calls may ask for what nobody else seems to want. It doubles each time that this proves true. */
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
    this.#chargeSet = chargeSet
    this.#told = { chargeSet, usage, at: this.#clock.now(), isLocal }
    this.#left = leftIn(grant)
  }

  /**
   * Sets the charge set of the first call that waits. The last answer of the ledger may be for one that needs more, or
   * less.
   */
  startWith(chargeSet: ChargeSet): void {
    if (chargeSet === this.#chargeSet) return
    this.#schedule = this.#schedule?.of(chargeSet)
    this.#chargeSet = chargeSet
    this.#left = 1
  }

  /** Notes that other gateways were granted this many more calls. */
  others(granted: number): void {
    if (granted > 0) this.#schedule = this.#schedule?.without(granted, this.#clock.now())
  }

  /** The response headers of a call that was admitted at `since` are here. */
  committed(since: number): void {
    this.#latencyMs += (this.#clock.now() - since - this.#latencyMs) * LATEST
  }

  /** Quota may have come back sooner than was known. */
  expectMore(): void {
    this.isMoreFree = true
  }

  /** How many calls can be admitted now. If `isMoreFree` is set, resets it, and returns at least 1. */
  free(): number {
    const free = this.#schedule?.freeAt(this.#clock.now()) ?? Math.max(1, this.#left)
    if (!this.isMoreFree) return free
    this.isMoreFree = false
    return Math.max(1, free)
  }

  /**
   * Milliseconds until `calls` calls can have been admitted. `last` is the charge set of the last of them, which may
   * differ from that of the first.
   */
  waitMs(calls: number, now = this.#clock.now(), last = this.#chargeSet): number {
    return this.#scheduleTo(last)?.waitMs(calls, now, this.#latencyMs) ?? 0
  }

  /** What decides when `calls` calls can have been admitted; undefined if it is not known when more comes back. */
  heldBy(calls: number, last: ChargeSet): Limit | 'pause' | undefined {
    return this.#scheduleTo(last)?.heldBy(calls, this.#clock.now(), this.#latencyMs)
  }

  #scheduleTo(last: ChargeSet | undefined): Schedule | undefined {
    return last === undefined || last === this.#chargeSet ? this.#schedule : this.#schedule?.endingWith(last)
  }

  /**
   * Whether a call would have its turn too late. If the wait is uncertain, a turn at the very end of `maxWaitMs` is too
   * late, too.
   */
  isLate(waitMs: number, calls: number, maxWaitMs: number, chargeSet: ChargeSet): boolean {
    const isCertain = this.#scheduleTo(chargeSet)?.isWithinWindow(calls) ?? true
    return waitMs * (isCertain ? 1 : 1 + UNCERTAIN) > maxWaitMs
  }

  /**
   * Milliseconds until it is worth asking for the call at this position in the order of all. That is its turn, or, if
   * sooner, the time when those before it would have taken theirs. Calls in flight are assumed to end now, because
   * asking too soon is better than leaving quota unused.
   */
  turnMs(position: number): number {
    if (this.#schedule === undefined) return 0
    const now = this.#clock.now()
    const firstMs = this.#schedule.waitMs(1, now)
    return position === 1 ? firstMs : Math.min(this.#schedule.waitMs(position, now), firstMs + this.#unclaimedMs)
  }

  /**
   * How many calls can be admitted here although it is the turn of others, because the others have left quota free for
   * long.
   */
  get unclaimed(): number {
    return Math.min(this.#unclaimed, this.#schedule?.freeSince(this.#clock.now() - this.#unclaimedMs) ?? 0)
  }

  /** Whether `unclaimed` could be more than 0 if what was expected to come back has come. */
  get isUnclaimedUnsure(): boolean {
    const since = this.#clock.now() - this.#unclaimedMs
    return this.#schedule?.freeSince(since) === 0 && this.#schedule.waitMs(1, since) === 0
  }

  /**
   * Learns from the answer to a charge. `isAll`: all of its calls were granted. `isTurnOfOthers`: some of them took a
   * turn of calls at other gateways.
   */
  wasGranted(isAll: boolean, isTurnOfOthers: boolean): void {
    if (!isAll) this.#unclaimed = 1
    else if (isTurnOfOthers) this.#unclaimed *= 2
  }

  get #unclaimedMs(): number {
    return Math.max(LEAST_UNCLAIMED_MS, UNCLAIMED_MS / this.#unclaimed)
  }

  /**
   * Usage of the charge set's limits, as far as it is known without asking the ledger again. A limit whose oldest
   * charge has left since then is missing, because its usage may have fallen. A limit that is used up gives nothing
   * back before the turn of the call, which is in `turnMs` milliseconds.
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

/**
 * Which calls go first depends on how long a call waits, and its wait depends on which calls go first. So both are
 * computed this many times.
 */
const ROUNDS = 3

export interface Eta {
  /** The position of the call, from 1, among those that wait now. */
  readonly position: number
  readonly waitMs: number
  readonly isTooLate: boolean
  /** Whether it would be in time if there were no other clients. */
  readonly isBecauseOfOthers: boolean
}

/**
 * Estimates when a call that comes now has its turn, from the calls that wait and those that will come later but go
 * first.
 */
export function estimateEta(
  scheduler: FairScheduler,
  forecast: AvailabilityForecast,
  { client, priority, maxWaitMs, chargeSet }: Waiter,
): Eta {
  const waitFor = (calls: number): number => forecast.waitMs(calls, undefined, chargeSet)
  const now = scheduler.positionOfNext(client.name, priority, 0)
  let turn = now
  for (let round = 0; round < ROUNDS; round++) {
    turn = scheduler.positionOfNext(client.name, priority, waitFor(turn.position))
  }
  const { position, alone } = turn
  const waitMs = waitFor(position)
  const isTooLate = forecast.isLate(waitMs, position, maxWaitMs, chargeSet)
  const isBecauseOfOthers =
    isTooLate && position > alone && !forecast.isLate(waitFor(alone), alone, maxWaitMs, chargeSet)
  return { position: now.position, waitMs, isTooLate, isBecauseOfOthers }
}
