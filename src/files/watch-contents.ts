import { dirname } from 'node:path'
import type { Clock, Timer } from '../time/clock.ts'
import { every } from '../time/every.ts'
import { FolderWatch } from './folder-watch.ts'

/** Not every file system tells of changes, and a folder further up may be replaced. */
const LOOK_EVERY_MS = 5_000
/** How long after the first sign of a change: whoever writes a file in pieces is then done with it. */
const SETTLE_MS = 50

/**
 * Calls back whenever one of these files may have changed, and every five seconds, so that the caller reads them and compares.
 * Returns what ends that.
 */
export function watchContents(files: readonly string[], clock: Clock, onChange: () => void): () => void {
  let settle: Timer | undefined
  const watch = new FolderWatch(() => {
    settle ??= clock.schedule(SETTLE_MS, () => {
      settle = undefined
      onChange()
    })
  })
  watch.follow(new Set(files.map((file) => dirname(file))))
  const stopLooking = every(LOOK_EVERY_MS, clock, onChange)
  return () => {
    watch.close()
    stopLooking()
    settle?.cancel()
  }
}
