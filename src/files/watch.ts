import { realpathSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { FolderWatch } from './folder-watch.ts'

/** A file may be written in several steps, so it is read only once it has not changed for this long. */
const QUIET_MS = 100

/**
 * Tells when one of the files that a configuration was read from has become another: it was written or replaced, or its
 * symbolic link leads elsewhere, as Kubernetes does it with mounted ConfigMaps and Secrets. Some network file systems tell of
 * no changes; a signal still reloads there.
 */
export class FileWatch {
  #onChange: (() => void) | undefined
  readonly #folders = new FolderWatch(() => this.#lookLater(this.#stateThen))
  /** The version of each file when it was read. */
  #read = new Map<string, string>()
  #timer: NodeJS.Timeout | undefined

  start(onChange: () => void): void {
    this.#onChange = onChange
    this.#watchFolders()
  }

  /**
   * Runs `load`, which names each file before it reads it, or with the state it had then. Exactly these files are watched, from before they are read.
   */
  async follow<T>(load: (onFile: (file: string, state?: string) => void) => T | Promise<T>): Promise<T> {
    const read = new Map<string, string>()
    try {
      return await load((file, state) => void read.getOrInsertComputed(file, () => state ?? stateOf(file)))
    } finally {
      this.#read = read
      if (this.#onChange !== undefined) this.#watchFolders()
    }
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#folders.close()
  }

  get #stateThen(): string {
    return [...this.#read.values()].join('\n')
  }

  #watchFolders(): void {
    const files = [...this.#read.keys()]
    this.#folders.follow(new Set(files.flatMap((file) => [dirname(file), dirname(realPathOf(file))])))
    // A file may have changed before its folder was watched.
    this.#lookLater(this.#stateThen)
  }

  /** Looks at the files after a moment, and again as long as they keep changing. */
  #lookLater(before: string): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      const now = [...this.#read.keys()].map(stateOf).join('\n')
      if (now !== before) this.#lookLater(now)
      else if (now !== this.#stateThen) this.#onChange?.()
    }, QUIET_MS).unref()
  }
}

/** Identifies a version of a file. */
export function stateOf(file: string): string {
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
