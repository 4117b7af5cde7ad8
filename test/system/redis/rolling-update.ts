/**
 * `npm run rolling-update -- --old COMMIT` replaces gateways of an earlier commit by gateways of this tree, behind HAProxy and
 * under load, as rolling-update.test.ts says. Without --old, the old gateways are of this tree, too. Ends with 1 if a call was lost
 * or a quota granted twice. The earlier commit runs with the packages of this tree.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { temporaryFolder } from '../../support/temporary-folder.ts'

const ROOT = join(import.meta.dirname, '../../..')
const { old } = parseArgs({ options: { old: { type: 'string' } } }).values
const folder = temporaryFolder('old-release')
try {
  if (old !== undefined) {
    const archive = execFileSync('git', ['archive', old, 'src', 'package.json'], { cwd: ROOT, maxBuffer: 2 ** 28 })
    execFileSync('tar', ['-x', '-C', folder.path], { input: archive })
    symlinkSync(join(ROOT, 'node_modules'), join(folder.path, 'node_modules'))
  }
  const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs')
  const args = [vitest, 'run', '--config', 'test/vitest.config.ts', 'test/system/redis/rolling-update.test.ts']
  const env = { ...process.env, ...(old !== undefined && { SLUICE_OLD_RELEASE: join(folder.path, 'src/main.ts') }) }
  process.exitCode = spawnSync(process.execPath, args, { stdio: 'inherit', env, cwd: ROOT }).status ?? 1
} finally {
  folder.remove()
}
