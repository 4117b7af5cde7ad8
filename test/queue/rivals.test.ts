import { describe, expect, it } from 'vitest'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { type ChargeSet, chargeSetOf, type Grant, type Ledger, type QueueTurn } from '../../src/ledger/ledger.ts'
import { type LimitSpec, limitOf } from '../../src/ledger/limit.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import { Cancellation } from '../../src/time/cancellation.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const MINUTE = 60_000
const all = { id: 'all', class: 'all', requests: 60 }

/**
 * Calls of three classes wait for one limit. Those of the first are always there, and more than the limit lets through. They alone are
 * charged to the limits of `beside`, too.
 */
async function serve(limit: LimitSpec, latencyMs: number, minutes: number, beside: readonly LimitSpec[] = []) {
  const clock = new SimulatedClock(10 * MINUTE)
  const ledger = new MemoryLedger(clock)
  const shared = { limit: limitOf(limit) }
  const few = chargeSetOf('partition', [shared])
  const chargeSets = {
    read: chargeSetOf('partition', [shared, ...beside.map((one) => ({ limit: limitOf(one) }))]),
    write: few,
    search: few,
  }
  const served = { read: 0, write: 0, search: 0 }
  const refused: string[] = []
  const send = (name: keyof typeof served, queue: AdmissionQueue): void => {
    const client = { name, weight: 1, share: 0, priority: 'normal' } as const
    const entered = queue.enter({ chargeSet: chargeSets[name], maxWaitMs: 10 * MINUTE, client, priority: 'normal' })
    void Promise.resolve(entered).then((admission) => {
      if (admission.kind !== 'admitted') return refused.push(name)
      served[name]++
      return clock.schedule(latencyMs, () => {
        admission.permit.commit()
        admission.permit.leave()
        send(name, queue)
      })
    })
  }
  for (const [name, calls] of [
    ['read', 300],
    ['write', 5],
    ['search', 5],
  ] as const) {
    const capacity = new ClassCapacity([new QueueCapacity(1_000, name)])
    const queue = new AdmissionQueue({ ledger, clock, name, partition: 'partition', capacity })
    for (let i = 0; i < calls; i++) send(name, queue)
    await clock.advance(10)
  }
  await clock.advance(minutes * MINUTE)
  return { served, refused }
}

describe('queues that wait for the same limit', () => {
  it('are asked when quota goes back that was granted to calls of another one, which left meanwhile', async () => {
    const clock = new SimulatedClock(10 * MINUTE)
    const inner = new MemoryLedger(clock)
    const chargeSet = chargeSetOf('partition', [{ limit: limitOf({ ...all, requests: 2, windowMs: MINUTE }) }])
    const grantedTo: string[] = []
    // As in another process: the answer takes a while.
    const ledger: Ledger = Object.assign(Object.create(inner) as Ledger, {
      charge: async (of: ChargeSet, wanted: number, turn?: QueueTurn) => {
        const grant = inner.charge(of, wanted, turn)
        if (turn !== undefined) grantedTo.push(...turn.costs.slice(0, grant.granted).map(([client]) => client))
        await new Promise<void>((resolve) => void clock.schedule(10, resolve))
        return grant
      },
      commit: (grant: Grant) => inner.commit(grant),
      refund: (grant: Grant) => inner.refund(grant),
      leave: (grant: Grant) => inner.leave(grant),
    })
    for (let i = 0; i < 2; i++) inner.commit(inner.charge(chargeSet, 1))
    const queues = new Map<string, AdmissionQueue>()
    const queueOf = (name: string): AdmissionQueue => {
      const capacity = new ClassCapacity([new QueueCapacity(1_000, name)])
      return new AdmissionQueue({ ledger, clock, name, partition: 'partition', capacity })
    }
    const enter = (name: string, cancellation?: Cancellation) => {
      const queue = queues.getOrInsertComputed(name, queueOf)
      const client = { name, weight: 1, share: 0, priority: 'normal' } as const
      const entered = queue.enter({ chargeSet, maxWaitMs: 10 * MINUTE, client, priority: 'normal', cancellation })
      const call = { admittedAt: Infinity }
      void Promise.resolve(entered).then(({ kind }) => kind === 'admitted' && (call.admittedAt = clock.now()))
      return call
    }
    const cancellation = new Cancellation()
    for (let i = 0; i < 2; i++) enter('read', cancellation)
    const others = [enter('write'), enter('search')]
    while (grantedTo.length === 0) await clock.advance(1)
    expect(grantedTo).toEqual(['read', 'read'])
    await clock.advance(5)
    const leftAt = clock.now()
    cancellation.cancel()
    await clock.advance(5 * MINUTE)
    for (const { admittedAt } of others) expect(admittedAt - leftAt).toBeLessThan(1_000)
  })

  it('are all served, though the calls of one give back what the others do not wait for', async () => {
    const inFlight = { id: 'slots', class: 'read', requests: 100, kind: 'concurrent' } as const
    const { served, refused } = await serve({ ...all, windowMs: MINUTE }, 30, 20, [inFlight])
    expect(refused).toEqual([])
    expect(Math.min(served.write, served.search)).toBeGreaterThan(30)
  })

  it.each([
    ['a rolling window', { ...all, windowMs: MINUTE }, 30, 20],
    ['a window of the calendar', { ...all, windowMs: MINUTE, kind: 'calendar' }, 30, 20],
    ['a short window', { ...all, requests: 3, windowMs: 1_000 }, 5, 2],
    ['calls in flight', { ...all, requests: 5, kind: 'concurrent' }, 300, 1],
  ] as const)('of %s are all served, though one always has calls waiting', async (_, limit, latencyMs, minutes) => {
    const { served, refused } = await serve(limit, latencyMs, minutes)
    expect(refused).toEqual([])
    const total = served.read + served.write + served.search
    // At most every second time are the few calls too late.
    expect(Math.min(served.write, served.search)).toBeGreaterThan(total / 40)
    expect(served.read).toBeGreaterThan(total / 4)
  })
})
