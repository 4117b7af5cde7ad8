import { randomBytes } from 'node:crypto'
import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Clock } from '../time/clock.ts'
import { watchContents } from '../files/watch-contents.ts'
import type { Records } from './records.ts'
import { makeFolder } from '../files/owner.ts'
import { readIfThere, replaceFile } from '../files/replace-file.ts'
import { isObject, parsedJson } from '../schema/json.ts'

/** A change takes milliseconds. A lock that is older was left behind by a process that died. */
const LOCK_STALE_MS = 5_000
const LOCK_LOOK_MS = 20

/**
 * Keeps all records in one file that only its owner can read. The file is replaced as a whole, once the new one is on
 * disk: a crash at any moment leaves the old file or the new one.
 */
export class FileRecords<Item> implements Records<Item> {
  readonly #path: string
  /** The key in the file under which the records are. */
  readonly #sort: string
  readonly #clock: Clock
  #stop: () => void = () => undefined

  constructor(path: string, sort: string, clock: Clock) {
    this.#path = path
    this.#sort = sort
    this.#clock = clock
  }

  read(): Promise<ReadonlyMap<string, Item>> {
    return Promise.resolve().then(() => this.#load())
  }

  async change(name: string, change: (record: Item | undefined) => Item | undefined): Promise<void> {
    makeFolder(dirname(this.#path))
    const lock = `${this.#path}.lock`
    const own = await takeLock(lock)
    try {
      const records = this.#load()
      const changed = change(records.get(name))
      if (changed === undefined) records.delete(name)
      else records.set(name, changed)
      this.#save(records)
    } finally {
      // Whoever took it for left behind may have one of the same name by now.
      if (madeOf(lock) === own) rmSync(lock, { recursive: true, force: true })
    }
  }

  watch(onChange: () => void): void {
    this.#stop = watchContents([this.#path], this.#clock, onChange)
  }

  close(): void {
    this.#stop()
  }

  #load(): Map<string, Item> {
    const text = readIfThere(this.#path)
    if (text === undefined) return new Map()
    const records = recordsIn(text, this.#sort)
    if (records === undefined)
      throw new DamagedRecords(`${this.#path} is damaged; put back a copy of it, or remove it to begin with none`)
    return new Map(Object.entries(records as Record<string, Item>))
  }

  #save(records: ReadonlyMap<string, Item>): void {
    const text = `${JSON.stringify({ [this.#sort]: Object.fromEntries(records) }, undefined, 2)}\n`
    replaceFile(this.#path, text, { isSynced: true })
  }
}

/** By the code the admin API knows that the message is of use to whoever asked. */
class DamagedRecords extends Error {
  readonly code = 'STORE_UNAVAILABLE'
}

/** The records in a text; undefined if the file is damaged. Says nothing of its content, which may be secret. */
function recordsIn(text: string, sort: string): Record<string, object> | undefined {
  const content = parsedJson(text)
  const records = isObject(content) ? content[sort] : undefined
  return isObject(records) && Object.values(records).every(isObject) ? (records as Record<string, object>) : undefined
}

/**
 * Takes a lock that several processes may want, even in different containers. The lock is a folder, because only one of
 * all who try to make it succeeds. One that stays unchanged for long was left behind. How long is measured by a clock
 * that nobody sets: otherwise setting the clock would end locks that are held. Resolves to what tells it from later locks.
 */
async function takeLock(lock: string): Promise<string | undefined> {
  let seen: string | undefined
  let since = 0
  for (;;) {
    try {
      mkdirSync(lock)
      return madeOf(lock)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    const now = performance.now()
    const made = madeOf(lock)
    if (made === undefined || made !== seen) [seen, since] = [made, now]
    else if (now - since > LOCK_STALE_MS) removeStale(lock, made)
    await pause(LOCK_LOOK_MS)
  }
}

/** If several find the same stale lock, only one moves it away, so that none removes the new lock of another. */
function removeStale(lock: string, made: string): void {
  const aside = `${lock}.${randomBytes(6).toString('hex')}`
  try {
    renameSync(lock, aside)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  // Another one was quicker, and this is its new lock.
  if (madeOf(aside) !== made) renameSync(aside, lock)
  else rmSync(aside, { recursive: true, force: true })
}

/** Tells one lock of a name from the next; undefined while there is none. */
function madeOf(lock: string): string | undefined {
  const found = statSync(lock, { throwIfNoEntry: false })
  return found && `${found.ino} ${found.mtimeMs}`
}
