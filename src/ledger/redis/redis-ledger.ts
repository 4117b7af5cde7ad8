/*
 * src/ledger/redis: the ledger of several gateways: a script in Redis, leases while Redis is away, and reconciliation.
 * It imports only ledger, redis and time.
 * A change here must prove itself in npm run simulate, with outages and lost data, and in test/ledger against a real
 * Redis.
 */

import { ioredis } from '../../redis/client.ts'
import type { Clock } from '../../time/clock.ts'
import { inTime } from '../../time/in-time.ts'
import { Batch, LEAST_WAIT_MS } from './outbox.ts'
import { Postponed } from './postponed.ts'
import type { PeerDemand, Demand } from '../demand.ts'
import { FormatLease } from './format-lease.ts'
import { LOOK_EVERY_MS, PartitionRegister } from './partition-register.ts'
import { InFlight } from '../in-flight.ts'
import {
  type Grant,
  type Ledger,
  type UpstreamFeedback,
  type LimitUsage,
  type ChargeSet,
  chargeSetOf,
  type OutagePolicy,
  REPORT_TERM_MS,
  StoreUnavailableError,
  type QueueTurn,
  uncounted,
} from '../ledger.ts'
import { Partition } from './partition.ts'
import { RESUME_AFTER_MS, type Shared, TICK_MS } from './partition-calls.ts'
import { troubleOf } from '../../redis/trouble.ts'
import { limitOf } from '../limit.ts'
import type { Shares } from '../shares.ts'
import { argumentsOf, type ScriptRunner } from './protocol.ts'
import { peerDemandOf } from './reply.ts'

/**
 * The ledger format. It is part of every key, so that no release misreads counters that another one keeps differently.
 * docs/upgrading.md says what else to change with it, so that two releases never grant a quota twice.
 */
const FORMAT = 3
const FORMAT_WITH_A_KEY_PER_LIMIT = 2
/** The most ticks per second of one gateway over all its partitions: while Redis answers, and while offline. */
const TICKS_PER_SECOND = 500
const TICKS_PER_SECOND_AWAY = 5_000
/** A gateway that ends gives back the leases of at most so many partitions. Those of the others end by themselves. */
const MOST_GOODBYES = 500
/**
 * The most limits of which one call of the script is asked for the usage. Thousands would take Redis longer than a command may
 * take, or be more arguments than a function can take. Either would send the partition offline.
 */
const MOST_ASKED = 200
/** After so many calls, the script does not get any faster. */
const WARM_UP_CALLS = 20
/** Redis counts as away only after it has answered nothing for so long: on a busy machine, some answers are late. */
const SLOW_MS = 500
/** No call waits for the lease of the format. The first answer of Redis to a process may be late. */
const CLAIM_WITHIN_MS = 1_000
/** Gateways notice a flush account by account. All losses within so long are reported once. */
const LOSS_LINE_MS = 5_000

export interface RedisLedgerOptions {
  readonly runner: ScriptRunner
  readonly clock: Clock
  /** Tells this gateway from the others. Never used twice. */
  readonly gateway: string
  /** Beginning of every key. */
  readonly prefix: string
  /** Longest wait for an answer of Redis. */
  readonly answerWithinMs: number
  readonly onOutage?: OutagePolicy
  /** What this region may use of each limit, where quotas are split over regions. */
  readonly shares?: Shares
  /**
   * Redis is of no use, for more than a single slow answer; `trouble` says why, as one clause. `onBack`: Redis is of use again.
   * At most `partitions` were offline at the same time. `hadLost`: Redis had lost data.
   */
  readonly onAway?: (trouble: string) => void
  readonly onBack?: (back: { readonly partitions: number; readonly hadLost: boolean }) => void
  /** Gateways of another ledger format run, so this one may grant nothing. Undefined: they have ended. */
  readonly onOtherFormat?: (format: number | undefined) => void
  /** Redis has lost what it knew, although it was not away. */
  readonly onLoss?: () => void
  /** Called when a partition goes offline (`leased`), and when it resumes (`shared`). */
  readonly onChange?: (partition: string, mode: 'shared' | 'leased') => void
  /** Microseconds to take instead of Redis's time; only for tests. */
  readonly stepTime?: () => number
}

/**
 * The ledger that all gateways of one Redis share. Redis's clock is the only one that counts. Everything that is asked for one
 * charge set in one turn of the event loop is one call of the script, and commits ride along. So a charge costs one round trip.
 *
 * When Redis goes away, each gateway spends its leases (see `PartitionState`). No call waits for Redis longer than one command may
 * take. When Redis is back, every gateway tells it what it lacks before anybody charges there again. So the guarantee of `Ledger`
 * also holds over outages, over fail-overs that lose the last writes, and with a Redis that comes back empty, provided that
 * - all gateways find Redis again within RESUME_AFTER_MS of each other,
 * - no gateway dies with charges that it has not told yet, and
 * - the clock of the Redis that comes back is not ahead, and the clock of Redis is not set forward while it runs.
 * A gateway that starts waits if others may still have to tell something. The guarantee also holds if a single gateway gets no
 * answer for less than PATIENCE_MS and less than a window (of shorter windows: as long as its calls take less than half of one).
 *
 * The guarantee holds as well if Redis loses keys while connections stay, because it is flushed or evicts them. The first
 * gateway that asks notices the loss: by the number of its call or, if it had not used the account, by `PartitionRegister`.
 * Then only leases are spent until every gateway has told Redis what it lacks, however many accounts there are. Nothing is
 * granted beyond the limits of an account, unless its keys are lost within one round trip after its first call at the first
 * gateway. Then the excess is what that call was granted. Nobody knows the charges of gateways that have ended by then: these
 * are forgotten.
 *
 * Where these conditions do not hold, too much may be sent. A gateway that is cut off for longer while others are not, or that
 * finds Redis again later than they do, may add in each window what it had charged in the window before, and its lease. A clock
 * that is ahead lets through, once, as much again as counted when Redis came back, and what was sent without Redis until all
 * gateways had found it.
 *
 * The file is longer than others: half of it says when the guarantee holds, and the rest passes each call on to its partition.
 */
export class RedisLedger implements Ledger {
  readonly #runner: ScriptRunner
  readonly #clock: Clock
  readonly #options: RedisLedgerOptions
  readonly #shared: Shared
  readonly #formats: FormatLease | undefined
  readonly #partitions = new Map<string, Partition>()
  /** By charge set with more than MOST_ASKED limits: the parts in which its usage is asked for. */
  readonly #pieces = new WeakMap<ChargeSet, readonly ChargeSet[]>()
  #leased = 0
  #made = 0
  #wasConnected: boolean
  /** From then on, a partition that is used for the first time may rely on what Redis knows of it. */
  #trustedAt = 0
  /** The value of `#trustedAt` before the connection was lost. */
  #trustedBefore = 0
  /** Why the last call failed, if none was answered since; and since when all calls have failed. */
  #failure: unknown
  #failingSince = Infinity
  /** Since when Redis has answered nothing, not even a look of the register; and whether the partitions were told so. */
  #silentSince = Infinity
  #isSilent = false
  #isAway = false
  /** The most partitions that were kept by leases at the same time in this outage. */
  #mostLeased = 0
  #lossToldAt = -Infinity
  #hadLost = false

  constructor(options: RedisLedgerOptions) {
    const { runner, clock, answerWithinMs, onOutage = 'lease', stepTime } = options
    this.#runner = runner
    this.#clock = clock
    this.#options = options
    this.#wasConnected = runner.isConnected
    this.#shared = this.#sharedBy({ runner, clock, answerWithinMs, onOutage, stepTime })
    const { prefix } = options
    if (runner.claimFormat !== undefined) {
      const claimWithinMs = Math.max(answerWithinMs, CLAIM_WITHIN_MS)
      this.#formats = new FormatLease({
        clock,
        format: FORMAT,
        claim: (args) => inTime(runner.claimFormat!(`${prefix}:{register}:format`, args), claimWithinMs, clock),
        onChange: (other) => this.#onOtherFormat(other),
      })
    }
    runner.onLost((isConcerned) => {
      if (this.#trustedAt < Infinity) this.#trustedBefore = this.#trustedAt
      this.#trustedAt = Infinity
      for (const [name, partition] of this.#partitions)
        if (isConcerned === undefined || isConcerned(this.#keyOf(name))) partition.onDisconnect()
    })
    runner.onTrouble?.(() => this.#judge())
    runner.onFound?.((isSame) => {
      if (isSame) this.#trustedAt = Math.min(this.#trustedAt, this.#trustedBefore)
      else this.#trustedBefore = Infinity
      for (const partition of this.#partitions.values()) partition.onReconnect(isSame)
    })
  }

  /**
   * To be awaited before the first charge. Resolves once what Redis knows can be relied on. It also resolves if Redis does not
   * answer or another ledger format has the lease; then charges are not made there for now. Never rejects. A Redis that knows
   * nothing, or began to know something only just now, may have been flushed. Then other gateways get RESUME_AFTER_MS to tell
   * it what it lost.
   */
  async begin(): Promise<void> {
    const isKnown = (await this.#formats?.begin()) ?? true
    const ageMs = await this.#shared.register.age().catch(() => undefined)
    if (!isKnown || ageMs === undefined || this.#formats?.isDenied === true) {
      this.#trustedAt = Infinity
      return
    }
    await this.#warmUp()
    const { clock } = this.#shared
    // Where the clock of Redis was set back, it began to know something only in the future.
    const waitMs = RESUME_AFTER_MS - Math.max(0, ageMs)
    if (waitMs > 0) await new Promise<void>((resolve) => void clock.schedule(waitMs, resolve))
  }

  /**
   * Sends Redis the script, and runs it until both sides have compiled what they need. Otherwise the first calls of a process
   * could take longer than a command may. The calls write to a partition that nobody uses. Its keys expire like those of any
   * other.
   */
  async #warmUp(): Promise<void> {
    const { clock } = this.#shared
    const chargeSet = chargeSetOf('warm-up', [
      { limit: limitOf({ id: 'any', class: 'any', requests: 1, windowMs: 1_000 }) },
    ])
    const base = this.#keyOf(chargeSet.partition)
    const batch = new Batch(chargeSet)
    for (let n = 0; n < WARM_UP_CALLS; n++) {
      const args = argumentsOf(chargeSet, {
        gateway: this.#options.gateway,
        expected: -1,
        time: this.#shared.stepTime?.() ?? '',
        about: clock.wall(),
        wanted: 1,
        batches: [batch],
        additions: [],
        termMs: 0,
        isClaim: false,
        leases: [],
      })
      // If this fails, charges find out why, and say so.
      await this.#runner.run([`${base}:limits`, `${base}:leases`], args).catch(() => undefined)
    }
  }

  #sharedBy(options: Pick<Shared, 'runner' | 'clock' | 'answerWithinMs' | 'onOutage' | 'stepTime'>): Shared {
    const wasConnected = () => this.#wasConnected
    const silentSince = () => this.#silentSince
    const { gateway, prefix, shares } = this.#options
    const register = new PartitionRegister({
      ...options,
      gateway,
      key: `${prefix}:${FORMAT}:{register}:homes`,
      onLoss: (partition) => this.#onLoss(partition),
      onAsked: (isAnswered) => this.#onAsked(isAnswered),
    })
    return {
      ...options,
      register,
      shares,
      postponed: new Postponed(options.clock, (chargeSet) => this.#partitionOf(chargeSet).send(chargeSet)),
      inFlight: new InFlight({
        clock: options.clock,
        renew: (grant) => this.#partitionOf(grant.chargeSet).renew(grant),
      }),
      get wasConnected() {
        return wasConnected()
      },
      get silentSince() {
        return silentSince()
      },
      tickEveryMs: (isShared) => {
        const perSecond = isShared ? TICKS_PER_SECOND : TICKS_PER_SECOND_AWAY
        return Math.max(TICK_MS, Math.ceil((this.#partitions.size / perSecond) * 1_000))
      },
      onAnswer: (now, isRight) => {
        this.#wasConnected = true
        this.#failure = undefined
        this.#failingSince = Infinity
        this.#onAsked(true)
        if (isRight && this.#trustedAt === Infinity) this.#trustedAt = now + RESUME_AFTER_MS
      },
      onFailure: (error, isAgain) => {
        this.#failure = error
        this.#failingSince = Math.min(this.#failingSince, this.#clock.now())
        this.#onAsked(false)
        if (isAgain) this.#judge()
      },
      onMissing: () => this.#tellLoss(),
      onChange: (partition, mode) => {
        this.#leased += mode === 'leased' ? 1 : -1
        this.#mostLeased = Math.max(this.#mostLeased, this.#leased)
        this.#options.onChange?.(partition, mode)
        if (this.#leased > 0) return
        if (this.#isAway) this.#options.onBack?.({ partitions: this.#mostLeased, hadLost: this.#hadLost })
        this.#isAway = false
        this.#hadLost = false
        this.#mostLeased = 0
      },
      onForgotten: (partition) => void this.#partitions.delete(partition),
    }
  }

  /**
   * Redis has answered, or not. With many partitions, each ticks rarely, and an idle one would not notice that Redis was away.
   * As soon as Redis is back, it would charge there, while gateways that have lost patience still spend what they had. So all
   * partitions go offline once nothing was answered for LOOK_EVERY_MS.
   */
  #onAsked(isAnswered: boolean): void {
    if (isAnswered) {
      this.#silentSince = Infinity
      this.#isSilent = false
      return
    }
    const now = this.#clock.now()
    this.#silentSince = Math.min(this.#silentSince, now)
    if (this.#isSilent || now - this.#silentSince < LOOK_EVERY_MS) return
    this.#isSilent = true
    const everyMs = this.#shared.tickEveryMs(false)
    let n = 0
    // They look for Redis one after the other, so that not all of them ask it at once when it is back.
    for (const partition of this.#partitions.values())
      partition.goOffline('silent', LEAST_WAIT_MS + (n++ / this.#partitions.size) * everyMs)
  }

  /** A gateway that may grant again begins as if Redis had come back: what Redis knows of this format's charges may be old. */
  #onOtherFormat(other: number | undefined): void {
    this.#trustedAt = other === undefined ? this.#clock.now() + RESUME_AFTER_MS : Infinity
    this.#options.onOtherFormat?.(other)
  }

  /** Redis has lost one partition, or all: each gateway tells it again what it had charged. */
  #onLoss(name: string | undefined): void {
    if (name !== undefined) {
      this.#partitions.get(name)?.onLoss()
      return
    }
    this.#tellLoss()
    if (this.#trustedAt < Infinity) this.#trustedAt = this.#clock.now() + RESUME_AFTER_MS
    for (const partition of this.#partitions.values()) partition.onLoss()
  }

  #tellLoss(): void {
    this.#hadLost = true
    if (this.#isAway) return
    const now = this.#clock.now()
    if (now - this.#lossToldAt < LOSS_LINE_MS) return
    this.#lossToldAt = now
    this.#options.onLoss?.()
  }

  /**
   * Decides whether Redis counts as away. A single slow answer does not matter, and a connection that ended is made again at
   * once. But Redis is away if it refuses a call, since it will refuse the next one too, or if no connection can be made.
   */
  #judge(): void {
    if (this.#isAway || this.#leased === 0) return
    const isSlow = this.#runner.trouble === undefined && !(this.#failure instanceof ioredis().ReplyError)
    if (isSlow && this.#clock.now() - this.#failingSince < SLOW_MS) return
    this.#isAway = true
    this.#options.onAway?.(this.#trouble ?? 'does not answer')
  }

  get #trouble(): string | undefined {
    const cause = this.#runner.trouble ?? this.#failure
    return cause === undefined ? undefined : troubleOf(cause)
  }

  get regionProblem(): string | undefined {
    return this.#options.shares?.problem
  }

  get problem(): string | undefined {
    if (this.#formats?.isDenied === true) return this.#formats.problem
    if (!this.isDegraded && this.isReady) return undefined
    const isKnown = this.#runner.isConnected && this.#failure === undefined
    const trouble = this.#trouble ?? (isKnown ? 'lacks what gateways have still to tell it' : 'does not answer')
    return `the quota store ${trouble}; ${this.without}`
  }

  /** What happens to calls while Redis is away, as a clause for people. */
  get without(): string {
    const { onOutage } = this.#shared
    if (onOutage === 'open') return 'calls pass without a quota'
    return onOutage === 'lease' && this.isReady ? 'quotas are kept by leases' : 'calls that need a quota are refused'
  }

  get isReady(): boolean {
    if (this.#formats?.isDenied === true) return false
    this.#wasConnected ||= this.#runner.isConnected
    const { onOutage } = this.#shared
    if (onOutage === 'open') return true
    return onOutage === 'lease' ? this.#wasConnected : !this.isDegraded
  }

  get isDegraded(): boolean {
    return this.#leased > 0 || !this.#runner.isConnected
  }

  charge(chargeSet: ChargeSet, wanted: number, turn?: QueueTurn): Grant | Promise<Grant> {
    if (chargeSet.limits.length > 0) {
      const blocked = wanted > 0 ? this.#formats?.whyBlocked(chargeSet.limits) : undefined
      if (blocked !== undefined) return Promise.reject(new StoreUnavailableError(undefined, blocked))
      return this.#partitionOf(chargeSet).charge(chargeSet, wanted, turn)
    }
    const now = this.#clock.now()
    return uncounted(
      chargeSet,
      wanted,
      now,
      this.#partitions.get(chargeSet.partition)?.pausedUntil(chargeSet, now) ?? 0,
    )
  }

  commit(grant: Grant, units?: readonly number[]): void {
    this.#partitionOf(grant.chargeSet).commit(grant, 'commit', units)
  }

  abandon(grant: Grant): void {
    this.#partitionOf(grant.chargeSet).commit(grant, 'abandon')
    if (grant.rest !== undefined) this.abandon(grant.rest)
  }

  refund(grant: Grant): void {
    this.#partitionOf(grant.chargeSet).refund(grant)
    if (grant.rest !== undefined) this.refund(grant.rest)
  }

  leave(grant: Grant): void {
    grant.open--
    if (grant.chargeSet.hasConcurrent) this.#partitionOf(grant.chargeSet).leave(grant)
  }

  applyFeedback(grant: Grant, feedback: UpstreamFeedback): void {
    this.#partitionOf(grant.chargeSet).applyFeedback(grant, feedback)
  }

  async usage(chargeSet: ChargeSet): Promise<readonly LimitUsage[]> {
    if (chargeSet.limits.length <= MOST_ASKED) return (await this.charge(chargeSet, 0)).usage
    const usage: LimitUsage[] = []
    for (const some of this.#piecesOf(chargeSet)) usage.push(...(await this.charge(some, 0)).usage)
    return usage
  }

  #piecesOf(chargeSet: ChargeSet): readonly ChargeSet[] {
    return this.#pieces.getOrInsertComputed(chargeSet, ({ partition, account, limits, units }) =>
      Array.from({ length: Math.ceil(limits.length / MOST_ASKED) }, (_, n) => {
        const first = n * MOST_ASKED
        const some = limits.slice(first, first + MOST_ASKED).map((limit, i) => ({ limit, units: units[first + i]! }))
        return chargeSetOf(partition, some, account)
      }),
    )
  }

  async exchange(partition: string, queue: string, demands: readonly Demand[]): Promise<PeerDemand | undefined> {
    const at = this.#clock.now()
    const base = this.#keyOf(partition)
    const keys = [`${base}:waiting:${queue}`, `${base}:served:${queue}`]
    const { gateway, stepTime, answerWithinMs } = this.#options
    const args = [gateway, stepTime?.() ?? '', REPORT_TERM_MS, JSON.stringify(demands)]
    try {
      return peerDemandOf(await inTime(this.#runner.runExchange(keys, args), answerWithinMs, this.#clock), at)
    } catch {
      return undefined // charges find out what is wrong, and say so
    }
  }

  async close(): Promise<void> {
    this.#formats?.close()
    this.#shared.inFlight.close()
    this.#shared.postponed.close()
    this.#shared.register.close()
    const partitions = [...this.#partitions.values()]
    await Promise.all(partitions.map((partition) => partition.close()))
    this.#options.shares?.close()
    await Promise.all(partitions.slice(0, MOST_GOODBYES).map((partition) => partition.giveBackLeases()))
    this.#runner.close()
  }

  #partitionOf({ partition: name }: ChargeSet): Partition {
    let partition = this.#partitions.get(name)
    if (partition === undefined) {
      const id = `@${this.#options.gateway}-${++this.#made}`
      const olderKeys = (chargeSet: ChargeSet): readonly string[] => this.#olderKeysOf(chargeSet)
      partition = new Partition(this.#shared, { name, id, key: this.#keyOf(name), olderKeys })
      this.#partitions.set(name, partition)
      // Other gateways may still have to tell Redis what it lost.
      if (this.#clock.now() >= this.#trustedAt) partition.begin()
      else if (this.#trustedAt < Infinity) partition.goOffline('lacking')
      else partition.onDisconnect()
    }
    return partition
  }

  /** Where the format before this one kept its charges. Format 2 had a key for each limit; later ones have one for all limits. */
  #olderKeysOf({ partition, limits }: ChargeSet): readonly string[] {
    const base = this.#keyOf(partition, FORMAT - 1)
    return FORMAT - 1 === FORMAT_WITH_A_KEY_PER_LIMIT ? limits.map(({ id }) => `${base}:${id}`) : [`${base}:limits`]
  }

  /** The beginning of all keys of a partition. The braces keep them in one hash slot. */
  #keyOf(partition: string, format = FORMAT): string {
    return `${this.#options.prefix}:${format}:{${partition}}`
  }
}
