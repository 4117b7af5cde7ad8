import type { Clock } from '../clock.ts'
import { Counter } from './counter.ts'
import { InFlight } from './in-flight.ts'
import {
  Grant,
  type Ledger,
  type Lesson,
  type LimitUsage,
  type Meter,
  StoreUnavailableError,
  type Turn,
  uncounted,
} from './ledger.ts'
import type { LedgerFiles, StoredHome, StoredLimit } from './ledger-files.ts'
import type { Limit } from './limit.ts'
import { Schedule } from './schedule.ts'

/** Share of a limit that may be charged before the home's file is written again. */
const RESERVE = 0.05
/** A window so short that a restart takes as long: all of it may be charged between two writes. */
const SHORT_WINDOW_MS = 5_000

/** One limit of one home, counted. */
interface Tally {
  readonly counter: Counter
  /** How much may be charged before the file must be written again. */
  reserved: number
}

/**
 * The ledger of a single gateway process. With `files` a restart does not hand out a second quota, not even one after
 * `kill -9`: what may be charged before the next write is in the file beforehand, and counts as charged after a crash.
 */
export class MemoryLedger implements Ledger {
  readonly isReady = true
  readonly isDegraded = false
  /** There are no other gateways. */
  readonly exchange = undefined
  readonly #clock: Clock
  readonly #files: LedgerFiles | undefined
  readonly #homes = new Map<string, Map<string, Tally>>()
  readonly #tallies = new WeakMap<Meter, readonly Tally[]>()
  readonly #stored: Map<string, StoredHome>
  readonly #loadedAt: number
  readonly #inFlight: InFlight
  /** The time of the counters less that of the clock: they are kept over restarts, and so count from 1970. */
  readonly #aheadMs: number
  /** Until when the upstream wants no calls of an account. */
  readonly #pauses = new Map<string, number>()

  constructor(clock: Clock, files?: LedgerFiles) {
    this.#clock = clock
    this.#files = files
    this.#stored = files?.load() ?? new Map()
    this.#aheadMs = clock.wall() - clock.now()
    this.#loadedAt = this.#time()
    this.#inFlight = new InFlight(clock, (grants) => this.#renew(grants))
  }

  charge(meter: Meter, wanted: number, turn?: Turn): Grant {
    const now = this.#time()
    const { units } = meter
    const pausedUntil = this.#pauses.size === 0 ? 0 : this.#pausedUntil(meter, now)
    if (units.length === 0) return uncounted(meter, wanted, now - this.#aheadMs, pausedUntil - this.#aheadMs)
    const tallies = this.#talliesOf(meter)
    let granted = pausedUntil > 0 ? 0 : wanted
    for (let i = 0; i < tallies.length; i++) {
      const { counter } = tallies[i]!
      if (counter.limit.isEnforced) granted = Math.min(granted, Math.floor(counter.free(now, units[i]) / units[i]!))
    }
    if (granted > 0) {
      this.#reserve(meter, tallies, granted, now)
      for (let i = 0; i < tallies.length; i++) {
        tallies[i]!.counter.charge(now, now, granted * units[i]!)
      }
    } else granted = 0
    const usage = usageOf(tallies, now)
    const isTold = granted < wanted || turn !== undefined
    const schedule = isTold ? this.#scheduleOf(meter, tallies, now, pausedUntil) : undefined
    const grant = new Grant(meter, now, granted, usage, { schedule })
    if (granted > 0) this.#inFlight.add(grant)
    return grant
  }

  #time(): number {
    return this.#clock.now() + this.#aheadMs
  }

  settle(grant: Grant): void {
    this.#settle(grant, false)
  }

  abandon(grant: Grant): void {
    this.#settle(grant, true)
  }

  #settle(grant: Grant, isAbandoned: boolean): void {
    const now = this.#time()
    const { meter } = grant
    const tallies = this.#talliesOf(meter)
    for (let i = 0; i < tallies.length; i++) {
      const { counter } = tallies[i]!
      if (counter.limit.kind === 'concurrent') continue
      counter.settle(now, grant.at, meter.units[i]!, isAbandoned ? counter.limit.slackMs : 0)
    }
    grant.unsettled--
    this.#inFlight.update(grant)
  }

  refund(grant: Grant): void {
    this.#takeBack(grant, 'windowed')
    grant.unsettled--
    this.#inFlight.update(grant)
  }

  leave(grant: Grant): void {
    grant.open--
    if (!grant.meter.hasConcurrent) return
    this.#takeBack(grant, 'concurrent')
    this.#inFlight.update(grant)
  }

  #takeBack({ meter, at }: Grant, which: 'windowed' | 'concurrent'): void {
    const now = this.#time()
    for (const [i, { counter }] of this.#talliesOf(meter).entries()) {
      if ((counter.limit.kind === 'concurrent') !== (which === 'concurrent')) continue
      counter.refund(now, at, meter.units[i]!)
    }
  }

  learn({ meter, chargedAt }: Grant, lesson: Lesson): void {
    const now = this.#time()
    switch (lesson.kind) {
      case 'pause':
        this.#pauses.set(meter.account, Math.max(this.#pausedUntil(meter, now), now + lesson.ms))
        return
      case 'refused':
        this.#talliesOf(meter)[lesson.limit]!.counter.refuse(now, chargedAt, meter.units[lesson.limit]!)
        return
      case 'counted': {
        const { limit, units, tolerance, resetMs, isRefused } = lesson
        const { counter } = this.#talliesOf(meter)[limit]!
        counter.believe(now, chargedAt, units, tolerance, resetMs)
        if (isRefused) counter.refuse(now, chargedAt, meter.units[limit]!)
      }
    }
  }

  /** 0 if it is not. */
  #pausedUntil({ account }: Meter, now: number): number {
    const until = this.#pauses.get(account) ?? 0
    if (until > now) return until
    this.#pauses.delete(account)
    return 0
  }

  usage(meter: Meter): Promise<readonly LimitUsage[]> {
    return Promise.resolve(usageOf(this.#talliesOf(meter), this.#time()))
  }

  close(): Promise<void> {
    const now = this.#time()
    this.#inFlight.close()
    for (const [home, tallies] of this.#homes) {
      for (const tally of tallies.values()) tally.reserved = 0
      this.#save(home, now)
    }
    this.#files?.unlock()
    return Promise.resolve()
  }

  #renew(grants: ReadonlySet<Grant>): void {
    const now = this.#time()
    const homes = new Set<string>()
    for (const grant of grants) {
      const { meter, unsettled, open } = grant
      for (const [i, { counter }] of this.#talliesOf(meter).entries()) {
        const calls = counter.limit.kind === 'concurrent' ? open : unsettled
        counter.renew(now, grant.at, now, calls * meter.units[i]!)
      }
      grant.at = now
      homes.add(meter.home)
    }
    // So that after a crash, too, what was in flight counts until it can't arrive any more.
    for (const home of homes) {
      try {
        this.#save(home, now)
      } catch {
        // The next charge meets the same error, and refuses.
      }
    }
  }

  #talliesOf(meter: Meter): readonly Tally[] {
    let tallies = this.#tallies.get(meter)
    if (tallies === undefined) {
      const home = this.#homes.getOrInsertComputed(meter.home, () => new Map<string, Tally>())
      tallies = meter.limits.map((limit) => {
        const tally = home.getOrInsertComputed(limit.id, () => this.#restore(meter.home, limit))
        // A reload may have changed what is allowed; what was charged stays.
        if (limit.order > tally.counter.limit.order) tally.counter.limit = limit
        return tally
      })
      this.#tallies.set(meter, tallies)
    }
    return tallies
  }

  #restore(home: string, limit: Limit): Tally {
    const counter = new Counter(limit)
    const now = this.#loadedAt
    const stored = this.#stored.get(home)?.[limit.id]
    // A clock that was set back must not make charges last longer than if all of them were made just now.
    const latest = counter.bucketOf(now + limit.holdMs)
    for (const { bucket, units } of stored?.charges ?? []) counter.restore(now, Math.min(bucket, latest), units)
    // Whether, and when before the crash, these were charged is unknown: at worst all of them just before we started.
    if (stored !== undefined && stored.uncertain > 0) counter.addSettled(now, now, stored.uncertain, limit.slackMs)
    return { counter, reserved: 0 }
  }

  #reserve({ home, units }: Meter, tallies: readonly Tally[], calls: number, now: number): void {
    if (this.#files === undefined) return
    let isCovered = true
    for (let i = 0; i < tallies.length; i++) isCovered &&= tallies[i]!.reserved >= calls * units[i]!
    if (!isCovered) {
      const before = tallies.map(({ reserved }) => reserved)
      for (const [i, tally] of tallies.entries()) {
        const { requests, windowMs } = tally.counter.limit
        const share = windowMs <= SHORT_WINDOW_MS ? requests : Math.ceil(requests * RESERVE)
        tally.reserved = Math.max(calls * units[i]!, share)
      }
      try {
        this.#save(home, now)
      } catch (error) {
        // What is not in the file must not be charged.
        for (const [i, tally] of tallies.entries()) tally.reserved = before[i]!
        throw new StoreUnavailableError(error)
      }
    }
    for (let i = 0; i < tallies.length; i++) tallies[i]!.reserved -= calls * units[i]!
  }

  #save(home: string, now: number): void {
    if (this.#files === undefined) return
    const limits: Record<string, StoredLimit> = {}
    for (const [id, stored] of Object.entries(this.#stored.get(home) ?? {})) {
      if (this.#loadedAt + 2 * stored.windowMs > now) limits[id] = stored
    }
    for (const [id, { counter, reserved }] of this.#homes.get(home) ?? []) {
      // What was in flight has ended with the process, but the upstream may notice that a little later.
      const { windowMs, holdMs } = counter.limit
      limits[id] = { windowMs: Math.max(windowMs, holdMs), charges: counter.charges(now), uncertain: reserved }
    }
    this.#files.save(home, limits)
  }

  #scheduleOf({ units }: Meter, tallies: readonly Tally[], now: number, pausedUntil: number): Schedule {
    return new Schedule(
      now - this.#aheadMs,
      tallies.map(({ counter }, i) => ({
        limit: counter.limit,
        units: units[i]!,
        free: counter.free(now),
        releases: counter.releases(now),
      })),
      pausedUntil - this.#aheadMs,
    )
  }
}

function usageOf(tallies: readonly Tally[], now: number): LimitUsage[] {
  return tallies.map(({ counter }) => ({
    limit: counter.limit,
    used: counter.used(now),
    resetMs: counter.resetMs(now),
    effective: counter.effective(now),
  }))
}
