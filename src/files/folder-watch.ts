import { type FSWatcher, watch } from 'node:fs'

/**
 * Tells when something in one of its folders may have changed. Folders are watched rather than files: editors and Kubernetes
 * put another file in the place of the old one, and a watcher would stay with the old one. What is missed, because a folder is
 * not there, was replaced as a whole, or lies on a file system that tells nothing, is for its owner to notice otherwise.
 */
export class FolderWatch {
  readonly #onEvent: () => void
  readonly #watchers = new Map<string, FSWatcher>()

  constructor(onEvent: () => void) {
    this.#onEvent = onEvent
  }

  /** Watches these folders from now on, and no others. */
  follow(folders: ReadonlySet<string>): void {
    for (const [folder, watcher] of this.#watchers) {
      if (folders.has(folder)) continue
      watcher.close()
      this.#watchers.delete(folder)
    }
    for (const folder of folders) if (!this.#watchers.has(folder)) this.#open(folder)
  }

  close(): void {
    this.follow(new Set())
  }

  #open(folder: string): void {
    try {
      const watcher = watch(folder, { persistent: false }, this.#onEvent)
      // The folder was removed.
      watcher.on('error', () => watcher.close())
      this.#watchers.set(folder, watcher)
    } catch {
      // There is no such folder, or the system has no watcher left.
    }
  }
}
