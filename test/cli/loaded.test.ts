import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, inject, it } from 'vitest'
import { stringify } from 'yaml'
import { newFolder } from '../support/gateway.ts'
import { Program } from '../support/process.ts'

// Tells at SIGUSR2 which packages were loaded, from where undici was, and how many bytes the young generation has: now, and
// with much to keep.
const HOOK = `import { registerHooks } from 'node:module'
import { getHeapSpaceStatistics } from 'node:v8'
const [loaded, clients, kept] = [new Set(), [], []]
const young = () => getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space').space_size
registerHooks({
  load(url, context, next) {
    if (/\\/undici\\/(?:index|lib\\/dispatcher\\/pool)\\.js$/.test(url)) clients.push(url)
    loaded.add(/.*\\/node_modules\\/((?:@[^/]+\\/)?[^/]+)/.exec(url)?.[1])
    return next(url, context)
  },
})
process.on('SIGUSR2', () => {
  const small = young()
  for (let n = 0; n < 1_000_000; n++) kept.push([n])
  process.stdout.write(JSON.stringify({ loaded: [...loaded], clients, small, large: young() }) + '\\n')
})`

interface Told {
  readonly loaded: string[]
  readonly clients: string[]
  readonly small: number
  readonly large: number
}

it('the program loads no client of a store, a sink or a vendor that its configuration does not name', async () => {
  const folder = newFolder()
  const x = {
    url: 'http://127.0.0.1:1',
    accounts: { a: { credential: { value: 'secret' } } },
    limits: { read: [], write: [] },
  }
  const config = { server: { port: 0 }, admin: { port: 0 }, upstreams: { x } }
  writeFileSync(join(folder, 'sluice.yaml'), stringify(config))
  const command = [process.execPath, '--import', `data:text/javascript,${encodeURIComponent(HOOK)}`, inject('program')]
  const program = new Program(['start'], { cwd: folder, command })
  await program.line(/"msg":"listening"/)
  program.kill('SIGUSR2')
  const { loaded, clients, small, large } = JSON.parse(await program.line(/"loaded"/)) as Told
  expect(loaded).toContain('undici')
  const unneeded = [
    '@opentelemetry/api',
    'ioredis',
    'jose',
    'oauth4webapi',
    'pino-pretty',
    'rate-limiter-flexible',
    '@opentelemetry/sdk-trace',
    'ws',
  ]
  expect(unneeded.filter((name) => loaded.includes(name))).toEqual([])
  // Of undici only what forwards calls. The plugin has one of its own, which loads that of Node as well.
  expect(clients.map((url) => /undici\/(.*)$/.exec(url)?.[1])).toEqual(['lib/dispatcher/pool.js'])
  // A start would make it 20 MB, if it might. Calls may.
  expect(small).toBeLessThan(6_000_000)
  expect(large).toBeGreaterThan(small)
})
