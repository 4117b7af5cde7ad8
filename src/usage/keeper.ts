import type { Logger } from '../observe/log.ts'
import type { Clock, Timer } from '../time/clock.ts'
import { daysBetween, type DayRow, nextDay } from './day-row.ts'
import type { Batch, UsageDays } from './days.ts'
import type { Usage } from './usage.ts'

/** What is counted in so much time is lost when the process is killed. */
export const FLUSH_EVERY_MS = 2_000
/** Stores know for longer than this which batches they have. What can't be written for so long is dropped. */
const GIVE_UP_MS = 6 * 86_400_000

export interface KeeperOptions {
  readonly usage: Usage
  readonly days: UsageDays
  readonly clock: Clock
  readonly logger: Logger
  /** Says of a client what it belongs to, and of an upstream in which currency its prices are, as of now. */
  owners(): (row: Pick<DayRow, 'client' | 'upstream'>) => Pick<DayRow, 'team' | 'organisation' | 'unit'>
  /** Told when a write fails. */
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
  /** What was taken and is not certain to be written, the oldest first. */
  readonly #batches: (Batch & { readonly takenAt: number })[] = []
  #number = 0
  #writing: Promise<void> | undefined
  #timer: Timer | undefined
  #isFailing = false
  #isClosed = false

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

  /** Writes once more, and no more then. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#timer?.cancel()
    await this.flush()
  }

  #later(): void {
    const { clock } = this.#options
    const wall = clock.wall()
    // At midnight, so that what was counted before is written as that of the day before.
    const delayMs = Math.min(FLUSH_EVERY_MS, nextDay(wall) - wall)
    this.#timer = clock.schedule(delayMs, () => {
      void this.flush().finally(() => {
        if (!this.#isClosed) this.#later()
      })
    })
  }

  async #write(): Promise<void> {
    const isBehind = this.#batches.length > 0
    // While nothing can be written the counters themselves keep it, and only a day that ends is put by.
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

  #take(): void {
    const { usage, clock, owners, days } = this.#options
    const { day, rows } = usage.take()
    if (rows.length === 0) return
    const ownerOf = owners()
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

/** What a store has of some days. */
export async function* readDays(
  days: UsageDays,
  since: number,
  until: number,
  clock: Clock,
): AsyncGenerator<readonly DayRow[]> {
  for (const day of daysBetween(since, until, clock.wall())) yield await days.read(day)
}
