import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import Type from 'typebox'
import { Value } from 'typebox/value'
import { readIfThere, replaceFile } from '../files/replace-file.ts'
import type { Logger } from '../observe/log.ts'
import { parsedJson } from '../schema/json.ts'
import type { Clock } from '../time/clock.ts'
import { DAY_MS, dayOf, type DayRow, foldsOf, KEPT_DAYS, MOST_ROWS, namesOf, NUMBERS, rowOf } from './day-row.ts'
import type { Batch, UsageDays } from './days.ts'

const Count = Type.Number({ minimum: 0 })
const FileSchema = Type.Object({
  version: Type.Literal(1),
  /** Client, upstream, account, class and so on, then the numbers. */
  rows: Type.Array(Type.Tuple([Type.Array(Type.String(), { minItems: 4, maxItems: 7 }), Type.Array(Count)])),
})

/**
 * Keeps the rows of each day in a JSON file, replaced as a whole, so that a crash in the middle of a write leaves the file before it.
 * Like the files of quotas it is not synced to disk: it survives the death of the process, not of the machine. The folder is
 * locked by the ledger.
 */
export class FileDays implements UsageDays {
  readonly #folder: string
  readonly #clock: Clock
  readonly #logger: Logger
  /** The day that is written now, and its rows by name. */
  #day: string | undefined
  #rows = new Map<string, DayRow>()
  /** The latest batch that is in the rows, by the process that counted it. */
  readonly #added = new Map<number, number>()

  constructor(dir: string, clock: Clock, logger: Logger) {
    this.#folder = join(dir, 'usage')
    this.#clock = clock
    this.#logger = logger
  }

  /** With workers, the first of them writes for all: `worker` says whose batch it is. */
  async add({ number, day, rows }: Batch, worker = 0): Promise<void> {
    if (day !== this.#day) this.#begin(day)
    const added = this.#added.get(worker) ?? 0
    if (number > added) for (const row of rows) this.#addRow(row)
    this.#added.set(worker, Math.max(added, number))
    replaceFile(this.#fileOf(day), textOf(this.#rows))
  }

  async read(day: string): Promise<readonly DayRow[]> {
    return day === this.#day ? [...this.#rows.values()] : this.#load(day)
  }

  close(): void {}

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
      if (!this.#rows.has(keyOf(into)) && size >= (i + 1) * MOST_ROWS) into = folded
    }
    const known = this.#rows.get(keyOf(into))
    const sums =
      known === undefined ? {} : Object.fromEntries(NUMBERS.map((field) => [field, known[field] + row[field]]))
    this.#rows.set(keyOf(into), { ...into, ...sums })
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

function textOf(rows: ReadonlyMap<string, DayRow>): string {
  const written = [...rows.values()].map((row) => {
    return [namesOf(row), NUMBERS.map((field) => row[field])]
  })
  return JSON.stringify({ version: 1, rows: written })
}

function rowsIn(text: string, day: string): DayRow[] | undefined {
  const found = parsedJson(text)
  if (!Value.Check(FileSchema, found)) return undefined
  return found.rows.map(([names, numbers]) => rowOf(day, names, numbers))
}
