import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import Type from 'typebox'
import { Value } from 'typebox/value'
import { readIfThere, replaceFile } from '../files/replace-file.ts'
import type { Logger } from '../observe/log.ts'
import { parsedJson } from '../schema/json.ts'
import type { Clock } from '../time/clock.ts'
import { forEachInTurns } from '../time/turns.ts'
import { DAY_MS, dayOf, type DayRow, foldsOf, KEPT_DAYS, MOST_ROWS, namesOf, NUMBERS, rowOf } from './day-row.ts'
import type { Batch, UsageDays } from './days.ts'

const Count = Type.Number({ minimum: 0 })
const FileSchema = Type.Object({
  version: Type.Literal(1),
  /** Client, upstream, account, class and so on, then the numbers. */
  rows: Type.Array(Type.Tuple([Type.Array(Type.String(), { minItems: 4, maxItems: 7 }), Type.Array(Count)])),
})

/** How many rows are added, or put into the text, in one turn of the event loop: about a millisecond. */
const ROWS_A_TURN = 256

/**
 * Keeps the rows of each day in a JSON file, replaced as a whole, so that a crash in the middle of a write leaves the file before it.
 * Like the files of quotas it is not synced to disk: it survives the death of the process, not of the machine. The folder is
 * locked by the ledger.
 */
export class FileDays implements UsageDays {
  /** Each batch writes the whole file. */
  readonly rowsABatch = Infinity
  readonly #folder: string
  readonly #clock: Clock
  readonly #logger: Logger
  /** The day that is written now, and its rows by name. */
  #day: string | undefined
  #rows = new Map<string, DayRow>()
  /** The latest batch that is in the rows, by the process that counted it. */
  readonly #added = new Map<number, number>()
  /** Until the batches that came are added. It takes several turns of the event loop, and workers send theirs at any time. */
  #adding: Promise<void> = Promise.resolve()

  constructor(dir: string, clock: Clock, logger: Logger) {
    this.#folder = join(dir, 'usage')
    this.#clock = clock
    this.#logger = logger
  }

  /** With workers, the first of them writes for all: `worker` says whose batch it is. */
  add(batch: Batch, worker = 0): Promise<void> {
    const adding = this.#adding.then(() => this.#add(batch, worker))
    this.#adding = adding.catch(() => undefined)
    return adding
  }

  async read(day: string): Promise<readonly DayRow[]> {
    await this.#adding
    return day === this.#day ? [...this.#rows.values()] : this.#load(day)
  }

  async #add({ number, day, rows }: Batch, worker: number): Promise<void> {
    if (day !== this.#day) this.#begin(day)
    const added = this.#added.get(worker) ?? 0
    try {
      if (number > added) await forEachInTurns(rows, ROWS_A_TURN, this.#clock, (row) => this.#addRow(row))
      replaceFile(this.#fileOf(day), await textOf(this.#rows, this.#clock))
    } catch (error) {
      // The file lacks what was added. Another worker may begin the next day before this batch comes again.
      this.#day = undefined
      throw error
    }
    this.#added.set(worker, Math.max(added, number))
  }

  /** To be awaited before the folder is unlocked: it may be of another process then. */
  close(): Promise<void> {
    return this.#adding
  }

  #begin(day: string): void {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
    const oldest = dayOf(this.#clock.wall() - KEPT_DAYS * DAY_MS)
    for (const name of readdirSync(this.#folder)) {
      if (name < oldest || name.endsWith('.tmp')) rmSync(join(this.#folder, name), { force: true })
    }
    this.#rows = new Map(this.#load(day).map((row) => [keyOf(row), row]))
    this.#day = day
  }

  #addRow(row: DayRow): void {
    const size = this.#rows.size
    let into = row
    for (const [i, folded] of foldsOf(row).entries()) {
      if (size >= (i + 1) * MOST_ROWS && !this.#rows.has(keyOf(into))) into = folded
    }
    const key = keyOf(into)
    const known = this.#rows.get(key)
    const sums =
      known === undefined ? {} : Object.fromEntries(NUMBERS.map((field) => [field, known[field] + row[field]]))
    this.#rows.set(key, { ...into, ...sums })
  }

  /** A file that can't be read is put aside: what it had is missing then, and the gateway serves all the same. */
  #load(day: string): DayRow[] {
    const path = this.#fileOf(day)
    const text = readIfThere(path)
    if (text === undefined) return []
    const rows = rowsIn(text, day)
    if (rows !== undefined) return rows
    renameSync(path, `${path}.damaged`)
    this.#logger.error(
      { path },
      'a file of usage is damaged, and was put aside: put back a copy of it, if you have one',
    )
    return []
  }

  #fileOf(day: string): string {
    return join(this.#folder, `${day}.json`)
  }
}

function keyOf(row: DayRow): string {
  return JSON.stringify(namesOf(row))
}

/** The rows must not change meanwhile. */
async function textOf(rows: ReadonlyMap<string, DayRow>, clock: Clock): Promise<string> {
  const written: string[] = []
  await forEachInTurns(rows.values(), ROWS_A_TURN, clock, (row) =>
    written.push(JSON.stringify([namesOf(row), NUMBERS.map((field) => row[field])])),
  )
  return `{"version":1,"rows":[${written.join(',')}]}`
}

function rowsIn(text: string, day: string): DayRow[] | undefined {
  const found = parsedJson(text)
  if (!Value.Check(FileSchema, found)) return undefined
  return found.rows.map(([names, numbers]) => rowOf(day, names, numbers))
}
