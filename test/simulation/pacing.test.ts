import { describe, expect, it } from 'vitest'
import { paceOf } from '../../src/schema/limits.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import { type Ledger, chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { ANYONE } from '../support/anyone.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { worstCount } from '../support/worst-count.ts'
import { modelHost } from './simulation.ts'
import { Connection, Store } from './store.ts'
import { Process, World } from './world.ts'

const REQUESTS = 300
const WINDOW_MS = 60_000
const WINDOWS = 8
const LATENCY_MS = { min: 20, max: 180 }
/** As late as a timer is on a machine that has something to do. */
const LATE_MS = 1

const SEEDS = [1, 2, 3, 4, 5, 6, 7]

/** When so many gateways sent, while at all times more calls waited than there was quota for. */
async function sentAt(
  gateways: number,
  pace: { requests: number; windowMs: number } | undefined,
  seed = 5,
): Promise<number[]> {
  const world = new World()
  const random = seededRandom(seed)
  const store = new Store(world, random, modelHost(), { leastMs: 0.1, meanMs: 0.3 })
  const limit = limitOf({ id: 'read', class: 'read', requests: REQUESTS, windowMs: WINDOW_MS })
  const paced =
    pace === undefined ? [] : [{ limit: limitOf({ id: 'pace', class: 'read', kind: 'smoothing', ...pace }) }]
  const chargeSet = chargeSetOf('it/main', [{ limit }, ...paced])
  const sent: number[] = []
  for (let i = 0; i < Math.max(1, gateways); i++) {
    const process = new Process(world, 0)
    const { clock } = process
    const schedule: typeof clock.schedule = (delayMs, wake) => process.clock.schedule(delayMs + LATE_MS, wake)
    const late = { ...clock, schedule }
    const runner = new Connection(store, process, () => undefined)
    const ledger: Ledger =
      gateways === 0
        ? new MemoryLedger(late)
        : new RedisLedger({ runner, clock: late, gateway: `${i}`, prefix: 'paced', answerWithinMs: 1e12 })
    const capacity = new ClassCapacity([new QueueCapacity(10_000, 'calls')])
    const queue = new AdmissionQueue({ ledger, clock: late, name: 'read', partition: chargeSet.partition, capacity })
    const loop = async (): Promise<never> => {
      for (;;) {
        const admission = await queue.enter({ chargeSet, ...ANYONE, maxWaitMs: 1e9 })
        if (admission.kind !== 'admitted') throw new Error(admission.kind)
        sent.push(world.now)
        const latencyMs = LATENCY_MS.min + random() * (LATENCY_MS.max - LATENCY_MS.min)
        await new Promise<void>((resolve) => void clock.schedule(latencyMs, resolve))
        admission.permit.commit()
        admission.permit.leave()
      }
    }
    for (let n = 0; n < 40; n++) void loop()
  }
  await world.runUntil(world.now + WINDOWS * WINDOW_MS)
  return sent
}

const even = paceOf({ requests: REQUESTS, window: WINDOW_MS, pace: 'even' }, REQUESTS)!
const burstOf20 = paceOf({ requests: REQUESTS, window: WINDOW_MS, pace: 'even', burst: 20 }, REQUESTS)!

describe.each([
  ['the embedded ledger', 0],
  ['two gateways that share a Redis', 2],
])('a saturated limit with pace: even, kept by %s', (_, gateways) => {
  it.each([
    ['3, a hundredth, by itself', even, 3],
    ['20', burstOf20, 20],
  ])('is spread over its window, with bursts of %s', async (_, pace, burst) => {
    expect(pace.requests).toBe(burst)
    const sent = await sentAt(gateways, pace)
    // In a twentieth of the window a twentieth of the calls, and what may go at once at both ends.
    expect(worstCount(sent, WINDOW_MS / 20)).toBeLessThanOrEqual(Math.ceil(REQUESTS / 20 / 0.97) + burst)
    expect(worstCount(sent, WINDOW_MS)).toBeLessThanOrEqual(REQUESTS)
  })

  it('is used as much as without, and to 97 % of what the guarantee allows', async () => {
    const meanMs = (LATENCY_MS.min + LATENCY_MS.max) / 2
    const most = WINDOWS * REQUESTS * (WINDOW_MS / (WINDOW_MS + meanMs))
    // Of eight windows alone, chance makes up to four hundredths.
    const sent = await Promise.all(SEEDS.map((seed) => sentAt(gateways, even, seed)))
    const used = sent.map(({ length }) => length / most)
    expect(used.reduce((sum, one) => sum + one) / SEEDS.length, used.join(' ')).toBeGreaterThan(0.97)
  })
})

it('without pace a saturated limit is used up at once', async () => {
  expect(worstCount(await sentAt(2, undefined), WINDOW_MS / 20)).toBeGreaterThan(200)
})
