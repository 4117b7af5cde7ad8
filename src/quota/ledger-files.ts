import { randomUUID } from 'node:crypto'
import { linkSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Charges } from './counter.ts'

/** What is kept of one limit of a home. */
export interface StoredLimit {
  readonly windowMs: number
  readonly charges: readonly Charges[]
  /** What may have been charged after this was written: 0 after an orderly stop. */
  readonly uncertain: number
}

export type StoredHome = Record<string, StoredLimit>

/**
 * The folder of the embedded ledger: one JSON file a home, each replaced as a whole, so that a crash in the middle of
 * a write leaves the file before it. Nothing is synced to disk: it is proof against the process dying, not the machine.
 */
export class LedgerFiles {
  readonly #dir: string
  readonly #lock: string

  /** Makes the folder if need be and locks it. Throws if it can't be written, or another running process has it. */
  constructor(dir: string) {
    this.#dir = join(dir, 'quota')
    this.#lock = join(dir, 'lock')
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 })
    lockFor(this.#lock, dir)
  }

  /** Everything stored, by home. A file that can't be read as ours is an error: ignoring it would grant its quota anew. */
  load(): Map<string, StoredHome> {
    const homes = new Map<string, StoredHome>()
    for (const name of readdirSync(this.#dir)) {
      if (!name.endsWith('.json')) continue
      const path = join(this.#dir, name)
      try {
        const { home, limits } = JSON.parse(readFileSync(path, 'utf8')) as { home: string; limits: StoredHome }
        homes.set(home, limits)
      } catch (error) {
        throw new Error(`the quota file ${path} is damaged; remove it to start with an empty quota`, { cause: error })
      }
    }
    return homes
  }

  save(home: string, limits: StoredHome): void {
    const path = join(this.#dir, `${encodeURIComponent(home)}.json`)
    writeFileSync(`${path}.tmp`, JSON.stringify({ home, limits }), { mode: 0o600 })
    renameSync(`${path}.tmp`, path)
  }

  unlock(): void {
    rmSync(this.#lock, { force: true })
  }
}

/**
 * A lock is a file with the number of the process that has it. It is written aside and linked into place, so that it is
 * never seen empty. What a dead process left is removed only under a second lock, and only if it is still that: else two
 * that found it at once would each remove what the other had just put there.
 */
function lockFor(lock: string, dir: string): void {
  const own = `${lock}.${randomUUID()}`
  const removal = `${lock}.removal`
  writeFileSync(own, String(process.pid), { mode: 0o600 })
  try {
    while (!isLinked(own, lock)) {
      if (!isLeftBehind(lock, dir)) continue
      if (isLinked(own, removal)) {
        try {
          if (isLeftBehind(lock, dir)) rmSync(lock)
        } finally {
          rmSync(removal)
        }
      } else if (isLeftBehind(removal, dir)) rmSync(removal, { force: true })
    }
  } finally {
    rmSync(own)
  }
}

function isLinked(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Whether the lock is there and its process is not. Throws if that is running; who is to remove a lock will have it next. */
function isLeftBehind(lock: string, dir: string): boolean {
  let holder: number
  try {
    holder = Number(readFileSync(lock, 'utf8'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
  // Our own number in it was left by a process of the same number, as every container has.
  if (holder === process.pid || !isRunning(holder)) return true
  throw new Error(
    `process ${holder} uses the store folder ${dir}; give every gateway its own store.dir, or share Redis`,
  )
}

function isRunning(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
