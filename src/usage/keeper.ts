import type { Logger } from '../observe/log.ts'
import type { Clock, Timer } from '../time/clock.ts'
import { daysBetween, type DayRow, nextDay } from './day-row.ts'
import type { Batch, UsageDays } from './days.ts'
import type { Usage } from './usage.ts'

/** When the process is killed, what it counted for up to this time is lost. */
export const FLUSH_EVERY_MS = 2_000
/** A batch that could not be written for this time is dropped. Must be shorter than stores remember which batches they have. */
const GIVE_UP_MS = 6 * 86_400_000

export interface KeeperOptions {
  readonly usage: Usage
  readonly days: UsageDays
  readonly clock: Clock
  readonly logger: Logger
  /** Returns a function that finds the team and organisation of a client and the currency of an upstream, as of now. */
  owners(): (row: Pick<DayRow, 'client' | 'upstream'>) => Pick<DayRow, 'team' | 'organisation' | 'unit'>
  /** Called each time a write fails. */
  onUnwritten(): void
}

/** Reads what is kept of each day, the oldest first. */
export interface UsageReader {
  /** From the day of one moment to that of another, as far as days are kept; both in milliseconds since 1970. */
  read(since: number, until: number): AsyncIterable<readonly DayRow[]>
}

/** Writes what was counted to the rows of the day, in the background, every few seconds. */
export class UsageKeeper implements UsageReader {
  readonly #options: KeeperOptions
  /** Batches that are not certain to be written, the oldest first. */
  readonly #batches: (Batch & { readonly takenAt: number })[] = []
  #number = 0
  #writing: Promise<void> | undefined
  #timer: Timer | undefined
  #isFailing = false

  constructor(options: KeeperOptions) {
    this.#options = options
    this.#later()
  }

  /** Writes all that was counted before. Never rejects: what can't be written now is tried again later. */
  async flush(): Promise<void> {
    await this.#writing
    await (this.#writing ??= this.#write()
      .catch((mistake: unknown) => this.#failed(mistake))
      .finally(() => (this.#writing = undefined)))
  }

  async *read(since: number, until: number): AsyncGenerator<readonly DayRow[]> {
    await this.flush()
    yield* readDays(this.#options.days, since, until, this.#options.clock)
  }

  /** Writes one last time. */
  async close(): Promise<void> {
    this.#timer?.cancel()
    await this.flush()
  }

  #later(): void {
    const { clock, usage } = this.#options
    const wall = clock.wall()
    // Not later than midnight (UTC), so that what was counted before midnight is written to the day that ended.
    const delayMs = Math.min(FLUSH_EVERY_MS, nextDay(wall) - wall)
    this.#timer = clock.schedule(delayMs, () => {
      this.#later()
      if (this.#writing === undefined) void this.flush()
      // A write that hangs must not hold up the next day.
      else if (usage.isNewDay) this.#tryToTake()
    })
  }

  async #write(): Promise<void> {
    const isBehind = this.#batches.length > 0
    // While nothing can be written, the tallies go on counting, and a new batch is made only when the day ends.
    if (!isBehind || this.#options.usage.isNewDay) this.#take()
    if ((await this.#add()) && isBehind) {
      this.#take()
      await this.#add()
    }
  }

  /** Whether all that was taken is written. */
  async #add(): Promise<boolean> {
    const { days, clock, logger } = this.#options
    for (let batch = this.#batches[0]; batch !== undefined; batch = this.#batches[0]) {
      try {
        await days.add(batch)
      } catch (error) {
        if (clock.now() - batch.takenAt < GIVE_UP_MS) {
          this.#failed(error)
          return false
        }
        logger.error({ day: batch.day, rows: batch.rows.length }, 'usage could not be written for days, and is dropped')
      }
      this.#batches.shift()
    }
    if (this.#isFailing) logger.warn('usage is written again')
    this.#isFailing = false
    return true
  }

  #tryToTake(): void {
    try {
      this.#take()
    } catch (mistake) {
      this.#failed(mistake)
    }
  }

  #take(): void {
    const { usage, clock, owners, days } = this.#options
    // First, because what is taken is nowhere else.
    const ownerOf = owners()
    const { day, rows } = usage.take()
    for (let i = 0; i < rows.length; i += days.rowsABatch) {
      const part = rows.slice(i, i + days.rowsABatch).map((row) => Object.assign(row, ownerOf(row)))
      this.#batches.push({ number: ++this.#number, day, rows: part, takenAt: clock.now() })
    }
  }

  #failed(error: unknown): void {
    this.#options.onUnwritten()
    // Not the whole error: one of Redis carries the command that failed.
    const { stack } = error instanceof Error ? error : new Error(String(error))
    if (!this.#isFailing)
      this.#options.logger.error({ stack }, 'usage can not be written now: it is kept in memory, and tried again')
    this.#isFailing = true
  }
}

/** Reads the rows of each kept day from that of `since` to that of `until`, in milliseconds since 1970, the oldest first. */
export async function* readDays(
  days: UsageDays,
  since: number,
  until: number,
  clock: Clock,
): AsyncGenerator<readonly DayRow[]> {
  for (const day of daysBetween(since, until, clock.wall())) yield await days.read(day)
}
