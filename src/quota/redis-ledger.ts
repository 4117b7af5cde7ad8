import type { Clock, Timer } from '../clock.ts'
import { Counter, type Release } from './counter.ts'
import { Home } from './home.ts'
import { InFlight } from './in-flight.ts'
import { Grant, type Ledger, type LimitUsage, type Meter, meterOf, StoreUnavailableError } from './ledger.ts'
import type { Limit } from './limit.ts'
import { Schedule } from './schedule.ts'

/** Part of every key: a release that keeps its counters otherwise counts beside this one instead of misreading it. */
const FORMAT = 3
/** Settlements ride on the next charge of their meter, but no longer than this. */
const SETTLE_WITHIN_MS = 10
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
const RETURN_AFTER_MS = 4 * TICK_MS
/** A home that was not used for so long is forgotten. */
const FORGET_AFTER_MS = 600_000

const KINDS = { rolling: 0, calendar: 1, concurrent: 2 }
/** Of a limit that is not enforced; more than fits a count. */
const ANY_NUMBER = 2 ** 40

export type Argument = string | number
export type Reply = ArrayLike<number>

/** Runs the script of redis-ledger.lua. */
export interface ScriptRunner {
  /** Rejects when there can be no answer any more; whether the script ran is unknown then. Never sends anything twice. */
  run(keys: readonly string[], args: readonly Argument[]): Promise<Reply>
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

interface Waiting {
  readonly wanted: number
  resolve(grant: Grant): void
  reject(error: StoreUnavailableError): void
}

const CHANGES = ['settle', 'abandon', 'refund', 'leave'] as const

/** What is to be done for one meter in one call of the script. */
class Batch {
  readonly waiting: Waiting[] = []
  /** Numbers of calls by the time of their charge. */
  readonly settle = new Map<number, number>()
  readonly abandon = new Map<number, number>()
  readonly refund = new Map<number, number>()
  readonly leave = new Map<number, number>()
  readonly renewed: { at: number; calls: number; to: number; open: number }[] = []
}

/**
 * The ledger shared by all gateways of one Redis, whose clock is the only one that counts. Whatever is asked for one meter
 * in one turn of the event loop is one call of the script, and settlements ride along: a charge costs one round trip.
 *
 * When Redis goes away, each gateway goes on with what it holds in lease (see `Home`), and no call waits for Redis longer
 * than one command may take. When it is back, each tells it what it lacks before anybody charges to it again. So the
 * guarantee of `Ledger` also holds over outages, fail-overs that lose the last writes, and a Redis that comes back empty,
 * as long as all gateways find it again within RETURN_AFTER_MS of each other, and none starts, or dies with what only it
 * knows, before all have told it. It also holds when a single gateway gets no answer for less than PATIENCE_MS and less than
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
  readonly #batches = new Map<Meter, Batch>()
  readonly #staticArguments = new WeakMap<Meter, StaticArguments>()
  readonly #inFlight: InFlight
  #isFlushing = false
  #settling: Timer | undefined
  #leased = 0
  #made = 0
  #wasConnected = false
  /** From when on a home that is used for the first time may count on what Redis knows of it. */
  #trustedAt = 0
  #isClosed = false

  constructor({ runner, clock, gateway, prefix, answerWithinMs, onOutage, onChange, stepTime }: RedisLedgerOptions) {
    this.#runner = runner
    this.#clock = clock
    this.#gateway = gateway
    this.#prefix = prefix
    this.#answerWithinMs = answerWithinMs
    this.#onOutage = onOutage ?? 'lease'
    this.#onChange = onChange ?? (() => undefined)
    this.#stepTime = stepTime
    this.#inFlight = new InFlight(clock, (grants) => {
      for (const grant of grants) this.#renew(grant)
    })
    runner.onLost((isConcerned) => {
      this.#trustedAt = Infinity
      for (const tended of this.#homes.values()) {
        if (isConcerned === undefined || isConcerned(this.#keyOf(tended.home.name))) this.#depart(tended, true)
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

  charge(meter: Meter, wanted: number): Grant | Promise<Grant> {
    const tended = this.#tend(meter)
    tended.usedAt = this.#clock.now()
    if (tended.home.mode === 'leased') return this.#spend(tended, meter, wanted, undefined)
    return new Promise((resolve, reject) => {
      this.#batchOf(meter).waiting.push({ wanted, resolve, reject })
      if (this.#isFlushing) return
      this.#isFlushing = true
      this.#clock.soon(this.#onTurnEnd)
    })
  }

  readonly #onTurnEnd = (): void => void this.#flush()

  settle(grant: Grant): void {
    this.#settle(grant, 'settle')
  }

  abandon(grant: Grant): void {
    this.#settle(grant, 'abandon')
  }

  #settle(grant: Grant, what: 'settle' | 'abandon'): void {
    const { home } = this.#tend(grant.meter)
    home.settle(grant, what === 'abandon', this.#clock.now())
    grant.unsettled--
    this.#inFlight.update(grant)
    if (home.mode === 'shared') this.#change(grant, what)
  }

  refund(grant: Grant): void {
    const { home } = this.#tend(grant.meter)
    home.refund(grant, this.#clock.now())
    grant.unsettled--
    this.#inFlight.update(grant)
    if (home.mode === 'shared') this.#change(grant, 'refund')
  }

  leave(grant: Grant): void {
    grant.open--
    if (!grant.meter.hasConcurrent) return
    const { home } = this.#tend(grant.meter)
    home.leave(grant, this.#clock.now())
    this.#inFlight.update(grant)
    if (home.mode === 'shared') this.#change(grant, 'leave')
  }

  async usage(meter: Meter): Promise<readonly LimitUsage[]> {
    return (await this.charge(meter, 0)).usage
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#inFlight.close()
    for (const { tick } of this.#homes.values()) tick?.cancel()
    await this.#flush()
    this.#runner.close()
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
      }
      this.#homes.set(name, tended)
      this.#tickLater(tended, SETTLE_WITHIN_MS)
      // Other gateways may still have to tell Redis what it lost.
      if (tended.usedAt < this.#trustedAt) this.#depart(tended, true)
    }
    return tended
  }

  #batchOf(meter: Meter): Batch {
    let batch = this.#batches.get(meter)
    if (batch === undefined) this.#batches.set(meter, (batch = new Batch()))
    return batch
  }

  #change({ meter, at }: Grant, what: (typeof CHANGES)[number]): void {
    const changes = this.#batchOf(meter)[what]
    changes.set(at, (changes.get(at) ?? 0) + 1)
    this.#settling ??= this.#clock.schedule(SETTLE_WITHIN_MS, () => void this.#flush())
  }

  /** The new time is ours to choose, so that what comes after need not wait for the answer. */
  #renew(grant: Grant): void {
    const { meter, at, unsettled, open } = grant
    const { home } = this.#tend(meter)
    const now = this.#clock.now()
    const to = Math.round(home.time(now) * 1_000) / 1_000
    home.renew(grant, to, now)
    grant.at = to
    if (home.mode === 'leased') return
    this.#batchOf(meter).renewed.push({ at, calls: unsettled, to, open })
    this.#settling ??= this.#clock.schedule(SETTLE_WITHIN_MS, () => void this.#flush())
  }

  async #flush(): Promise<void> {
    this.#isFlushing = false
    this.#settling?.cancel()
    this.#settling = undefined
    const batches = [...this.#batches]
    this.#batches.clear()
    await Promise.all(batches.map(([meter, batch]) => this.#send(meter, batch)))
  }

  async #send(meter: Meter, batch: Batch): Promise<void> {
    const tended = this.#tend(meter)
    const { home } = tended
    if (home.mode === 'leased') return this.#fail(tended, meter, batch, undefined)
    let wanted = 0
    for (const waiting of batch.waiting) wanted += waiting.wanted
    home.asks(meter, wanted)
    try {
      const reply = await this.#call(tended, meter, { wanted, changes: changesOf(batch) })
      home.isAnswered(meter, wanted)
      if (reply === undefined) this.#fail(tended, meter, batch, undefined)
      else this.#handOut(home, meter, batch.waiting, wanted, reply)
    } catch (error) {
      this.#depart(tended, false)
      home.isAnswered(meter, wanted)
      this.#fail(tended, meter, batch, error)
    }
  }

  /** Calls the script; undefined if the answer's number was wrong, and nothing was done. */
  async #call(
    tended: Tended,
    meter: Meter,
    { wanted = 0, changes = [], additions = [], termMs = 0, isClaim = false, isProbe = false }: CallOptions,
  ): Promise<Reply | undefined> {
    const { home } = tended
    const { keys, names, limits } = this.#argumentsOf(meter)
    const expected = isProbe ? -1 : ++home.sent
    const args: Argument[] = [
      expected,
      this.#stepTime?.() ?? '',
      wanted,
      changes.length,
      additions.length,
      termMs,
      isClaim ? 1 : 0,
      names.length,
      tended.id,
      ...names,
      ...limits,
    ]
    for (const change of changes) args.push(...change)
    for (const addition of additions) args.push(...addition)
    if (termMs > 0) for (const { lease } of home.sharesOf(meter)) args.push(lease)
    const sentAt = this.#clock.now()
    const reply = await this.#answer(tended, meter, this.#runner.run(keys, args))
    this.#wasConnected = true
    const micros = reply[0]!
    const number = reply[1]!
    if (reply[2] === -1) {
      home.misses(number - 1)
      this.#depart(tended, true)
      return undefined
    }
    const now = this.#clock.now()
    if (this.#trustedAt === Infinity) this.#trustedAt = now + RETURN_AFTER_MS
    home.setTime(micros / 1_000, sentAt, now)
    if (isProbe) home.meet(number, now, RETURN_AFTER_MS)
    home.note(number, micros / 1_000)
    home.lease(meter, (i) => reply[6 + 5 * i]!, sentAt, termMs)
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
      const { refund, leave } = this.#batchOf(meter)
      refund.set(at, (refund.get(at) ?? 0) + calls)
      if (meter.hasConcurrent) leave.set(at, (leave.get(at) ?? 0) + calls)
    }
    tended.unsent = []
    this.#settling ??= this.#clock.schedule(SETTLE_WITHIN_MS, () => void this.#flush())
  }

  /** First come, first served: what was granted goes to those who asked first. */
  #handOut(home: Home, meter: Meter, waiting: readonly Waiting[], wanted: number, reply: Reply): void {
    const now = this.#clock.now()
    const at = reply[0]! / 1_000
    let left = reply[2]!
    const usage = meter.limits.map((limit, i) => ({
      limit,
      used: reply[3 + 5 * i]!,
      resetMs: reply[4 + 5 * i]! / 1_000,
    }))
    const schedule = left < wanted ? scheduleOf(meter, reply, now) : undefined
    if (left > 0) home.granted(meter, at, left, now)
    for (const { wanted: asked, resolve } of waiting) {
      const granted = Math.min(asked, left)
      left -= granted
      const grant = new Grant(meter, at, granted, usage, { schedule: granted < asked ? schedule : undefined })
      if (granted > 0) this.#inFlight.add(grant)
      resolve(grant)
    }
  }

  /** What could not be done in Redis is done without: charges are taken from the lease, changes are owed. */
  #fail(tended: Tended, meter: Meter, batch: Batch, cause: unknown): void {
    const { home } = tended
    const now = this.#clock.now()
    for (const [at, calls] of batch.settle) home.oweSettled(meter, at, calls, false, now)
    for (const [at, calls] of batch.abandon) home.oweSettled(meter, at, calls, true, now)
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

  #depart(tended: Tended, isLossPossible: boolean): void {
    const { home } = tended
    const wasShared = home.mode === 'shared'
    home.depart(this.#clock.now(), isLossPossible)
    // What Redis has lost it must not be told to take back: that would be the charge of another call.
    if (isLossPossible) tended.unsent = []
    if (!wasShared) return
    this.#leased++
    this.#onChange(home.name, 'leased')
    this.#tickLater(tended, SETTLE_WITHIN_MS)
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
      return
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
      this.#depart(tended, false)
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

  #argumentsOf(meter: Meter): StaticArguments {
    return this.#staticArguments.getOrInsertComputed(meter, () => {
      const base = this.#keyOf(meter.home)
      return {
        keys: [`${base}:limits`, `${base}:leases`],
        names: meter.limits.map(({ id }) => id),
        limits: meter.limits.flatMap(({ kind, requests, isEnforced, bucketMs, holdMs, slackMs }, i) => [
          KINDS[kind],
          isEnforced ? requests : ANY_NUMBER,
          bucketMs * 1_000,
          holdMs * 1_000,
          slackMs * 1_000,
          meter.units[i]!,
        ]),
      }
    })
  }
}

/** What is said of a meter with each call of the script. */
interface StaticArguments {
  readonly keys: readonly string[]
  readonly names: readonly string[]
  readonly limits: readonly Argument[]
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
}

interface CallOptions {
  readonly wanted?: number
  readonly changes?: readonly Argument[][]
  /** Number of a limit (from 1), bucket, units. */
  readonly additions?: readonly Argument[][]
  /** Leases are renewed for so long. */
  readonly termMs?: number
  /** What is held in lease is taken in lease, instead of a share of what is free. */
  readonly isClaim?: boolean
  readonly isProbe?: boolean
}

function changesOf(batch: Batch): Argument[][] {
  const changes: Argument[][] = []
  for (const { at, calls, to, open } of batch.renewed) changes.push(['renew', micros(at), calls, micros(to), open])
  for (const what of CHANGES) for (const [at, calls] of batch[what]) changes.push([what, micros(at), calls])
  return changes
}

function micros(ms: number): number {
  return Math.round(ms * 1_000)
}

function scheduleOf(meter: Meter, reply: Reply, now: number): Schedule {
  let list = 3 + 5 * meter.limits.length
  return new Schedule(
    now,
    meter.limits.map((limit, i) => {
      const others = reply[7 + 5 * i]!
      const free = reply[5 + 5 * i]! - others
      // What is leased to others comes back when they renew their leases.
      const leased = others > 0 ? [{ inMs: TICK_MS, units: others }] : []
      const releases = [...leased, ...releasesOf(limit, reply, i, list)]
      list += 1 + reply[list]!
      return { limit, units: meter.units[i]!, free, releases }
    }),
  )
}

/** As a counter would tell them; the charges of rolling windows are in the reply at `list`. */
function releasesOf(limit: Limit, reply: Reply, i: number, list: number): Release[] {
  const time = reply[0]! / 1_000
  const counter = new Counter(limit)
  if (limit.kind !== 'rolling') counter.restore(time, counter.bucketOf(time), reply[3 + 5 * i]!)
  for (let n = list + 1; n < list + 1 + reply[list]!; n += 2) counter.restore(time, reply[n]!, reply[n + 1]!)
  return counter.releases(time)
}
