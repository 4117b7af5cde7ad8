import { describe, expect, it } from 'vitest'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import type { QueuedClient } from '../../src/queue/admission.ts'
import { type Ledger, chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { worstCount } from '../support/worst-count.ts'
import { modelHost } from './simulation.ts'
import { Connection, Store } from './store.ts'
import { Process, World } from './world.ts'

const LATENCY_MS = { min: 20, max: 180 }
const queuedClient = (name: string): QueuedClient => ({ name, weight: 1, share: 0, priority: 'normal' })

interface Story {
  readonly gateways: number
  readonly requests: number
  readonly windowMs: number
  /** How many callers are refused and come back, one call after the other, each at the gateway that refused it. */
  readonly pollers: number
  /** How long after the told time they come back at most; undefined if they never do, but call anew at other times. */
  readonly lateMs: number | undefined
  readonly seed?: number
}

/** Clients whose calls wait take all quota that they get; the pollers' client never waits. */
async function tell({ gateways, requests, windowMs, pollers, lateMs, seed = 1 }: Story) {
  const world = new World()
  const random = seededRandom(seed)
  const store = new Store(world, random, modelHost(), { leastMs: 0.1, meanMs: 0.3 })
  const chargeSet = chargeSetOf('it/main', [{ limit: limitOf({ id: 'read', class: 'read', requests, windowMs }) }])
  const sent: number[] = []
  const told = { back: 0, served: 0 }
  const queues: AdmissionQueue[] = []
  const capacities: ClassCapacity[] = []
  for (let i = 0; i < Math.max(1, gateways); i++) {
    const { clock } = new Process(world, 0)
    const runner = new Connection(store, new Process(world, 0), () => undefined)
    const ledger: Ledger =
      gateways === 0
        ? new MemoryLedger(clock)
        : new RedisLedger({ runner, clock, gateway: `${i}`, prefix: 'claims', answerWithinMs: 1e12 })
    const capacity = new ClassCapacity([new QueueCapacity(10_000, 'calls')])
    const queue = new AdmissionQueue({ ledger, clock, name: 'read', partition: chargeSet.partition, capacity })
    queues.push(queue)
    capacities.push(capacity)
    const sleep = (ms: number) => new Promise<void>((resolve) => void clock.schedule(ms, resolve))
    const enter = (client: QueuedClient, maxWaitMs: number) =>
      queue.enter({ chargeSet, client, priority: 'normal', maxWaitMs, comesBack: true })
    const send = async (admission: Awaited<ReturnType<typeof enter>>): Promise<void> => {
      if (admission.kind !== 'admitted') throw new Error(admission.kind)
      sent.push(world.now)
      await sleep(LATENCY_MS.min + random() * (LATENCY_MS.max - LATENCY_MS.min))
      admission.permit.commit()
      admission.permit.leave()
    }
    const wait = async (client: QueuedClient): Promise<void> => {
      for (;;) {
        const admission = await enter(client, 1e9)
        if (admission.kind === 'closed') return
        await send(admission)
      }
    }
    for (let n = 0; n < 60; n++) void wait(queuedClient(`waiter-${n % 3}`))
    const poll = async (client: QueuedClient): Promise<void> => {
      await sleep(windowMs * (2 + random()))
      let wasTold = false
      for (;;) {
        const admission = await enter(client, 0)
        if (admission.kind === 'closed') return
        const isServed = admission.kind === 'admitted'
        if (wasTold) told.back++
        if (wasTold && isServed) told.served++
        wasTold = false
        if (isServed) {
          await send(admission)
          await sleep(random() * windowMs)
        } else if ('waitMs' in admission && lateMs !== undefined) {
          wasTold = true
          await sleep(Math.max(1, Math.ceil(admission.waitMs / 1_000)) * 1_000 + random() * lateMs)
        } else await sleep(windowMs * (2 + random()))
      }
    }
    for (let n = 0; n < pollers; n++) if (n % Math.max(1, gateways) === i) void poll(queuedClient('poller'))
  }
  await world.runUntil(world.now + 20 * windowMs)
  const meanMs = (LATENCY_MS.min + LATENCY_MS.max) / 2
  const used = (sent.length / (20 * requests)) * ((windowMs + meanMs) / windowMs)
  return { told, used, worst: worstCount(sent, windowMs), queues, capacities, world }
}

describe.each([
  ['the embedded ledger', 0],
  ['a gateway with Redis', 1],
  ['three gateways that share a Redis', 3],
])('calls that may not wait, at %s that others saturate', (_, gateways) => {
  it.each([
    ['one caller, a window of 10 s', { requests: 100, windowMs: 10_000, pollers: 1 }],
    ['sixteen callers, a window of 60 s', { requests: 300, windowMs: 60_000, pollers: 16 }],
    ['sixteen callers, 100 in a window of 60 s', { requests: 100, windowMs: 60_000, pollers: 16 }],
    ['six callers, a window of 20 s', { requests: 60, windowMs: 20_000, pollers: 6 }],
  ])('are served when they come back as they were told: %s', async (name, story) => {
    const { told, worst, used } = await tell({ gateways, lateMs: 300, ...story })
    console.log(`${gateways} gateways, ${name}: ${told.served} of ${told.back} calls that came back were served`)
    expect(told.back).toBeGreaterThan(10)
    expect(told.served / told.back, JSON.stringify(told)).toBeGreaterThan(0.9)
    expect(worst).toBeLessThanOrEqual(story.requests)
    expect(used).toBeGreaterThan(0.95)
  })

  it('cost little if they never come back', async () => {
    const story = { requests: 300, windowMs: 60_000, pollers: 16 }
    const { used } = await tell({ gateways, lateMs: undefined, ...story })
    expect(used).toBeGreaterThan(0.95)
  })
})

it('a queue that is closed keeps no turn, and gives back what it held', async () => {
  const { queues, capacities, world } = await tell({
    gateways: 0,
    requests: 60,
    windowMs: 20_000,
    pollers: 6,
    lateMs: 300,
  })
  for (const queue of queues) queue.close('draining')
  await world.runUntil(world.now + 1_000)
  expect(queues.map(({ waiting }) => waiting)).toEqual([0])
  expect(capacities.map(({ inFlight, waiting }) => ({ inFlight, waiting }))).toEqual([{ inFlight: 0, waiting: 0 }])
})
