import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makeFolder } from '../files/owner.ts'
import { replaceFile } from '../files/replace-file.ts'
import type { Logger } from '../observe/log.ts'
import { TimeSlice } from '../observe/time-slice.ts'
import { isObject, parsedJson } from '../schema/json.ts'
import type { Clock } from '../time/clock.ts'
import { forEachInTurns } from '../time/turns.ts'
import { DAY_MS, dayOf, type DayRow, foldsOf, KEPT_DAYS, MOST_ROWS, namesOf, NUMBERS, rowOf } from './day-row.ts'
import type { Batch, UsageDays } from './days.ts'

/**
 * The first and the last line of a file. Each line between is a row: its names (see `namesOf`), then its numbers. The whole file is
 * also valid JSON, because older releases read it as such.
 */
const [HEAD, TAIL] = ['{"version":1,"rows":[', ']}']

/** How many rows are added, or put into the text, in one turn of the event loop. */
const ROWS_A_TURN = 256

/**
 * Keeps the rows of each day in a JSON file. The file is replaced as a whole, so a crash during a write leaves the old file. Like the
 * files of quotas it is not synced to disk: it survives a crash of the process, but not of the machine. The ledger locks the folder.
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
  /** The number of the latest batch in the rows, by the worker that counted it. */
  readonly #added = new Map<number, number>()
  /**
   * Resolves when all calls of `add` and `read` so far have ended. They run one after another, because each takes several turns of
   * the event loop. Side by side, one might put aside the good file that the other has just written.
   */
  #last: Promise<void> = Promise.resolve()

  constructor(dir: string, clock: Clock, logger: Logger) {
    this.#folder = join(dir, 'usage')
    this.#clock = clock
    this.#logger = logger
  }

  /** With workers, the first process writes for all of them: `worker` is the number of the one that counted the batch. */
  add(batch: Batch, worker = 0): Promise<void> {
    return this.#next(() => this.#add(batch, worker))
  }

  read(day: string): Promise<readonly DayRow[]> {
    return this.#next(async () => {
      const path = this.#fileOf(day)
      const rows = day === this.#day ? [...this.#rows.values()] : await rowsOf(path, day)
      // What was put aside belongs to the day, too. Without it the sums would be too small, and nobody would know.
      return [...rows, ...(await rowsOf(`${path}.damaged`, day)), ...(await rowsOf(`${path}.newer`, day))]
    })
  }

  async #add({ number, day, rows }: Batch, worker: number): Promise<void> {
    if (day !== this.#day) await this.#begin(day)
    const added = this.#added.get(worker) ?? 0
    try {
      if (number > added) await forEachInTurns(rows, ROWS_A_TURN, this.#clock, (row) => this.#addRow(row))
      replaceFile(this.#fileOf(day), await textOf(this.#rows, this.#clock))
    } catch (error) {
      // The rows may have what the file lacks, so they are dropped, and the next call reads the file again. The batch comes again, and
      // by then another worker may have begun the next day.
      this.#day = undefined
      throw error
    }
    this.#added.set(worker, Math.max(added, number))
  }

  /** Must be awaited before the folder is unlocked, because another process may use the folder after that. */
  close(): Promise<void> {
    return this.#last
  }

  #next<Result>(act: () => Result | Promise<Result>): Promise<Result> {
    const acting = this.#last.then(act)
    this.#last = acting.then(
      () => undefined,
      () => undefined,
    )
    return acting
  }

  async #begin(day: string): Promise<void> {
    makeFolder(this.#folder)
    const oldest = dayOf(this.#clock.wall() - KEPT_DAYS * DAY_MS)
    for (const name of readdirSync(this.#folder)) {
      if (name < oldest || name.endsWith('.tmp')) rmSync(join(this.#folder, name), { force: true })
    }
    const path = this.#fileOf(day)
    const rows = await rowsOf(path, day).catch((error: unknown) => {
      if (!(error instanceof Unreadable)) throw error
      // What is counted from now on has to be written somewhere. What was put aside before counts, too.
      if (existsSync(path + error.aside)) throw error
      renameSync(path, path + error.aside)
      this.#logger.error({ aside: path + error.aside }, `a file of usage was put aside: ${error.message}`)
      return []
    })
    this.#rows = new Map(rows.map((row) => [keyOf(row), row]))
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

  #fileOf(day: string): string {
    return join(this.#folder, `${day}.json`)
  }
}

function keyOf(row: DayRow): string {
  return JSON.stringify(namesOf(row))
}

/** The text of a file. The rows must not change until this resolves. */
async function textOf(rows: ReadonlyMap<string, DayRow>, clock: Clock): Promise<string> {
  const written: string[] = []
  await forEachInTurns(rows.values(), ROWS_A_TURN, clock, (row) =>
    written.push(JSON.stringify([namesOf(row), NUMBERS.map((field) => row[field])])),
  )
  return [HEAD, written.join(',\n'), TAIL].join('\n')
}

/** The file can be opened, but not understood. */
class Unreadable extends Error {
  /** What its name ends with when it is put aside. */
  readonly aside: '.damaged' | '.newer'

  constructor(path: string, version: number) {
    const isNewer = version > 1
    const why = isNewer ? `is of a newer release (version ${version}): run that` : 'is damaged: put back a copy of it'
    super(`${path} ${why}, or move it away to go on without what it counts`)
    this.aside = isNewer ? '.newer' : '.damaged'
  }
}

/** The rows of a file; none if there is no such file. Rejects if it can't be read or understood. Delays no calls. */
async function rowsOf(path: string, day: string): Promise<DayRow[]> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  const slice = new TimeSlice()
  const rows: DayRow[] = []
  for (const row of text === undefined ? [] : writtenIn(text)) {
    if (!isWritten(row)) throw new Unreadable(path, Number(/^\{"version":(\d+)/.exec(text!)?.[1]))
    rows.push(rowOf(day, ...row))
    await slice.endIfOver()
  }
  return rows
}

/** The rows of a file, unchecked. For a damaged part it yields a value that is no row. */
function* writtenIn(text: string): Iterable<unknown> {
  const [head, ...lines] = text.split('\n')
  const tail = lines.pop()
  if (tail === undefined) {
    // An older release has written it, as one line.
    const file = parsedJson(text)
    if (isObject(file) && file['version'] === 1 && Array.isArray(file['rows'])) yield* file['rows'] as unknown[]
    else yield undefined
    return
  }
  if (head !== HEAD || tail !== TAIL) yield undefined
  for (const line of lines) if (line !== '') yield parsedJson(line.endsWith(',') ? line.slice(0, -1) : line)
}

type Written = [names: string[], numbers: number[]]

/** Checked by hand, because a schema takes much longer, and there are many rows. */
function isWritten(row: unknown): row is Written {
  if (!Array.isArray(row) || row.length !== 2) return false
  const [names, numbers] = row as unknown[]
  if (!Array.isArray(names) || !Array.isArray(numbers) || names.length < 4 || names.length > 7) return false
  return (
    names.every((name) => typeof name === 'string') &&
    numbers.every((number) => typeof number === 'number' && number >= 0)
  )
}
