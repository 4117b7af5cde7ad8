/*
 * src/ledger/regions: a quota that is split over regions, each with a Redis of its own: shares that move with demand.
 * It imports only ledger, redis and time. `ledger/redis` asks it what a region may use, and home is one Redis for all regions.
 * A change here must prove in npm run simulate:regions, and with its mutations, that no window is ever exceeded.
 */

import type { Timer } from '../../time/clock.ts'
import { inTime } from '../../time/in-time.ts'
import { type ChargeSet, chargeSetOf, type LimitUsage } from '../ledger.ts'
import { type Limit, longestWindowMs } from '../limit.ts'
import type { PartitionShares, Shares } from '../shares.ts'
import type { RegionsOptions } from './options.ts'
import { divide, type RegionState, wantedBy } from './allot.ts'

/** A gateway asks home so many times in a lease for each partition. */
const ASKS_PER_LEASE = 10
/** With many partitions it asks less often for each, so that it asks no more often than this in all. */
const ASKS_PER_SECOND = 500
/** However many partitions there are, it asks so many times for each, so that a share is renewed before it ends. */
const LEAST_ASKS_PER_LEASE = 3
/**
 * At most so many limits are measured, or asked for, in one run of a script. Redis does nothing else during a run, and Lua passes on no more
 * than some thousand values at once.
 */
const MOST_LIMITS = 200
/** A region that charged nothing for so long gives its share back. */
const IDLE_MS = 60_000
/** A call that found no room counts as waiting for so long. */
const LACKING_MS = 3_000
/** A region is said to need so many times what it uses, so that its share grows before its calls have to wait. */
const GROWTH = 1.25
/** Units that can't be divided go to another region after so many leases, but no sooner than after a window. */
const TURN_LEASES = 4

/**
 * The shares of one region. Each gateway asks home for them by itself, and no call waits for that. A call is charged in the Redis of the
 * region alone, which allows what the region may use now.
 *
 * Guarantee: over all regions an upstream never counts more than a limit in any window, whoever is cut off from whom, for as long as
 * the ledger of each region keeps its share, and
 * - home is one server: if two servers each take the other for lost, only one takes writes (`min-replicas-to-write`); and it never
 *   evicts single keys;
 * - the clock of home is not set forward by more than MARGIN_MS, and no clock gains as much on another within a lease;
 * - all gateways have the same `weights`, `reserve` and `lease`, and no gateway without `regions` charges calls.
 * A region that can't reach home keeps its share until the lease ends, and then has its reserve. Home gives that share to others when
 * all calls that were charged to it have left the window.
 *
 * The file is longer than others: the guarantee holds only over both classes, and whoever changes one has to see the other.
 */
export class RegionShares implements Shares {
  readonly options: RegionsOptions
  readonly names: readonly string[]
  readonly #partitions = new Map<string, SharesOfPartition>()
  #measure: Measure | undefined
  #answeredAt: number
  #isAway = false

  constructor(options: RegionsOptions) {
    this.options = options
    this.names = Object.keys(options.weights).sort()
    this.#answeredAt = options.clock.now()
  }

  /** From now on shares are asked for. `measure` tells what the region's ledger counts of each limit. */
  begin(measure: Measure): void {
    this.#measure = measure
  }

  of(partition: string): SharesOfPartition {
    return this.#partitions.getOrInsertComputed(partition, () => new SharesOfPartition(this, partition))
  }

  forget(partition: string): void {
    this.#partitions.get(partition)?.close()
    this.#partitions.delete(partition)
  }

  get problem(): string | undefined {
    return this.#isAway ? `home can not be reached, so region ${this.options.name} has its reserve only` : undefined
  }

  get askEveryMs(): number {
    const { leaseMs } = this.options
    const needed = (this.#partitions.size / ASKS_PER_SECOND) * 1_000
    return Math.min(Math.max(leaseMs / ASKS_PER_LEASE, needed), leaseMs / LEAST_ASKS_PER_LEASE)
  }

  reservesOf({ requests }: Pick<Limit, 'requests'>): number[] {
    const { weights, reserve } = this.options
    const sum = this.names.reduce((total, name) => total + weights[name]!, 0)
    return this.names.map((name) => Math.floor((requests * reserve * weights[name]!) / sum))
  }

  measure(chargeSet: ChargeSet): Promise<readonly LimitUsage[] | undefined> {
    // While the region's store is away nobody knows its usage. Home then assumes that it uses all that it may.
    return this.#measure?.(chargeSet).catch(() => undefined) ?? Promise.resolve(undefined)
  }

  /** Asks home. Rejects if there is no answer in time to be of use. */
  async ask(partition: string, args: readonly (string | number)[]): Promise<string> {
    const { clock, home, prefix, leaseMs } = this.options
    const keys = [`${prefix}:regions:{${partition}}`, `${prefix}:regions:memory`]
    try {
      const answer = await inTime(home.exchange(keys, args), leaseMs / LEAST_ASKS_PER_LEASE, clock)
      this.#answeredAt = clock.now()
      if (this.#isAway) this.options.onBack?.()
      this.#isAway = false
      return answer
    } catch (error) {
      if (!this.#isAway && clock.now() - this.#answeredAt > leaseMs) {
        this.#isAway = true
        this.options.onAway?.(error)
      }
      throw error
    }
  }

  close(): void {
    for (const partition of this.#partitions.values()) partition.close()
    this.options.home.close()
  }
}

type Measure = (chargeSet: ChargeSet) => Promise<readonly LimitUsage[]>

/** What is known of one limit. */
interface Share {
  limit: Limit
  /** Units of each region that never move. */
  reserves: readonly number[]
  /** What the reserves leave of the limit. */
  pool: number
  /** Units that may be used beyond the own reserve. */
  extra: number
  /** Until when, by our clock. */
  until: number
  /** The identity of the server that gave them. */
  identity: string
  /** What home told of all regions last. */
  regions: readonly (RegionState & { readonly hold: number })[]
  /** Milliseconds from the time the region last asked for less to home's last answer. */
  lessMs: number
  /** The same since a gateway of the region last said that it had charged calls within IDLE_MS. */
  usedMs: number
  /** The latest call that found no room: what it costs, and when it came. */
  lacking: { readonly units: number; readonly at: number }
}

/** When home gave an answer, and which server that was. */
type Told = readonly [time: string, identity: string]

interface Answer {
  readonly at: Told
  readonly isOther: boolean
}

const NOTHING = { extra: 0, until: -Infinity, identity: '', regions: [], lessMs: 0, usedMs: 0 }
const NEVER = { units: 0, at: -Infinity }

export class SharesOfPartition implements PartitionShares {
  readonly #all: RegionShares
  readonly #name: string
  readonly #own: number
  readonly #shares = new Map<string, Share>()
  #usedAt = -Infinity
  #timer: Timer | undefined
  #isAsking = false
  #isClosed = false
  /** Time and identity of home's last answer. */
  #told: Told | undefined
  #isOther = false

  constructor(all: RegionShares, name: string) {
    this.#all = all
    this.#name = name
    this.#own = all.names.indexOf(all.options.name)
  }

  unitsOf(limit: Limit): number | undefined {
    const share = this.#shareOf(limit)
    if (share === undefined) return undefined
    return share.reserves[this.#own]! + (this.#all.options.clock.now() < share.until ? share.extra : 0)
  }

  strandedOf(limit: Limit): number {
    const share = this.#shareOf(limit)
    if (share === undefined || share.regions.length === 0) return 0
    return Math.max(0, share.pool - share.regions.reduce((sum, { extra }) => sum + extra, 0))
  }

  leasePartOf(limit: Limit): number {
    const share = this.#shareOf(limit)
    if (share === undefined || this.#all.options.clock.now() < share.until) return 1
    return share.reserves[this.#own]! / share.limit.requests
  }

  use({ limits }: ChargeSet): void {
    for (const limit of limits) this.#shareOf(limit)
    this.#usedAt = this.#all.options.clock.now()
    if (this.#timer === undefined && !this.#isAsking) this.#askIn(0)
  }

  lacks(limit: Limit, units: number): void {
    const share = this.#shareOf(limit)
    if (share !== undefined) share.lacking = { units, at: this.#all.options.clock.now() }
  }

  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
  }

  /** What is known of the limit. After a reload that changed its units, what home told of it before is forgotten. */
  #shareOf(limit: Limit): Share | undefined {
    if (!limit.isEnforced || limit.kind === 'smoothing') return undefined
    const known = this.#shares.get(limit.id)
    if (known?.limit === limit || (known !== undefined && known.limit.order > limit.order)) return known
    if (known?.limit.requests === limit.requests) {
      known.limit = limit
      return known
    }
    const reserves = this.#all.reservesOf(limit)
    const pool = limit.requests - reserves.reduce((sum, units) => sum + units, 0)
    const share = { limit, reserves, pool, ...NOTHING, lacking: NEVER }
    this.#shares.set(limit.id, share)
    return share
  }

  #askIn(ms: number): void {
    if (this.#isClosed) return
    this.#timer = this.#all.options.clock.schedule(ms, () => void this.#exchange())
  }

  /** Measures what the region uses, tells home, and asks it for a share. */
  async #exchange(): Promise<void> {
    this.#timer = undefined
    this.#isAsking = true
    const isFirst = this.#told === undefined
    let isOver = false
    try {
      await this.#askHome()
      isOver = !this.#isUsed && this.#isGivenBack
    } catch {
      // The share ends by itself.
    }
    this.#isAsking = false
    // Only the first answer tells of how much there is to ask for.
    if (!isOver) this.#askIn(isFirst && this.#told !== undefined ? 0 : this.#all.askEveryMs)
  }

  get #idleMs(): number {
    return this.#all.options.clock.now() - this.#usedAt
  }

  get #isUsed(): boolean {
    return this.#idleMs < IDLE_MS
  }

  /** Whether home has just told that the region has and holds nothing beyond its reserve, or that another gateway of it calls. */
  get #isGivenBack(): boolean {
    // Home heard of calls from this gateway until it was idle for IDLE_MS. A question may have come to home up to a lease later.
    const sinceOwnMs = this.#idleMs - IDLE_MS - this.#all.options.leaseMs
    for (const { regions, usedMs } of this.#shares.values()) {
      if (usedMs < sinceOwnMs) continue
      const { extra = 0, hold = 0 } = regions[this.#own] ?? {}
      if (extra > 0 || hold > 0) return false
    }
    return true
  }

  async #askHome(): Promise<void> {
    const shares = [...this.#shares.values()]
    const measuredSince = this.#told
    const answers: Promise<Answer>[] = []
    for (let i = 0; i < shares.length; i += MOST_LIMITS) {
      const some = shares.slice(i, i + MOST_LIMITS)
      const charges = some.map(({ limit }) => ({ limit }))
      const usage = await this.#all.measure(chargeSetOf(this.#name, charges))
      const answer = this.#ask(some, usage, measuredSince)
      answer.catch(() => undefined) // it may fail while the next are measured
      answers.push(answer)
    }
    const told = await Promise.all(answers)
    // What is measured next is measured after all of them. Home is told of the earliest: from then on more may have been told.
    const [first] = told.toSorted((one, other) => Number(one.at[0]) - Number(other.at[0]))
    if (first !== undefined) this.#told = first.at
    const isOther = told.some(({ isOther }) => isOther)
    if (isOther && !this.#isOther) this.#all.options.onOtherTerms?.(this.#name)
    this.#isOther = isOther
  }

  /** Asks for some of the shares. Resolves with the time and identity of the answer. */
  async #ask(
    shares: readonly Share[],
    usage: readonly LimitUsage[] | undefined,
    measuredSince: Told = ['', ''],
  ): Promise<Answer> {
    const { clock, name, leaseMs } = this.#all.options
    const askedAt = clock.now()
    const asked: (string | number)[] = [name, '', '', leaseMs, this.#isUsed ? 1 : 0, ...measuredSince]
    asked.push(this.#all.names.join(' '))
    for (const [i, share] of shares.entries()) asked.push(...this.#questionOf(share, usage?.[i]))
    const [head, ...lines] = (await this.#all.ask(this.#name, asked)).split('\n')
    const at = head!.split(' ') as [time: string, identity: string]
    const [, identity] = at
    let isOther = false
    for (const [i, share] of shares.entries()) {
      const isAgreed = this.#note(share, lines[i]!.split(' ').map(Number))
      isOther ||= !isAgreed
      const extra = share.regions[this.#own]!.extra
      // Home has lost its memory. It gives nothing away while shares from before may last, so ours is good until it ends.
      if (share.identity !== identity && extra < share.extra && clock.now() < share.until) continue
      // Counted from the question, not from the answer, so that the share ends here before it ends for home.
      Object.assign(share, { extra, until: askedAt + leaseMs, identity })
    }
    return { at, isOther }
  }

  #questionOf(share: Share, usage: LimitUsage | undefined): (string | number)[] {
    const { limit, reserves, pool } = share
    const { leaseMs, longestCallMs } = this.#all.options
    const terms = `${limit.requests} ${leaseMs} ${this.#all.names.map((name, i) => `${name}=${reserves[i]}`).join(' ')}`
    const settleMs = Math.ceil(longestWindowMs(limit) + limit.inFlightLeaseMs + longestCallMs)
    const over = usage?.committed === undefined ? undefined : usage.committed - reserves[this.#own]!
    const wanted = this.#wantedOf(share, over)
    const used = over === undefined ? ['', '', ''] : [over, ...this.#needOf(share, usage!.used)]
    return [limit.id, terms, pool, reserves.join(' '), settleMs, wanted, ...used]
  }

  #needOf({ limit, lacking }: Share, used: number): [need: number, chunk: number] {
    if (this.#all.options.clock.now() - lacking.at < LACKING_MS) return [limit.requests, lacking.units]
    return [used === 0 ? 0 : Math.min(limit.requests, Math.ceil(used * GROWTH) + 1), 0]
  }

  #wantedOf({ limit, regions, pool, extra, lessMs, usedMs }: Share, over: number | undefined): number {
    if (!this.#isUsed && usedMs >= IDLE_MS) return 0
    if (regions.length === 0) return 0
    // While the region's store is away nobody knows what the region needs.
    if (over === undefined) return extra
    const { leaseMs } = this.#all.options
    const turnMs = Math.max(limit.windowMs, TURN_LEASES * leaseMs)
    const parts = divide(regions, pool, Math.floor(Number(this.#told?.[0] ?? 0) / turnMs) % regions.length)
    const sinceMs = Math.min(lessMs, this.#all.askEveryMs)
    return wantedBy(regions, parts, { own: this.#own, over, sinceMs, windowMs: limit.windowMs })
  }

  /** Returns whether home and this gateway agree about the limit. */
  #note(share: Share, [agreed, lessMs, usedMs, ...told]: number[]): boolean {
    const { weights } = this.#all.options
    share.lessMs = lessMs!
    share.usedMs = usedMs!
    share.regions = this.#all.names.map((name, i) => {
      const [extra, hold, need, chunk] = told.slice(4 * i, 4 * i + 4) as [number, number, number, number]
      return { weight: weights[name]!, reserve: share.reserves[i]!, extra, hold, need, chunk }
    })
    return agreed === 1
  }
}
