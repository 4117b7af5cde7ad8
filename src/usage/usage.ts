/*
 * src/usage: who spends what: the units, calls, refusals and waits of each client, as of now for operators, and by the day
 * for charge-back.
 * It imports what .oxlintrc.ts lists. Counting costs a call two look-ups by the name of its client.
 * A change here must prove that what is exported sums to the metrics, that nothing is counted twice, whatever crashes
 * (test/usage, test/system/usage.test.ts), and that its memory is bounded.
 */

import type { ClassLabels } from '../observe/series.ts'
import { TimeSlice } from '../observe/time-slice.ts'
import type { QueuedClient } from '../queue/admission.ts'
import type { Clock } from '../time/clock.ts'
import { dayOf, type DayRow, OTHER } from './day-row.ts'
import { type ClientUse, type CountedLimit, RecentUse } from './recent-use.ts'
import { Tally, type TallyMetrics } from './tally.ts'

export interface UsageOptions {
  readonly metrics: TallyMetrics
  readonly clock: Clock
  /** How many tallies of a day have their own names. Later ones are counted under `other`, so that sums stay right. */
  readonly mostTallies?: number
  /** How many `RecentUse` have their own names. */
  readonly mostRecent?: number
  /** How many look-ups are remembered in `Spending` and `CallUsage`. There may be one for each client of each account. */
  readonly mostLookUps?: number
}

/** These bound the memory that counting takes. */
const MOST_TALLIES = 10_000
const MOST_RECENT = 5_000
const MOST_LOOK_UPS = 50_000
const DROP_EVERY_MS = 60_000

/** What all clients have used, as this process counts it. */
export class Usage {
  readonly #options: Required<UsageOptions>
  readonly #tallies = new Map<string, Tally>()
  /** The tallies with counts that were not taken yet. */
  #changed: Tally[] = []
  readonly #recent = new Map<string, RecentUse>()
  /** The maps in which `Spending` and `CallUsage` remember look-ups. `#lookUps` counts their entries. */
  readonly #lookedUp = new Set<Map<string, unknown>>()
  #lookUps = 0
  /** The day that is counted now. */
  #day: string
  /** Since when this process counts. */
  readonly since: number
  #droppedAt = -Infinity

  constructor(options: UsageOptions) {
    this.#options = { mostTallies: MOST_TALLIES, mostRecent: MOST_RECENT, mostLookUps: MOST_LOOK_UPS, ...options }
    this.since = options.clock.wall()
    this.#day = dayOf(this.since)
  }

  /** What a client has used of an account and class, today. */
  tallyOf(labels: ClassLabels, client: string): Tally {
    const key = `${labels.upstream}\n${labels.account}\n${labels.class}\n${client}`
    const known = this.#tallies.get(key)
    if (known !== undefined) return known
    const folded = this.#folded(labels.account, client, this.#tallies.size, this.#options.mostTallies)
    if (folded !== undefined) return this.tallyOf({ ...labels, account: OTHER }, folded)
    const changed = (tally: Tally): void => void this.#changed.push(tally)
    const tally = new Tally({ ...labels }, client, this.#options.metrics, changed)
    this.#tallies.set(key, tally)
    return tally
  }

  /** What a client has used of a limit lately. */
  recentOf(limit: CountedLimit, client: string): RecentUse {
    const key = `${limit.upstream}\n${limit.account}\n${limit.class}\n${limit.window}\n${client}`
    const known = this.#recent.get(key)
    if (known !== undefined) return known
    const folded = this.#folded(limit.account, client, this.#recent.size, this.#options.mostRecent)
    if (folded !== undefined) return this.recentOf({ ...limit, account: OTHER }, folded)
    const recent = new RecentUse(limit, client, this.#options.clock)
    this.#recent.set(key, recent)
    return recent
  }

  /**
   * Undefined while there is room for something new with its own name. Otherwise it is counted for the account `other`, and this
   * returns the name of its client: the own name at first, and `other` once there are twice as many as `most`.
   */
  #folded(account: string, client: string, size: number, most: number): string | undefined {
    if (size < most || (account === OTHER && (client === OTHER || size < 2 * most))) return undefined
    return size < 2 * most ? client : OTHER
  }

  /** What each client has used of each limit in the last day, or in its window if that is longer. Delays no calls. */
  async recent(): Promise<ClientUse[]> {
    const slice = new TimeSlice()
    const rows: ClientUse[] = []
    for (const recent of this.#recent.values()) {
      const row = recent.row(this.since)
      if (row.day > 0 || row.used > 0) rows.push(row)
      await slice.endIfOver()
    }
    return rows
  }

  /** Whether the day that is counted is over. */
  get isNewDay(): boolean {
    return dayOf(this.#options.clock.wall()) !== this.#day
  }

  /** What was counted since the last `take`, and its day. The caller has to keep it, because it is not returned again. */
  take(): { day: string; rows: DayRow[] } {
    const day = this.#day
    const rows = this.#changed.map((tally) => tally.take(day))
    this.#changed = []
    const isNewDay = this.isNewDay
    if (isNewDay) {
      this.#day = dayOf(this.#options.clock.wall())
      this.#tallies.clear()
      this.#forgetLookUps()
    }
    if (isNewDay || this.#recent.size >= this.#options.mostRecent) this.#dropIdle()
    return { day, rows }
  }

  /** Drops what was not used for a day. Does nothing if it ran lately, because it looks at every entry. */
  #dropIdle(): void {
    const now = this.#options.clock.now()
    if (now - this.#droppedAt < DROP_EVERY_MS) return
    this.#droppedAt = now
    for (const [key, recent] of this.#recent) if (recent.isIdle) this.#recent.delete(key)
    this.#forgetLookUps()
  }

  /** Notes that a look-up is about to be remembered in `into`. The map is emptied now and then, so it must hold nothing else. */
  looksUp(into: Map<string, unknown>): void {
    if (++this.#lookUps > this.#options.mostLookUps) this.#forgetLookUps()
    this.#lookedUp.add(into)
  }

  #forgetLookUps(): void {
    for (const map of this.#lookedUp) map.clear()
    this.#lookedUp.clear()
    this.#lookUps = 0
  }
}

/** The units of one charged class, and the limits that they are counted against. */
export interface Charged {
  readonly class: string
  readonly units: number
}
export interface ChargedLimit {
  readonly limit: CountedLimit
  readonly units: number
}

interface Spender {
  readonly tallies: readonly Tally[]
  readonly recent: readonly RecentUse[]
}

/** Counts for each client the units that calls of one kind are charged, and those that the cache saved. */
export class Spending {
  readonly #usage: Usage
  readonly #labels: ClassLabels
  readonly #charges: readonly Charged[]
  readonly #limits: readonly ChargedLimit[]
  readonly #byClient = new Map<string, Spender>()

  /** `labels` are those of the calls; `charges` what one of them is charged, by class, and `limits` by limit. */
  constructor(usage: Usage, labels: ClassLabels, charges: readonly Charged[], limits: readonly ChargedLimit[]) {
    this.#usage = usage
    this.#labels = labels
    this.#charges = charges
    this.#limits = limits
  }

  /** An attempt is charged. */
  count(client: QueuedClient, id: string): void {
    const { tallies, recent } = this.#of(client.name)
    for (let i = 0; i < tallies.length; i++) tallies[i]!.charge(this.#charges[i]!.units, id)
    for (let i = 0; i < recent.length; i++) recent[i]!.add(this.#limits[i]!.units, client)
  }

  /** Counts what an attempt has cost in the end. The units are in the order of the classes, and in the order of the limits. */
  countSpent(client: QueuedClient, id: string, byClass: readonly number[], byLimit: readonly number[]): void {
    const { tallies, recent } = this.#of(client.name)
    for (let i = 0; i < tallies.length; i++) tallies[i]!.charge(byClass[i]!, id)
    for (let i = 0; i < recent.length; i++) recent[i]!.add(byLimit[i]!, client)
  }

  /** A call was answered without being charged. */
  save(client: QueuedClient, id: string): void {
    const { tallies } = this.#of(client.name)
    for (let i = 0; i < tallies.length; i++) tallies[i]!.save(this.#charges[i]!.units, id)
  }

  #of(client: string): Spender {
    const known = this.#byClient.get(client)
    if (known !== undefined) return known
    const tallies = this.#charges.map((charge) => this.#usage.tallyOf({ ...this.#labels, class: charge.class }, client))
    const recent = this.#limits.map(({ limit }) => this.#usage.recentOf(limit, client))
    const spender = { tallies, recent }
    this.#usage.looksUp(this.#byClient)
    this.#byClient.set(client, spender)
    return spender
  }
}

/** Counts for each client the calls of one account and class. */
export class CallUsage {
  readonly #usage: Usage
  readonly #labels: ClassLabels
  readonly #byClient = new Map<string, Tally>()

  constructor(usage: Usage, labels: ClassLabels) {
    this.#usage = usage
    this.#labels = labels
  }

  of(client: string): Tally {
    const known = this.#byClient.get(client)
    if (known !== undefined) return known
    const tally = this.#usage.tallyOf(this.#labels, client)
    this.#usage.looksUp(this.#byClient)
    this.#byClient.set(client, tally)
    return tally
  }
}
