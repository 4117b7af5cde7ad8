import { randomUUID } from 'node:crypto'
import { linkSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readIfThere } from './replace-file.ts'

/**
 * A lock file is empty for a moment while it is made. One that stays empty was left by a process whose disk was full.
 */
const EMPTY_MS = 60_000

/**
 * Locks a folder for this process. Returns a function that unlocks it. Throws if another running process has the lock.
 *
 * The lock is a file with the process id of its owner and the start time of that process, since ids are reused. It is
 * written under another name and then linked, so that it is never seen empty. A lock of a dead process is removed under
 * a second lock, and only if it still is that of the dead process: otherwise two processes that find it at once would
 * each remove the lock that the other has just made.
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

/**
 * Whether the lock exists and its process does not. Throws if the process is running. Whoever removes the lock tries to
 * take it next.
 */
function isLeftBehind(lock: string, dir: string): boolean {
  const text = readIfThere(lock)
  if (text === undefined) return false
  const holder = holderOf(text)
  // Our own process id in it is that of an earlier process: every container begins with the same ids.
  if (holder === undefined || holder === process.pid) return true
  throw new Error(
    `a gateway already runs with the store folder ${dir} (process ${holder}): give every gateway its own store.dir, or ` +
      `share Redis. If process ${holder} is no gateway, its number was that of one that has died: remove ${lock}`,
  )
}

/** The id of the process that wrote the lock, if it is still running. */
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

/** When a process began, in clock ticks since boot (proc_pid_stat(5)); undefined where that can't be read. */
function beginOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is a name in parentheses, which may contain anything.
    return stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .at(19)
  } catch {
    return undefined
  }
}

/** Removes the files of processes that were killed, or whose disk was full, while they tried to lock the folder. */
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
