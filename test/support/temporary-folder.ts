import { type DisposableTempDir, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** An empty folder for temporary files; `what` it is for is in its name. Who makes it removes it, if only by `using`. */
export function temporaryFolder(what: string): DisposableTempDir {
  const path = mkdtempSync(join(tmpdir(), `sluice-${what}-`))
  // What was told to end may still write there for a moment.
  const remove = (): void => rmSync(path, { recursive: true, force: true, maxRetries: 5 })
  return { path, remove, [Symbol.dispose]: remove }
}
