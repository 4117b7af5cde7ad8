import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { expect, it, onTestFinished } from 'vitest'
import { MAIN } from '../support/process.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const grownProcess = new URL('grown-process.ts', import.meta.url).pathname

it('V8 gives back the memory of calls when a process is quiet', async () => {
  // V8 waits for 30 s after a start.
  const args = ['--gc-memory-reducer-start-delay-ms=300', grownProcess]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  const { grown, quiet } = JSON.parse(stdout) as { grown: number; quiet: number }
  expect(grown).toBeGreaterThan(10)
  expect(quiet).toBeLessThan(grown / 2)
}, 90_000)

it('a gateway that nobody calls is quiet', async () => {
  const tellsFlags = `import v8 from 'node:v8'
    import { syncBuiltinESMExports } from 'node:module'
    const { setFlagsFromString } = v8
    v8.setFlagsFromString = (flag) => (console.error(flag), setFlagsFromString(flag))
    syncBuiltinESMExports()`
  using folder = temporaryFolder('quiet')
  const gateway = spawn(
    process.execPath,
    [
      '--import',
      `data:text/javascript,${encodeURIComponent(tellsFlags)}`,
      MAIN,
      'demo',
      '--port',
      '0',
      '--admin-port',
      '0',
    ],
    { cwd: folder.path, stdio: ['ignore', 'ignore', 'pipe'] },
  )
  onTestFinished(() => void gateway.kill())
  const ended = once(gateway, 'exit')
  const flags: string[] = []
  for await (const line of createInterface({ input: gateway.stderr })) {
    if (line.startsWith('--')) flags.push(line)
    if (line === '--optimize-for-size') gateway.kill()
  }
  await ended
  expect(flags).toContain('--optimize-for-size')
}, 90_000)
