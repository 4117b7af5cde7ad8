import type { Clock } from '../time/clock.ts'
import type { Logger } from '../observe/log.ts'

/** For so long `/readyz` tells of a loss, so that whoever looks after the night sees it. */
const TOLD_MS = 12 * 3_600_000

/** What Redis keeps for good, and can lose. */
export const LOSABLE = ['clients', 'presets', 'secrets', 'audit'] as const
export type LostRecords = (typeof LOSABLE)[number]

interface Loss {
  readonly at: number
  readonly text: string
}

/** What Redis has lost of what it is to keep for good, for the log and for `/readyz`. */
export class Losses {
  readonly #clock: Clock
  readonly #logger: Logger
  /** The last of each sort of things. */
  readonly #told = new Map<LostRecords, Loss>()
  readonly #listeners: ((records: LostRecords) => void)[] = []

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock
    this.#logger = logger
  }

  /** So many `records` (such as `clients`) were put back, or could not be, and why. */
  noteLost(records: LostRecords, count: number, problem?: string): void {
    const outcome = problem === undefined ? 'put back from what this gateway knew' : `can not be put back: ${problem}`
    this.#note(records, `${count} of its ${records}, ${outcome}`, problem === undefined)
  }

  /** No gateway has all of the trail. */
  noteTrailLost(): void {
    this.#note('audit', 'the older entries of the audit trail, which the log still has', true)
  }

  /** Calls back with each loss that is said in the log. */
  onLoss(listener: (records: LostRecords) => void): void {
    this.#listeners.push(listener)
  }

  /** Undefined if there is nothing to tell. */
  get text(): string | undefined {
    const since = this.#clock.now() - TOLD_MS
    const told = [...this.#told.values()].filter(({ at }) => at > since)
    return told.length === 0 ? undefined : `Redis has lost ${told.map(({ text }) => text).join('; ')}`
  }

  /** What goes on failing is said once. */
  #note(sort: LostRecords, what: string, isOver: boolean): void {
    const before = this.#told.get(sort)?.text
    const at = new Date(this.#clock.wall()).toISOString()
    const isSame = before?.startsWith(what) === true && !isOver
    if (isSame) return
    this.#told.set(sort, { at: this.#clock.now(), text: `${what} (noticed at ${at})` })
    this.#logger.error(`Redis has lost ${what}`)
    for (const listener of this.#listeners) listener(sort)
  }
}
