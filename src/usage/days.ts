import type { DayRow } from './day-row.ts'

/** Rows of one day that are added together. Each row has only what was counted since the last time. */
export interface Batch {
  /** Greater than the number of any earlier batch of the same process. */
  readonly number: number
  readonly day: string
  readonly rows: readonly DayRow[]
}

/** Where the rows of the days are kept. */
export interface UsageDays {
  /** How many rows a batch has at most. */
  readonly rowsABatch: number
  /**
   * Adds a batch to what is kept. Rejects if it is not certain that the batch was added. The same batch can then be added again, and
   * counts once. A process must add its batches one after another, in order.
   */
  add(batch: Batch): Promise<void>
  /** All rows of a day, in no order. Delays no calls. */
  read(day: string): Promise<readonly DayRow[]>
  /** Resolves when all writes have ended. */
  close(): Promise<void> | void
}
