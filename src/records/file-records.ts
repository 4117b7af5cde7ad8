import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Clock } from '../clock.ts'
import { FileSource } from '../credentials/sources/files.ts'
import type { Records } from './records.ts'

/** A change takes milliseconds: a lock that is older was left behind by one that died. */
const LOCK_STALE_MS = 5_000
const LOCK_LOOK_MS = 20

/**
 * All records in one file that only its owner can read. It is replaced as a whole, once the new one is on disk: a crash at
 * any moment leaves the file before it or the one after.
 */
export class FileRecords<Item> implements Records<Item> {
  readonly #path: string
  /** What the file says that it holds. */
  readonly #sort: string
  readonly #watched: FileSource

  constructor(path: string, sort: string, clock: Clock) {
    this.#path = path
    this.#sort = sort
    this.#watched = new FileSource(clock)
  }

  read(): Promise<ReadonlyMap<string, Item>> {
    return Promise.resolve().then(() => this.#load())
  }

  async change(name: string, change: (record: Item | undefined) => Item | undefined): Promise<void> {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 })
    const lock = `${this.#path}.lock`
    await takeLock(lock)
    try {
      const records = this.#load()
      const changed = change(records.get(name))
      if (changed === undefined) records.delete(name)
      else records.set(name, changed)
      this.#save(records)
    } finally {
      rmSync(lock, { recursive: true, force: true })
    }
  }

  watch(onChange: () => void): void {
    this.#watched.watch([this.#path], onChange)
  }

  close(): Promise<void> {
    return this.#watched.close()
  }

  #load(): Map<string, Item> {
    let text: string
    try {
      text = readFileSync(this.#path, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Map()
      throw error
    }
    try {
      return new Map(Object.entries((JSON.parse(text) as Record<string, Record<string, Item>>)[this.#sort]!))
    } catch (error) {
      throw new Error(`${this.#path} is damaged`, { cause: error })
    }
  }

  #save(records: ReadonlyMap<string, Item>): void {
    const next = `${this.#path}.${process.pid}.tmp`
    const file = openSync(next, 'w', 0o600)
    try {
      writeSync(file, `${JSON.stringify({ [this.#sort]: Object.fromEntries(records) }, undefined, 2)}\n`)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(next, this.#path)
    const folder = openSync(dirname(this.#path), 'r')
    try {
      fsyncSync(folder)
    } finally {
      closeSync(folder)
    }
  }
}

/** A folder, because to make one either succeeds for one of all who try, or fails. */
async function takeLock(lock: string): Promise<void> {
  for (;;) {
    try {
      mkdirSync(lock)
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    const madeAt = statSync(lock, { throwIfNoEntry: false })?.mtimeMs
    if (madeAt !== undefined && Date.now() - madeAt > LOCK_STALE_MS) rmSync(lock, { recursive: true, force: true })
    else await pause(LOCK_LOOK_MS)
  }
}
