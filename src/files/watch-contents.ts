import { dirname } from 'node:path'
import type { Clock, Timer } from '../time/clock.ts'
import { every } from '../time/every.ts'
import { FolderWatch } from './folder-watch.ts'

/** For changes that no event tells of: some file systems send none, and a folder further up may be replaced. */
const LOOK_EVERY_MS = 5_000
/** The time from the first event to the call. A program that writes a file in pieces has usually finished by then. */
const SETTLE_MS = 50

/**
 * Calls `onChange` about 50 ms after the first sign of a change in the folder of one of these files, and every five seconds
 * in any case. Does not call it at the start. May call it though nothing has changed: the caller reads the files and compares.
 * Does not wait for an async `onChange`, so two may overlap. The returned function stops the calls.
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
