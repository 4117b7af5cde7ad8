import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { stringify } from 'yaml'
import { findRedis } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { cpuMs, treeOf } from './process-tree.ts'

/** `npm run bench:idle`: the processor time that a gateway uses while nobody calls, with either store. Linux only. */
const { values } = parseArgs({ options: { seconds: { type: 'string', default: '30' } } })
const seconds = Number(values.seconds)
const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const redis = await findRedis()
try {
  for (const [name, store] of Object.entries({
    embedded: { kind: 'memory' },
    Redis: { kind: 'redis', url: redis.url, prefix: `idle-${process.pid}` },
  })) {
    console.log(`${name}: ${((await idleMs(store)) / seconds / 10).toFixed(2)} % of a core over ${seconds} s`)
  }
} finally {
  await redis.stop()
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
    await pause(5_000)
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
