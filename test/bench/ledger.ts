import { setTimeout as pause } from 'node:timers/promises'
import { spawnSync } from 'node:child_process'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import { RateLimiterRedis } from 'rate-limiter-flexible'
import { systemClock } from '../../src/time/clock.ts'
import { type Grant, type ChargeSet, chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import type { Argument, Reply } from '../../src/ledger/redis/protocol.ts'
import { RedisScript } from '../../src/ledger/redis/script.ts'
import { startRedisServer } from '../support/find-redis.ts'
import { hasProgram } from '../support/packages.ts'
import { bar } from './bar.ts'

/**
 * `npm run bench:ledger`: what a charge to two limits costs Redis, next to rate-limiter-flexible (fixed windows) and to a log
 * of timestamps in a sorted set. `npm run bench:ledger -- --processes` runs the proof with gateway processes in full.
 */
if (process.argv.includes('--processes')) {
  const vitest = fileURLToPath(new URL('../../node_modules/vitest/vitest.mjs', import.meta.url))
  const args = [vitest, 'run', '--config', 'test/vitest.config.ts', 'test/system/redis/processes.test.ts']
  const env = { ...process.env, SLUICE_PROOF: 'full' }
  process.exit(spawnSync(process.execPath, args, { stdio: 'inherit', env }).status ?? 1)
}
if (!hasProgram('redis-server')) {
  console.error('the benchmark needs redis-server on PATH: it measures a server of its own')
  process.exit(1)
}

const WINDOW_MS = 60_000
/** Of a window of a minute. */
const COMMIT_WITHIN_MS = 3_100
const ROUND_MS = Number(process.env['BENCH_ROUND_MS'] ?? 300)
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 3)
/** Later rows are left out: a busy machine must not make it endless. */
const DEADLINE = performance.now() + Number(process.env['BENCH_BUDGET_MS'] ?? 100_000)
const CONCURRENCIES = [1, 4, 16, 64]
const ACCOUNTS = [1, 1_000, 100_000]
const ALLOWED = [10, 1_000, 1_000_000]
/** Attempts with which accounts are filled, and most accounts that are filled for every limit. */
const FILLED = 5_000
const MOST_FILLED = 1_000

const SORTED_SET = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - tonumber(ARGV[2]))
  if redis.call('ZCARD', key) >= tonumber(ARGV[1]) then return 0 end
end
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, now, ARGV[3])
  redis.call('PEXPIRE', key, tonumber(ARGV[2]) / 1000)
end
return 1`

/** One way of counting. An attempt is answered as if the upstream had been at once. */
interface Subject {
  attempt(account: number): Promise<unknown>
  /** Calls of Redis so far that an attempt waited for. */
  waitedFor(): number
  stop(): Promise<void>
}

/** Commits that go alone, and the renewal of leases, are waited for by nobody. */
class CountedScript extends RedisScript {
  charges = 0

  override run(keys: readonly string[], args: readonly Argument[]): Promise<Reply> {
    if (Number(args[2]) > 0) this.charges++
    return super.run(keys, args)
  }
}

// This process on one core, Redis on the other, where there are two.
const canPin = process.platform === 'linux' && cpus().length > 1 && spawnSync('taskset', ['-V']).status === 0
const server = await startRedisServer()
if (canPin) {
  spawnSync('taskset', ['-a', '-p', '-c', '0', String(server.child.pid)])
  spawnSync('taskset', ['-a', '-p', '-c', '1', String(process.pid)])
}
const redis = new Redis(server.url)

const makers: Record<string, Make> = {
  Sluice: (allowed) => sluice(allowed, true),
  'Sluice, charges alone': uncommitted,
  'rate-limiter-flexible, fixed windows': flexible,
  'log in a sorted set': sortedSet,
}

console.log(`Redis ${/redis_version:(\S+)/.exec(await redis.info('server'))?.[1]}`)
const costRows: Record<string, unknown>[] = []
/** Of ours, at the lowest concurrency, so that charges do not share a call. */
const ownCosts = new Map<number, Cost>()
let mostBytes = 0
const memoryRows: Record<string, unknown>[] = []
for (const accounts of ACCOUNTS) {
  const bytes: Record<string, unknown>[] = ALLOWED.map((limit) => ({ accounts, limit }))
  for (const [name, make] of Object.entries(makers)) {
    if (performance.now() > DEADLINE) continue
    // Calls that are never over are renewed, and with so many accounts by a call each.
    if (accounts > MOST_FILLED && make === uncommitted) continue
    for (const [i, limit] of ALLOWED.entries()) {
      // Which limit it is shows nowhere but in a log, and there it would take too long.
      if (accounts > MOST_FILLED && i < ALLOWED.length - 1) continue
      bytes[i]![name] = await measure(name, make, accounts, limit)
    }
  }
  memoryRows.push(...bytes.filter((row) => Object.keys(row).length > 2))
}
console.log('\nper attempt, charged to two limits of 1,000,000 in a minute; the best of the rounds')
console.table(costRows)
console.log('\nmemory of Redis per account and limit, in bytes')
console.table(memoryRows)
for (const [accounts, { commandMicros, waitedFor }] of ownCosts) {
  bar(`Redis's time for a charge and its settlement, accounts: ${accounts}`, commandMicros, { atMost: 10 }, 'µs')
  bar(`calls of Redis that an attempt waits for, accounts: ${accounts}`, waitedFor, { atMost: 1 }, '')
}
bar("Redis's memory for an account and limit", mostBytes, { atMost: 2_048 }, 'bytes')
redis.disconnect()
await server.stop()
process.exit()

/** Fills the accounts, and tells the bytes of one limit; for the largest limit also notes what attempts cost. */
async function measure(name: string, make: Make, accounts: number, limit: number): Promise<string> {
  await redis.flushall()
  const subject = await make(limit)
  const calls = Math.max(1, Math.min(limit, Math.floor(FILLED / accounts)))
  for (let call = 0; call < calls; call++) await attemptEach(subject, accounts)
  const bytes = Math.round(((await bytesPerKey()) * (await redis.dbsize())) / accounts / 2)
  if (make === makers['Sluice']) mostBytes = Math.max(mostBytes, bytes)
  if (limit === ALLOWED.at(-1)) {
    for (const concurrency of accounts > MOST_FILLED ? CONCURRENCIES.slice(-1) : CONCURRENCIES) {
      const best = await bestCost(subject, accounts, concurrency)
      costRows.push({ subject: name, accounts, concurrency, ...inWords(best) })
      if (make === makers['Sluice'] && !ownCosts.has(accounts)) ownCosts.set(accounts, best)
    }
  }
  await subject.stop()
  // Only of the log does it matter how many there were.
  return `${bytes}${calls < limit && make === sortedSet ? ` after ${calls} calls` : ''}`
}

async function bestCost(subject: Subject, accounts: number, concurrency: number): Promise<Cost> {
  const samples: Cost[] = []
  for (let round = 0; round < ROUNDS; round++) samples.push(await cost(subject, accounts, concurrency))
  return samples.toSorted((a, b) => a.commandMicros - b.commandMicros)[0]!
}

function inWords({ commandMicros, cpuMicros, calls, waitedFor, perSecond }: Cost): Record<string, string> {
  return {
    'commands µs': commandMicros.toFixed(1),
    'main thread CPU µs': cpuMicros.toFixed(1),
    calls: calls.toFixed(2),
    'of them waited for': waitedFor.toFixed(2),
    'attempts/s': perSecond.toFixed(0),
  }
}

type Make = (allowed: number) => Promise<Subject>

interface Cost {
  /** Time in commands, those that scripts call included. */
  readonly commandMicros: number
  /** Processor time of Redis's main thread, reading and writing included. */
  readonly cpuMicros: number
  readonly calls: number
  readonly waitedFor: number
  readonly perSecond: number
}

async function cost(subject: Subject, accounts: number, concurrency: number): Promise<Cost> {
  let attempts = 0
  const before = await snapshot()
  const waitedBefore = subject.waitedFor()
  const startedAt = performance.now()
  // Leases are renewed at a rate of their own: so few attempts as fit into a short round would not show what each costs.
  const until = startedAt + (accounts > MOST_FILLED ? 10 : 1) * ROUND_MS
  const worker = async (first: number): Promise<void> => {
    for (let account = first; performance.now() < until; account = (account + concurrency * 7) % accounts) {
      await subject.attempt(account % accounts)
      attempts++
    }
  }
  await Promise.all(range(0, concurrency).map(worker))
  const tookMs = performance.now() - startedAt
  // With fewer accounts, those left over from before are among these; with more, none finds a charge to ride on.
  if (accounts > MOST_FILLED) await pause(COMMIT_WITHIN_MS)
  const after = await snapshot()
  return {
    commandMicros: (after.commandMicros - before.commandMicros) / attempts,
    cpuMicros: (after.cpuMicros - before.cpuMicros) / attempts,
    calls: (after.calls - before.calls) / attempts,
    waitedFor: (subject.waitedFor() - waitedBefore) / attempts,
    perSecond: (1_000 * attempts) / tookMs,
  }
}

async function snapshot(): Promise<{ commandMicros: number; cpuMicros: number; calls: number }> {
  const stats = await redis.info('commandstats')
  let commandMicros = 0
  let calls = 0
  // What a script calls is part of its own time.
  for (const [, name, count, micros] of stats.matchAll(/cmdstat_(\w+):calls=(\d+),usec=(\d+)/g)) {
    if (!/^(eval|evalsha|multi|exec)$/.test(name!)) continue
    commandMicros += Number(micros)
    calls += Number(count)
  }
  const cpu = await redis.info('cpu')
  const seconds = (field: string): number => Number(new RegExp(`${field}:([0-9.]+)`).exec(cpu)?.[1])
  const cpuMicros = 1e6 * (seconds('used_cpu_user_main_thread') + seconds('used_cpu_sys_main_thread'))
  return { commandMicros, cpuMicros, calls }
}

/** Of a sample of the keys. */
async function bytesPerKey(): Promise<number> {
  const [, keys] = await redis.scan(0, 'COUNT', 500)
  const sizes = await Promise.all(
    keys.map((key) => redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0) as Promise<number>),
  )
  return sizes.reduce((sum, size) => sum + size, 0) / sizes.length
}

async function attemptEach(subject: Subject, accounts: number): Promise<void> {
  for (let first = 0; first < accounts; first += 500) {
    await Promise.all(range(first, Math.min(accounts, first + 500)).map((account) => subject.attempt(account)))
  }
  await pause(accounts > 1 ? 30 : 0)
}

function uncommitted(allowed: number): Promise<Subject> {
  return sluice(allowed, false)
}

async function sluice(allowed: number, isCommitted: boolean): Promise<Subject> {
  const runner = new CountedScript(new Redis(server.url))
  const ledger = new RedisLedger({
    runner,
    clock: systemClock,
    gateway: 'bench',
    prefix: 'bench',
    answerWithinMs: 2_000,
  })
  const limits = ['read', 'template'].map((name) => ({
    limit: limitOf({ id: `${name}.60000`, class: name, requests: allowed, windowMs: WINDOW_MS }),
  }))
  const chargeSets = new Map<number, ChargeSet>()
  return {
    async attempt(account) {
      const chargeSet = chargeSets.getOrInsertComputed(account, () => chargeSetOf(`any/${account}`, limits))
      const grant: Grant = await ledger.charge(chargeSet, 1)
      if (grant.granted === 0 || !isCommitted) return
      ledger.commit(grant)
      ledger.leave(grant)
    },
    waitedFor: () => runner.charges,
    stop: () => ledger.close(),
  }
}

async function flexible(allowed: number): Promise<Subject> {
  const storeClient = new Redis(server.url)
  const limiters = ['read', 'template'].map(
    (keyPrefix) => new RateLimiterRedis({ storeClient, keyPrefix, points: allowed, duration: WINDOW_MS / 1_000 }),
  )
  let made = 0
  return {
    attempt: (account) => {
      made += limiters.length
      return Promise.allSettled(limiters.map((limiter) => limiter.consume(`any/${account}`)))
    },
    waitedFor: () => made,
    stop: async () => storeClient.disconnect(),
  }
}

async function sortedSet(allowed: number): Promise<Subject> {
  const connection = new Redis(server.url)
  connection.defineCommand('log', { lua: SORTED_SET, numberOfKeys: 2 })
  const log = (connection as unknown as { log(...args: (string | number)[]): Promise<number> }).log.bind(connection)
  let made = 0
  return {
    attempt: (account) =>
      log(`{any/${account}}:read`, `{any/${account}}:template`, allowed, WINDOW_MS * 1_000, `${process.pid}-${made++}`),
    waitedFor: () => made,
    stop: async () => connection.disconnect(),
  }
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i)
}
