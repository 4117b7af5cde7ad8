import { randomUUID } from 'node:crypto'
import { linkSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** A lock that is being made is empty for a moment; one that stays so was left by a process that had no room to write it. */
const EMPTY_MS = 60_000

/**
 * Locks a folder for this process, and returns what unlocks it. Throws if another running process has it.
 *
 * A lock is a file with the number of the process that has it, and when that began, as numbers are used again. It is written
 * aside and linked into place, so that it is never seen empty. What a dead process left is removed only under a second lock,
 * and only if it is still that: else two that found it at once would each remove what the other had just put there.
 */
export function lockFolder(dir: string): () => void {
  const lock = join(dir, 'lock')
  const own = `${lock}.${randomUUID()}`
  const removal = `${lock}.removal`
  try {
    writeFileSync(own, `${process.pid} ${beginOf(process.pid) ?? ''}`.trim(), { mode: 0o600 })
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
    rmSync(own, { force: true })
  }
  removeRemains(dir)
  return () => rmSync(lock, { force: true })
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
  const text = readIfThere(lock)
  if (text === undefined) return false
  const holder = holderOf(text)
  // Our own number in it was left by a process of the same number, as every container has.
  if (holder === undefined || holder === process.pid) return true
  throw new Error(
    `process ${holder} uses the store folder ${dir}; give every gateway its own store.dir, or share Redis. If process ` +
      `${holder} is no gateway, its number was that of one that has died: remove ${lock}`,
  )
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** The number of the process that wrote it, if that is still running. */
function holderOf(text: string): number | undefined {
  const [pid, begin] = text.split(' ')
  const holder = Number(pid)
  if (!isRunning(holder)) return undefined
  const running = beginOf(holder)
  return begin !== undefined && running !== undefined && running !== begin ? undefined : holder
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

/** When a process began, in ticks since the machine did (proc_pid_stat(5)); undefined where that can't be known. */
function beginOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is a name in parentheses, which may hold anything.
    return stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .at(19)
  } catch {
    return undefined
  }
}

/** What processes that were killed, or had no room, have left of their attempts to lock the folder. */
function removeRemains(dir: string): void {
  for (const name of readdirSync(dir)) {
    if (!/^lock\.[\da-f]{8}-[\da-f-]{27}$/.test(name)) continue
    const path = join(dir, name)
    const text = readIfThere(path)
    if (text === undefined || holderOf(text) !== undefined) continue
    const changedAt = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
    if (text !== '' || Math.abs(Date.now() - changedAt) > EMPTY_MS) rmSync(path, { force: true })
  }
}
