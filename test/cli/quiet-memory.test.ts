import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'

const grownProcess = new URL('grown-process.ts', import.meta.url).pathname

it('V8 gives back the memory of calls when a process is quiet', async () => {
  // V8 waits for 30 s after a start.
  const args = ['--gc-memory-reducer-start-delay-ms=300', grownProcess]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  const { grown, quiet } = JSON.parse(stdout) as { grown: number; quiet: number }
  expect(grown).toBeGreaterThan(10)
  expect(quiet).toBeLessThan(grown / 2)
}, 90_000)
