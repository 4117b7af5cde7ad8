import { readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { lockFolder } from '../../files/folder-lock.ts'
import { makeFolder } from '../../files/owner.ts'
import { replaceFile } from '../../files/replace-file.ts'

const VERSION = 2
/** The maximum is more than any limit allows, even one of money in billionths. */
const Units = Type.Number({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Milliseconds = Type.Number({ minimum: 0, maximum: 1e13 })

const StampSchema = Type.Object({
  boot: Type.Optional(Type.String()),
  now: Milliseconds,
  wall: Milliseconds,
})
const LimitSchema = Type.Object({
  at: Type.Optional(StampSchema),
  windowMs: Milliseconds,
  charges: Type.Array(Type.Object({ agoMs: Type.Number({ minimum: -1e13, maximum: 1e13 }), units: Units })),
  windows: Type.Optional(Type.Array(Type.Object({ startsAt: Milliseconds, units: Units }))),
  uncertain: Units,
})
const FileSchema = Type.Object({
  version: Type.Literal(VERSION),
  home: Type.String(),
  limits: Type.Record(Type.String(), LimitSchema),
})
/** The name does not end in `.json`, so no release takes it for the file of a partition. */
const USED_UP = 'used-up'
const UsedUpSchema = Type.Object({ version: Type.Literal(VERSION), at: StampSchema })
/** The format before there were versions: buckets are numbered from 1970, by the wall clock of whoever wrote the file. */
const FirstSchema = Type.Object({
  home: Type.String(),
  limits: Type.Record(
    Type.String(),
    Type.Object({
      windowMs: Milliseconds,
      charges: Type.Array(Type.Object({ bucket: Type.Number(), units: Units })),
      uncertain: Units,
    }),
  ),
})

const UNUSED =
  'then its quota is taken for unused. The upstream still counts the calls of the last window, so wait that long first.'

/** When something was stored: by both clocks, and on which start of the machine. */
export type Stamp = Static<typeof StampSchema>

/**
 * What is kept of one limit of a partition. `at`: when it was stored; without it, that may have been just now.
 * `charges`: units, and at least how long before `at` they were charged; a negative time is after `at`, for calls in
 * flight. `windows`: only of a calendar limit, the units in each of its windows. `uncertain`: units that may have been
 * charged after `at`; 0 after an orderly stop. If they are `ALL`, they were charged before `at`.
 */
export type StoredLimit = Static<typeof LimitSchema>

export type StoredPartition = Readonly<Record<string, StoredLimit>>

/**
 * The folder of the embedded ledger: one JSON file for each partition. A file is replaced as a whole, so a crash in the
 * middle of a write leaves the old one. Nothing is synced to disk: this survives the death of the process, not of the
 * machine.
 *
 * When a file can't be written (the disk is full), `markBehind` renames the folder, for which no room is needed. So the
 * next process that starts knows that more was charged than the files say, and takes every quota for used up.
 */
export class LedgerFiles {
  readonly #files: string
  readonly #marked: string
  readonly #unlock: () => void
  /** More was charged than the files say. */
  isBehind = false

  /**
   * Makes the folder if need be and locks it. Throws, and leaves nothing behind, if it can't be written, or another running
   * process has it.
   */
  constructor(dir: string) {
    this.#files = join(dir, 'quota')
    this.#marked = join(dir, 'quota.behind')
    try {
      makeFolder(dir)
      this.#unlock = lockFolder(dir)
    } catch (error) {
      throw (error as NodeJS.ErrnoException).code === undefined ? error : unwritable(dir, error)
    }
    try {
      this.isBehind = readdirSync(dir).includes('quota.behind')
      makeFolder(this.#folder)
      for (const name of readdirSync(this.#folder)) {
        if (name.endsWith('.tmp')) rmSync(join(this.#folder, name), { force: true })
      }
    } catch (error) {
      this.#unlock()
      throw unwritable(dir, error)
    }
  }

  get #folder(): string {
    return this.isBehind ? this.#marked : this.#files
  }

  /**
   * Returns everything stored, by partition. If a file can't be read as one of the gateway's, unlocks the folder and
   * throws an error that says what to do: to ignore the file would grant its quota anew.
   */
  load(): Map<string, StoredPartition> {
    const partitions = new Map<string, StoredPartition>()
    try {
      for (const name of readdirSync(this.#folder)) {
        if (!name.endsWith('.json')) continue
        const { home, limits } = readPartition(join(this.#folder, name), name)
        partitions.set(home, limits)
      }
    } catch (error) {
      this.#unlock()
      throw error
    }
    return partitions
  }

  /**
   * When limits that no file mentions were last taken for used up; undefined if they never were. Throws as `load` does.
   */
  loadUsedUp(): Stamp | undefined {
    const path = join(this.#folder, USED_UP)
    try {
      const found = readJson(path, undefined)
      if (found === undefined) return undefined
      if (Value.Check(UsedUpSchema, found)) return found.at
      checkVersion(path, found)
      throw damaged(path, 'it does not say since when quotas are used up')
    } catch (error) {
      this.#unlock()
      throw error
    }
  }

  /**
   * Notes that every limit that no file mentions was taken for used up at that time. Throws if that can't be written.
   */
  saveUsedUp(at: Stamp): void {
    replaceFile(join(this.#folder, USED_UP), JSON.stringify({ version: VERSION, at }))
  }

  /** Replaces the file of a partition. If it can't be written, throws and leaves the old file. */
  save(partition: string, limits: StoredPartition): void {
    const text = JSON.stringify({ version: VERSION, home: partition, limits })
    replaceFile(this.#pathOf(partition), text)
  }

  /** Removes the file of a partition of which nothing counts any more. If it can't be removed it stays, which does no harm. */
  remove(partition: string): void {
    try {
      rmSync(this.#pathOf(partition))
    } catch {
      // The next process tries again.
    }
  }

  #pathOf(partition: string): string {
    return join(this.#folder, `${encodeURIComponent(partition)}.json`)
  }

  /** Notes that more is charged than the files say. Throws if not even that can be done. */
  markBehind(): void {
    if (this.isBehind) return
    renameSync(this.#files, this.#marked)
    this.isBehind = true
  }

  /** Notes that the files say again what is charged. Throws if that can't be done. */
  unmark(): void {
    if (!this.isBehind) return
    renameSync(this.#marked, this.#files)
    this.isBehind = false
  }

  unlock(): void {
    this.#unlock()
  }
}

function readPartition(path: string, name: string): { home: string; limits: StoredPartition } {
  const found = readJson(path)
  checkVersion(path, found)
  const read = Value.Check(FileSchema, found) ? found : Value.Check(FirstSchema, found) ? upgraded(found) : undefined
  if (read === undefined) {
    const [first] = Value.Errors(FileSchema, found)
    throw damaged(path, `${first?.instancePath || 'the whole of it'} ${first?.message ?? 'is not what it should be'}`)
  }
  if (`${encodeURIComponent(read.home)}.json` !== name)
    throw damaged(path, `it is about ${JSON.stringify(read.home)}, and its name is not`)
  return read
}

/**
 * Throws if the file is of another release. It is whole then, so the error must not send anybody to look for damage.
 */
function checkVersion(path: string, found: unknown): void {
  if (typeof found !== 'object' || found === null || !('version' in found) || found.version === VERSION) return
  throw new Error(
    `the quota file ${path} is of another release: it has the version ${JSON.stringify(found.version)}, and this ` +
      `release knows ${VERSION}. Start the other release, or remove the file: ${UNUSED}`,
  )
}

/** Returns `missing` if the file does not exist. Without `missing`, throws then. */
function readJson(path: string, ...missing: unknown[]): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    if (missing.length > 0 && (error as NodeJS.ErrnoException).code === 'ENOENT') return missing[0]
    throw damaged(path, error instanceof SyntaxError ? 'it is no JSON' : (error as Error).message, error)
  }
}

/** Reads the first format. It does not say for sure when charges were made, so they count as made just now. */
function upgraded({ home, limits }: Static<typeof FirstSchema>): { home: string; limits: StoredPartition } {
  const all: Record<string, StoredLimit> = {}
  for (const [id, { windowMs, charges, uncertain }] of Object.entries(limits)) {
    const units = charges.reduce((sum, charge) => sum + charge.units, 0)
    all[id] = { windowMs, charges: [{ agoMs: 0, units }], uncertain }
  }
  return { home, limits: all }
}

function damaged(path: string, what: string, cause?: unknown): Error {
  return new Error(`the quota file ${path} is damaged: ${what}. Put back a copy of it, or remove it: ${UNUSED}`, {
    cause,
  })
}

function unwritable(dir: string, error: unknown): Error {
  const why = `the store folder ${dir} can not be written (${(error as Error).message})`
  return new Error(`${why}; make room or give the gateway the right to write there, or set another store.dir`, {
    cause: error,
  })
}
