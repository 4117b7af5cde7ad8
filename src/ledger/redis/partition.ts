import type { Timer } from '../../time/clock.ts'
import type { Limit } from '../limit.ts'
import { chargedAt } from '../limit-table.ts'
import {
  type ChargeSet,
  chargeSetOf,
  Grant,
  type LimitUsage,
  StoreUnavailableError,
  type QueueTurn,
  type UpstreamFeedback,
} from '../ledger.ts'
import { type Batch, type Change, LEAST_WAIT_MS, LITTLE, Outbox, type Waiting } from './outbox.ts'
import type { PartitionShares } from '../shares.ts'
import { PartitionCalls, type PartitionKeys, type Shared, TICK_MS } from './partition-calls.ts'
import { type OfflineReason, PartitionState } from './partition-state.ts'
import { type Argument, FAREWELL_MS, pauseFieldOf, type Reply } from './protocol.ts'
import { adaptiveLimitsOf, scheduleOf, tailOf, usageOf, withCommitted } from './reply.ts'

/**
 * The most grants that one call of the script renews. With more, Redis would be busy for too long. Very many would be more
 * arguments than a function can take.
 */
const MOST_RENEWED = 1_000
/**
 * The most limits whose leases one call of the script renews. A partition may have thousands, such as one for each client. Each
 * call reads the names of all leases of the partition, those of other gateways too, and Redis does nothing else meanwhile.
 * Fewer limits in a call would be more work for Redis in all; with more, the call would be late.
 */
const MOST_LIMITS = 400
/** The most other charge sets that one call of the script is told of. For each, it is given a number for every limit of all of them. */
const MOST_TOLD = 32
/** A lease that was not renewed for so many ticks ends. Then others may have its units. */
const TERM_TICKS = 12
/** Renewing the leases of very many limits takes long. The gateway then rests REST times as long, so that Redis has time for calls. */
const REST = 9
/** A partition that was not used for so long is forgotten. */
const FORGET_AFTER_MS = 600_000

/**
 * The charges of one gateway to one partition. While Redis answers, they are made there. While it does not, they are spent out
 * of leases. When Redis answers again, it is told what it lacks before charges go there again.
 *
 * The file is longer than others, because every way to lose Redis in the middle of a call is handled here, and each has to keep
 * the order in which Redis is told.
 */
export class Partition {
  readonly #shared: Shared
  readonly #state: PartitionState
  readonly #outbox: Outbox
  readonly #calls: PartitionCalls
  #usedAt: number
  #isClosed = false
  /** Resolves once it is known whether other gateways use the partition. */
  #beginning: Promise<void> | undefined
  /** Charges that wait for Redis to answer again. */
  readonly #held = new Set<Held>()
  /** Charge sets of all limits of the partition that were used, of MOST_LIMITS each. */
  #all: readonly ChargeSet[] = []
  #tickTimer: Timer | undefined
  /** How many ticks have begun. */
  #ticks = 0
  /** How long the last renewal of the leases took; 0 if it was one call of the script. */
  #tookMs = 0

  constructor(shared: Shared, keys: PartitionKeys) {
    this.#shared = shared
    this.#state = new PartitionState(keys.name, shared.shares?.of(keys.name))
    this.#outbox = new Outbox(shared.clock, shared.postponed, (batch) => void this.#sendBatch(batch))
    this.#calls = new PartitionCalls(shared, this.#state, this.#outbox, keys, () => this.goOffline('lacking'))
    this.#usedAt = shared.clock.now()
    this.#tickLater(LEAST_WAIT_MS)
  }

  pausedUntil(chargeSet: ChargeSet, now: number): number {
    return this.#state.pauses.until(chargeSet, now)
  }

  /** Asks whether other gateways use the partition. Charges wait for the answer. */
  begin(): void {
    this.#beginning = this.#ask()
      .catch((error: unknown) => this.#noteFailure(error))
      .finally(() => {
        this.#beginning = undefined
      })
  }

  async #ask(): Promise<void> {
    if (await this.#calls.ask()) this.onLoss()
  }

  charge(chargeSet: ChargeSet, wanted: number, turn?: QueueTurn): Grant | Promise<Grant> {
    const now = this.#shared.clock.now()
    this.#usedAt = now
    if (wanted > 0) this.#state.shares?.use(chargeSet)
    const until = now + this.#shared.answerWithinMs
    if (this.#state.mode === 'shared') {
      return new Promise((resolve, reject) => this.#ride(chargeSet, { wanted, turn, until, resolve, reject }))
    }
    if (!this.#mayHold(until)) return this.#spend(chargeSet, wanted, undefined)
    return new Promise((resolve, reject) =>
      this.#spendOrHold(chargeSet, { wanted, turn, until, resolve, reject }, undefined),
    )
  }

  #ride(chargeSet: ChargeSet, waiting: Waiting): void {
    const batch = this.#outbox.batchOf(chargeSet)
    batch.waiting.push(waiting)
    batch.turn ??= waiting.turn
    this.#outbox.sendSoon(batch)
  }

  commit(grant: Grant, what: 'commit' | 'abandon', units?: readonly number[]): void {
    this.#state.commit(grant, what === 'abandon', this.#shared.clock.now(), units)
    grant.uncommitted--
    if (units === undefined) this.#change(grant, what)
    else this.#settle(grant, units)
  }

  refund(grant: Grant): void {
    this.#state.refund(grant, this.#shared.clock.now())
    grant.uncommitted--
    // Redis takes back a change as of one time, and a renewal did not move what a pace was charged.
    const isApart = grant.at !== grant.chargedAt && grant.part.limits.some(({ kind }) => kind === 'smoothing')
    if (isApart) this.#settle(grant, undefined)
    else this.#change(grant, 'refund')
  }

  leave(grant: Grant): void {
    this.#state.leave(grant, this.#shared.clock.now())
    this.#change(grant, 'leave')
  }

  /**
   * Redis runs changes and charges in the order in which they are sent. So feedback that is sent holds for the next charge of
   * every gateway.
   */
  applyFeedback({ chargeSet, chargedAt }: Grant, feedback: UpstreamFeedback): void {
    const state = this.#state
    if (feedback.kind === 'pause') state.pauses.add(chargeSet, this.#shared.clock.now(), feedback.ms)
    // While offline, only a pause is kept: what is spent are leases, which are small anyway.
    if (state.mode === 'leased') return
    const batch = this.#outbox.batchOf(chargeSet)
    batch.addFeedback(chargedAt, feedback, pauseFieldOf(chargeSet))
    // A count may wait: later answers will tell newer ones.
    if (feedback.kind === 'counted' && !feedback.isRefused) this.#outbox.sendLater(batch)
    else this.#outbox.sendSoon(batch)
  }

  /** The gateway chooses the new time of the charge itself, so that later changes need not wait for the answer. */
  renew(grant: Grant): void {
    const { part, at, uncommitted, open } = grant
    const state = this.#state
    const now = this.#shared.clock.now()
    const to = Math.round(state.time(now) * 1_000) / 1_000
    state.renew(grant, to, now)
    grant.at = to
    if (state.mode === 'leased') return
    const batch = this.#outbox.batchOf(part)
    batch.renewed.push({ at, calls: uncommitted, to, open })
    if (batch.renewed.length >= MOST_RENEWED) this.send(part)
    else this.#outbox.sendLater(batch)
  }

  /** Sends what Redis has to be told of a charge set. */
  send(chargeSet: ChargeSet): void {
    void this.#sendBatch(this.#outbox.batchOf(chargeSet))
  }

  /** Sends everything that waits to be sent, whether or not it arrives. After that nothing is sent. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#tickTimer?.cancel()
    this.#release()
    await this.#sendAll()
  }

  /**
   * Ends the leases of this gateway, so that others can use them at once, and nobody waits for what it might have to tell. Does
   * nothing while offline. If Redis can't be told, the leases end by themselves.
   */
  async giveBackLeases(): Promise<void> {
    const state = this.#state
    if (state.mode === 'leased') return
    const all = this.#allOf()
    for (const one of state.limits) one.lease = 0
    try {
      for (const some of all) await this.#calls.call(some, { termMs: FAREWELL_MS, isClaim: true })
    } catch {
      // Then the leases end by themselves.
    }
  }

  /** The connection was lost. Another Redis may answer next; `onReconnect` says whether it is the same one. */
  onDisconnect(): void {
    this.goOffline('disconnected')
  }

  /**
   * There is a connection again. Held charges should not wait for the next tick, so it begins now. Without a timer, a tick is
   * running already, and it will release them. If two ticks ran at a time, one would use up the call number that the other
   * sends next, or set it back.
   */
  onReconnect(isSame: boolean): void {
    this.#state.recognise(isSame)
    if (this.#held.size > 0 && this.#tickTimer !== undefined) this.#tickLater(0)
  }

  /** Redis has lost what it knew of this partition. */
  onLoss(): void {
    if (!this.#state.hasLost) this.goOffline('lacking')
  }

  goOffline(reason: OfflineReason, tickInMs = LEAST_WAIT_MS): void {
    const state = this.#state
    const wasShared = state.mode === 'shared'
    state.goOffline(this.#shared.clock.now(), reason, this.#shared.silentSince)
    // Redis may have lost the calls that it granted too late. If it were told to take them back, it would take back those of
    // other calls.
    if (reason !== 'silent') this.#calls.forgetUnsent()
    void this.#sendAll()
    if (!wasShared) return
    this.#shared.onChange(state.name, 'leased')
    this.#tickLater(tickInMs)
  }

  #change(grant: Grant, what: Change['what']): void {
    this.#shared.inFlight.update(grant)
    if (this.#state.mode === 'leased') return
    const { part, at, partUsage } = grant
    if (part.limits.length === 0) return
    const time = this.#state.latestTime(this.#shared.clock.now())
    this.#outbox.addEnded(part, { what, at, calls: 1 }, time, partUsage)
  }

  /**
   * One call has cost `units` of each limit; without them, no byte of it was sent. Redis is told as if each unit were a call of
   * its own. Units that were charged and spent are committed; charged ones that were not spent are refunded. Units spent beyond
   * the charge are committed with a charge time so long ago that Redis has nothing to take back for them.
   */
  #settle(grant: Grant, units: readonly number[] | undefined): void {
    this.#shared.inFlight.update(grant)
    if (this.#state.mode === 'leased') return
    const { part, partUsage } = grant
    // Redis must be told of the renewal first: what is told below takes back charges as of the renewed time.
    if (this.#outbox.hasRenewed(part)) this.send(part)
    const time = this.#state.latestTime(this.#shared.clock.now())
    for (const [i, limit] of part.limits.entries()) {
      if (limit.kind === 'concurrent' || (limit.kind === 'smoothing' && units !== undefined)) continue
      const [each, at] = [unitOf(part, limit), chargedAt(grant, limit)]
      const [charged, spent, usage] = [part.units[i]!, units?.[i] ?? 0, partUsage.slice(i, i + 1)]
      const calls = Math.min(charged, spent)
      if (calls > 0) this.#outbox.addEnded(each, { what: 'commit', at, calls }, time, usage)
      if (spent < charged) {
        const isMissed = usage.some(({ used }) => used >= LITTLE * limit.requests)
        this.#outbox.addEnded(each, { what: 'refund', at, calls: charged - spent }, time, isMissed ? [] : usage)
      } else if (spent > charged) {
        this.#outbox.addEnded(each, { what: 'commit', at: longBefore(time, limit), calls: spent - charged }, time)
      }
    }
  }

  async #sendBatch(batch: Batch): Promise<void> {
    const state = this.#state
    // The batch may have been sent meanwhile, for another reason.
    if (!this.#outbox.has(batch)) return
    if (this.#beginning !== undefined) {
      await this.#beginning
      if (!this.#outbox.has(batch)) return
    }
    let wanted = 0
    for (const waiting of batch.waiting) wanted += waiting.wanted
    // A charge of nothing asks for the usage, so Redis must first be told everything.
    const isAll = this.#isClosed || state.mode === 'leased' || (batch.waiting.length > 0 && wanted === 0)
    const batches = this.#outbox.take(batch, isAll)
    if (state.mode === 'leased') {
      for (const one of batches) this.#keepLocally(one, undefined)
      return
    }
    const others = batches.filter((one) => one !== batch)
    const surplus: Promise<void>[] = []
    while (others.length > MOST_TOLD) surplus.push(this.#call(others[0]!, others.splice(0, MOST_TOLD), 0))
    await this.#call(batch, surplus.length === 0 ? batches : [batch, ...others], wanted)
    if (surplus.length > 0) await Promise.all(surplus)
  }

  /** Calls the script for one batch, and tells it the changes of all `batches`. */
  async #call(batch: Batch, batches: readonly Batch[], wanted: number): Promise<void> {
    const state = this.#state
    const { chargeSet } = batch
    state.noteAsked(chargeSet, wanted)
    // Shares are read before the script is told of them. If one ends in between, too much seems to be used, never too little.
    const given = wanted > 0 ? undefined : givenOf(chargeSet, state.shares)
    try {
      const reply = await this.#calls.call(chargeSet, { wanted, batches, turn: batch.turn })
      state.noteAnswered(chargeSet, wanted)
      if (reply !== undefined) return this.#handOut(batch, wanted, reply, given)
      for (const one of batches) this.#keepLocally(one, undefined)
    } catch (error) {
      this.#noteFailure(error)
      state.noteLost(chargeSet, wanted)
      for (const one of batches) this.#keepLocally(one, error)
    }
  }

  #sendAll(): Promise<unknown> {
    return Promise.all(this.#outbox.all().map((batch) => this.#sendBatch(batch)))
  }

  /** Gives what was granted to those who asked first. */
  #handOut({ chargeSet, waiting, turn }: Batch, wanted: number, reply: Reply, given: Given | undefined): void {
    const now = this.#shared.clock.now()
    const at = reply[0]! / 1_000
    let left = reply[2]!
    const hasSchedule = left < wanted || turn !== undefined
    const tail = tailOf(reply, hasSchedule)
    const turns = turn === undefined ? undefined : reply[tail]
    const adaptive = adaptiveLimitsOf(reply, turn === undefined ? tail : tail + 1)
    if (adaptive?.pauseMs !== undefined) this.#state.pauses.add(chargeSet, now, adaptive.pauseMs)
    const { shares } = this.#state
    const counted = usageOf(chargeSet, reply, adaptive, shares)
    const usage = given === undefined ? counted : withCommitted(counted, reply, given)
    if (shares !== undefined && left < wanted) tellLack(shares, chargeSet, counted)
    // Units that are leased to other gateways come back when those renew their leases.
    const schedule = hasSchedule
      ? scheduleOf(chargeSet, reply, { now, leasedMs: TICK_MS, adaptive, shares })
      : undefined
    if (left > 0) this.#state.noteGranted(chargeSet, at, left, now)
    for (const { wanted: asked, resolve } of waiting) {
      const granted = Math.min(asked, left)
      left -= granted
      const grant = new Grant(chargeSet, at, granted, usage, { schedule, turns })
      if (granted > 0) this.#shared.inFlight.add(grant)
      resolve(grant)
    }
  }

  /** Redis may not have run this batch. Its charges are spent out of leases or held; its commits and renewals are unreplicated. */
  #keepLocally(batch: Batch, cause: unknown): void {
    const state = this.#state
    const { chargeSet } = batch
    const now = this.#shared.clock.now()
    for (const ended of batch.ended) state.addUnreplicatedCommit(chargeSet, ended, now)
    for (const { to, calls, open } of batch.renewed) state.addUnreplicatedRenewal(chargeSet, to, calls, open, now)
    for (const waiting of batch.waiting) this.#spendOrHold(chargeSet, waiting, cause)
  }

  #noteFailure(error: unknown): void {
    const wasShared = this.#state.mode === 'shared'
    this.goOffline('silent')
    this.#shared.onFailure(error, !wasShared)
  }

  /** Whether a charge that can't be made may be held for a while: Redis was lost only just now, and may answer in time. */
  #mayHold(until: number): boolean {
    const now = this.#shared.clock.now()
    return now < until && this.#state.offlineMs(now) < this.#shared.answerWithinMs
  }

  #spendOrHold(chargeSet: ChargeSet, waiting: Waiting, cause: unknown): void {
    try {
      waiting.resolve(this.#spend(chargeSet, waiting.wanted, cause))
    } catch (error) {
      if (this.#isClosed || !this.#mayHold(waiting.until)) return waiting.reject(error as StoreUnavailableError)
      const held: Held = { chargeSet, waiting, timer: undefined }
      held.timer = this.#shared.clock.schedule(waiting.until - this.#shared.clock.now(), () => {
        this.#held.delete(held)
        this.#spendOrHold(chargeSet, waiting, cause)
      })
      this.#held.add(held)
    }
  }

  /** Tries all held charges again: in Redis if charges go there again, otherwise out of leases. Some may be held once more. */
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

  /** Renews the leases. While offline: tries Redis, tells it what it lacks, and resumes. */
  async #tick(): Promise<void> {
    const state = this.#state
    const now = this.#shared.clock.now()
    if (state.mode === 'shared' && now - this.#usedAt > FORGET_AFTER_MS && state.isIdle(now) && this.#outbox.isEmpty) {
      this.#shared.onForgotten(state.name)
      this.#shared.register.forget(state.name)
      this.#calls.isForgotten = true
      this.#shared.shares?.forget(state.name)
      return this.giveBackLeases()
    }
    const isShared = state.mode === 'shared'
    const all = this.#allOf()
    const restMs = isShared ? REST * this.#tookMs : 0
    const everyMs = Math.max(this.#shared.tickEveryMs(isShared), restMs)
    const termMs = TERM_TICKS * everyMs
    this.#tickTimer = undefined
    const tick = ++this.#ticks
    // A tick of several calls of the script may take longer than the time between ticks. And if two probes ran at a time, the
    // answer to one would set back the call number that the other tick has sent already. So in both cases the next tick waits
    // until this one is over.
    const isOne = all.length <= 1
    const [first] = all
    if (first === undefined || (isShared && isOne)) this.#tickLater(everyMs)
    if (!isShared) state.becomesAlone(now)
    if (first === undefined) return
    try {
      if (state.mode === 'shared') await this.#renewLeases(all, termMs, tick)
      else {
        if (state.resumeAt === undefined) {
          if (!this.#calls.isUsed) await this.#ask()
          await this.#calls.call(first, { isProbe: true })
        }
        await this.#reconcile(all, termMs, tick)
        this.#release()
      }
    } catch (error) {
      this.#noteFailure(error)
    }
    if (tick !== this.#ticks || this.#tickTimer !== undefined) return
    this.#tickLater(isOne ? Math.max(LEAST_WAIT_MS, everyMs - (this.#shared.clock.now() - now)) : everyMs)
  }

  async #renewLeases(all: readonly ChargeSet[], termMs: number, tick: number): Promise<void> {
    const since = this.#shared.clock.now()
    for (const some of all) {
      await this.#calls.call(some, { termMs })
      if (this.#isOver(tick) || this.#state.mode !== 'shared') return
    }
    this.#tookMs = all.length > 1 ? this.#shared.clock.now() - since : 0
  }

  /** Whether this tick has to stop: another began while it waited for Redis, or the partition was closed. */
  #isOver(tick: number): boolean {
    return this.#isClosed || tick !== this.#ticks
  }

  /** Tells Redis what it lacks. Once `resumeAt` has come, charges go there again. */
  async #reconcile(all: readonly ChargeSet[], termMs: number, tick: number): Promise<void> {
    const state = this.#state
    // The probe was refused, because this gateway did not know Redis's time yet. Now it does, and the next tick probes again.
    if (state.resumeAt === undefined) return
    // Several calls of the script are made one after the other, so that no answer is late. Charges keep away from Redis
    // meanwhile.
    const isOne = all.length === 1
    if (!isOne || this.#shared.clock.now() < state.resumeAt) {
      for (const some of all) {
        await this.#tell(some, { termMs, isClaim: true })
        if (this.#isOver(tick) || state.resumeAt === undefined) return
      }
      if (isOne || this.#shared.clock.now() < state.resumeAt) return
    }
    // Several were told one after the other. Now only those are told again that got unreplicated charges meanwhile.
    const left = isOne ? all : all.filter((some) => state.isUnreplicated(some))
    // Redis runs calls in the order in which they are sent, so the next charge already finds what is told here.
    state.resume()
    this.#shared.onChange(state.name, 'shared')
    this.#calls.giveBackUnsent()
    const telling = left.map((some) => this.#tell(some, { termMs, isClaim: false }))
    // Held charges are sent behind that. If they waited for its answer, their time might end: they would be refused, or taken
    // from a lease that Redis goes on to take for unused.
    this.#release()
    await Promise.all(telling)
  }

  async #tell(some: ChargeSet, leases: { readonly termMs: number; readonly isClaim: boolean }): Promise<void> {
    const state = this.#state
    const unreplicated = state.takeUnreplicated(some, this.#shared.clock.now())
    const additions = unreplicated.flatMap((charges, i) =>
      charges.map(({ bucket, units }): Argument[] => [i + 1, bucket, units]),
    )
    const restore = (): void => state.restoreUnreplicated(some, unreplicated, this.#shared.clock.now())
    const reply = await this.#calls.call(some, { additions, ...leases }).catch((error: unknown) => {
      restore()
      throw error
    })
    if (reply === undefined) restore()
  }

  #allOf(): readonly ChargeSet[] {
    const limits = [...this.#state.limits].map(({ limit }) => limit)
    const all: ChargeSet[] = []
    for (let i = 0; i < limits.length; i += MOST_LIMITS) {
      const some = limits.slice(i, i + MOST_LIMITS)
      const known = this.#all[all.length]
      const isKnown = known?.limits.length === some.length && some.every((limit, n) => limit === known.limits[n])
      const charges = some.map((limit) => ({ limit }))
      all.push(isKnown ? known : chargeSetOf(this.#state.name, charges))
    }
    return (this.#all = all)
  }
}

/** Units of each limit that the region may use now; undefined for a limit that is not split over regions. */
type Given = readonly (number | undefined)[]

function givenOf({ limits }: ChargeSet, shares: PartitionShares | undefined): Given | undefined {
  return shares && limits.map((limit) => shares.unitsOf(limit))
}

/** A call was refused. Reports the limits of which the region's share was too small for it. */
function tellLack(shares: PartitionShares, { units }: ChargeSet, usage: readonly LimitUsage[]): void {
  for (const [i, { limit, used, share, effective }] of usage.entries()) {
    if (share !== undefined && effective === undefined && used + units[i]! > share) shares.lacks(limit, units[i]!)
  }
}

/** A charge set of one unit of one limit. */
function unitOf({ partition, account }: ChargeSet, limit: Limit): ChargeSet {
  return UNITS.getOrInsertComputed(limit, () =>
    chargeSetOf(partition, [{ limit: { ...limit, settles: 'at-once' } }], account),
  )
}

const UNITS = new WeakMap<Limit, ChargeSet>()

/** A time before every charge that the limit still counts, with room for a difference between the clocks of this gateway and Redis. */
function longBefore(time: number, { windowMs, inFlightLeaseMs }: Limit): number {
  return time - 4 * (windowMs + inFlightLeaseMs) - 10_000
}

interface Held {
  readonly chargeSet: ChargeSet
  readonly waiting: Waiting
  timer: Timer | undefined
}
