import { type FSWatcher, realpathSync, statSync, watch } from 'node:fs'
import { dirname } from 'node:path'

/** Who writes a file does so in several steps: it is only read when it has not changed for so long. */
const QUIET_MS = 100

/**
 * Tells when one of the files that a configuration was read from has become another: written, replaced, or its
 * symbolic link led elsewhere, as Kubernetes does with mounted ConfigMaps and Secrets. Folders are watched and not files,
 * because a file that is replaced takes its watcher with it. Some network file systems tell of no changes.
 */
export class FileWatch {
  #onChange: (() => void) | undefined
  readonly #watchers = new Map<string, FSWatcher>()
  /** What each file was when it was read. */
  #read = new Map<string, string>()
  #timer: NodeJS.Timeout | undefined

  start(onChange: () => void): void {
    this.#onChange = onChange
    this.#watchFolders()
  }

  /** Runs `load`; the files that it names before it reads them are watched from the start on, and no others. */
  async follow<T>(load: (onFile: (file: string) => void) => T | Promise<T>): Promise<T> {
    const read = new Map<string, string>()
    try {
      return await load((file) => void read.getOrInsertComputed(file, stateOf))
    } finally {
      this.#read = read
      if (this.#onChange !== undefined) this.#watchFolders()
    }
  }

  close(): void {
    clearTimeout(this.#timer)
    for (const watcher of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
  }

  get #stateThen(): string {
    return [...this.#read.values()].join('\n')
  }

  get #stateNow(): string {
    return [...this.#read.keys()].map(stateOf).join('\n')
  }

  #watchFolders(): void {
    const folders = new Set([...this.#read.keys()].flatMap((file) => [dirname(file), dirname(realPathOf(file))]))
    for (const [folder, watcher] of this.#watchers) {
      if (folders.has(folder)) continue
      watcher.close()
      this.#watchers.delete(folder)
    }
    for (const folder of folders) if (!this.#watchers.has(folder)) this.#open(folder)
    // A file may have changed before its folder was watched.
    this.#lookLater(this.#stateThen)
  }

  #open(folder: string): void {
    try {
      const watcher = watch(folder, { persistent: false }, () => this.#lookLater(this.#stateThen))
      watcher.on('error', () => watcher.close())
      this.#watchers.set(folder, watcher)
    } catch {
      // There is no such folder, or no watcher left for it: a signal still reloads.
    }
  }

  /** Looks at the files in a moment, and again for as long as they go on changing. */
  #lookLater(before: string): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      const now = this.#stateNow
      if (now !== before) this.#lookLater(now)
      else if (now !== this.#stateThen) this.#onChange?.()
    }, QUIET_MS).unref()
  }
}

/** What tells one version of a file from another. */
function stateOf(file: string): string {
  try {
    const { dev, ino, mtimeNs, size } = statSync(file, { bigint: true })
    return `${dev} ${ino} ${mtimeNs} ${size}`
  } catch {
    return 'none'
  }
}

function realPathOf(file: string): string {
  try {
    return realpathSync(file)
  } catch {
    return file
  }
}
