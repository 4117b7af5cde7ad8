import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { stringify } from 'yaml'
import { findRedis } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bar } from './bar.ts'
import { cpuMs, endedChildrenMs, treeOf } from './process-tree.ts'

/**
 * `npm run bench:idle`: the processor time that a gateway uses while nobody calls, with either store, and that one health check of the
 * image takes. Linux only.
 */
const { values } = parseArgs({ options: { seconds: { type: 'string', default: '30' } } })
const seconds = Number(values.seconds)
/** By then V8 has collected what the start left behind, which it does once. */
const SETTLED_MS = 40_000
const CHECKS = 10
const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const redis = await findRedis()
try {
  for (const [name, store] of Object.entries({
    embedded: { kind: 'memory' },
    Redis: { kind: 'redis', url: redis.url, prefix: `idle-${process.pid}` },
  })) {
    bar(`idle over ${seconds} s, ${name}`, (await idleMs(store)) / seconds / 10, { atMost: 1 }, '% of a core')
  }
} finally {
  await redis.stop()
}

bar('a health check', await healthCheckMs(), { atMost: 100 }, 'ms')

/** Of the command in the Dockerfile, which starts a Node each time. What it asks is a server that answers at once. */
async function healthCheckMs(): Promise<number> {
  const dockerfile = readFileSync(new URL('../../Dockerfile', import.meta.url), 'utf8')
  const [, command = ''] = /^HEALTHCHECK[^[]*CMD (\[.*\])$/m.exec(dockerfile) ?? []
  const server = createServer((_, response) => response.end('{}')).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const port = String((server.address() as AddressInfo).port)
  const [, ...args] = (JSON.parse(command) as string[]).map((word) => word.replace(':9090', `:${port}`))
  const before = endedChildrenMs()
  for (let n = 0; n < CHECKS; n++) await once(spawn(process.execPath, args, { stdio: 'inherit' }), 'exit')
  const ms = (endedChildrenMs() - before) / CHECKS
  server.close()
  return ms
}

/** Of a process that has settled. */
async function idleMs(store: object): Promise<number> {
  const folder = temporaryFolder('idle')
  const upstreams = { x: { url: 'http://127.0.0.1:1', accounts: { a: {} }, limits: { read: [], write: [] } } }
  const config = { server: { port: 0 }, admin: { port: 0 }, store, upstreams }
  writeFileSync(join(folder.path, 'sluice.yaml'), stringify(config))
  const child = spawn(process.execPath, [main, 'start'], { cwd: folder.path, stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    for await (const line of createInterface({ input: child.stdout })) if (line.includes('"msg":"listening"')) break
    await pause(SETTLED_MS)
    const pids = treeOf(child.pid!)
    const before = cpuMs(pids)
    await pause(seconds * 1_000)
    return cpuMs(pids) - before
  } finally {
    child.kill('SIGTERM')
    await once(child, 'exit')
    folder.remove()
  }
}
