import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'
import { Pool } from 'undici'
import { stringify } from 'yaml'
import { hashKey } from '../../src/clients/keys.ts'
import { findRedis } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { startUpstream } from './driver.ts'
import { cpuMs, sleepsOf, treeOf } from './process-tree.ts'

/**
 * `npm run bench:workers`: what a call costs where the same load is shared by more processes. A steady rate of calls over kept
 * connections, with Redis; processor time of all processes of the gateway without what they use while nobody calls, how
 * often they were woken, and commands of Redis. Before, `--warm` seconds of calls: each process compiles its hot code for itself. Rounds take turns, because other work on the machine changes.
 */
const { values } = parseArgs({
  options: {
    workers: { type: 'string', default: '1,2,3' },
    rate: { type: 'string', default: '800' },
    seconds: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '3' },
    warm: { type: 'string', default: '30' },
  },
})
const perSecond = Number(values.rate)
const seconds = Number(values.seconds)
const CONNECTIONS = 48
const IDLE_S = 5
const PATH = '/x/thing'

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const redis = await findRedis()
const redisClient = new Redis(redis.url)
const { port, server } = await startUpstream()
try {
  const counts = values.workers.split(',').map(Number)
  const samples = new Map<number, Sample[]>(counts.map((count) => [count, []]))
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const count of counts) samples.get(count)!.push(await measure(count))
  }
  console.log(
    `${perSecond} calls a second over ${CONNECTIONS} kept connections, ${values.rounds} rounds of ${seconds} s`,
  )
  const rows = [...samples].map(([count, all]) => {
    const of = (name: keyof Sample): string => spread(all.map((sample) => sample[name]))
    return [
      `${count} worker${count === 1 ? '' : 's'}`,
      {
        'CPU a call, µs': of('cpuMicros'),
        'wake-ups a call': of('wakeUps'),
        'Redis commands a call': of('commands'),
        'idle, % of a core': of('idlePercent'),
      },
    ]
  })
  console.table(Object.fromEntries(rows))
} finally {
  redisClient.disconnect()
  await redis.stop()
  server.close()
}
process.exit(0)

interface Sample {
  readonly cpuMicros: number
  readonly wakeUps: number
  readonly commands: number
  readonly idlePercent: number
}

async function measure(workers: number): Promise<Sample> {
  const folder = temporaryFolder('workers')
  const config = {
    server: { port: 0, workers },
    admin: { port: 0 },
    store: { kind: 'redis', url: redis.url, prefix: `workers-${process.pid}-${Math.random()}` },
    upstreams: {
      x: {
        url: `http://127.0.0.1:${port}`,
        accounts: { a: { credential: { value: 'secret' } } },
        limits: { read: [{ requests: 1_000_000, window: '60s' }] },
      },
    },
    clients: { bench: { keys: [hashKey('slk_bench')] } },
  }
  writeFileSync(join(folder.path, 'sluice.yaml'), stringify(config))
  const child = spawn(process.execPath, [main, 'start'], { cwd: folder.path, stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const url = await listening(createInterface({ input: child.stdout }))
    // Its log is read on, as by an agent.
    child.stdout.resume()
    const pids = treeOf(child.pid!)
    const client = new Pool(url, { connections: CONNECTIONS })
    await call(client, Number(values.warm))
    const idle = [cpuMs(pids), sleepsOf(pids)] as const
    await pause(IDLE_S * 1_000)
    const before = [cpuMs(pids), sleepsOf(pids), await commandsOf()] as const
    const [idleCpu, idleSleeps] = [(before[0] - idle[0]) / IDLE_S, (before[1] - idle[1]) / IDLE_S]
    await call(client, seconds)
    const calls = perSecond * seconds
    const sample = {
      cpuMicros: ((cpuMs(pids) - before[0] - idleCpu * seconds) * 1_000) / calls,
      wakeUps: (sleepsOf(pids) - before[1] - idleSleeps * seconds) / calls,
      commands: ((await commandsOf()) - before[2]) / calls,
      idlePercent: idleCpu / 10,
    }
    await client.close()
    return sample
  } finally {
    child.kill('SIGTERM')
    await once(child, 'exit')
    folder.remove()
  }
}

/** At a steady rate, for so many seconds; a call that is due goes over whichever connection is free. */
async function call(client: Pool, forSeconds: number): Promise<void> {
  const start = performance.now()
  const calls = Array.from({ length: perSecond * forSeconds }, async (_, i) => {
    await pause(Math.max(1, start + (i * 1_000) / perSecond - performance.now()))
    const { statusCode, body } = await client.request({
      method: 'GET',
      path: PATH,
      headers: { 'x-sluice-key': 'slk_bench' },
    })
    await body.dump()
    if (statusCode !== 200) throw new Error(`a call ended with ${statusCode}`)
  })
  await Promise.all(calls)
}

/** Scripts, and what they call. */
async function commandsOf(): Promise<number> {
  const [, count = 0] = /cmdstat_evalsha:calls=(\d+)/.exec(await redisClient.info('commandstats')) ?? []
  return Number(count)
}

async function listening(lines: AsyncIterable<string>): Promise<string> {
  for await (const line of lines) {
    if (line.includes('"msg":"listening"')) return (JSON.parse(line) as { url: string }).url
  }
  throw new Error('the gateway did not start')
}

function spread(all: readonly number[]): string {
  const sorted = all.toSorted((a, b) => a - b)
  const [lowest, highest] = [sorted[0]!, sorted.at(-1)!]
  const digits = highest >= 100 ? 0 : 2
  const median = sorted[Math.floor(sorted.length / 2)]!
  return `${median.toFixed(digits)} (${lowest.toFixed(digits)}-${highest.toFixed(digits)})`
}
