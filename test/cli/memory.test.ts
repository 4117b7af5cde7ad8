import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { stringify } from 'yaml'
import { expect, inject, it, onTestFinished } from 'vitest'
import { newFolder, harnessConfig } from '../support/gateway.ts'
import { MAIN, Program } from '../support/process.ts'
import { startStreamUpstream, upload } from '../support/stream-load.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const PATH = '/harness/ng/api/file-store/big'
const grownProcess = new URL('grown-process.ts', import.meta.url).pathname

it('V8 gives back the memory of calls soon after a process becomes quiet', async () => {
  // By itself V8 would do so at some time or never: it depends on when it last collected all garbage.
  const args = ['--no-memory-reducer', grownProcess]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  const { grown, quiet, collections } = JSON.parse(stdout) as Record<string, number>
  expect(grown).toBeGreaterThan(10)
  expect(quiet).toBeLessThan(grown! / 2)
  // What the process needs still makes it collect no more.
  expect(collections).toBeLessThan(4)
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

it('V8 seldom collects all garbage while bodies pass, even if it did so before', async () => {
  // SIGUSR2 has all garbage collected while bodies pass, and then those collections counted; another one prints the count.
  const counts = `import { constants, PerformanceObserver } from 'node:perf_hooks'
    let collections = 0
    const observer = new PerformanceObserver((list) => {
      for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) collections++
    })
    process.once('SIGUSR2', () => {
      let left = 10
      const collect = setInterval(() => {
        gc()
        if (--left > 0) return
        clearInterval(collect)
        process.once('SIGUSR2', () => console.log('collections ' + collections))
        observer.observe({ type: 'gc' })
        console.log('counting')
      }, 20)
    })`
  const upstream = await startStreamUpstream(0)
  onTestFinished(() => upstream.stop())
  const cwd = newFolder()
  const file = join(cwd, 'sluice.yaml')
  writeFileSync(file, stringify({ server: { port: 0 }, admin: { port: 0 }, ...harnessConfig(upstream.url) }))
  const counter = `data:text/javascript,${encodeURIComponent(counts)}`
  const command = [process.execPath, '--expose-gc', '--import', counter, inject('program')]
  const gateway = new Program(['start', '--config', file], { cwd, command })
  const { url } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string }
  const receiver = { url, pid: gateway.child.pid! }
  gateway.kill('SIGUSR2')
  let isCounting = false
  const counting = gateway.line(/^counting/).then(() => (isCounting = true))
  while (!isCounting) await upload(receiver, PATH, 64 * 1_048_576)
  await counting
  await upload(receiver, PATH, 512 * 1_048_576)
  gateway.kill('SIGUSR2')
  const line = await gateway.line(/^collections/)
  expect(Number(line.split(' ')[1])).toBeLessThan(8)
}, 60_000)
