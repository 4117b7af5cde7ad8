/*
 * src/ledger/embedded: the ledger of one process, in memory and on disk.
 * It imports only ledger, files and time.
 * A change here must prove that a crash, or a full disk, at any moment grants no quota twice (test/ledger/embedded).
 */

import type { Clock, Timer } from '../../time/clock.ts'
import { Counter } from '../counter.ts'
import { InFlight } from '../in-flight.ts'
import {
  Grant,
  type Ledger,
  type UpstreamFeedback,
  type LimitUsage,
  type ChargeSet,
  type OutagePolicy,
  StoreUnavailableError,
  type Turn,
  uncounted,
} from '../ledger.ts'
import type { LedgerFiles, Stamp, StoredPartition, StoredLimit } from './ledger-files.ts'
import { BUCKETS, type Limit } from '../limit.ts'
import { Schedule } from '../schedule.ts'

/** Share of a limit that may be charged before the partition's file is written again. */
const RESERVE = 0.05
/** A window so short that a restart takes as long: all of it may be charged between two writes. */
const SHORT_WINDOW_MS = 5_000
/** How often to try again to write what could not be written. */
const RETRY_MS = 1_000
/** The calendar follows the wall clock once they differ by this much; less than the two are read apart is nothing. */
const WALL_STEP_MS = 100
/** Units that may have been charged where it is not known how many. */
const ALL = 1e12
/** The end of a bucket is in the next one. */
const INSIDE_MS = 0.01
/** `now` of two processes may differ by this much where they do not know that they are on the same start of the machine. */
const NOW_ERROR_MS = 20
/**
 * What the wall clock is taken to be off at most where nothing else tells how much time has passed between two runs: such as
 * when the machine was started anew.
 */
const WALL_ERROR_MS = 15 * 60_000

/** One limit of one partition, counted. */
interface Tally {
  readonly counter: Counter
  /** Of a limit of the calendar: the same charges by when they were made, in case the calendar is set. */
  readonly record: Counter | undefined
  /** How much may be charged before the file must be written again. */
  reserved: number
}

export interface MemoryLedgerOptions {
  /** What calls get while charges can't be written to disk; see `MemoryLedger`. */
  readonly onOutage?: OutagePolicy
  /** Told when charges can't be written to disk, and why, and when they can again. */
  readonly onChange?: (problem: Error | undefined) => void
}

/**
 * The ledger of a single gateway process. With `files` a restart does not hand out a second quota, not even one after
 * `kill -9`: what may be charged before the next write is in the file beforehand, and counts as charged after a crash.
 *
 * However the wall clock is set, while it runs or between two runs, no charge is taken for older than it can be: how old it is
 * tells a clock that nobody sets. Where there is none that both runs know (the machine was started anew, or it is not Linux)
 * the wall clock is believed, less WALL_ERROR_MS: so a charge may count that much longer, and the guarantee holds if the wall
 * clock was set forward by no more than that meanwhile. Only windows of the calendar go by the wall clock, and are counted anew
 * when it is set.
 *
 * While charges can't be written (the disk is full), they are counted in memory, nothing is refused because of it, and the
 * folder is marked: a process that dies meanwhile is followed by one that takes every limit for used up at its start. With
 * `onOutage: closed`, or where the folder can't be marked either, calls that need a quota are refused; with `open` they never
 * are, and a crash then may grant quotas anew. It is tried again every second.
 */
export class MemoryLedger implements Ledger {
  /** There are no other gateways. */
  readonly exchange = undefined
  readonly #clock: Clock
  readonly #files: LedgerFiles | undefined
  readonly #options: MemoryLedgerOptions
  readonly #partitions = new Map<string, Map<string, Tally>>()
  readonly #tallies = new WeakMap<ChargeSet, readonly Tally[]>()
  readonly #stored: Map<string, StoredPartition>
  readonly #loadedAt: number
  /** The files that were found lack charges: every limit may be used up. */
  readonly #wasBehind: boolean
  readonly #inFlight: InFlight
  /** Until when the upstream wants no calls of an account. */
  readonly #pauses = new Map<string, number>()
  /** How far the wall clock is ahead of the other, as far as windows of the calendar know. */
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
    this.#wasBehind = files?.isBehind ?? false
    this.#loadedAt = clock.now()
    this.#wallAheadMs = clock.wall() - this.#loadedAt
    this.#inFlight = new InFlight(clock, (grants) => this.#renew(grants))
    if (this.#wasBehind) {
      for (const [partition, limits] of this.#stored) this.#stored.set(partition, usedUp(limits))
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
    const what = this.#isRefusing
      ? 'calls that need a quota are refused'
      : 'quotas are counted in memory, and taken for used up after a crash'
    return `the quota can not be written to disk (${this.#problem.message}): ${what}`
  }

  get #isRefusing(): boolean {
    if (this.#problem === undefined || this.#options.onOutage === 'open') return false
    return this.#options.onOutage === 'closed' || this.#files?.isBehind !== true
  }

  charge(chargeSet: ChargeSet, wanted: number, turn?: Turn): Grant {
    const now = this.#now()
    const { units } = chargeSet
    const pausedUntil = this.#pauses.size === 0 ? 0 : this.#pausedUntil(chargeSet, now)
    if (units.length === 0) return uncounted(chargeSet, wanted, now, pausedUntil)
    const tallies = this.#talliesOf(chargeSet)
    let granted = pausedUntil > 0 ? 0 : wanted
    for (let i = 0; i < tallies.length; i++) {
      const { counter } = tallies[i]!
      if (counter.limit.isEnforced) granted = Math.min(granted, Math.floor(counter.free(now, units[i]) / units[i]!))
    }
    if (granted > 0) {
      this.#reserve(chargeSet, tallies, granted, now)
      for (let i = 0; i < tallies.length; i++) {
        tallies[i]!.counter.charge(now, now, granted * units[i]!)
        tallies[i]!.record?.charge(now, now, granted * units[i]!)
      }
    } else granted = 0
    const usage = usageOf(tallies, now)
    const isTold = granted < wanted || turn !== undefined
    const schedule = isTold ? this.#scheduleOf(chargeSet, tallies, now, pausedUntil) : undefined
    const grant = new Grant(chargeSet, now, granted, usage, { schedule })
    if (granted > 0) this.#inFlight.add(grant)
    return grant
  }

  commit(grant: Grant): void {
    this.#commit(grant, false)
  }

  abandon(grant: Grant): void {
    this.#commit(grant, true)
  }

  #commit(grant: Grant, isAbandoned: boolean): void {
    const now = this.#now()
    const { chargeSet } = grant
    const tallies = this.#talliesOf(chargeSet)
    for (let i = 0; i < tallies.length; i++) {
      const { counter, record } = tallies[i]!
      if (counter.limit.kind === 'concurrent') continue
      const laterMs = isAbandoned ? counter.limit.countingToleranceMs : 0
      counter.commit(now, grant.at, chargeSet.units[i]!, laterMs)
      record?.commit(now, grant.at, chargeSet.units[i]!, laterMs)
    }
    grant.uncommitted--
    this.#inFlight.update(grant)
  }

  refund(grant: Grant): void {
    this.#takeBack(grant, 'windowed')
    grant.uncommitted--
    this.#inFlight.update(grant)
  }

  leave(grant: Grant): void {
    grant.open--
    if (!grant.chargeSet.hasConcurrent) return
    this.#takeBack(grant, 'concurrent')
    this.#inFlight.update(grant)
  }

  #takeBack({ chargeSet, at }: Grant, which: 'windowed' | 'concurrent'): void {
    const now = this.#now()
    for (const [i, { counter, record }] of this.#talliesOf(chargeSet).entries()) {
      if ((counter.limit.kind === 'concurrent') !== (which === 'concurrent')) continue
      counter.refund(now, at, chargeSet.units[i]!)
      record?.refund(now, at, chargeSet.units[i]!)
    }
  }

  applyFeedback({ chargeSet, chargedAt }: Grant, feedback: UpstreamFeedback): void {
    const now = this.#now()
    switch (feedback.kind) {
      case 'pause':
        this.#pauses.set(chargeSet.account, Math.max(this.#pausedUntil(chargeSet, now), now + feedback.ms))
        return
      case 'refused':
        this.#talliesOf(chargeSet)[feedback.limit]!.counter.refuse(now, chargedAt, chargeSet.units[feedback.limit]!)
        return
      case 'counted': {
        const { limit, units: counted, tolerance, resetMs, isRefused } = feedback
        const { counter } = this.#talliesOf(chargeSet)[limit]!
        counter.observeCount(now, chargedAt, chargeSet.units[limit]!, { counted, tolerance, resetMs, isRefused })
      }
    }
  }

  /** 0 if it is not. */
  #pausedUntil({ account }: ChargeSet, now: number): number {
    const until = this.#pauses.get(account) ?? 0
    if (until > now) return until
    this.#pauses.delete(account)
    return 0
  }

  usage(chargeSet: ChargeSet): Promise<readonly LimitUsage[]> {
    const tallies = this.#talliesOf(chargeSet)
    return Promise.resolve(usageOf(tallies, this.#now()))
  }

  /**
   * What can't be written stays marked, and the folder is free in any case. Rejects where it can't even be marked: the next
   * process would grant the same quota again.
   */
  async close(): Promise<void> {
    this.#retryTimer?.cancel()
    this.#inFlight.close()
    const files = this.#files
    if (files === undefined) return
    try {
      this.#saveAll(files)
    } catch (error) {
      this.#fallBehind(error as Error)
      this.#retryTimer?.cancel()
      if (files.isBehind) return
      const what =
        'what was charged is neither written nor marked as missing, and may be granted again after the next start'
      throw new Error(`the quota can not be written to disk (${(error as Error).message}): ${what}`, { cause: error })
    } finally {
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
    for (const tallies of this.#partitions.values()) {
      for (const { counter, record } of tallies.values()) {
        if (record !== undefined) counter.setCalendar(now, aheadMs, record)
      }
    }
  }

  #renew(grants: ReadonlySet<Grant>): void {
    const now = this.#now()
    const partitions = new Set<string>()
    for (const grant of grants) {
      const { chargeSet, uncommitted, open } = grant
      for (const [i, { counter, record }] of this.#talliesOf(chargeSet).entries()) {
        const calls = counter.limit.kind === 'concurrent' ? open : uncommitted
        counter.renew(now, grant.at, now, calls * chargeSet.units[i]!)
        record?.renew(now, grant.at, now, calls * chargeSet.units[i]!)
      }
      grant.at = now
      partitions.add(chargeSet.partition)
    }
    if (this.#problem !== undefined) return
    // So that after a crash, too, what was in flight counts until it can't arrive any more.
    for (const partition of partitions) {
      try {
        this.#save(partition, now)
      } catch (error) {
        return this.#fallBehind(error as Error)
      }
    }
  }

  #talliesOf(chargeSet: ChargeSet): readonly Tally[] {
    let tallies = this.#tallies.get(chargeSet)
    if (tallies === undefined) {
      const partition = this.#partitions.getOrInsertComputed(chargeSet.partition, () => new Map<string, Tally>())
      tallies = chargeSet.limits.map((limit) => {
        const tally = partition.getOrInsertComputed(limit.id, () => this.#restore(chargeSet.partition, limit))
        // A reload may have changed what is allowed; what was charged stays.
        if (limit.order > tally.counter.limit.order) tally.counter.limit = limit
        return tally
      })
      this.#tallies.set(chargeSet, tallies)
    }
    return tallies
  }

  #restore(partition: string, limit: Limit): Tally {
    const now = this.#loadedAt
    const record = limit.kind === 'calendar' ? new Counter(rollingOf(limit)) : undefined
    if (record !== undefined) {
      this.#hasCalendar = true
      this.#followWall(this.#clock.now())
    }
    const counter = new Counter(limit, this.#wallAheadMs)
    const stored = this.#stored.get(partition)?.[limit.id]
    if (stored !== undefined) {
      const elapsed = elapsedSince(stored.at, this.#clock.boot, now, now + this.#wallAheadMs)
      const charged = record ?? counter
      const latest = charged.bucketOf(now + limit.inFlightLeaseMs)
      for (const { agoMs, units } of stored.charges) {
        const at = now - elapsed.leastMs - agoMs - INSIDE_MS
        charged.restore(now, Math.min(charged.bucketOf(at), latest), units)
      }
      if (record !== undefined) {
        if (stored.windows === undefined || elapsed.isWallSet) counter.setCalendar(now, this.#wallAheadMs, record)
        else {
          const last = counter.bucketOf(now + limit.inFlightLeaseMs)
          for (const { startsAt, units } of stored.windows) {
            const bucket = Math.round(startsAt / limit.bucketMs)
            if (bucket <= last) counter.restore(now, bucket, units)
          }
        }
      }
    }
    // Whether, and when before the crash, these were charged is unknown: at worst all of them just before we started.
    const uncertain = Math.min(this.#wasBehind ? ALL : (stored?.uncertain ?? 0), limit.requests)
    if (uncertain > 0) {
      counter.addCommitted(now, now, uncertain, limit.countingToleranceMs)
      record?.addCommitted(now, now, uncertain, limit.countingToleranceMs)
    }
    return { counter, record, reserved: 0 }
  }

  #reserve({ partition, units }: ChargeSet, tallies: readonly Tally[], calls: number, now: number): void {
    if (this.#files === undefined) return
    if (this.#isRefusing) throw new StoreUnavailableError(this.#problem)
    if (this.#problem !== undefined) return
    let isCovered = true
    for (let i = 0; i < tallies.length; i++) isCovered &&= tallies[i]!.reserved >= calls * units[i]!
    if (!isCovered) {
      for (const [i, tally] of tallies.entries()) {
        const { requests, windowMs } = tally.counter.limit
        const share = windowMs <= SHORT_WINDOW_MS ? requests : Math.ceil(requests * RESERVE)
        tally.reserved = Math.max(calls * units[i]!, share)
      }
      try {
        this.#save(partition, now)
      } catch (error) {
        this.#fallBehind(error as Error)
        // What is neither in the file nor marked must not be charged.
        if (this.#isRefusing) throw new StoreUnavailableError(error)
        return
      }
    }
    for (let i = 0; i < tallies.length; i++) tallies[i]!.reserved -= calls * units[i]!
  }

  /** From now on the files say less than is charged. */
  #fallBehind(problem: Error): void {
    const isNew = this.#problem === undefined
    this.#problem = problem
    try {
      this.#files?.markBehind()
    } catch {
      // Then calls are refused, as the policy wants it: what was written last says all that was charged.
    }
    this.#retryTimer?.cancel()
    this.#retryTimer = this.#clock.schedule(RETRY_MS, () => this.#retry())
    if (isNew) this.#options.onChange?.(problem)
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

  /** Throws where not all of it can be written. */
  #saveAll(files: LedgerFiles): void {
    const now = this.#now()
    for (const tallies of this.#partitions.values()) for (const tally of tallies.values()) tally.reserved = 0
    const partitions = new Set([...this.#partitions.keys(), ...(files.isBehind ? this.#stored.keys() : [])])
    for (const partition of partitions) this.#save(partition, now)
    files.unmark()
  }

  #save(partition: string, now: number): void {
    if (this.#files === undefined) return
    const limits: Record<string, StoredLimit> = {}
    for (const [id, stored] of Object.entries(this.#stored.get(partition) ?? {})) {
      if (this.#loadedAt + 2 * stored.windowMs > now) limits[id] = stored
    }
    const { boot } = this.#clock
    const at = { ...(boot === undefined ? {} : { boot }), now, wall: this.#clock.wall() }
    for (const [id, { counter, record, reserved }] of this.#partitions.get(partition) ?? []) {
      // What was in flight has ended with the process, but the upstream may notice that a little later.
      const { windowMs, inFlightLeaseMs } = counter.limit
      const charged = record ?? counter
      limits[id] = {
        at,
        windowMs: Math.max(windowMs, inFlightLeaseMs),
        charges: charged.charges(now).map(({ bucket, units }) => ({ agoMs: now - charged.startOf(bucket + 1), units })),
        ...(record === undefined ? {} : { windows: windowsOf(counter, now) }),
        uncertain: reserved,
      }
    }
    this.#files.save(partition, limits)
  }

  #scheduleOf({ units }: ChargeSet, tallies: readonly Tally[], now: number, pausedUntil: number): Schedule {
    return new Schedule(
      now,
      tallies.map(({ counter }, i) => ({
        limit: counter.limit,
        units: units[i]!,
        free: counter.free(now),
        releases: counter.releases(now),
      })),
      pausedUntil,
    )
  }
}

function usedUp(limits: StoredPartition): StoredPartition {
  return Object.fromEntries(Object.entries(limits).map(([id, stored]) => [id, { ...stored, uncertain: ALL }]))
}

/** The same limit in a rolling window. */
function rollingOf(limit: Limit): Limit {
  return { ...limit, kind: 'rolling', bucketMs: limit.windowMs / BUCKETS, kept: BUCKETS }
}

function windowsOf(counter: Counter, now: number): { startsAt: number; units: number }[] {
  return counter.charges(now).map(({ bucket, units }) => ({ startsAt: bucket * counter.limit.bucketMs, units }))
}

/** How much time has passed at least since something was noted, and whether the wall clock is known to have been set since. */
function elapsedSince(
  then: Stamp | undefined,
  boot: string | undefined,
  now: number,
  wall: number,
): { leastMs: number; isWallSet: boolean } {
  if (then === undefined) return { leastMs: 0, isWallSet: false }
  // On another start of the machine, too: it began after what was noted then.
  const sinceMs = now - then.now
  const wallMs = wall - then.wall
  if (boot !== undefined && boot === then.boot && sinceMs >= 0) {
    return { leastMs: sinceMs, isWallSet: Math.abs(wallMs - sinceMs) >= WALL_STEP_MS }
  }
  return { leastMs: Math.max(0, sinceMs - NOW_ERROR_MS, wallMs - WALL_ERROR_MS), isWallSet: false }
}

function usageOf(tallies: readonly Tally[], now: number): LimitUsage[] {
  return tallies.map(({ counter }) => ({
    limit: counter.limit,
    used: counter.used(now),
    resetMs: counter.resetMs(now),
    effective: counter.effective(now),
  }))
}
