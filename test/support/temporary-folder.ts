import { type DisposableTempDir, mkdtempDisposableSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** An empty folder for temporary files; `what` it is for is in its name. Who makes it removes it, if only by `using`. */
export function temporaryFolder(what: string): DisposableTempDir {
  return mkdtempDisposableSync(join(tmpdir(), `sluice-${what}-`))
}
