import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import type { Admission, QueuedClient } from '../../src/queue/admission.ts'
import type { Priority } from '../../src/ledger/demand.ts'
import { type Ledger, chargeSetOf, StoreUnavailableError } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { WorkerLedger } from '../../src/ledger/workers/worker-ledger.ts'
import { LedgerService } from '../../src/ledger/workers/ledger-service.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import type { Argument, Reply } from '../../src/ledger/redis/protocol.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { worstCount } from '../support/worst-count.ts'
import { modelHost } from './simulation.ts'
import { Connection, Store } from './store.ts'
import { Process, World } from './world.ts'

/** Calls of one client that one gateway gets. */
export interface Source {
  readonly client: QueuedClient
  readonly gateway: number
  /** On average, at random instants; or so many callers each of whom comes again as soon as its call is answered. */
  readonly load: { readonly callsPerSecond: number } | { readonly callers: number }
  readonly priority?: Priority
  readonly maxWaitMs?: number
  /** From the beginning; by default always. */
  readonly fromMs?: number
  readonly untilMs?: number
}

export interface FairnessCase {
  readonly seed: number
  readonly gateways: number
  readonly requests: number
  readonly windowMs: number
  readonly meanLatencyMs: number
  readonly durationMs: number
  readonly sources: readonly Source[]
  /** Calls that may be in flight at once, by gateway; any number where it is not given. */
  readonly concurrency?: readonly number[]
  /** They are workers of one machine, whose first process has the embedded ledger. */
  readonly areWorkers?: boolean
  /** A gateway dies at that instant. */
  readonly crash?: { readonly gateway: number; readonly atMs: number }
  /** Redis can't be reached for so long. */
  readonly outage?: { readonly atMs: number; readonly ms: number }
  /** A single gateway has the embedded store, unless this says otherwise. */
  readonly isShared?: boolean
}

export interface Visit {
  readonly client: string
  readonly gateway: number
  readonly kind: string
  /** Since the beginning. */
  readonly cameMs: number
  readonly endedMs: number
  /** When it was first said that its turn would be, after it came; undefined if it did not have to wait. */
  readonly expectedMs: number | undefined
}

export interface FairnessOutcome {
  readonly visits: readonly Visit[]
  /**
   * Commands that Redis ran: charges, commits alone, renewals of leases, exchanges of who waits where, and looks into the register of
   * partitions.
   */
  readonly commands: Record<Command, number>
  /** What gateways and Redis told each other by these, in both directions, without the frame around each argument. */
  readonly bytes: Record<Command, number>
  /** The most calls that the upstream counted in one window. It counts each at some instant between dispatch and response. */
  readonly worst: number
  readonly waitingAtEnd: number
}

type Command = 'charges' | 'commits' | 'renewals' | 'exchanges' | 'looks'

const PARTITION = 'upstream/account'

/** Several gateways, and several clients that want more than there is. */
export async function simulateFairness(of: FairnessCase): Promise<FairnessOutcome> {
  const world = new World()
  const beginning = world.now
  const random = seededRandom(of.seed)
  const host = modelHost()
  const commands = { charges: 0, commits: 0, renewals: 0, exchanges: 0, looks: 0 }
  const bytes = { ...commands }
  const count = (what: Command, keys: readonly string[], args: readonly Argument[], replyBytes: number): void => {
    commands[what]++
    bytes[what] += bytesOf(keys) + bytesOf(args) + replyBytes
  }
  const store = new Store(
    world,
    random,
    {
      ...host,
      run(keys, args) {
        const what = Number(args[5]) > 0 ? 'renewals' : Number(args[2]) > 0 ? 'charges' : 'commits'
        const reply = host.run(keys, args) as Reply
        count(what, keys, args, 8 * reply.length) // doubles
        return reply
      },
      runExchange(keys, args) {
        const reply = host.runExchange(keys, args) as string
        count('exchanges', keys, args, reply.length)
        return reply
      },
      runRegister(keys, args) {
        const reply = host.runRegister(keys, args) as readonly Argument[]
        count('looks', keys, args, bytesOf(reply))
        return reply
      },
    },
    { leastMs: 0.1, meanMs: 0.4 },
  )
  const limit = limitOf({ id: 'only', class: 'any', requests: of.requests, windowMs: of.windowMs })
  const chargeSet = chargeSetOf(PARTITION, [{ limit }])
  const visits: Visit[] = []
  const first = new Process(world, 0)
  const service = new LedgerService(new MemoryLedger(first.clock), first.clock)
  const workerOf = (process: Process): WorkerLedger => {
    const soon = (to: Process, run: () => void): void => to.receive(world.now + 0.2, run)
    const connection = service.open((answers) => soon(process, () => ledger.receive(answers)))
    const ledger: WorkerLedger = new WorkerLedger(process.clock, (told) => soon(first, () => connection.receive(told)))
    return ledger
  }
  const arrivals: number[] = []
  const gateways = Array.from({ length: of.gateways }, (_, i) => {
    const process = new Process(world, (random() - 0.5) * 2_000)
    const { clock } = process
    let ledger: Ledger = new MemoryLedger(clock)
    if (of.areWorkers === true) ledger = workerOf(process)
    else if (of.isShared ?? of.gateways > 1) {
      const runner = new Connection(store, process, () => undefined)
      ledger = new RedisLedger({ runner, clock, gateway: `${i}`, prefix: 'fair', answerWithinMs: 50 })
    }
    const capacity = new ClassCapacity([new QueueCapacity(100_000, 'calls')], { concurrency: of.concurrency?.[i] })
    return { process, queue: new AdmissionQueue({ ledger, clock, name: 'any', partition: PARTITION, capacity }) }
  })

  async function visit({ client, gateway, priority = 'normal', maxWaitMs = 1e9 }: Source): Promise<void> {
    const { queue, process } = gateways[gateway]!
    const cameMs = world.now - beginning
    let admission: Admission | { readonly kind: 'store_unavailable' }
    try {
      admission = await queue.enter({ client, priority, chargeSet, maxWaitMs })
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error
      admission = { kind: 'store_unavailable' }
    }
    const expectedMs = admission.kind === 'admitted' ? admission.wait?.expectedMs : undefined
    visits.push({
      client: client.name,
      gateway,
      kind: admission.kind,
      cameMs,
      endedMs: world.now - beginning,
      expectedMs,
    })
    if (admission.kind !== 'admitted') return
    const latencyMs = -Math.log(1 - random()) * of.meanLatencyMs
    arrivals.push(world.now + random() * latencyMs)
    await new Promise<void>((resolve) => process.receive(world.now + latencyMs, resolve))
    admission.permit.commit()
    admission.permit.leave()
  }

  for (const source of of.sources) {
    const { process } = gateways[source.gateway]!
    const { load, fromMs = 0, untilMs = Infinity } = source
    const isOver = (): boolean => process.isDead || world.now - beginning > untilMs
    const come = (callsPerSecond: number): void => {
      if (isOver()) return
      void visit(source)
      world.at(world.now - (Math.log(1 - random()) * 1_000) / callsPerSecond, () => come(callsPerSecond))
    }
    const comeAgain = async (): Promise<void> => {
      while (!isOver()) await visit(source)
    }
    world.at(beginning + fromMs + random() * 100, () => {
      if ('callsPerSecond' in load) come(load.callsPerSecond)
      else for (let n = 0; n < load.callers; n++) void comeAgain()
    })
  }
  if (of.crash !== undefined) {
    const { gateway, atMs } = of.crash
    world.at(beginning + atMs, () => gateways[gateway]!.process.die())
  }
  if (of.outage !== undefined) {
    const { atMs, ms } = of.outage
    world.at(beginning + atMs, () => {
      void host.keep()
      store.fail({ downMs: ms, isSilent: false, contents: 'kept' })
    })
  }
  await world.runUntil(beginning + of.durationMs)
  arrivals.sort((a, b) => a - b)
  const living = gateways.filter(({ process }) => !process.isDead)
  const waitingAtEnd = living.reduce((sum, { queue }) => sum + queue.waiting, 0)
  return { visits, commands, bytes, worst: worstCount(arrivals, of.windowMs), waitingAtEnd }
}

function bytesOf(told: readonly Argument[]): number {
  return told.reduce<number>((sum, one) => sum + Buffer.byteLength(String(one)), 0)
}

/** By client, its part of what was admitted between two instants. */
export function partsOf({ visits }: FairnessOutcome, fromMs: number, untilMs: number): Record<string, number> {
  const admitted = visits.filter(({ kind, endedMs }) => kind === 'admitted' && endedMs >= fromMs && endedMs < untilMs)
  const counts = Object.groupBy(admitted, ({ client }) => client)
  return Object.fromEntries(Object.entries(counts).map(([client, of]) => [client, of!.length / admitted.length]))
}

export function admittedBetween({ visits }: FairnessOutcome, fromMs: number, untilMs: number): number {
  return visits.filter(({ kind, endedMs }) => kind === 'admitted' && endedMs >= fromMs && endedMs < untilMs).length
}
