/*
 * src/ledger/embedded: the ledger of one process, in memory and on disk.
 * It imports only ledger, files and time.
 * A change here must prove that a crash, or a full disk, at any moment grants no quota twice (test/ledger/embedded).
 */

import type { Clock, Timer } from '../../time/clock.ts'
import { forEachInTurns } from '../../time/turns.ts'
import { InFlight } from '../in-flight.ts'
import {
  type ChargeSet,
  Grant,
  type Ledger,
  type LimitUsage,
  type OutagePolicy,
  StoreUnavailableError,
  type QueueTurn,
  uncounted,
  type UpstreamFeedback,
} from '../ledger.ts'
import type { Limit } from '../limit.ts'
import { LimitTable, Pauses } from '../limit-table.ts'
import { Schedule } from '../schedule.ts'
import type { LedgerFiles, Stamp, StoredLimit, StoredPartition } from './ledger-files.ts'
import { ALL, isOver, Tally, WALL_STEP_MS } from './tally.ts'

/** The share of a limit that may be charged before the partition's file is written again. */
const RESERVE = 0.05
/**
 * The same share for a window longer than LONG_WINDOW_MS, where a crash should not cost that much. It is used up a
 * thousand times in a window at most.
 */
const RESERVE_OF_LONG = 0.001
const LONG_WINDOW_MS = 3_600_000
/** A window this short lasts no longer than a restart. So all of its limit may be charged between two writes. */
const SHORT_WINDOW_MS = 5_000
/** How often to try again to write what could not be written. */
const RETRY_MS = 1_000
/**
 * How long the files may lack what calls gave back. Then it is written even if no call comes any more, because after a
 * crash it would count as charged for a window.
 */
const GIVEN_BACK_MS = 5_000
/** How many files are written in one turn of the event loop: a few milliseconds. */
const MOST_SAVED_IN_A_TURN = 16

export interface MemoryLedgerOptions {
  /** What calls get while charges can't be written to disk; see `MemoryLedger`. */
  readonly onOutage?: OutagePolicy
  /** Told what `problem` says when charges can't be written to disk, and undefined when they can again. */
  readonly onChange?: (problem: string | undefined) => void
}

/**
 * The ledger of a single gateway process. With `files` a restart does not hand out a second quota, not even after
 * `kill -9`: what may be charged before the next write is in the file beforehand, and counts as charged after a crash.
 *
 * No charge is taken to be older than it can be, even if the wall clock is set, while the process runs or between two
 * runs: a clock that nobody sets tells the age. Two runs can't compare that clock if the machine was started anew, or
 * if it is not Linux. Then the age is by the wall clock, less WALL_ERROR_MS. So a charge may count that much longer,
 * and the guarantee holds if the wall clock was set forward by no more than that meanwhile. Only calendar windows go by
 * the wall clock, and are counted anew when it is set.
 *
 * While charges can't be written (the disk is full), they are counted in memory, and nothing is refused because of it.
 * The folder is marked: if the process dies meanwhile, the next one takes every limit for used up. With
 * `onOutage: closed`, or if the folder can't be marked either, calls that need a quota are refused. With `open` they never are,
 * and a crash may then grant quotas anew. Writing is tried again every second.
 *
 * The file is longer than others, because what is counted and what is written share every tally: whoever changes one
 * sees the other.
 */
export class MemoryLedger implements Ledger {
  /** There are no other gateways. */
  readonly exchange = undefined
  readonly #clock: Clock
  readonly #files: LedgerFiles | undefined
  readonly #options: MemoryLedgerOptions
  readonly #partitions = new Map<string, LimitTable<Tally>>()
  readonly #stored: Map<string, StoredPartition>
  readonly #loadedAt: number
  /** When this process, or an earlier one, took every limit that no file mentions for used up; undefined if none did. */
  readonly #usedUpAt: Stamp | undefined
  readonly #inFlight: InFlight
  /** The partitions whose calls in flight were renewed since they were written. */
  readonly #renewed = new Set<string>()
  /** The partitions to which calls gave something back that may not be in their files. */
  readonly #givenBack = new Set<string>()
  #givenBackTimer: Timer | undefined
  #isClosed = false
  readonly #pauses = new Pauses()
  /** By how much the wall clock is ahead of `clock.now()`, as last applied to calendar windows. */
  #wallAheadMs: number
  #hasCalendar = false
  /** Why charges can't be written. */
  #problem: Error | undefined
  #retryTimer: Timer | undefined

  constructor(clock: Clock, files?: LedgerFiles, options: MemoryLedgerOptions = {}) {
    this.#clock = clock
    this.#files = files
    this.#options = options
    this.#stored = files?.load() ?? new Map()
    this.#loadedAt = clock.now()
    this.#usedUpAt = files?.isBehind === true ? this.#stamp(this.#loadedAt) : files?.loadUsedUp()
    this.#wallAheadMs = clock.wall() - this.#loadedAt
    this.#inFlight = new InFlight({
      clock,
      renew: (grant) => this.#renew(grant),
      // The files are written so that calls in flight count after a crash, too, until they can't arrive any more.
      onRenewed: () => void this.#saveEach(this.#renewed),
    })
    if (files?.isBehind === true) {
      // The files lack charges.
      for (const [partition, limits] of this.#stored) this.#stored.set(partition, allUsedUp(limits, this.#usedUpAt!))
      this.#retry()
    }
  }

  get isReady(): boolean {
    return !this.#isRefusing
  }

  get isDegraded(): boolean {
    return this.#problem !== undefined
  }

  get problem(): string | undefined {
    if (this.#problem === undefined) return undefined
    const afterCrash = this.#files?.isBehind === true ? 'taken for used up' : 'may be granted again'
    const what = this.#isRefusing
      ? 'calls that need a quota are refused'
      : `quotas are counted in memory, and ${afterCrash} after a crash`
    return `the quota can not be written to disk (${this.#problem.message}): ${what}`
  }

  get #isRefusing(): boolean {
    if (this.#isClosed) return true
    if (this.#problem === undefined || this.#options.onOutage === 'open') return false
    return this.#options.onOutage === 'closed' || this.#files?.isBehind !== true
  }

  charge(chargeSet: ChargeSet, wanted: number, turn?: QueueTurn): Grant {
    const now = this.#now()
    const { units } = chargeSet
    const pausedUntil = this.#pauses.until(chargeSet, now)
    if (units.length === 0) return uncounted(chargeSet, wanted, now, pausedUntil)
    const tallies = this.#tableOf(chargeSet).of(chargeSet)
    let granted = pausedUntil > 0 ? 0 : wanted
    for (let i = 0; i < tallies.length; i++) {
      const { counter } = tallies[i]!
      if (counter.limit.isEnforced) granted = Math.min(granted, Math.floor(counter.free(now, units[i]) / units[i]!))
    }
    if (granted > 0) {
      this.#reserve(chargeSet, tallies, granted, now)
      for (let i = 0; i < tallies.length; i++) tallies[i]!.charge(now, granted * units[i]!)
    } else granted = 0
    const usage = usageOf(tallies, now)
    const isTold = granted < wanted || turn !== undefined
    const schedule = isTold ? scheduleOf(chargeSet, tallies, now, pausedUntil) : undefined
    const grant = new Grant(chargeSet, now, granted, usage, { schedule })
    if (granted > 0) this.#inFlight.add(grant)
    return grant
  }

  commit(grant: Grant, units?: readonly number[]): void {
    this.#commit(grant, false, units)
    if (units === undefined) return
    const { part } = grant
    this.#keepDebts(part, units)
    if (units.some((spent, i) => spent < part.units[i]!)) this.#saveSoon(part)
  }

  abandon(grant: Grant): void {
    this.#commit(grant, true)
    if (grant.rest !== undefined) this.abandon(grant.rest)
  }

  #commit(grant: Grant, isAbandoned: boolean, units?: readonly number[]): void {
    this.#tableOf(grant.chargeSet).commit(grant, isAbandoned, this.#now(), 0, units)
    grant.uncommitted--
    this.#inFlight.update(grant)
  }

  /**
   * Writes the file if calls have cost more than they were charged, and the reserve does not cover it. Otherwise a
   * crash would forget it.
   */
  #keepDebts(part: ChargeSet, spent: readonly number[]): void {
    if (this.#files === undefined || this.#problem !== undefined) return
    let isCovered = true
    for (const [i, tally] of this.#tableOf(part).of(part).entries()) {
      const debt = spent[i]! - part.units[i]!
      if (debt <= 0) continue
      isCovered &&= tally.reserved >= debt
      tally.reserved = Math.max(0, tally.reserved - debt)
    }
    if (!isCovered) this.#trySave(part.partition, this.#now())
  }

  refund(grant: Grant): void {
    this.#tableOf(grant.chargeSet).refund(grant, this.#now())
    grant.uncommitted--
    this.#inFlight.update(grant)
    this.#saveSoon(grant.chargeSet)
    if (grant.rest !== undefined) this.refund(grant.rest)
  }

  leave(grant: Grant): void {
    grant.open--
    if (!grant.chargeSet.hasConcurrent) return
    this.#tableOf(grant.chargeSet).leave(grant, this.#now())
    this.#inFlight.update(grant)
  }

  applyFeedback({ chargeSet, chargedAt }: Grant, feedback: UpstreamFeedback): void {
    const now = this.#now()
    if (feedback.kind === 'pause') return this.#pauses.add(chargeSet, now, feedback.ms)
    const { counter } = this.#tableOf(chargeSet).of(chargeSet)[feedback.limit]!
    const units = chargeSet.units[feedback.limit]!
    if (feedback.kind === 'refused') counter.refuse(now, chargedAt, units)
    else counter.observeCount(now, chargedAt, units, { ...feedback, counted: feedback.units })
  }

  usage(chargeSet: ChargeSet): Promise<readonly LimitUsage[]> {
    const tallies = this.#tableOf(chargeSet).of(chargeSet)
    return Promise.resolve(usageOf(tallies, this.#now()))
  }

  /**
   * Writes all charges, and unlocks the folder in any case. If they can't be written, the folder is marked. Rejects
   * if it can't be marked either, because the next process would then grant the same quota again.
   */
  async close(): Promise<void> {
    this.#retryTimer?.cancel()
    this.#givenBackTimer?.cancel()
    this.#inFlight.close()
    const files = this.#files
    if (files === undefined) return
    try {
      this.#saveAll(files)
      this.#removeUnused(files)
    } catch (error) {
      this.#fallBehind(error as Error)
      this.#retryTimer?.cancel()
      if (files.isBehind) return
      const what =
        'what was charged is neither written nor marked as missing, and may be granted again after the next start'
      throw new Error(`the quota can not be written to disk (${(error as Error).message}): ${what}`, { cause: error })
    } finally {
      this.#isClosed = true
      files.unlock()
    }
  }

  #now(): number {
    const now = this.#clock.now()
    if (this.#hasCalendar) this.#followWall(now)
    return now
  }

  #followWall(now: number): void {
    const aheadMs = this.#clock.wall() - now
    if (Math.abs(aheadMs - this.#wallAheadMs) < WALL_STEP_MS) return
    this.#wallAheadMs = aheadMs
    for (const table of this.#partitions.values()) for (const tally of table.all) tally.setCalendar(now, aheadMs)
  }

  #renew(grant: Grant): void {
    const now = this.#now()
    this.#tableOf(grant.chargeSet).renew(grant, now, now)
    grant.at = now
    this.#renewed.add(grant.chargeSet.partition)
  }

  /**
   * Plans to write a partition within GIVEN_BACK_MS. Many calls give back something, so it is not written for each of
   * them.
   */
  #saveSoon({ partition }: ChargeSet): void {
    if (this.#files === undefined || this.#isClosed) return
    this.#givenBack.add(partition)
    this.#givenBackTimer ??= this.#clock.schedule(GIVEN_BACK_MS, () => {
      this.#givenBackTimer = undefined
      void this.#saveEach(this.#givenBack)
    })
  }

  #saveEach(partitions: Set<string>): Promise<void> {
    // This goes over a copy. Otherwise a partition that is added meanwhile would be written in the same pass, which
    // might never end.
    return forEachInTurns([...partitions], MOST_SAVED_IN_A_TURN, this.#clock, (partition) => {
      // `close` saves all and empties the set.
      if (partitions.delete(partition) && this.#problem === undefined) this.#trySave(partition, this.#now())
    })
  }

  #trySave(partition: string, now: number): void {
    try {
      this.#save(partition, now)
    } catch (error) {
      this.#fallBehind(error as Error)
    }
  }

  #tableOf({ partition }: ChargeSet): LimitTable<Tally> {
    let table = this.#partitions.get(partition)
    if (table === undefined) {
      table = new LimitTable((limit) => this.#restore(partition, limit))
      this.#partitions.set(partition, table)
    }
    return table
  }

  #restore(partition: string, limit: Limit): Tally {
    if (limit.kind === 'calendar') {
      this.#hasCalendar = true
      this.#followWall(this.#clock.now())
    }
    const tally = new Tally(limit, this.#wallAheadMs)
    // The process that took all limits for used up wrote only those that it used, or that had a file. A limit that was
    // made since is taken for used up, too. A list of the limits that existed then would not do: limits that are counted
    // apart, such as by client, are known from their first call on, and would be granted twice.
    const stored = this.#stored.get(partition)?.[limit.id] ?? (this.#usedUpAt && usedUp(limit, this.#usedUpAt))
    if (stored !== undefined) tally.restore(this.#loadedAt, stored, this.#wallAheadMs, this.#clock)
    return tally
  }

  #reserve(chargeSet: ChargeSet, tallies: readonly Tally[], calls: number, now: number): void {
    const { partition, units } = chargeSet
    if (this.#files === undefined) return
    if (this.#isRefusing) throw new StoreUnavailableError(this.#problem)
    if (this.#problem !== undefined) return
    let isCovered = true
    for (let i = 0; i < tallies.length; i++) isCovered &&= tallies[i]!.reserved >= calls * units[i]!
    if (!isCovered) {
      // One file has all limits of the partition, so their reserves are renewed together. Otherwise, with thousands of
      // clients, every call would write the file.
      for (const tally of this.#tableOf(chargeSet).all) {
        const share = shareOf(tally.limit)
        if (tally.lastCharge <= share) tally.reserved = share
      }
      for (const [i, tally] of tallies.entries()) tally.reserved = Math.max(calls * units[i]!, shareOf(tally.limit))
      try {
        this.#save(partition, now)
      } catch (error) {
        this.#fallBehind(error as Error)
        // What is neither in the file nor marked must not be charged.
        if (this.#isRefusing) throw new StoreUnavailableError(error)
        return
      }
    }
    for (let i = 0; i < tallies.length; i++) {
      const tally = tallies[i]!
      tally.lastCharge = calls * units[i]!
      tally.reserved -= tally.lastCharge
    }
  }

  /** From now on the files say less than is charged. */
  #fallBehind(problem: Error): void {
    const isNew = this.#problem === undefined
    this.#problem = problem
    try {
      this.#files?.markBehind()
    } catch {
      // If the folder can't be marked, calls are refused, unless `onOutage` is `open`. So the files still say all that
      // was charged.
    }
    this.#retryTimer?.cancel()
    this.#retryTimer = this.#clock.schedule(RETRY_MS, () => this.#retry())
    if (isNew) this.#options.onChange?.(this.problem)
  }

  #retry(): void {
    if (this.#files === undefined) return
    try {
      this.#saveAll(this.#files)
    } catch (error) {
      return this.#fallBehind(error as Error)
    }
    if (this.#problem === undefined) return
    this.#problem = undefined
    this.#options.onChange?.(undefined)
  }

  /** Writes all partitions, then removes the mark. Throws if one of them can't be written. */
  #saveAll(files: LedgerFiles): void {
    const now = this.#now()
    this.#renewed.clear()
    this.#givenBack.clear()
    for (const table of this.#partitions.values()) for (const tally of table.all) tally.reserved = 0
    const partitions = new Set([...this.#partitions.keys(), ...(files.isBehind ? this.#stored.keys() : [])])
    for (const partition of partitions) this.#save(partition, now)
    // Without the mark, the next process can't tell from the folder what was taken for used up here.
    if (files.isBehind && this.#usedUpAt !== undefined) files.saveUsedUp(this.#usedUpAt)
    files.unmark()
  }

  /** Removes the files of accounts that this process did not use, such as removed ones, once nothing in them counts any more. */
  #removeUnused(files: LedgerFiles): void {
    const sinceMs = this.#clock.now() - this.#loadedAt
    for (const [partition, limits] of this.#stored) {
      const isUnused = !this.#partitions.has(partition)
      if (isUnused && Object.values(limits).every((one) => isOver(one, this.#clock, sinceMs))) files.remove(partition)
    }
  }

  #save(partition: string, now: number): void {
    // Once the ledger is closed, the folder may be another process's.
    if (this.#files === undefined || this.#isClosed) return
    const limits: Record<string, StoredLimit> = {}
    for (const [id, stored] of Object.entries(this.#stored.get(partition) ?? {})) {
      if (this.#loadedAt + 2 * stored.windowMs > now) limits[id] = stored
    }
    const at = this.#stamp(now)
    for (const [id, tally] of this.#partitions.get(partition)?.byId ?? []) limits[id] = tally.stored(now, at)
    this.#files.save(partition, limits)
  }

  #stamp(at: number): Stamp {
    const { boot } = this.#clock
    const wall = this.#clock.wall() - (this.#clock.now() - at)
    return { ...(boot === undefined ? {} : { boot }), now: at, wall }
  }
}

/** How many units of a limit may be charged before its file is written again. */
function shareOf({ requests, windowMs }: Limit): number {
  return Math.ceil(requests * (windowMs > LONG_WINDOW_MS ? RESERVE_OF_LONG : windowMs > SHORT_WINDOW_MS ? RESERVE : 1))
}

function scheduleOf({ units }: ChargeSet, tallies: readonly Tally[], now: number, pausedUntil: number): Schedule {
  return new Schedule(
    now,
    tallies.map(({ counter }, i) => ({
      limit: counter.limit,
      units: units[i]!,
      free: counter.free(now),
      releases: counter.releases(now, units[i]),
    })),
    pausedUntil,
  )
}

function allUsedUp(limits: StoredPartition, at: Stamp): StoredPartition {
  return Object.fromEntries(Object.entries(limits).map(([id, stored]) => [id, usedUp(stored, at)]))
}

/** What is stored of a limit that may have been used up by that time. */
function usedUp({ windowMs }: Pick<StoredLimit, 'windowMs'>, at: Stamp): StoredLimit {
  return { at, windowMs, charges: [], uncertain: ALL }
}

function usageOf(tallies: readonly Tally[], now: number): LimitUsage[] {
  return tallies.map(({ counter }) => ({
    limit: counter.limit,
    used: counter.used(now),
    resetMs: counter.resetMs(now),
    effective: counter.limit.isEnforced ? counter.effective(now) : undefined,
  }))
}
