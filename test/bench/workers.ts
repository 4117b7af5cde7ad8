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
import { bar } from './bar.ts'
import { startUpstream } from './driver.ts'
import { cpuMs, sleepsOf, treeOf } from './process-tree.ts'

/**
 * `npm run bench:workers`: what a call costs where one process serves, and where two share a port, with either store. Each worker gets
 * the same load, a steady rate of calls over kept connections: that is what two workers carry, beside one. Processor time of all
 * processes of the gateway without what they use while nobody calls, how often they were woken, and commands of Redis. All gateways
 * run at the same time and are called in turn, because other work on the machine changes. Before, `--warm` seconds of calls: each process
 * compiles its hot code for itself.
 */
const { values } = parseArgs({
  options: {
    workers: { type: 'string', default: '1,2' },
    stores: { type: 'string', default: 'embedded,Redis' },
    /** Calls a second for each worker. */
    rate: { type: 'string', default: '800' },
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    warm: { type: 'string', default: '20' },
  },
})
const seconds = Number(values.seconds)
/** For each worker. */
const CONNECTIONS = 24
const IDLE_S = 3
const PATH = '/x/thing'
/** A call may cost so much of what it costs with one worker. */
const MOST_GROWTH = 1.05

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const redis = await findRedis()
const redisClient = new Redis(redis.url)
const { port, server } = await startUpstream()
const gateways: Gateway[] = []
try {
  const counts = values.workers.split(',').map(Number)
  for (const store of values.stores.split(',')) {
    for (const workers of counts) gateways.push(await start(store, workers))
  }
  for (const gateway of gateways) await call(gateway, Number(values.warm))
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const gateway of gateways) gateway.samples.push(await measure(gateway))
  }
  console.log(`${values.rate} calls a second for each worker, ${values.rounds} rounds of ${seconds} s`)
  const rows = gateways.map(({ name, samples }) => {
    const of = (field: keyof Sample): string => spread(samples.map((sample) => sample[field]))
    return [
      name,
      {
        'CPU a call, µs': of('cpuMicros'),
        'wake-ups a call': of('wakeUps'),
        'Redis commands a call': of('commands'),
        'idle, % of a core': of('idlePercent'),
      },
    ]
  })
  console.table(Object.fromEntries(rows))
  for (const store of values.stores.split(',')) {
    const cpuOf = (workers: number): number => {
      const found = gateways.find((gateway) => gateway.store === store && gateway.workers === workers)
      return medianOf((found?.samples ?? []).map(({ cpuMicros }) => cpuMicros))
    }
    for (const workers of counts.filter((count) => count > 1)) {
      const growth = cpuOf(workers) / cpuOf(1)
      bar(`${store}: processor time of a call with ${workers} workers, of one`, growth, { atMost: MOST_GROWTH }, '')
      // Where each has a core of its own.
      bar(`${store}: calls that ${workers} workers carry, of one`, workers / growth, { atLeast: 0.9 * workers }, '')
    }
  }
} finally {
  for (const gateway of gateways) await gateway.stop()
  redisClient.disconnect()
  await redis.stop()
  server.close()
}
process.exit()

interface Gateway {
  readonly name: string
  readonly store: string
  readonly workers: number
  readonly client: Pool
  readonly pids: readonly number[]
  readonly samples: Sample[]
  stop(): Promise<void>
}

interface Sample {
  readonly cpuMicros: number
  readonly wakeUps: number
  readonly commands: number
  readonly idlePercent: number
}

async function start(store: string, workers: number): Promise<Gateway> {
  const folder = temporaryFolder('workers')
  const config = {
    server: { port: 0, workers },
    admin: { port: 0 },
    store: store === 'Redis' ? { kind: 'redis', url: redis.url, prefix: `workers-${process.pid}-${workers}` } : {},
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
  const url = await listening(createInterface({ input: child.stdout }))
  // Its log is read on, as by an agent.
  child.stdout.resume()
  const client = new Pool(url, { connections: CONNECTIONS * workers })
  const stop = async (): Promise<void> => {
    await client.close()
    child.kill('SIGTERM')
    await once(child, 'exit')
    folder.remove()
  }
  const name = `${store}, ${workers} worker${workers === 1 ? '' : 's'}`
  return { name, store, workers, client, pids: treeOf(child.pid!), samples: [], stop }
}

async function measure(gateway: Gateway): Promise<Sample> {
  const { pids, workers } = gateway
  const idle = [cpuMs(pids), sleepsOf(pids)] as const
  await pause(IDLE_S * 1_000)
  const before = [cpuMs(pids), sleepsOf(pids), await commandsOf()] as const
  const [idleCpu, idleSleeps] = [(before[0] - idle[0]) / IDLE_S, (before[1] - idle[1]) / IDLE_S]
  await call(gateway, seconds)
  const calls = Number(values.rate) * workers * seconds
  return {
    cpuMicros: ((cpuMs(pids) - before[0] - idleCpu * seconds) * 1_000) / calls,
    wakeUps: (sleepsOf(pids) - before[1] - idleSleeps * seconds) / calls,
    commands: ((await commandsOf()) - before[2]) / calls,
    idlePercent: idleCpu / 10,
  }
}

/** At a steady rate, for so many seconds; a call that is due goes over whichever connection is free. */
async function call({ client, workers }: Gateway, forSeconds: number): Promise<void> {
  const start = performance.now()
  const perSecond = Number(values.rate) * workers
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
  return `${medianOf(all).toFixed(digits)} (${lowest.toFixed(digits)}-${highest.toFixed(digits)})`
}

function medianOf(all: readonly number[]): number {
  return all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)] ?? Number.NaN
}
