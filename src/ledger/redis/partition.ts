import type { Clock, Timer } from '../../time/clock.ts'
import { Batch, type Postponed, type Waiting } from './batch.ts'
import { type OfflineReason, PartitionState } from './partition-state.ts'
import type { PartitionRegister } from './partition-register.ts'
import type { InFlight } from '../in-flight.ts'
import {
  Grant,
  type UpstreamFeedback,
  type LimitUsage,
  type ChargeSet,
  chargeSetOf,
  type OutagePolicy,
  StoreUnavailableError,
  type Turn,
} from '../ledger.ts'
import {
  adaptiveLimitsOf,
  type Argument,
  argumentsOf,
  FAREWELL_MS,
  leaseOf,
  pauseFieldOf,
  type Reply,
  scheduleOf,
  type ScriptRunner,
  tailOf,
  usageOf,
} from './protocol.ts'
import { type Change, LEAST_WAIT_MS, MOST_DEFERRED, Outbox, commitWithinMs } from './outbox.ts'

/** How often leases are renewed, or Redis is tried while it is away. */
export const TICK_MS = 250
/** A lease that was not renewed for so long is given to others. */
const TERM_TICKS = 12
/**
 * When Redis is back, how long nothing but leases is spent, so that every gateway can tell it what it lacks before any
 * charge is made to what it knows. Longer than a tick and than it takes to connect again.
 */
export const RESUME_AFTER_MS = 4 * TICK_MS
/** A partition that was not used for so long is forgotten. */
const FORGET_AFTER_MS = 600_000

interface PartitionKeys {
  readonly name: string
  /** Tells this gateway's use of the partition from others. */
  readonly id: string
  /** With which the keys of the partition begin. */
  readonly key: string
  /** Where the format before this one kept what it charged to the limits of a charge set. */
  readonly olderKeys: (chargeSet: ChargeSet) => readonly string[]
}

/** What the partitions of one ledger share. */
export interface Shared {
  readonly runner: ScriptRunner
  readonly clock: Clock
  readonly answerWithinMs: number
  readonly onOutage: OutagePolicy
  readonly stepTime: (() => number) | undefined
  readonly postponed: Postponed
  readonly inFlight: InFlight
  readonly register: PartitionRegister
  /** Whether Redis was there since the start, if only for a moment: then there are leases to go on with. */
  readonly wasConnected: boolean
  /** By how much the ticks of a partition are apart. */
  tickEveryMs(isShared: boolean): number
  /** Redis answered at `now`; `isRight`: as was expected. */
  onAnswer(now: number, isRight: boolean): void
  /** A call failed, or its answer did not come in time; `isAgain`: as did the one before. */
  onFailure(error: unknown, isAgain: boolean): void
  /** Redis has nothing of a partition that was used. */
  onMissing(): void
  onChange(partition: string, mode: 'shared' | 'leased'): void
  onForgotten(partition: string): void
}

/** What one gateway asks and tells Redis of one partition, what it does while Redis is away, and what it tells it afterwards. */
export class Partition {
  readonly #shared: Shared
  readonly #state: PartitionState
  /** By which Redis tells its calls from those of other gateways, and of earlier times. */
  readonly #id: string
  readonly #key: string
  readonly #olderKeys: PartitionKeys['olderKeys']
  /** Charges of an older release to their limits have been taken over. */
  readonly #takenOver = new WeakSet<ChargeSet>()
  readonly #keys: readonly string[]
  #usedAt: number
  #isClosed = false
  /** Until it is known whether other gateways use the partition. */
  #beginning: Promise<void> | undefined
  /** Whether any does, or this one has: then Redis has lost the partition if it is not there. */
  #isUsed: boolean | undefined
  /** Charges that wait for Redis to answer again. */
  readonly #held = new Set<Held>()
  /** What is to be sent, by charge set, and what may wait for more like it. */
  readonly #batches = new Map<ChargeSet, Batch>()
  readonly #outboxes = new Map<ChargeSet, Outbox>()
  /** Batches that are sent at the end of this turn of the event loop. */
  readonly #charging = new Set<Batch>()
  /** Calls that Redis granted too late. */
  #unsent: { chargeSet: ChargeSet; at: number; calls: number }[] = []
  #all: ChargeSet | undefined
  #tickTimer: Timer | undefined

  /** With `key` all its keys begin. */
  constructor(shared: Shared, { name, id, key, olderKeys }: PartitionKeys) {
    this.#shared = shared
    this.#state = new PartitionState(name)
    this.#id = id
    this.#key = key
    this.#olderKeys = olderKeys
    this.#keys = [`${key}:limits`, `${key}:leases`]
    this.#usedAt = shared.clock.now()
    this.#tickLater(LEAST_WAIT_MS)
  }

  pausedUntil(chargeSet: ChargeSet, now: number): number {
    return this.#state.pauses.until(chargeSet, now)
  }

  /** Learns whether other gateways use the partition. Charges wait for that. */
  begin(): void {
    this.#beginning = this.#ask()
      .catch((error: unknown) => this.#fails(error))
      .finally(() => {
        this.#beginning = undefined
      })
  }

  async #ask(): Promise<void> {
    const is = await this.#shared.register.ask(this.#state.name)
    this.#isUsed = this.#isUsed === true || is !== 'unknown'
    if (is === 'lost') this.onLoss()
  }

  charge(chargeSet: ChargeSet, wanted: number, turn?: Turn): Grant | Promise<Grant> {
    const now = this.#shared.clock.now()
    this.#usedAt = now
    const until = now + this.#shared.answerWithinMs
    if (this.#state.mode === 'shared') {
      return new Promise((resolve, reject) => this.#ride(chargeSet, { wanted, turn, until, resolve, reject }))
    }
    if (!this.#isHeld(until)) return this.#spend(chargeSet, wanted, undefined)
    return new Promise((resolve, reject) =>
      this.#spendOrHold(chargeSet, { wanted, turn, until, resolve, reject }, undefined),
    )
  }

  #ride(chargeSet: ChargeSet, waiting: Waiting): void {
    const batch = this.#batchOf(chargeSet)
    batch.waiting.push(waiting)
    batch.turn ??= waiting.turn
    this.#sendAtTurnEnd(batch)
  }

  commit(grant: Grant, what: 'commit' | 'abandon'): void {
    this.#state.commit(grant, what === 'abandon', this.#shared.clock.now())
    grant.uncommitted--
    this.#change(grant, what)
  }

  refund(grant: Grant): void {
    this.#state.refund(grant, this.#shared.clock.now())
    grant.uncommitted--
    this.#change(grant, 'refund')
  }

  leave(grant: Grant): void {
    this.#state.leave(grant, this.#shared.clock.now())
    this.#change(grant, 'leave')
  }

  /** Changes and charges are run in the order in which they are sent, so it holds for the next charge of every gateway. */
  applyFeedback({ chargeSet, chargedAt }: Grant, feedback: UpstreamFeedback): void {
    const state = this.#state
    if (feedback.kind === 'pause') state.pauses.add(chargeSet, this.#shared.clock.now(), feedback.ms)
    // What there is without Redis is spent with care anyway.
    if (state.mode === 'leased') return
    const batch = this.#batchOf(chargeSet)
    batch.addFeedback(chargedAt, feedback, pauseFieldOf(chargeSet))
    // There will be more answers that tell how much was counted.
    if (feedback.kind === 'counted' && !feedback.isRefused) this.#shared.postponed.add(batch, LEAST_WAIT_MS)
    else this.#sendAtTurnEnd(batch)
  }

  /** The new time is ours to choose, so that what comes after need not wait for the answer. */
  renew(grant: Grant): void {
    const { chargeSet, at, uncommitted, open } = grant
    const state = this.#state
    const now = this.#shared.clock.now()
    const to = Math.round(state.time(now) * 1_000) / 1_000
    state.renew(grant, to, now)
    grant.at = to
    if (state.mode === 'leased') return
    const batch = this.#batchOf(chargeSet)
    batch.renewed.push({ at, calls: uncommitted, to, open })
    this.#shared.postponed.add(batch, LEAST_WAIT_MS)
  }

  /** Sends what is to be told of a charge set. */
  send(chargeSet: ChargeSet): void {
    void this.#send(this.#batchOf(chargeSet))
  }

  /** Sends everything that waits to be sent, whatever becomes of it, and nothing after. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#tickTimer?.cancel()
    this.#release()
    await this.#sendAll()
  }

  /** So that others have them at once, and nobody waits for what this gateway may have to tell. */
  async giveBackLeases(): Promise<void> {
    const state = this.#state
    if (state.mode === 'leased') return
    const all = this.#allOf()
    for (const one of state.limits) one.lease = 0
    try {
      await this.#call(all, { termMs: FAREWELL_MS, isClaim: true })
    } catch {
      // Then they end by themselves.
    }
  }

  /** The connection was lost. What answers next may be another Redis, unless it is found to be the same. */
  onDisconnect(): void {
    this.goOffline('disconnected')
  }

  /** It is there again: those who wait do so no longer than they have to. */
  onReconnect(isSame: boolean): void {
    this.#state.recognise(isSame)
    if (this.#held.size > 0) this.#tickLater(0)
  }

  /** Redis has lost what it knew of this partition. */
  onLoss(): void {
    if (!this.#state.hasLost) this.goOffline('lacking')
  }

  goOffline(reason: OfflineReason): void {
    const state = this.#state
    const wasShared = state.mode === 'shared'
    state.goOffline(this.#shared.clock.now(), reason)
    // Redis may have lost these charges. If it were told to take them back, it would take back those of other calls.
    if (reason !== 'silent') this.#unsent = []
    void this.#sendAll()
    if (!wasShared) return
    this.#shared.onChange(state.name, 'leased')
    this.#tickLater(LEAST_WAIT_MS)
  }

  #sendAtTurnEnd(batch: Batch): void {
    if (this.#charging.size === 0) this.#shared.clock.soon(this.#onTurnEnd)
    this.#charging.add(batch)
  }

  readonly #onTurnEnd = (): void => {
    const batches = [...this.#charging]
    this.#charging.clear()
    for (const batch of batches) void this.#send(batch)
  }

  #change(grant: Grant, what: Change['what']): void {
    this.#shared.inFlight.update(grant)
    if (this.#state.mode === 'leased') return
    const { chargeSet, at, usage } = grant
    this.#tellEnded(chargeSet, { what, at, calls: 1 }, usage)
  }

  #tellEnded(chargeSet: ChargeSet, ended: Change, usage: readonly LimitUsage[] = []): void {
    const outbox = this.#outboxes.getOrInsertComputed(chargeSet, () => new Outbox(chargeSet))
    const now = this.#shared.clock.now()
    const isWanted = outbox.add(ended, { now, time: this.#state.latestTime(now), usage })
    // What was granted too late, others wait for.
    if (isWanted) this.#shared.postponed.add(outbox, usage.length === 0 ? LEAST_WAIT_MS : commitWithinMs(chargeSet))
  }

  async #send(batch: Batch): Promise<void> {
    const { chargeSet } = batch
    const state = this.#state
    // It may have been sent since, for another reason.
    if (this.#batches.get(chargeSet) !== batch) return
    if (this.#beginning !== undefined) {
      await this.#beginning
      if (this.#batches.get(chargeSet) !== batch) return
    }
    let wanted = 0
    for (const waiting of batch.waiting) wanted += waiting.wanted
    // Who charges nothing wants to know what is used.
    const isAll = this.#isClosed || state.mode === 'leased' || (batch.waiting.length > 0 && wanted === 0)
    const batches = this.#takeWith(batch, isAll)
    if (state.mode === 'leased') {
      for (const one of batches) this.#fail(one, undefined)
      return
    }
    state.asks(chargeSet, wanted)
    try {
      const reply = await this.#call(chargeSet, { wanted, batches, turn: batch.turn })
      state.isAnswered(chargeSet, wanted)
      if (reply !== undefined) return this.#handOut(batch, wanted, reply)
      for (const one of batches) this.#fail(one, undefined)
    } catch (error) {
      this.#fails(error)
      state.isLost(chargeSet, wanted)
      for (const one of batches) this.#fail(one, error)
    }
  }

  #hasToTell(): boolean {
    return this.#batches.size > 0 || this.#outboxes.values().some(({ dueAt }) => dueAt < Infinity)
  }

  #sendAll(): Promise<unknown> {
    // So that commits have a batch to ride on, too.
    for (const chargeSet of this.#outboxes.keys()) this.#batchOf(chargeSet)
    return Promise.all(Array.from(this.#batches.values(), (batch) => this.#send(batch)))
  }

  /** A batch that is sent now, and what rides on it: those without a charge, and commits that are eligible, or all. */
  #takeWith(batch: Batch, isAll: boolean): Batch[] {
    const now = this.#shared.clock.now()
    let surplus = this.#outboxes.size - MOST_DEFERRED
    for (const [chargeSet, one] of this.#outboxes) {
      const isDue = isAll || one.eligibleAt <= now || one.dueAt <= now
      if (!isDue) {
        // Of those that are left deferred, the oldest of too many: the calls of their charge sets may not come again.
        if (one.dueAt < Infinity || surplus <= 0) continue
        surplus--
      }
      this.#outboxes.delete(chargeSet)
      this.#shared.postponed.remove(one)
      this.#batchOf(chargeSet).ended.push(...one.ended)
    }
    const taken: Batch[] = []
    for (const one of this.#batches.values()) {
      if (one !== batch && one.waiting.length > 0) continue
      this.#batches.delete(one.chargeSet)
      this.#shared.postponed.remove(one)
      taken.push(one)
    }
    return taken
  }

  /** Calls the script; undefined if the answer's number was wrong, and nothing was done. */
  async #call(
    chargeSet: ChargeSet,
    { wanted = 0, batches = [], additions = [], termMs = 0, isClaim = false, turn, isProbe = false }: CallOptions,
  ): Promise<Reply | undefined> {
    const state = this.#state
    const args = argumentsOf(chargeSet, {
      gateway: this.#id,
      expected: isProbe ? -1 : this.#nextNumber(),
      time: this.#shared.stepTime?.() ?? '',
      wanted,
      batches,
      additions,
      termMs,
      isClaim,
      turn,
      leases: termMs > 0 ? state.limitsOf(chargeSet).map(({ lease }) => lease) : [],
    })
    const sentAt = this.#shared.clock.now()
    const keys = this.#keysFor(chargeSet, turn)
    const reply = await this.#answer(chargeSet, this.#shared.runner.run(keys, args))
    const isRight = reply[2] !== -1
    const now = this.#shared.clock.now()
    this.#shared.onAnswer(now, isRight)
    const micros = reply[0]!
    const number = Math.max(1, reply[1]!)
    const isMissing = isRight ? reply[1] === 0 : reply[3] === 1
    if (isMissing && this.#isUsed === true && !state.hasLost) {
      this.#shared.register.report(state.name)
      this.#shared.onMissing()
      this.goOffline('lacking')
    }
    if (!isRight) {
      state.numbers.misses(number - 1)
      this.goOffline('lacking')
      return undefined
    }
    this.#takenOver.add(chargeSet)
    const isOnly = this.#isUsed === false
    this.#isUsed = true
    this.#shared.register.note(state.name)
    state.setTime(micros / 1_000, sentAt, now)
    if (isProbe) state.reconnect(number, now, RESUME_AFTER_MS, isOnly)
    state.numbers.note(number, micros / 1_000)
    state.lease(chargeSet, (i) => leaseOf(reply, i), sentAt, termMs)
    return reply
  }

  #keysFor(chargeSet: ChargeSet, turn: Turn | undefined): readonly string[] {
    const isTakenOver = this.#takenOver.has(chargeSet)
    if (isTakenOver && turn === undefined) return this.#keys
    const keys = [...this.#keys, turn === undefined ? this.#keys[0]! : `${this.#key}:served:${turn.queue}`]
    if (!isTakenOver) keys.push(...this.#olderKeys(chargeSet))
    return keys
  }

  /** Of a partition that others use, the script must find something. */
  #nextNumber(): number {
    const number = ++this.#state.numbers.sent
    return number === 1 && this.#isUsed === true ? 0 : number
  }

  /** The answer, if it comes in time; calls that are granted later are given back, because they were not sent. */
  #answer(chargeSet: ChargeSet, answer: Promise<Reply>): Promise<Reply> {
    return new Promise((resolve, reject) => {
      let isLate = false
      const giveUp = (): void => {
        isLate = true
        reject(new Error(`no answer within ${this.#shared.answerWithinMs} ms`))
      }
      // If it was this process that stood still, the answer is there, and is read before that.
      const timer = this.#shared.clock.schedule(this.#shared.answerWithinMs, () => this.#shared.clock.soon(giveUp))
      answer.then(
        (reply) => {
          timer.cancel()
          const granted = reply[2]!
          if (!isLate) resolve(reply)
          else if (granted > 0) {
            this.#unsent.push({ chargeSet, at: reply[0]! / 1_000, calls: granted })
            if (this.#state.mode === 'shared') this.#giveBackUnsent()
          }
        },
        (error: unknown) => {
          timer.cancel()
          reject(error)
        },
      )
    })
  }

  #giveBackUnsent(): void {
    if (this.#unsent.length === 0) return
    for (const { chargeSet, at, calls } of this.#unsent) {
      this.#tellEnded(chargeSet, { what: 'refund', at, calls })
      if (chargeSet.hasConcurrent) this.#tellEnded(chargeSet, { what: 'leave', at, calls })
    }
    this.#unsent = []
  }

  /** First come, first served: what was granted goes to those who asked first. */
  #handOut({ chargeSet, waiting, turn }: Batch, wanted: number, reply: Reply): void {
    const now = this.#shared.clock.now()
    const at = reply[0]! / 1_000
    let left = reply[2]!
    const hasSchedule = left < wanted || turn !== undefined
    const tail = tailOf(reply, hasSchedule)
    const turns = turn === undefined ? undefined : reply[tail]
    const adaptive = adaptiveLimitsOf(reply, turn === undefined ? tail : tail + 1)
    if (adaptive?.pauseMs !== undefined) this.#state.pauses.add(chargeSet, now, adaptive.pauseMs)
    const usage = usageOf(chargeSet, reply, adaptive)
    // What is leased to others comes back when they renew their leases.
    const schedule = hasSchedule ? scheduleOf(chargeSet, reply, { now, leasedMs: TICK_MS, adaptive }) : undefined
    if (left > 0) this.#state.granted(chargeSet, at, left, now)
    for (const { wanted: asked, resolve } of waiting) {
      const granted = Math.min(asked, left)
      left -= granted
      const grant = new Grant(chargeSet, at, granted, usage, { schedule, turns })
      if (granted > 0) this.#shared.inFlight.add(grant)
      resolve(grant)
    }
  }

  /** What could not be done in Redis is done without: charges are taken from the lease, changes are unreplicated. */
  #fail(batch: Batch, cause: unknown): void {
    const state = this.#state
    const { chargeSet } = batch
    const now = this.#shared.clock.now()
    for (const ended of batch.ended) state.addUnreplicatedCommit(chargeSet, ended, now)
    for (const { to, calls, open } of batch.renewed) state.addUnreplicatedRenewal(chargeSet, to, calls, open, now)
    for (const waiting of batch.waiting) this.#spendOrHold(chargeSet, waiting, cause)
  }

  #fails(error: unknown): void {
    const wasShared = this.#state.mode === 'shared'
    this.goOffline('silent')
    this.#shared.onFailure(error, !wasShared)
  }

  /** Whether a charge that can't be made is held: Redis was lost only just now, and may answer in time. */
  #isHeld(until: number): boolean {
    const now = this.#shared.clock.now()
    return now < until && this.#state.offlineMs(now) < this.#shared.answerWithinMs
  }

  #spendOrHold(chargeSet: ChargeSet, waiting: Waiting, cause: unknown): void {
    try {
      waiting.resolve(this.#spend(chargeSet, waiting.wanted, cause))
    } catch (error) {
      if (this.#isClosed || !this.#isHeld(waiting.until)) return waiting.reject(error as StoreUnavailableError)
      const held: Held = { chargeSet, waiting, timer: undefined }
      held.timer = this.#shared.clock.schedule(waiting.until - this.#shared.clock.now(), () => {
        this.#held.delete(held)
        this.#spendOrHold(chargeSet, waiting, cause)
      })
      this.#held.add(held)
    }
  }

  /** Redis answers again: what was held goes there, or on by the lease. */
  #release(): void {
    const all = [...this.#held]
    this.#held.clear()
    for (const held of all) {
      held.timer?.cancel()
      if (this.#state.mode === 'shared') this.#ride(held.chargeSet, held.waiting)
      else this.#spendOrHold(held.chargeSet, held.waiting, undefined)
    }
  }

  #spend(chargeSet: ChargeSet, wanted: number, cause: unknown): Grant {
    const state = this.#state
    const now = this.#shared.clock.now()
    if (this.#shared.onOutage === 'closed' || (wanted === 0 && !this.#shared.wasConnected))
      throw new StoreUnavailableError(cause)
    if (wanted === 0) return new Grant(chargeSet, state.time(now), 0, state.usage(chargeSet, now))
    const spent = state.spend(chargeSet, wanted, now, this.#shared.onOutage === 'open')
    if (spent === undefined) throw new StoreUnavailableError(cause)
    const { at, granted, usage, schedule } = spent
    const grant = new Grant(chargeSet, at, granted, usage, { schedule, isLocal: true })
    if (granted > 0) this.#shared.inFlight.add(grant)
    return grant
  }

  #tickLater(delayMs: number): void {
    if (this.#isClosed) return
    this.#tickTimer?.cancel()
    this.#tickTimer = this.#shared.clock.schedule(delayMs, () => void this.#tick())
  }

  /** Renews the leases of a partition; while Redis is away, tries it, tells it what it lacks, and returns to it. */
  async #tick(): Promise<void> {
    const state = this.#state
    const now = this.#shared.clock.now()
    if (state.mode === 'shared' && now - this.#usedAt > FORGET_AFTER_MS && state.isIdle(now) && !this.#hasToTell()) {
      this.#shared.onForgotten(state.name)
      this.#shared.register.forget(state.name)
      return this.giveBackLeases()
    }
    const isShared = state.mode === 'shared'
    const everyMs = this.#shared.tickEveryMs(isShared)
    const termMs = TERM_TICKS * everyMs
    this.#tickLater(everyMs)
    if (!isShared) state.becomesAlone(now)
    const all = this.#allOf()
    if (all.limits.length === 0) return
    try {
      if (state.mode === 'shared') await this.#call(all, { termMs })
      else {
        if (state.resumeAt === undefined) {
          if (this.#isUsed !== true) await this.#ask()
          await this.#call(all, { isProbe: true })
        }
        await this.#reconcile(all, termMs)
        this.#release()
      }
    } catch (error) {
      this.#fails(error)
    }
  }

  /** Tells Redis what it lacks; at the end of the grace, returns to it. */
  async #reconcile(all: ChargeSet, termMs: number): Promise<void> {
    const state = this.#state
    const now = this.#shared.clock.now()
    const unreplicated = state.takeUnreplicated(all, now)
    const isResuming = now >= state.resumeAt!
    if (isResuming) {
      // Calls are run in the order in which they are sent, so the next charge already finds what is told here.
      state.resume()
      this.#shared.onChange(state.name, 'shared')
      this.#giveBackUnsent()
    }
    const additions = unreplicated.flatMap((charges, i) =>
      charges.map(({ bucket, units }): Argument[] => [i + 1, bucket, units]),
    )
    const leases = { termMs, isClaim: !isResuming }
    const reply = await this.#call(all, { additions, ...leases }).catch((error: unknown) => {
      state.restoreUnreplicated(all, unreplicated, this.#shared.clock.now())
      throw error
    })
    if (reply === undefined) state.restoreUnreplicated(all, unreplicated, this.#shared.clock.now())
  }

  /** A charge set of all limits of a partition that were used. */
  #allOf(): ChargeSet {
    const limits = [...this.#state.limits].map(({ limit }) => limit)
    if (this.#all === undefined || limits.some((limit, i) => limit !== this.#all?.limits[i])) {
      this.#all = chargeSetOf(
        this.#state.name,
        limits.map((limit) => ({ limit })),
      )
    }
    return this.#all
  }

  #batchOf(chargeSet: ChargeSet): Batch {
    return this.#batches.getOrInsertComputed(chargeSet, () => new Batch(chargeSet))
  }
}

interface Held {
  readonly chargeSet: ChargeSet
  readonly waiting: Waiting
  timer: Timer | undefined
}

interface CallOptions {
  readonly wanted?: number
  readonly batches?: readonly Batch[]
  /** Number of a limit (from 1), bucket, units. */
  readonly additions?: readonly Argument[][]
  /** Leases are renewed for so long. */
  readonly termMs?: number
  /** What is held in lease is taken in lease, instead of a share of what is free. */
  readonly isClaim?: boolean
  readonly turn?: Turn | undefined
  readonly isProbe?: boolean
}
