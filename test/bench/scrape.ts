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
import { gunzipSync } from 'node:zlib'
import { Agent, request } from 'undici'
import { stringify } from 'yaml'
import { hashKey } from '../../src/clients/keys.ts'
import { findRedis, freePort } from '../support/find-redis.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { bar } from './bar.ts'
import { residentKb, treeOf } from './process-tree.ts'

/**
 * `npm run bench:scrape`: what a scrape of many series costs the calls that go on meanwhile. Every client calls every account
 * once; then calls are made at a steady rate, at first without scrapes and then while one follows the other. With more
 * `--workers` they share a Redis, and the first process adds up what they have counted. The longest turns of the event loop
 * are those of each process, the first one first.
 */
const { values } = parseArgs({
  options: {
    clients: { type: 'string', default: '1000' },
    accounts: { type: 'string', default: '50' },
    named: { type: 'string', default: '1000' },
    'named-accounts': { type: 'string', default: '100' },
    rate: { type: 'string', default: '100' },
    seconds: { type: 'string', default: '15' },
    workers: { type: 'string', default: '1' },
  },
})
/** With more pairs of a client and an account than this, each client and each account calls, but not each pair. */
const MOST_CALLS = 50_000
const clients = Number(values.clients)
const accounts = Number(values.accounts)
const perSecond = Number(values.rate)
const seconds = Number(values.seconds)

const upstream = createServer((_, response) => response.end('{}')).listen(0, '127.0.0.1')
await once(upstream, 'listening')
const url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`
const names = (count: number, name: string): string[] => Array.from({ length: count }, (_, i) => `${name}${i}`)
const adminPort = await freePort()
const folder = temporaryFolder('scrape')
const file = join(folder.path, 'sluice.yaml')
const workers = Number(values.workers)
const redis = workers > 1 ? await findRedis() : undefined
writeFileSync(
  file,
  stringify({
    server: { port: 0, workers },
    admin: { port: adminPort },
    log: { level: 'info' },
    store:
      redis === undefined
        ? { dir: folder.path }
        : { kind: 'redis', url: redis.url, prefix: `scrape-${process.pid}`, commandTimeout: '5s' },
    metrics: { maxClients: Number(values.named), maxAccounts: Number(values['named-accounts']) },
    upstreams: {
      x: {
        url,
        accounts: Object.fromEntries(names(accounts, 'account').map((name) => [name, {}])),
        limits: { read: [{ requests: 1_000_000, window: '60s' }] },
      },
    },
    clients: Object.fromEntries(names(clients, 'client').map((name) => [name, { keys: [hashKey(`key-${name}`)] }])),
  }),
)
const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const turns = fileURLToPath(new URL('longest-turn.ts', import.meta.url))
const child = spawn(process.execPath, ['--import', turns, main, 'start', '--config', file], {
  cwd: folder.path,
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, LONGEST_TURNS: folder.path },
})
const agent = new Agent({ connections: 64 })
try {
  const url = await listening(createInterface({ input: child.stdout }))
  // Its log is read on, as by an agent.
  child.stdout.resume()
  const gateway = { url }
  await everyoneCallsEverywhere(gateway.url)
  await longestTurns()
  const alone = await latencies(gateway.url)
  const turnsAlone = await longestTurns()
  let isOver = false
  const scrapes: { ms: number; zipped: Buffer }[] = []
  const scraping = (async () => {
    while (!isOver) {
      scrapes.push(await scrape(`http://127.0.0.1:${adminPort}`))
      await pause(500)
    }
  })()
  const during = await latencies(gateway.url)
  isOver = true
  await scraping
  const turnsDuring = await longestTurns()
  const last = scrapes.at(-1)!.zipped
  const text = gunzipSync(last)
  const resident = treeOf(child.pid!).map(residentKb)
  console.log(
    `${workers} workers, ${clients} clients, ${accounts} accounts, ${values.named} clients by name, ${perSecond} calls a second`,
  )
  const lines = text.toString('latin1').split('\n').length
  const sizes = `${(text.length / 1e6).toFixed(1)} MB, ${(last.length / 1e6).toFixed(1)} MB compressed`
  const ms = median(scrapes.map((one) => one.ms))
  console.log(`a scrape: ${lines} lines, ${sizes}, median ${ms.toFixed(0)} ms of ${scrapes.length}`)
  console.log(`resident memory: ${resident.map((kb) => (kb / 1_024).toFixed(0)).join(' + ')} MiB`)
  for (const [name, all, turns] of [
    ['without scrapes', alone, turnsAlone],
    ['during scrapes', during, turnsDuring],
  ] as const) {
    console.log(`latency ${name}: p50 ${at(all, 0.5).toFixed(1)} ms, p99 ${at(all, 0.99).toFixed(1)} ms`)
    console.log(`longest turns of the event loop ${name}: ${inWords(turns)}`)
  }
  bar('p99 during scrapes beside without', at(during, 0.99) / at(alone, 0.99), { atMost: 3 }, '')
  bar('a scrape', ms / 1_000, { atMost: 1 }, 's')
  bar('a scrape', text.length / 1e6, { atMost: 20 }, 'MB')
  bar('longest turn of the event loop during scrapes', Math.max(0, ...turnsDuring.flat()), { atMost: 50 }, 'ms')
} finally {
  child.kill('SIGTERM')
  await once(child, 'exit')
  await agent.close()
  upstream.closeAllConnections()
  upstream.close()
  folder.remove()
  await redis?.stop()
}

async function listening(lines: AsyncIterable<string>): Promise<string> {
  for await (const line of lines) {
    if (line.includes('"msg":"listening"')) return (JSON.parse(line) as { url: string }).url
  }
  throw new Error('the gateway did not start')
}

/** The longest turns of each process since the last call, in ms of processor time; the first process comes first. */
async function longestTurns(): Promise<number[][]> {
  const pids = treeOf(child.pid!)
  for (const pid of pids) process.kill(pid, 'SIGUSR2')
  await pause(500)
  return pids.map((pid) => JSON.parse(readFileSync(join(folder.path, String(pid)), 'utf8')) as number[])
}

function inWords(turns: readonly number[][]): string {
  return turns.map((longest) => longest.map((ms) => ms.toFixed(1)).join(' ')).join(' | ')
}

async function get(base: string, client: string, account: string): Promise<void> {
  const headers = { 'x-sluice-key': `key-${client}`, 'x-sluice-account': account }
  const { statusCode, body } = await request(`${base}/x/thing`, { headers, dispatcher: agent })
  await body.dump()
  if (statusCode !== 200) throw new Error(`a call ended with ${statusCode}`)
}

async function everyoneCallsEverywhere(base: string): Promise<void> {
  const calls = Math.min(clients * accounts, MOST_CALLS)
  let next = 0
  const caller = async (): Promise<void> => {
    for (let i = next++; i < calls; i = next++) {
      const account = clients * accounts > MOST_CALLS ? i : Math.floor(i / clients)
      await get(base, `client${i % clients}`, `account${account % accounts}`)
    }
  }
  await Promise.all(Array.from({ length: 64 }, caller))
}

/** In milliseconds, sorted. A call that is late to start is measured from when it should have. */
async function latencies(base: string): Promise<number[]> {
  const start = performance.now()
  const calls = Array.from({ length: perSecond * seconds }, async (_, i) => {
    const dueAt = start + (i * 1_000) / perSecond
    await pause(Math.max(1, dueAt - performance.now()))
    await get(base, `client${i % clients}`, `account${i % accounts}`)
    return performance.now() - dueAt
  })
  return (await Promise.all(calls)).toSorted((a, b) => a - b)
}

/** As Prometheus asks. Nothing is unpacked while latencies are measured, since that would hold up this process. */
async function scrape(adminUrl: string): Promise<{ ms: number; zipped: Buffer }> {
  const start = performance.now()
  const { body } = await request(`${adminUrl}/metrics`, { headers: { 'accept-encoding': 'gzip' } })
  const zipped = Buffer.from(await body.arrayBuffer())
  return { ms: performance.now() - start, zipped }
}

function at(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]!
}

function median(all: readonly number[]): number {
  return at(
    all.toSorted((a, b) => a - b),
    0.5,
  )
}
