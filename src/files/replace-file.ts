import {
  closeSync,
  fchmodSync,
  fchownSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  type Stats,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'

/**
 * Replaces a file that only its owner can read as a whole: a crash at any moment leaves the file before it or the one
 * after. Throws, with nothing changed and nothing left behind, where there is no room. `isSynced`: it is on disk when this
 * returns, so that this holds for a crash of the machine, too. `like`: it is for whoever may read that file, instead. Whoever
 * calls sees to it that nobody else does at once.
 */
export function replaceFile(
  path: string,
  text: string,
  { isSynced = false, like }: { isSynced?: boolean; like?: Stats } = {},
): void {
  const next = `${path}.tmp`
  try {
    const file = openSync(next, 'w', 0o600)
    try {
      // Not `writeSync`: on a disk that is nearly full that may write a part, and say so in its result only.
      writeFileSync(file, text)
      if (like !== undefined) {
        // Root would take the file away from the user that the gateway runs as.
        if (process.getuid?.() === 0) fchownSync(file, like.uid, like.gid)
        fchmodSync(file, like.mode & 0o777)
      }
      if (isSynced) fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(next, path)
  } catch (error) {
    rmSync(next, { force: true })
    throw error
  }
  if (isSynced) syncFolder(dirname(path))
}

function syncFolder(path: string): void {
  const folder = openSync(path, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}
