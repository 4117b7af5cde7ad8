import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, inject, it } from 'vitest'
import { stringify } from 'yaml'
import { newFolder } from '../support/gateway.ts'
import { Program } from '../support/process.ts'

// Tells at SIGUSR2 which packages were loaded.
const HOOK = `import { registerHooks } from 'node:module'
const loaded = new Set()
registerHooks({
  load(url, context, next) {
    loaded.add(/.*\\/node_modules\\/((?:@[^/]+\\/)?[^/]+)/.exec(url)?.[1])
    return next(url, context)
  },
})
process.on('SIGUSR2', () => process.stdout.write(JSON.stringify({ loaded: [...loaded] }) + '\\n'))`

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
  const { loaded } = JSON.parse(await program.line(/"loaded"/)) as { loaded: string[] }
  expect(loaded).toContain('undici')
  const unneeded = [
    'ioredis',
    'jose',
    'oauth4webapi',
    'pino-pretty',
    'rate-limiter-flexible',
    '@opentelemetry/sdk-trace',
  ]
  expect(unneeded.filter((name) => loaded.includes(name))).toEqual([])
})
