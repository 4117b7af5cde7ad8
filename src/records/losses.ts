import type { Clock } from '../time/clock.ts'
import type { Logger } from '../observe/log.ts'

/** How long `/readyz` reports a loss, so that somebody who looks in the morning sees it. */
const TOLD_MS = 12 * 3_600_000

/** What Redis keeps for good, and can lose. */
export const LOSABLE = ['clients', 'presets', 'secrets', 'audit'] as const
export type LostRecords = (typeof LOSABLE)[number]

/** Reports in the log, and at `/readyz`, what Redis has lost that it should keep for good. */
export class Losses {
  readonly #clock: Clock
  readonly #logger: Logger
  /** The last loss of each kind. */
  readonly #told = new Map<LostRecords, { readonly at: number; readonly text: string }>()
  readonly #listeners: ((records: LostRecords) => void)[] = []

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock
    this.#logger = logger
  }

  /** That many `records` (such as `clients`) were restored, or could not be because of `problem`. */
  noteLost(records: LostRecords, count: number, problem?: string): void {
    const outcome = problem === undefined ? 'put back from what this gateway knew' : `can not be put back: ${problem}`
    this.#note(records, `${count} of its ${records}, ${outcome}`, problem === undefined)
  }

  /** The audit trail was lost. No gateway has all of it to restore. */
  noteTrailLost(): void {
    this.#note('audit', 'the older entries of the audit trail, which the log still has', true)
  }

  /** Calls `listener` with each loss that is logged. */
  onLoss(listener: (records: LostRecords) => void): void {
    this.#listeners.push(listener)
  }

  /** The losses in words; undefined if there are none. */
  get text(): string | undefined {
    const since = this.#clock.now() - TOLD_MS
    const told = [...this.#told.values()].filter(({ at }) => at > since)
    return told.length === 0 ? undefined : `Redis has lost ${told.map(({ text }) => text).join('; ')}`
  }

  /** A failure that repeats is logged once. */
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
