/*
 * src/files: files that are replaced as a whole, locked or watched.
 * It imports only time.
 * A change here must prove that a crash, or a full disk, at any moment loses nothing (test/records/full-disk.test.ts,
 * test/secrets/store.test.ts).
 */

import fs from 'node:fs'
import { dirname } from 'node:path'
import { give, ownerAt } from './owner.ts'

/**
 * Replaces a file as a whole: a crash of the process leaves the old file or the new one. Throws, and changes nothing
 * and leaves nothing behind, if the disk is full. Only its owner can read the file, which is that of the old one; with
 * `like`, whoever may read that file. With `isSynced` it is on disk when this returns, so that the guarantee also holds for a crash of the machine.
 * The caller prevents concurrent calls for one file.
 */
export function replaceFile(
  path: string,
  text: string,
  { isSynced = false, like }: { isSynced?: boolean; like?: fs.Stats } = {},
): void {
  const next = `${path}.tmp`
  try {
    // What a crash left behind, or somebody put there: a link would lead out of the folder.
    fs.rmSync(next, { force: true })
    const file = fs.openSync(next, 'wx', 0o600)
    try {
      // `writeSync` may write only a part on a nearly full disk, and says so only in its result.
      fs.writeFileSync(file, text)
      give(file, ownerAt(path))
      if (like !== undefined) fs.fchmodSync(file, like.mode & 0o777)
      if (isSynced) fs.fsyncSync(file)
    } finally {
      fs.closeSync(file)
    }
    fs.renameSync(next, path)
  } catch (error) {
    fs.rmSync(next, { force: true })
    throw error
  }
  if (isSynced) syncFolder(dirname(path))
}

/** The text of a file; undefined if there is none. */
export function readIfThere(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

function syncFolder(path: string): void {
  const folder = fs.openSync(path, 'r')
  try {
    fs.fsyncSync(folder)
  } finally {
    fs.closeSync(folder)
  }
}
