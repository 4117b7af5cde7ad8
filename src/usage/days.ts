import type { DayRow } from './day-row.ts'

/** What was counted in a while, all of it on one day. */
export interface Batch {
  /** Each is greater than the one before of the same process. */
  readonly number: number
  readonly day: string
  readonly rows: readonly DayRow[]
}

/** Where the rows of the days are kept. */
export interface UsageDays {
  /** How many rows a batch has at most. */
  readonly rowsABatch: number
  /**
   * Adds a batch to what is kept. Rejects where that is not certain; the same batch can be added again then, and counts once.
   * Batches must be added one after another, in order.
   */
  add(batch: Batch): Promise<void>
  /** All rows of a day, in no order. Delays no calls. */
  read(day: string): Promise<readonly DayRow[]>
  /** Resolves when nothing is written any more. */
  close(): Promise<void> | void
}
