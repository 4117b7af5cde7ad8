import type { Clock, Timer } from '../clock.ts'
import { inTime } from '../in-time.ts'
import { Batch, type Change, Postponed, Settlements } from './batch.ts'
import { Home } from './home.ts'
import { InFlight } from './in-flight.ts'
import { boardOf } from './board-reply.ts'
import type { Board } from './contention.ts'
import type { Demand } from './client-queue.ts'
import {
  Grant,
  type Ledger,
  type Lesson,
  type LimitUsage,
  type Meter,
  meterOf,
  REPORT_TERM_MS,
  StoreUnavailableError,
  type Turn,
  uncounted,
} from './ledger.ts'
import {
  type Argument,
  argumentsOf,
  leaseOf,
  pauseFieldOf,
  type Reply,
  scheduleOf,
  tailOf,
  taughtBy,
  usageOf,
} from './script-call.ts'

/** Part of every key: a release that keeps its counters otherwise counts beside this one instead of misreading it. */
const FORMAT = 3
/**
 * Settlements ride on the next charge of their meter, but wait no longer than this, or than a twentieth of a window: until
 * then their calls count as if they were in flight. They say when they were made, so nothing else is lost by waiting.
 */
const SETTLE_WITHIN_MS = 5_000
const LEAST_WAIT_MS = 10
/** While less than this part of a limit is used, nobody misses what a call takes for `holdMs` more than a window. */
const LITTLE = 0.25
/** How often leases are renewed, or Redis is tried while it is away. */
const TICK_MS = 250
/** A lease that was not renewed for so long is given to others. */
const TERM_TICKS = 12
/** No gateway ticks more often than this in all, however many accounts it has. */
const TICKS_PER_SECOND = 500
const TICKS_PER_SECOND_AWAY = 5_000
/**
 * When Redis is back, how long nothing but leases is spent, so that every gateway can tell it what it lacks before any
 * charge is made to what it knows. Longer than a tick and than it takes to connect again.
 */
export const RETURN_AFTER_MS = 4 * TICK_MS
/** As long as leases last that are given back; by that the script knows them. */
const FAREWELL_MS = 1
/** Of how many homes the leases are given back before a gateway ends; those of the others end by themselves. */
const MOST_GOODBYES = 500
/** A home that was not used for so long is forgotten. */
const FORGET_AFTER_MS = 600_000

/** Runs the script of redis-ledger.lua. */
export interface ScriptRunner {
  /** Rejects when there can be no answer any more; whether the script ran is unknown then. Never sends anything twice. */
  run(keys: readonly string[], args: readonly Argument[]): Promise<Reply>
  /** The same for the script of queue-board.lua. */
  runBoard(keys: readonly string[], args: readonly Argument[]): Promise<string>
  /** Calls `listener` whenever a connection was lost: what was written last may be, too. Unless told, of every key. */
  onLost(listener: (isConcerned?: (key: string) => boolean) => void): void
  readonly isConnected: boolean
  close(): void
}

export type OutagePolicy = 'lease' | 'closed' | 'open'

export interface RedisLedgerOptions {
  readonly runner: ScriptRunner
  readonly clock: Clock
  /** Tells this gateway from the others; not to be used twice. */
  readonly gateway: string
  /** Beginning of every key. */
  readonly prefix: string
  /** Longest wait for an answer of Redis. */
  readonly answerWithinMs: number
  readonly onOutage?: OutagePolicy
  /** Told when a home begins or ends to be kept by leases. */
  readonly onChange?: (home: string, mode: 'shared' | 'leased') => void
  /** Microseconds to take instead of Redis's time; only for tests. */
  readonly stepTime?: () => number
}

/**
 * The ledger shared by all gateways of one Redis, whose clock is the only one that counts. Whatever is asked for one meter
 * in one turn of the event loop is one call of the script, and settlements ride along: a charge costs one round trip.
 *
 * When Redis goes away, each gateway goes on with what it holds in lease (see `Home`), and no call waits for Redis longer
 * than one command may take. When it is back, each tells it what it lacks before anybody charges to it again. So the
 * guarantee of `Ledger` also holds over outages, fail-overs that lose the last writes, and a Redis that comes back empty,
 * as long as all gateways find it again within RETURN_AFTER_MS of each other, none dies with what only it knows before it
 * has told it, and the clock of what comes back is not ahead. One that starts waits where others may have to tell. It also holds when a single gateway gets no answer for less than PATIENCE_MS and less than
 * a window (of shorter windows: as long as its calls take less than half of one). One that is cut off for longer while
 * others are not, or finds Redis again later than they, may add, in each window, what it had charged in the window before
 * and its lease.
 */
export class RedisLedger implements Ledger {
  readonly #runner: ScriptRunner
  readonly #clock: Clock
  readonly #gateway: string
  readonly #prefix: string
  readonly #answerWithinMs: number
  readonly #onOutage: OutagePolicy
  readonly #onChange: (home: string, mode: 'shared' | 'leased') => void
  readonly #stepTime: (() => number) | undefined
  readonly #homes = new Map<string, Tended>()
  /** Batches that are sent at the end of this turn of the event loop. */
  readonly #charging = new Set<Batch>()
  readonly #postponed: Postponed
  readonly #inFlight: InFlight
  #leased = 0
  #made = 0
  /** Since the start, if only for a moment: then there are leases to go on with. */
  #wasConnected: boolean
  /** From when on a home that is used for the first time may count on what Redis knows of it. */
  #trustedAt = 0
  #isClosed = false

  constructor({ runner, clock, gateway, prefix, answerWithinMs, onOutage, onChange, stepTime }: RedisLedgerOptions) {
    this.#runner = runner
    this.#wasConnected = runner.isConnected
    this.#clock = clock
    this.#gateway = gateway
    this.#prefix = prefix
    this.#answerWithinMs = answerWithinMs
    this.#onOutage = onOutage ?? 'lease'
    this.#onChange = onChange ?? (() => undefined)
    this.#stepTime = stepTime
    this.#postponed = new Postponed(clock, (meter) => void this.#send(batchOf(this.#tend(meter), meter)))
    this.#inFlight = new InFlight(clock, (grants) => {
      for (const grant of grants) this.#renew(grant)
    })
    runner.onLost((isConcerned) => {
      this.#trustedAt = Infinity
      for (const tended of this.#homes.values()) {
        if (isConcerned === undefined || isConcerned(this.#keyOf(tended.home.name))) this.#depart(tended, true, false)
      }
    })
  }

  get isReady(): boolean {
    this.#wasConnected ||= this.#runner.isConnected
    if (this.#onOutage === 'open') return true
    return this.#onOutage === 'lease' ? this.#wasConnected : !this.isDegraded
  }

  get isDegraded(): boolean {
    return this.#leased > 0 || !this.#runner.isConnected
  }

  charge(meter: Meter, wanted: number, turn?: Turn): Grant | Promise<Grant> {
    if (meter.limits.length === 0) {
      const now = this.#clock.now()
      return uncounted(meter, wanted, now, this.#homes.get(meter.home)?.home.pausedUntil(meter, now) ?? 0)
    }
    const tended = this.#tend(meter)
    tended.usedAt = this.#clock.now()
    if (tended.home.mode === 'leased') return this.#spend(tended, meter, wanted, undefined)
    return new Promise((resolve, reject) => {
      const batch = batchOf(tended, meter)
      batch.waiting.push({ wanted, resolve, reject })
      batch.turn ??= turn
      this.#sendAtTurnEnd(batch)
    })
  }

  #sendAtTurnEnd(batch: Batch): void {
    if (this.#charging.size === 0) this.#clock.soon(this.#onTurnEnd)
    this.#charging.add(batch)
  }

  readonly #onTurnEnd = (): void => {
    const batches = [...this.#charging]
    this.#charging.clear()
    for (const batch of batches) void this.#send(batch)
  }

  settle(grant: Grant): void {
    this.#settle(grant, 'settle')
  }

  abandon(grant: Grant): void {
    this.#settle(grant, 'abandon')
  }

  #settle(grant: Grant, what: 'settle' | 'abandon'): void {
    const tended = this.#tend(grant.meter)
    tended.home.settle(grant, what === 'abandon', this.#clock.now())
    grant.unsettled--
    this.#inFlight.update(grant)
    this.#change(tended, grant, what)
  }

  refund(grant: Grant): void {
    const tended = this.#tend(grant.meter)
    tended.home.refund(grant, this.#clock.now())
    grant.unsettled--
    this.#inFlight.update(grant)
    this.#change(tended, grant, 'refund')
  }

  leave(grant: Grant): void {
    grant.open--
    if (!grant.meter.hasConcurrent) return
    const tended = this.#tend(grant.meter)
    tended.home.leave(grant, this.#clock.now())
    this.#inFlight.update(grant)
    this.#change(tended, grant, 'leave')
  }

  /** Changes and charges are run in the order in which they are sent, so it holds for the next charge of every gateway. */
  learn({ meter, chargedAt }: Grant, lesson: Lesson): void {
    const tended = this.#tend(meter)
    const { home } = tended
    if (lesson.kind === 'pause') home.pause(meter, this.#clock.now(), lesson.ms)
    // What there is without Redis is spent with care anyway.
    if (home.mode === 'leased') return
    const batch = batchOf(tended, meter)
    batch.teach(chargedAt, lesson, pauseFieldOf(meter))
    // There will be more answers that tell how much was counted.
    if (lesson.kind === 'counted' && !lesson.isRefused) this.#postponed.add(batch, LEAST_WAIT_MS)
    else this.#sendAtTurnEnd(batch)
  }

  async usage(meter: Meter): Promise<readonly LimitUsage[]> {
    return (await this.charge(meter, 0)).usage
  }

  async exchange(home: string, queue: string, demands: readonly Demand[]): Promise<Board | undefined> {
    const at = this.#clock.now()
    const base = this.#keyOf(home)
    const keys = [`${base}:waiting:${queue}`, `${base}:served:${queue}`]
    const args = [this.#gateway, this.#stepTime?.() ?? '', REPORT_TERM_MS, JSON.stringify(demands)]
    try {
      return boardOf(await inTime(this.#runner.runBoard(keys, args), this.#answerWithinMs, this.#clock), at)
    } catch {
      return undefined // charges find out what is wrong, and say so
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#inFlight.close()
    this.#postponed.close()
    const homes = [...this.#homes.values()]
    for (const { tick } of homes) tick?.cancel()
    await Promise.all(homes.map((tended) => this.#sendAll(tended)))
    await Promise.all(homes.slice(0, MOST_GOODBYES).map((tended) => this.#giveBackLeases(tended)))
    this.#runner.close()
  }

  /** So that others have them at once, and nobody waits for what this gateway may have to tell. */
  async #giveBackLeases(tended: Tended): Promise<void> {
    const { home } = tended
    if (home.mode === 'leased') return
    const all = this.#allOf(tended)
    for (const share of home.shares) share.lease = 0
    try {
      await this.#call(tended, all, { termMs: FAREWELL_MS, isClaim: true })
    } catch {
      // Then they end by themselves.
    }
  }

  #tend({ home: name }: Meter): Tended {
    let tended = this.#homes.get(name)
    if (tended === undefined) {
      tended = {
        home: new Home(name),
        id: `@${this.#gateway}-${++this.#made}`,
        usedAt: this.#clock.now(),
        all: undefined,
        tick: undefined,
        unsent: [],
        batches: new Map(),
        settlements: new Map(),
        keys: [`${this.#keyOf(name)}:limits`, `${this.#keyOf(name)}:leases`],
      }
      this.#homes.set(name, tended)
      this.#tickLater(tended, LEAST_WAIT_MS)
      // Other gateways may still have to tell Redis what it lost.
      if (tended.usedAt < this.#trustedAt) this.#depart(tended, true, this.#trustedAt < Infinity)
    }
    return tended
  }

  #change(tended: Tended, { meter, at, usage }: Grant, what: Change): void {
    if (tended.home.mode === 'leased') return
    const settlements = this.#tellEnded(tended, meter, { what, at, calls: 1 })
    // Of what is little used, it rides on a charge if there is one, or the charge leaves a little later by itself.
    if (what !== 'settle' || !isLittleUsed(usage)) this.#postponed.add(settlements, settleWithinMs(meter))
  }

  #tellEnded(tended: Tended, meter: Meter, ended: { what: Change; at: number; calls: number }): Settlements {
    const settlements = tended.settlements.getOrInsertComputed(meter, () => new Settlements(meter))
    const now = this.#clock.now()
    settlements.add(ended, now, tended.home.latestTime(now))
    return settlements
  }

  /** The new time is ours to choose, so that what comes after need not wait for the answer. */
  #renew(grant: Grant): void {
    const { meter, at, unsettled, open } = grant
    const tended = this.#tend(meter)
    const { home } = tended
    const now = this.#clock.now()
    const to = Math.round(home.time(now) * 1_000) / 1_000
    home.renew(grant, to, now)
    grant.at = to
    if (home.mode === 'leased') return
    const batch = batchOf(tended, meter)
    batch.renewed.push({ at, calls: unsettled, to, open })
    this.#postponed.add(batch, LEAST_WAIT_MS)
  }

  async #send(batch: Batch): Promise<void> {
    const { meter } = batch
    const tended = this.#tend(meter)
    const { home } = tended
    // It may have been sent since, for another reason.
    if (tended.batches.get(meter) !== batch) return
    const batches = this.#takeWith(batch, tended, this.#clock.now())
    if (home.mode === 'leased') {
      for (const one of batches) this.#fail(tended, one, undefined)
      return
    }
    let wanted = 0
    for (const waiting of batch.waiting) wanted += waiting.wanted
    home.asks(meter, wanted)
    try {
      const reply = await this.#call(tended, meter, { wanted, batches, turn: batch.turn })
      home.isAnswered(meter, wanted)
      if (reply !== undefined) return this.#handOut(home, batch, wanted, reply)
      for (const one of batches) this.#fail(tended, one, undefined)
    } catch (error) {
      this.#depart(tended, false, false)
      home.isAnswered(meter, wanted)
      for (const one of batches) this.#fail(tended, one, error)
    }
  }

  #sendAll(tended: Tended): Promise<unknown> {
    for (const meter of tended.settlements.keys()) batchOf(tended, meter)
    return Promise.all(Array.from(tended.batches.values(), (batch) => this.#send(batch)))
  }

  /** A batch that is sent now, and all of its home that has no charge of its own to ride on and need not wait for more like it. */
  #takeWith(batch: Batch, { batches, settlements, home }: Tended, now: number): Batch[] {
    for (const [meter, one] of settlements) {
      if (one.ripeAt > now && one.dueAt > now && home.mode === 'shared' && !this.#isClosed) continue
      settlements.delete(meter)
      this.#postponed.remove(one)
      batches.getOrInsertComputed(meter, () => new Batch(meter)).ended.push(...one.ended)
    }
    const taken: Batch[] = []
    for (const one of batches.values()) {
      if (one !== batch && one.waiting.length > 0) continue
      batches.delete(one.meter)
      this.#postponed.remove(one)
      taken.push(one)
    }
    return taken
  }

  /** Calls the script; undefined if the answer's number was wrong, and nothing was done. */
  async #call(
    tended: Tended,
    meter: Meter,
    { wanted = 0, batches = [], additions = [], termMs = 0, isClaim = false, turn, isProbe = false }: CallOptions,
  ): Promise<Reply | undefined> {
    const { home } = tended
    const args = argumentsOf(meter, {
      gateway: tended.id,
      expected: isProbe ? -1 : ++home.sent,
      time: this.#stepTime?.() ?? '',
      wanted,
      batches,
      additions,
      termMs,
      isClaim,
      turn,
      leases: termMs > 0 ? home.sharesOf(meter).map(({ lease }) => lease) : [],
    })
    const sentAt = this.#clock.now()
    const keys = turn === undefined ? tended.keys : [...tended.keys, `${this.#keyOf(meter.home)}:served:${turn.queue}`]
    const reply = await this.#answer(tended, meter, this.#runner.run(keys, args))
    this.#wasConnected = true
    const micros = reply[0]!
    const number = reply[1]!
    if (reply[2] === -1) {
      home.misses(number - 1)
      this.#depart(tended, true, true)
      return undefined
    }
    const now = this.#clock.now()
    if (this.#trustedAt === Infinity) this.#trustedAt = now + RETURN_AFTER_MS
    home.setTime(micros / 1_000, sentAt, now)
    if (isProbe) home.meet(number, now, RETURN_AFTER_MS)
    home.note(number, micros / 1_000)
    home.lease(meter, (i) => leaseOf(reply, i), sentAt, termMs)
    return reply
  }

  /** The answer, if it comes in time; calls that are granted later are given back, because they were not sent. */
  #answer(tended: Tended, meter: Meter, answer: Promise<Reply>): Promise<Reply> {
    return new Promise((resolve, reject) => {
      let isLate = false
      const giveUp = (): void => {
        isLate = true
        reject(new Error(`no answer within ${this.#answerWithinMs} ms`))
      }
      // If it was this process that stood still, the answer is there, and is read before that.
      const timer = this.#clock.schedule(this.#answerWithinMs, () => this.#clock.soon(giveUp))
      answer.then(
        (reply) => {
          timer.cancel()
          const granted = reply[2]!
          if (!isLate) resolve(reply)
          else if (granted > 0) {
            tended.unsent.push({ meter, at: reply[0]! / 1_000, calls: granted })
            if (tended.home.mode === 'shared') this.#giveBackUnsent(tended)
          }
        },
        (error: unknown) => {
          timer.cancel()
          reject(error)
        },
      )
    })
  }

  #giveBackUnsent(tended: Tended): void {
    if (tended.unsent.length === 0) return
    for (const { meter, at, calls } of tended.unsent) {
      const settlements = this.#tellEnded(tended, meter, { what: 'refund', at, calls })
      if (meter.hasConcurrent) this.#tellEnded(tended, meter, { what: 'leave', at, calls })
      this.#postponed.add(settlements, LEAST_WAIT_MS)
    }
    tended.unsent = []
  }

  /** First come, first served: what was granted goes to those who asked first. */
  #handOut(home: Home, { meter, waiting, turn }: Batch, wanted: number, reply: Reply): void {
    const now = this.#clock.now()
    const at = reply[0]! / 1_000
    let left = reply[2]!
    const hasSchedule = left < wanted || turn !== undefined
    const tail = tailOf(reply, hasSchedule)
    const turns = turn === undefined ? undefined : reply[tail]
    const taught = taughtBy(reply, turn === undefined ? tail : tail + 1)
    if (taught?.pauseMs !== undefined) home.pause(meter, now, taught.pauseMs)
    const usage = usageOf(meter, reply, taught)
    // What is leased to others comes back when they renew their leases.
    const schedule = hasSchedule ? scheduleOf(meter, reply, { now, leasedMs: TICK_MS, taught }) : undefined
    if (left > 0) home.granted(meter, at, left, now)
    for (const { wanted: asked, resolve } of waiting) {
      const granted = Math.min(asked, left)
      left -= granted
      const grant = new Grant(meter, at, granted, usage, { schedule, turns })
      if (granted > 0) this.#inFlight.add(grant)
      resolve(grant)
    }
  }

  /** What could not be done in Redis is done without: charges are taken from the lease, changes are owed. */
  #fail(tended: Tended, batch: Batch, cause: unknown): void {
    const { home } = tended
    const { meter } = batch
    const now = this.#clock.now()
    for (const ended of batch.ended) home.oweSettled(meter, ended, now)
    for (const { to, calls, open } of batch.renewed) home.oweRenewed(meter, to, calls, open, now)
    for (const { wanted, resolve, reject } of batch.waiting) {
      try {
        resolve(this.#spend(tended, meter, wanted, cause))
      } catch (error) {
        reject(error as StoreUnavailableError)
      }
    }
  }

  #spend({ home }: Tended, meter: Meter, wanted: number, cause: unknown): Grant {
    const now = this.#clock.now()
    if (this.#onOutage === 'closed' || (wanted === 0 && !this.#wasConnected)) throw new StoreUnavailableError(cause)
    if (wanted === 0) return new Grant(meter, home.time(now), 0, home.usage(meter, now))
    const spent = home.spend(meter, wanted, now, this.#onOutage === 'open')
    if (spent === undefined) throw new StoreUnavailableError(cause)
    const { at, granted, usage, schedule } = spent
    const grant = new Grant(meter, at, granted, usage, { schedule, isLocal: true })
    if (granted > 0) this.#inFlight.add(grant)
    return grant
  }

  #depart(tended: Tended, isLossPossible: boolean, isThere: boolean): void {
    const { home } = tended
    const wasShared = home.mode === 'shared'
    home.depart(this.#clock.now(), isLossPossible, isThere)
    // What Redis has lost it must not be told to take back: that would be the charge of another call.
    if (isLossPossible) tended.unsent = []
    void this.#sendAll(tended)
    if (!wasShared) return
    this.#leased++
    this.#onChange(home.name, 'leased')
    this.#tickLater(tended, LEAST_WAIT_MS)
  }

  #tickLater(tended: Tended, delayMs: number): void {
    if (this.#isClosed) return
    tended.tick?.cancel()
    tended.tick = this.#clock.schedule(delayMs, () => void this.#tick(tended))
  }

  /** Renews the leases of a home; while Redis is away, tries it, tells it what it lacks, and returns to it. */
  async #tick(tended: Tended): Promise<void> {
    const { home } = tended
    const now = this.#clock.now()
    if (home.mode === 'shared' && now - tended.usedAt > FORGET_AFTER_MS && home.isIdle(now)) {
      this.#homes.delete(home.name)
      return this.#giveBackLeases(tended)
    }
    const isShared = home.mode === 'shared'
    const perSecond = isShared ? TICKS_PER_SECOND : TICKS_PER_SECOND_AWAY
    const everyMs = Math.max(TICK_MS, Math.ceil((this.#homes.size / perSecond) * 1_000))
    const termMs = TERM_TICKS * everyMs
    this.#tickLater(tended, everyMs)
    if (!isShared) home.becomesAlone(now)
    const all = this.#allOf(tended)
    if (all.limits.length === 0) return
    try {
      if (home.mode === 'shared') await this.#call(tended, all, { termMs })
      else {
        if (home.returnAt === undefined) await this.#call(tended, all, { isProbe: true })
        await this.#reconcile(tended, all, termMs)
      }
    } catch {
      this.#depart(tended, false, false)
    }
  }

  /** Tells Redis what it lacks; at the end of the grace, returns to it. */
  async #reconcile(tended: Tended, all: Meter, termMs: number): Promise<void> {
    const { home } = tended
    const now = this.#clock.now()
    const owed = home.takeOwed(all, now)
    const isReturning = now >= home.returnAt!
    if (isReturning) {
      // Calls are run in the order in which they are sent, so the next charge already finds what is told here.
      home.return()
      this.#leased--
      this.#onChange(home.name, 'shared')
    }
    if (isReturning) this.#giveBackUnsent(tended)
    const additions = owed.flatMap((charges, i) =>
      charges.map(({ bucket, units }): Argument[] => [i + 1, bucket, units]),
    )
    const leases = { termMs, isClaim: !isReturning }
    const reply = await this.#call(tended, all, { additions, ...leases }).catch((error: unknown) => {
      home.giveBackOwed(all, owed, this.#clock.now())
      throw error
    })
    if (reply === undefined) home.giveBackOwed(all, owed, this.#clock.now())
  }

  /** A meter of all limits of a home that were used. */
  #allOf(tended: Tended): Meter {
    const limits = [...tended.home.shares].map(({ limit }) => limit)
    if (tended.all === undefined || limits.some((limit, i) => limit !== tended.all?.limits[i])) {
      tended.all = meterOf(
        tended.home.name,
        limits.map((limit) => ({ limit })),
      )
    }
    return tended.all
  }

  /** With which both keys of a home begin; the braces keep them in one hash slot. */
  #keyOf(home: string): string {
    return `${this.#prefix}:${FORMAT}:{${home}}`
  }
}

function isLittleUsed(usage: readonly LimitUsage[]): boolean {
  return usage.every(
    ({ limit, used }) => limit.kind === 'pace' || (limit.kind === 'rolling' && used < limit.requests * LITTLE),
  )
}

function settleWithinMs({ limits }: Meter): number {
  // A place among calls at once is wanted back soon.
  const waits = limits.map(({ kind, windowMs }) =>
    kind === 'concurrent' ? 0 : kind === 'pace' ? Infinity : windowMs / 20,
  )
  return Math.max(LEAST_WAIT_MS, Math.min(SETTLE_WITHIN_MS, ...waits))
}

/** A home, and what is done for it regularly. */
interface Tended {
  readonly home: Home
  /** By which Redis tells its calls from those of other gateways, and of earlier times. */
  readonly id: string
  usedAt: number
  all: Meter | undefined
  tick: Timer | undefined
  /** Calls that Redis granted too late. */
  unsent: { meter: Meter; at: number; calls: number }[]
  /** What is to be sent, by meter. */
  readonly batches: Map<Meter, Batch>
  readonly settlements: Map<Meter, Settlements>
  readonly keys: readonly string[]
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

function batchOf({ batches }: Tended, meter: Meter): Batch {
  let batch = batches.get(meter)
  if (batch === undefined) batches.set(meter, (batch = new Batch(meter)))
  return batch
}
