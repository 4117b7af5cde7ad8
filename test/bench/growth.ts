import { fork } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'
import { findRedis } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { get, load, startUpstream, stayAwake } from './driver.ts'
import { residentKb } from './process-tree.ts'

/**
 * `npm run bench:growth`: what a call costs, what a gateway takes to start and what memory it needs, as accounts, clients, routes
 * and waiting calls become more. Each row is a gateway of its own; calls are spread over all there are, up to 2,000 kinds of call. Rounds
 * take turns between the smallest and the size in question, and the ratio is taken within the round.
 */
const { values } = parseArgs({
  options: {
    store: { type: 'string', default: 'embedded' },
    rounds: { type: 'string', default: '3' },
    ms: { type: 'string', default: '2000' },
    only: { type: 'string', default: '' },
  },
})
const SMALLEST = { accounts: 1, clients: 1, routes: 10, waiting: 0 }
type Size = typeof SMALLEST
const SIZES = {
  accounts: [100, 10_000, 100_000],
  clients: [100, 10_000],
  routes: [500, 5_000],
  waiting: [1_000, 15_000],
} satisfies { [Name in keyof Size]: readonly number[] }
const CONNECTIONS = 64
const MOST_KINDS = 2_000

const redis = values.store === 'redis' ? await findRedis() : undefined
const redisClient = redis && new Redis(redis.url)
const { port, server } = await startUpstream()
const stopPolling = stayAwake()
try {
  const small = await start(SMALLEST)
  const rows: Record<string, object> = { 'the smallest': small.shown }
  for (const [name, sizes] of Object.entries(SIZES)) {
    if (!name.includes(values.only)) continue
    for (const size of sizes) {
      const grown = await start({ ...SMALLEST, [name]: size })
      const ratios: number[] = []
      const costs: Cost[] = []
      for (let round = 0; round < Number(values.rounds); round++) {
        const before = await small.cost()
        costs.push(await grown.cost())
        ratios.push(costs.at(-1)!.cpuMicros / before.cpuMicros)
      }
      rows[`${size} ${name}`] = {
        ...grown.shown,
        'CPU a call, µs': median(costs.map(({ cpuMicros }) => cpuMicros)).toFixed(1),
        'of the smallest': median(ratios).toFixed(2),
        ...(redis && { 'Redis commands a call': median(costs.map(({ commands }) => commands)).toFixed(2) }),
        'MiB after calls': grown.residentMb().toFixed(0),
      }
      await grown.stop()
    }
  }
  await small.stop()
  console.log(`${values.rounds} rounds of ${values.ms} ms, ${CONNECTIONS} connections, store: ${values.store}`)
  console.table(rows)
} finally {
  stopPolling()
  redisClient?.disconnect()
  await redis?.stop()
  server.close()
}
process.exit(0)

interface Cost {
  readonly cpuMicros: number
  readonly commands: number
}

async function start(size: Size) {
  const folder = temporaryFolder('growth')
  const grown = { ...size, url: `http://127.0.0.1:${port}`, redis: redis?.url, folder: folder.path }
  const startedAt = performance.now()
  const child = fork(fileURLToPath(new URL('growing.ts', import.meta.url)), {
    env: { ...process.env, NODE_ENV: 'production', GROWN: JSON.stringify(grown) },
    execArgv: ['--import', new URL('cpu-reporter.ts', import.meta.url).href],
    stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit', 'ipc'],
  })
  const [{ url }] = (await once(child, 'message')) as [{ url: string }]
  const readyMs = performance.now() - startedAt
  const gatewayPort = Number(new URL(url).port)
  const residentMb = (): number => residentKb(child.pid!) / 1_024
  const atStart = residentMb()
  const kinds = Array.from(
    { length: Math.min(MOST_KINDS, Math.max(size.accounts, size.clients, size.routes)) },
    (_, i) => callOf(size, i),
  )
  const waiting = await callsThatWait(gatewayPort, size.waiting)
  await load(gatewayPort, kinds, CONNECTIONS, Number(values.ms)) // warm up
  const cpuOf = async (): Promise<number> => {
    child.send('cpu')
    const [{ cpuMicros }] = (await once(child, 'message')) as [{ cpuMicros: number }]
    return cpuMicros
  }
  return {
    shown: { 'ready after, ms': readyMs.toFixed(0), 'MiB at start': atStart.toFixed(0) },
    residentMb,
    async cost(): Promise<Cost> {
      const [cpu, commands] = [await cpuOf(), await commandsOf()]
      const { requests, failures } = await load(gatewayPort, kinds, CONNECTIONS, Number(values.ms))
      if (failures > 0) throw new Error(`${failures} of ${requests} calls failed`)
      return { cpuMicros: ((await cpuOf()) - cpu) / requests, commands: ((await commandsOf()) - commands) / requests }
    },
    async stop(): Promise<void> {
      for (const socket of waiting) socket.destroy()
      child.kill('SIGKILL')
      await once(child, 'exit')
      folder.remove()
    },
  }
}

/** Spread evenly over a thing of which there are more than kinds of call. */
function callOf(size: Size, i: number): Buffer {
  const one = (count: number): number => Math.floor((i * count) / Math.min(MOST_KINDS, count)) % count
  return get(`/x/r${one(size.routes)}/42`, {
    'X-Sluice-Key': `key-client${one(size.clients)}`,
    'X-Sluice-Account': `account${one(size.accounts)}`,
  })
}

/** Calls of another class, whose quota is used up for an hour. */
async function callsThatWait(gatewayPort: number, count: number): Promise<Socket[]> {
  const sockets: Socket[] = []
  for (let i = 0; i < count; i++) {
    const socket = connect(gatewayPort, '127.0.0.1')
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    const fields = { 'X-Sluice-Key': 'key-client0', 'X-Sluice-Account': 'account0' }
    socket.write(get(i === 0 ? '/x/fill' : '/x/wait', fields))
    if (i === 0) await once(socket, 'data')
    else socket.on('data', (answer) => console.error(`a call does not wait: ${answer.toString().slice(0, 300)}`))
    sockets.push(socket)
  }
  await pause(1_000)
  return sockets
}

async function commandsOf(): Promise<number> {
  if (redisClient === undefined) return 0
  const [, count = 0] = /cmdstat_evalsha:calls=(\d+)/.exec(await redisClient.info('commandstats')) ?? []
  return Number(count)
}

function median(all: readonly number[]): number {
  const sorted = all.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]!
}
