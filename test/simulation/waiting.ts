import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import { type Ledger, chargeSetOf, StoreUnavailableError } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { modelHost } from './simulation.ts'
import { COMMAND_TIMEOUT_MS, Connection, Store } from './store.ts'
import { Process, World } from './world.ts'
import { Leaving } from '../support/leaving.ts'

export interface WaitingOutcome {
  /** By how a wait ended, how many did. */
  readonly ends: Readonly<Record<string, number>>
  /** How much longer than it might anyone waited, at living gateways. */
  readonly latestMs: number
  /** At living gateways. */
  readonly unended: number
  readonly inFlight: number
  readonly waiting: number
  /** Units that still count as in flight, once all has ended. */
  readonly counted: number
  /** Of gateways to which calls came, those that admitted none any more long after the last failure. */
  readonly stuck: number
}

const LOAD_MS = 45_000
/** Nothing fails any more after that, and a few seconds. */
const FAILING_MS = 15_000
/** By then all is as if nothing had failed. */
const WELL_FROM_MS = 27_000
/** The last calls wait for two windows of ten seconds, are then under way for a while, and count for a window after that. */
const REST_MS = 35_000

/**
 * A random case: one to four gateways, queues that share a concurrency, calls of different units, clients that leave, a Redis
 * that fails, a gateway that dies and one whose queues are closed.
 */
export async function simulateWaiting(seed: number): Promise<WaitingOutcome> {
  const random = seededRandom(seed)
  const below = (most: number): number => Math.floor(random() * most)
  const world = new World()
  const beginning = world.now
  const store = new Store(world, random, modelHost(), { leastMs: 0.1, meanMs: 0.4 })
  const count = 1 + below(4)
  const isShared = count > 1 || random() < 0.5
  const windowMs = [1_000, 5_000, 10_000][below(3)]!
  const window = limitOf({ id: 'window', class: 'any', requests: 3 + below(40), windowMs })
  const atOnce = limitOf({ id: 'at once', class: 'any', kind: 'concurrent', requests: 3 + below(8), windowMs: 0 })
  const limits = [[], [window], [atOnce], [window, atOnce]][below(4)]!
  const chargeSets = [1, 1, 1 + below(3)].map((units) =>
    chargeSetOf(
      'partition',
      limits.map((limit) => ({ limit, units: limit === window ? units : 1 })),
    ),
  )
  const clients = Array.from({ length: 1 + below(5) }, (_, i) => ({
    name: `client ${i}`,
    weight: [0.1, 1, 1, 5][below(4)]!,
    share: random() < 0.3 ? 0.2 : 0,
    priority: 'interactive' as const,
  }))
  const concurrency = limits.length === 0 || random() < 0.4 ? 1 + below(8) : undefined
  const gateways = Array.from({ length: count }, (_, i) => {
    const process = new Process(world, (random() - 0.5) * 2_000)
    const { clock } = process
    let ledger: Ledger = new MemoryLedger(clock)
    if (isShared) {
      const runner = new Connection(store, process, () => undefined)
      ledger = new RedisLedger({ runner, clock, gateway: `${i}`, prefix: 'wait', answerWithinMs: COMMAND_TIMEOUT_MS })
    }
    const capacities = [new QueueCapacity(below(2) === 0 ? 1_000 : 10, 'calls')]
    const capacity = new ClassCapacity(capacities, { concurrency, mostPerClient: below(2) === 0 ? 5 : undefined })
    const queues = ['one', 'one', 'two'].map(
      (name) => new AdmissionQueue({ ledger, clock, name, partition: 'partition', capacity }),
    )
    return { process, queues, capacity, ledger, lastAdmittedMs: 0, isClosed: false }
  })
  const ends: Record<string, number> = {}
  const open = new Set<{ process: Process }>()
  let latestMs = 0

  async function visit(gateway: (typeof gateways)[number]): Promise<void> {
    const { process, queues } = gateway
    const visitor = { process }
    open.add(visitor)
    const since = world.now
    const maxWaitMs = random() < 0.1 ? 0 : random() * 2 * windowMs
    const leavesAt = random() < 0.2 ? world.now + random() * windowMs : Infinity
    const queue = queues[below(queues.length)]!
    let end: string
    try {
      const admission = await queue.enter({
        client: clients[below(clients.length)]!,
        priority: (['interactive', 'normal', 'batch'] as const)[below(3)]!,
        chargeSet: chargeSets[below(chargeSets.length)]!,
        maxWaitMs,
        cancellation: new Leaving((leave) => {
          if (leavesAt < Infinity) process.receive(leavesAt, leave)
          return undefined
        }),
      })
      end = admission.kind
      if (admission.kind === 'admitted') {
        gateway.lastAdmittedMs = world.now - beginning
        const { permit } = admission
        const how = below(4)
        const work = async (): Promise<void> => {
          if (how === 0) permit.refund()
          else {
            await at(process, -Math.log(1 - random()) * 200)
            if (how === 1) permit.abandon()
            else permit.commit()
            await at(process, random() * 50)
          }
          permit.leave()
        }
        void work()
      }
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error
      end = 'store_unavailable'
    }
    latestMs = Math.max(latestMs, world.now - since - maxWaitMs)
    ends[end] = (ends[end] ?? 0) + 1
    open.delete(visitor)
  }

  function at(process: Process, delayMs: number): Promise<void> {
    return new Promise((resolve) => process.receive(world.now + delayMs, resolve))
  }

  const failures: unknown[] = []
  const perSecond = count * (2 + random() * 20)
  for (let ms = 0; ms < LOAD_MS; ms -= (Math.log(1 - random()) * 1_000) / perSecond) {
    const gateway = gateways[below(count)]!
    gateway.process.receive(beginning + ms, () => void visit(gateway).catch((error: unknown) => failures.push(error)))
  }
  if (isShared) {
    for (let n = below(4); n > 0; n--) {
      const downMs = 20 + random() * 4_000
      const [isSilent, contents] = [random() < 0.5, random() < 0.5 ? 'kept' : 'nothing'] as const
      world.at(beginning + random() * FAILING_MS, async () => {
        if (!store.isUp) return
        await store.host.keep()
        store.fail({ downMs, isSilent, contents })
      })
    }
  }
  if (count > 1 && random() < 0.5) world.at(beginning + random() * FAILING_MS, () => gateways[0]!.process.die())
  const closing = gateways.at(-1)!
  if (random() < 0.3) {
    closing.process.receive(beginning + random() * FAILING_MS, () => {
      closing.isClosed = true
      for (const queue of closing.queues) queue.close('draining')
    })
  }
  await world.runUntil(beginning + LOAD_MS + REST_MS)
  if (failures.length > 0) throw failures[0]
  const living = gateways.filter(({ process }) => !process.isDead)
  const sum = (of: (gateway: (typeof gateways)[number]) => number): number =>
    living.reduce((total, gateway) => total + of(gateway), 0)
  const chargeSet = chargeSets[0]!
  let counted = 0
  const read = living[0]!.ledger.usage(chargeSet).then((usage) => {
    for (const { used } of usage) counted += used
  })
  await world.runUntil(world.now + 1_000)
  await read
  return {
    ends,
    latestMs,
    unended: [...open].filter(({ process }) => !process.isDead).length,
    inFlight: sum(({ capacity }) => capacity.inFlight),
    waiting: sum(({ capacity, queues }) => capacity.waiting + queues.reduce((all, queue) => all + queue.waiting, 0)),
    counted,
    stuck: living.filter(({ isClosed, lastAdmittedMs }) => !isClosed && lastAdmittedMs < WELL_FROM_MS).length,
  }
}
