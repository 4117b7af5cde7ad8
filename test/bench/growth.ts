import { fork } from 'node:child_process'
import { once } from 'node:events'
import { openSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'
import { findRedis } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bar } from './bar.ts'
import { get, load, startUpstream, stayAwake } from './driver.ts'
import { residentKb } from './process-tree.ts'

/**
 * `npm run bench:growth`: what a call costs, what a gateway takes to start and what memory it needs, as accounts, clients, routes,
 * waiting calls and idle connections become more. Each row is a gateway of its own that has had as many calls; they are spread over
 * all there are, up to 2,000 kinds of call. Rounds take turns between the smallest and the size in question, and the ratio is taken within the round.
 * `--store redis` adds what Redis does for a call. `--only accounts` measures only those, and `--most 10000` leaves out what is larger. Linux only.
 */
const { values } = parseArgs({
  options: {
    store: { type: 'string', default: 'embedded' },
    rounds: { type: 'string', default: '3' },
    calls: { type: 'string', default: '20000' },
    only: { type: 'string', default: '' },
    most: { type: 'string', default: 'Infinity' },
  },
})
const SMALLEST = { accounts: 1, clients: 1, routes: 10, waiting: 0, idle: 0 }
type Size = typeof SMALLEST
// A waiting call and an idle connection are an open file each, of this process and of the gateway.
const MOST_OPEN = Math.min(20_000, openFiles() - 500)
const SIZES = {
  accounts: [100, 10_000, 100_000],
  clients: [100, 10_000],
  routes: [500, 5_000],
  waiting: [1_000, MOST_OPEN],
  idle: [Math.min(10_000, MOST_OPEN)],
} satisfies { [Name in keyof Size]: readonly number[] }
/** The most that one of them may need, in KiB of resident memory. docs/capacity.md says where it counts. */
const MOST_KIB = { accounts: 12, clients: 8, routes: 8, waiting: 40, idle: 40 } satisfies {
  [Name in keyof Size]: number
}
/** Times the smallest. Above 1 for the caches of the processor: what it has to look up in tens of megabytes is not in them. */
const MOST_CPU = 1.25
const MOST_REDIS = 1.25
const CONNECTIONS = 64
const CALLS = { calls: Number(values.calls) }
const MOST_KINDS = 2_000

const redis = values.store === 'redis' ? await findRedis() : undefined
const redisClient = redis && new Redis(redis.url)
const { port, server } = await startUpstream()
const stopPolling = stayAwake()
try {
  const small = await start(SMALLEST)
  const rows: Record<string, object> = { 'the smallest': small.shown }
  const checks: (() => void)[] = []
  for (const [name, all] of Object.entries(SIZES) as [keyof Size, number[]][]) {
    if (!name.includes(values.only)) continue
    const sizes = all.filter((size) => size <= Number(values.most))
    for (const size of sizes) {
      const grown = await start({ ...SMALLEST, [name]: size })
      const costs: { of: Cost; smallest: Cost }[] = []
      for (let round = 0; round < Number(values.rounds); round++) {
        const smallest = await small.cost()
        costs.push({ smallest, of: await grown.cost() })
      }
      const at = (what: keyof Cost): number => median(costs.map(({ of }) => of[what]))
      const ratio = (what: keyof Cost): number => median(costs.map(({ of, smallest }) => of[what] / smallest[what]))
      const kibEach = ((grown.residentMb() - small.residentMb()) * 1_024) / size
      rows[`${size} ${name}`] = {
        ...grown.shown,
        'MiB after calls': grown.residentMb().toFixed(0),
        'KiB each': kibEach.toFixed(1),
        'CPU a call, µs': at('cpuMicros').toFixed(1),
        'of the smallest': ratio('cpuMicros').toFixed(2),
        ...(redis && {
          'Redis commands a call': at('commands').toFixed(2),
          'bytes a call': at('bytes').toFixed(0),
          'CPU of Redis a call, µs': at('redisMicros').toFixed(1),
          'bytes kept an account': grown.bytesKept().toFixed(0),
        }),
      }
      // At once, too, because all of it takes minutes.
      console.log(`${size} ${name}: ${JSON.stringify(rows[`${size} ${name}`])}`)
      checks.push(() => {
        bar(
          `${size} ${name}: processor time of a call, times the smallest`,
          ratio('cpuMicros'),
          { atMost: MOST_CPU },
          '',
        )
        // What the rest of the process happens to hold, more or less, is more than a few of them.
        if (size === sizes.at(-1)) bar(`${size} ${name}: memory of each`, kibEach, { atMost: MOST_KIB[name] }, 'KiB')
        if (redis) bar(`${size} ${name}: bytes to and from Redis of a call`, ratio('bytes'), { atMost: MOST_REDIS }, '')
      })
      await grown.stop()
    }
  }
  await small.stop()
  console.log(`${values.rounds} rounds of ${values.calls} calls, ${CONNECTIONS} connections, store: ${values.store}`)
  console.table(rows)
  for (const check of checks) check()
} finally {
  stopPolling()
  redisClient?.disconnect()
  await redis?.stop()
  server.close()
}
process.exit()

interface Cost {
  readonly cpuMicros: number
  /** Of Redis: scripts, bytes in both directions, and its own processor time. */
  readonly commands: number
  readonly bytes: number
  readonly redisMicros: number
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
  const sockets = [...(await callsThatWait(gatewayPort, size.waiting)), ...(await idle(gatewayPort, size.idle))]
  const before = await redisCounts()
  const warmedUp = await load(gatewayPort, kinds, CONNECTIONS, CALLS)
  const keptBytes =
    ((await redisCounts()).memory - before.memory) / Math.min(size.accounts, warmedUp.requests, MOST_KINDS)
  const cpuOf = async (): Promise<number> => {
    child.send('cpu')
    const [{ cpuMicros }] = (await once(child, 'message')) as [{ cpuMicros: number }]
    return cpuMicros
  }
  return {
    shown: { 'ready after, ms': readyMs.toFixed(0), 'MiB at start': atStart.toFixed(0) },
    residentMb,
    bytesKept: () => keptBytes,
    async cost(): Promise<Cost> {
      const [cpu, redisAt] = [await cpuOf(), await redisCounts()]
      const { requests, failures, firstFailure } = await load(gatewayPort, kinds, CONNECTIONS, CALLS)
      if (failures > 0) throw new Error(`${failures} of ${requests} calls failed: ${firstFailure}`)
      const redisNow = await redisCounts()
      return {
        cpuMicros: ((await cpuOf()) - cpu) / requests,
        commands: (redisNow.commands - redisAt.commands) / requests,
        bytes: (redisNow.bytes - redisAt.bytes) / requests,
        redisMicros: (redisNow.micros - redisAt.micros) / requests,
      }
    },
    async stop(): Promise<void> {
      for (const socket of sockets) socket.destroy()
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

/** Connections over which one call went. */
async function idle(gatewayPort: number, count: number): Promise<Socket[]> {
  const sockets: Socket[] = []
  for (let i = 0; i < count; i++) {
    const socket = connect(gatewayPort, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write(callOf(SMALLEST, 0))
    await once(socket, 'data')
    sockets.push(socket)
  }
  return sockets
}

async function redisCounts() {
  if (redisClient === undefined) return { commands: 0, bytes: 0, micros: 0, memory: 0 }
  const text = await redisClient.info('everything')
  const sum = (pattern: RegExp): number =>
    [...text.matchAll(pattern)].reduce((all, [, count]) => all + Number(count), 0)
  return {
    commands: sum(/^cmdstat_evalsha:calls=(\d+)/gm),
    bytes: sum(/^total_net_(?:in|out)put_bytes:(\d+)/gm),
    micros: sum(/^used_cpu_(?:sys|user):([\d.]+)/gm) * 1e6,
    memory: sum(/^used_memory:(\d+)/gm),
  }
}

/** How many files a process may have open. */
function openFiles(): number {
  return Number(/^Max open files +\d+ +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
}

function median(all: readonly number[]): number {
  const sorted = all.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]!
}
