import { spawnSync } from 'node:child_process'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Redis } from 'ioredis'
import { systemClock } from '../../src/time/clock.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import { type Ledger, chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { RedisScript } from '../../src/ledger/redis/script.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { findRedis } from '../support/find-redis.ts'
import { Leaving } from '../support/leaving.ts'
import { bar } from './bar.ts'

/**
 * `npm run bench:queue`: what waiting costs one gateway, with few calls that wait and with very many: memory, processor time
 * and commands of Redis for each call that is admitted. `npm run bench:queue -- --processes` runs the proof of fairness with
 * gateway processes in full.
 */
if (process.argv.includes('--processes')) {
  const vitest = fileURLToPath(new URL('../../node_modules/vitest/vitest.mjs', import.meta.url))
  const args = [vitest, 'run', '--config', 'test/vitest.config.ts', 'test/system/redis/fairness.test.ts']
  const env = { ...process.env, SLUICE_PROOF: 'full' }
  process.exit(spawnSync(process.execPath, args, { stdio: 'inherit', env }).status ?? 1)
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

const PARTITION = 'upstream/account'
const CLIENTS = 5
const REQUESTS = 1_000
const WINDOW_MS = 1_000
const LATENCY_MS = 50
const MEASURED_MS = Number(process.env['BENCH_ROUND_MS'] ?? 4_000)
const QUEUES = [20, 200, 2_000, 20_000]

interface Row {
  readonly bytesPerCall: number
  readonly microsPerCall: number
  readonly commandsPerCall: number
  readonly admitted: number
}

/** So many calls wait at any time; whoever is answered comes again. */
async function measure(ledger: Ledger, waiting: number, commandsSoFar: () => Promise<number>): Promise<Row> {
  const capacity = new ClassCapacity([new QueueCapacity(1_000_000, 'calls')])
  const queue = new AdmissionQueue({
    ledger,
    clock: systemClock,
    name: `queue ${waiting}`,
    partition: PARTITION,
    capacity,
  })
  const limit = limitOf({ id: `only.${waiting}`, class: 'any', requests: REQUESTS, windowMs: WINDOW_MS })
  const chargeSet = chargeSetOf(PARTITION, [{ limit }])
  let [admitted, isOver] = [0, false]
  const leaves = new Set<() => void>()
  const caller = async (name: string): Promise<void> => {
    const client = { name, weight: 1, share: 0, priority: 'normal' } as const
    while (!isOver) {
      const admission = await queue.enter({
        client,
        priority: 'normal',
        chargeSet,
        maxWaitMs: 3_600_000,
        cancellation: new Leaving((leave) => {
          leaves.add(leave)
          return () => void leaves.delete(leave)
        }),
      })
      if (admission.kind !== 'admitted') continue
      admitted++
      await pause(LATENCY_MS)
      admission.permit.commit()
      admission.permit.leave()
    }
  }
  collect()
  const before = process.memoryUsage().heapUsed
  const callers: Promise<void>[] = []
  for (let i = 0; i < waiting + REQUESTS; i++) callers.push(caller(`client ${i % CLIENTS}`))
  await pause(200)
  collect()
  const bytes = process.memoryUsage().heapUsed - before
  await pause(2 * WINDOW_MS)
  const [cpu, commands, admittedBefore] = [process.cpuUsage(), await commandsSoFar(), admitted]
  await pause(MEASURED_MS)
  const { user, system } = process.cpuUsage(cpu)
  const calls = admitted - admittedBefore
  const row = {
    bytesPerCall: bytes / (waiting + REQUESTS),
    microsPerCall: (user + system) / calls,
    commandsPerCall: ((await commandsSoFar()) - commands) / calls,
    admitted: calls,
  }
  isOver = true
  for (const leave of leaves) leave()
  await Promise.all(callers)
  return row
}

const redis = await findRedis()
const asking = new Redis(redis.url)
const ledgers: Record<string, Ledger> = {
  embedded: new MemoryLedger(systemClock),
  Redis: new RedisLedger({
    runner: new RedisScript(new Redis(redis.url)),
    clock: systemClock,
    gateway: 'bench',
    prefix: `bench-queue-${process.pid}`,
    answerWithinMs: 1_000,
  }),
}

async function scriptsRun(): Promise<number> {
  const stats = await asking.info('commandstats')
  return Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1] ?? 0)
}

console.log(
  `One gateway, ${CLIENTS} clients, a limit of ${REQUESTS} in ${WINDOW_MS} ms that is always used up, latency ${LATENCY_MS} ms.`,
  'Memory is that of a waiting call with the promise of whoever waits for it, besides its request and its body.',
)
for (const [name, ledger] of Object.entries(ledgers)) {
  const rows: Record<string, object> = {}
  const measured: Row[] = []
  for (const waiting of QUEUES) {
    const row = await measure(ledger, waiting, name === 'Redis' ? scriptsRun : () => Promise.resolve(0))
    measured.push(row)
    rows[`${waiting} wait`] = {
      'bytes a call': Math.round(row.bytesPerCall),
      'CPU µs an admission': Number(row.microsPerCall.toFixed(1)),
      'ratio to the first row': Number((row.microsPerCall / measured[0]!.microsPerCall).toFixed(2)),
      'Redis commands an admission': Number(row.commandsPerCall.toFixed(2)),
      admitted: row.admitted,
    }
  }
  console.log(`\nledger: ${name}`)
  console.table(rows)
  const most = measured.at(-1)!
  bar(`a waiting call, ${name}`, most.bytesPerCall, { atMost: 4_096 }, 'bytes')
  bar(
    `CPU an admission, ${QUEUES.at(-1)} waiting beside ${QUEUES[0]}, ${name}`,
    most.microsPerCall / measured[0]!.microsPerCall,
    { atMost: 1 },
    '',
  )
  bar(
    `Redis commands an admission, ${name}`,
    Math.max(...measured.map((row) => row.commandsPerCall)),
    { atMost: 3 },
    '',
  )
}
await Promise.all(Object.values(ledgers).map((ledger) => ledger.close()))
asking.disconnect()
await redis.stop()
