/**
 * `npm run bench:cluster`: 100,000 accounts in a Redis Cluster of three masters. Every account has a call, charged to two limits. It
 * prints how evenly keys, memory and script calls are spread, what an account takes, and how long a scrape and /v1/quota take of a
 * gateway with 20,000 of them. `-- --accounts 10000` for fewer.
 */
import { parseArgs } from 'node:util'
import { Cluster, Command, type Redis } from 'ioredis'
import { systemClock } from '../../src/time/clock.ts'
import { checkConfig } from '../../src/config/load.ts'
import { type ChargeSet, chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import type { Argument, Reply } from '../../src/ledger/redis/protocol.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { RedisScript } from '../../src/ledger/redis/script.ts'
import { createLog } from '../../src/observe/log.ts'
import { runGateway } from '../../src/process/run.ts'
import { connectRedis } from '../../src/redis/connection.ts'
import { storeOf } from '../support/ledger-load.ts'
import { type RedisCluster, startCluster, until } from '../support/redis-topologies.ts'
import { bar } from './bar.ts'

const AT_ONCE = 500
/** The gateway that is asked runs in this process, too: with 100,000 accounts both would not fit into Node's default heap. */
const MOST_ASKED = 20_000
const LIMITS = [
  { requests: 1_000, windowMs: 60_000 },
  { requests: 30_000, windowMs: 3_600_000 },
].map((spec) => ({ limit: limitOf({ id: `read.${spec.windowMs}`, class: 'read', ...spec }) }))

export interface Share {
  readonly keys: number
  readonly bytes: number
  /** Calls of scripts. */
  readonly calls: number
}

export interface Spread {
  readonly granted: number
  /** Calls of a script whose keys were not all in one slot: a cluster refuses these. */
  readonly acrossSlots: number
  /** By master: what came there with the accounts, the register aside. */
  readonly shares: readonly Share[]
  /** The register of the accounts that are in use, which is one key. */
  readonly register: Share
}

/**
 * Charges a call to each of so many accounts, and looks what became of it at each master. The gateway lives on while `during` runs.
 */
export async function spread(
  cluster: RedisCluster,
  accounts: number,
  during: () => Promise<void> = () => Promise.resolve(),
): Promise<Spread> {
  const store = storeOf({ cluster: cluster.nodes, prefix: 'spread', commandTimeout: '10s' })
  const redis = connectRedis(store)
  redis.on('error', () => undefined)
  const runner = new WatchedScript(redis)
  const ledger = new RedisLedger({
    runner,
    clock: systemClock,
    gateway: 'spread',
    prefix: store.prefix,
    answerWithinMs: store.commandTimeout,
  })
  // The ledger trusts what Redis knows only if it can ask at its begin.
  await until(async () => mastersOf(redis).length === 3 && mastersOf(redis).every(({ status }) => status === 'ready'))
  await ledger.begin()
  const before = await sharesOf(cluster)
  runner.registerCalls = 0
  let granted = 0
  const call = async (chargeSet: ChargeSet): Promise<void> => {
    const grant = await ledger.charge(chargeSet, 1)
    granted += grant.granted
    if (grant.granted === 0) return
    ledger.commit(grant)
    ledger.leave(grant)
  }
  for (let first = 0; first < accounts; first += AT_ONCE) {
    const some = Array.from({ length: Math.min(AT_ONCE, accounts - first) }, (_, i) => `x/account${first + i}`)
    await Promise.all(some.map((partition) => call(chargeSetOf(partition, LIMITS))))
  }
  const after = await sharesOf(cluster)
  const master = await cluster.masterOf(runner.registerKey)
  const bytes = Number(await master.client.call('MEMORY', 'USAGE', runner.registerKey, 'SAMPLES', 0))
  const register = { keys: 1, bytes, calls: runner.registerCalls }
  const shares = after.map((share, i) => {
    const own = cluster.servers[i] === master ? register : { bytes: 0, calls: 0 }
    const { keys, bytes, calls } = before[i]!
    return { keys: share.keys - keys, bytes: share.bytes - bytes - own.bytes, calls: share.calls - calls - own.calls }
  })
  await during()
  await ledger.close()
  return { granted, acrossSlots: runner.acrossSlots, shares, register }
}

/** How far the master with the most or the least is from the mean, as a part of it. */
export function unevenness(all: readonly number[]): number {
  const mean = all.reduce((sum, one) => sum + one, 0) / all.length
  return Math.max(...all.map((one) => Math.abs(one / mean - 1)))
}

function mastersOf(redis: Redis | Cluster): readonly Redis[] {
  return redis instanceof Cluster ? redis.nodes('master') : []
}

class WatchedScript extends RedisScript {
  acrossSlots = 0
  registerCalls = 0
  registerKey = ''

  override runRegister(keys: readonly string[], args: readonly Argument[]): Promise<readonly Argument[]> {
    this.registerCalls++
    this.registerKey = keys[0]!
    return super.runRegister(keys, args)
  }

  override run(keys: readonly string[], args: readonly Argument[]): Promise<Reply> {
    if (new Set(keys.map((key) => new Command('get', [key]).getSlot())).size > 1) this.acrossSlots++
    return super.run(keys, args)
  }
}

function sharesOf(cluster: RedisCluster): Promise<Share[]> {
  return Promise.all(
    cluster.servers.map(async ({ client }) => {
      const [keys, memory, stats] = await Promise.all([
        client.dbsize(),
        client.info('memory'),
        client.info('commandstats'),
      ])
      const [, bytes] = /^used_memory_dataset:(\d+)/m.exec(memory)!
      // What scripts call is theirs.
      const [, calls = 0] = /^cmdstat_evalsha:calls=(\d+)/m.exec(stats) ?? []
      return { keys, bytes: Number(bytes), calls: Number(calls) }
    }),
  )
}

/** How many milliseconds a scrape and /v1/quota take of a gateway with so many accounts, and how soon it shares all quotas afterwards. */
async function ask(cluster: RedisCluster, accounts: number) {
  const names = Array.from(
    { length: accounts },
    (_, i) => [`account${i}`, { credential: { value: 'secret' } }] as const,
  )
  const config = checkConfig(
    {
      server: { port: 0 },
      admin: { port: 0 },
      store: { kind: 'redis', cluster: cluster.nodes, prefix: 'spread' },
      upstreams: {
        x: {
          url: 'http://127.0.0.1:1',
          accounts: Object.fromEntries(names),
          limits: { read: LIMITS.map(({ limit }) => ({ requests: limit.requests, window: `${limit.windowMs}ms` })) },
        },
      },
    },
    'bench:cluster',
  )
  const gateway = await runGateway(config, { log: createLog({ level: 'silent', format: 'json' }) })
  const time = async (path: string): Promise<{ ms: number; bytes: number; status: number }> => {
    const began = performance.now()
    const response = await fetch(gateway.adminUrl + path)
    const bytes = (await response.arrayBuffer()).byteLength
    return { ms: performance.now() - began, bytes, status: response.status }
  }
  const found = { scrape: await time('/metrics'), quota: await time('/v1/quota') }
  // An account that another gateway began to use a moment ago is left to that one's word for a second.
  const askedAt = performance.now()
  await until(async () => (await gateway.status.degraded()).length === 0)
  const sharedMs = performance.now() - askedAt
  await gateway.stop()
  return { ...found, sharedMs }
}

if (import.meta.main) {
  const { accounts: given } = parseArgs({ options: { accounts: { type: 'string', default: '100000' } } }).values
  const accounts = Number(given)
  const cluster = await startCluster(0)
  try {
    let asked: Awaited<ReturnType<typeof ask>> | undefined
    const { granted, acrossSlots, shares, register } = await spread(cluster, accounts, async () => {
      asked = await ask(cluster, Math.min(accounts, MOST_ASKED))
    })
    console.log(`${accounts} accounts, each with a call that is charged to two limits`)
    const shown = ({ keys, bytes, calls }: Share) => ({
      keys,
      MiB: (bytes / 2 ** 20).toFixed(1),
      'script calls': calls,
    })
    console.table(
      Object.fromEntries([
        ...shares.map((share, i) => [`master ${i + 1}`, shown(share)]),
        ['register', shown(register)],
      ]),
    )
    const of = (what: keyof Share): number[] => shares.map((share) => share[what])
    bar('calls granted', granted, { atLeast: accounts }, '')
    bar('script calls across slots', acrossSlots, { atMost: 0 }, '')
    bar('keys, furthest from even', 100 * unevenness(of('keys')), { atMost: 5 }, '%')
    bar('memory, furthest from even', 100 * unevenness(of('bytes')), { atMost: 5 }, '%')
    bar('script calls, furthest from even', 100 * unevenness(of('calls')), { atMost: 5 }, '%')
    bar(
      'memory of Redis an account',
      of('bytes').reduce((sum, one) => sum + one) / accounts,
      { atMost: 2_000 },
      'bytes',
    )
    bar('memory of the register an account', register.bytes / accounts, { atMost: 200 }, 'bytes')
    const { scrape, quota, sharedMs } = asked!
    console.log('scrape', scrape, '/v1/quota', quota)
    bar('a scrape', scrape.ms / 1_000, { atMost: 10 }, 's')
    bar('/v1/quota', quota.ms / 1_000, { atMost: 10 }, 's')
    bar('quotas of a new gateway are shared after', sharedMs / 1_000, { atMost: 5 }, 's')
  } finally {
    await cluster.stop()
  }
  process.exit()
}
