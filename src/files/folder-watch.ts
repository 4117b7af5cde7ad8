import { existsSync, type FSWatcher, statSync, watch } from 'node:fs'
import { dirname } from 'node:path'

interface Watched {
  readonly watcher: FSWatcher
  readonly identity: string | undefined
}

/**
 * Tells when something in one of its folders may have changed. Folders are watched rather than files: editors and Kubernetes
 * put another file in the place of the old one, and a watcher would stay with the old one. It would stay with an old folder, too: so
 * the folder above is watched for another one under the name. What is missed, because a folder further up was replaced, or a file system
 * tells nothing, is for its owner to notice otherwise.
 */
export class FolderWatch {
  readonly #onEvent: () => void
  readonly #watched = new Map<string, Watched>()
  #folders: ReadonlySet<string> = new Set()

  constructor(onEvent: () => void) {
    this.#onEvent = onEvent
  }

  /** Watches these folders from now on, and no others. */
  follow(folders: ReadonlySet<string>): void {
    this.#folders = folders
    this.#openAll()
  }

  close(): void {
    this.follow(new Set())
  }

  /** Returns whether one of the watched folders is another now. */
  #openAll(): boolean {
    const wanted = new Set<string>()
    // The folder above comes first: what is made between the two is then seen.
    for (const folder of this.#folders) wanted.add(thereAbove(folder)).add(folder)
    let isOther = false
    for (const [folder, { watcher, identity }] of this.#watched) {
      if (wanted.has(folder) && identity === identityOf(folder)) continue
      watcher.close()
      this.#watched.delete(folder)
      isOther = true
    }
    for (const folder of wanted) if (!this.#watched.has(folder) && this.#open(folder)) isOther = true
    return isOther
  }

  #open(folder: string): boolean {
    // If it is replaced just now, it has the old identity, and the next event opens it anew.
    const identity = identityOf(folder)
    try {
      const watcher = watch(folder, { persistent: false }, (kind) => {
        const isOther = kind === 'rename' && this.#openAll()
        if (isOther || this.#folders.has(folder)) this.#onEvent()
      })
      // The folder was removed.
      watcher.on('error', () => watcher.close())
      this.#watched.set(folder, { watcher, identity })
      return true
    } catch {
      // There is no such folder, or the system has no watcher left.
      return false
    }
  }
}

/** The nearest folder above it that exists. */
function thereAbove(folder: string): string {
  const above = dirname(folder)
  return above === folder || existsSync(above) ? above : thereAbove(above)
}

/** A new folder may get the number of one that was removed, so its birth counts, too. */
function identityOf(folder: string): string | undefined {
  try {
    const { dev, ino, birthtimeNs } = statSync(folder, { bigint: true })
    return `${dev} ${ino} ${birthtimeNs}`
  } catch {
    return undefined
  }
}
