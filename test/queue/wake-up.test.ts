import { describe, expect, it } from 'vitest'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { chargeSetOf, type Grant, type Ledger } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import type { Admission } from '../../src/queue/admission.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import type { Permit } from '../../src/queue/permit.ts'
import { Cancellation } from '../../src/time/cancellation.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const SEEDS = Array.from({ length: 40 }, (_, i) => i + 1)
const WINDOW_MS = 2_000
const STEP_MS = 5
const LOAD_MS = 12_000
/** By then every call has been admitted, or its time is up. */
const END_MS = 22_000
/** A charge and its answer are under way for 6 ms at most, and there may be some in a row. */
const IDLE_MS = 60

/** A ledger that is somewhere else: a charge arrives later, and its answer comes later still. */
function faraway(near: MemoryLedger, clock: SimulatedClock, random: () => number): Ledger {
  const lateMs = (): number => (random() < 0.3 ? 0 : random() * 3)
  const charge: Ledger['charge'] = (...asked) => {
    const { promise, resolve } = Promise.withResolvers<Grant>()
    clock.schedule(lateMs(), () => {
      const grant = near.charge(...asked)
      clock.schedule(lateMs(), () => resolve(grant))
    })
    return promise
  }
  return new Proxy<Ledger>(near, {
    get(target, name: keyof Ledger) {
      if (name === 'charge') return charge
      const value: unknown = target[name]
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

/** Calls that end in all ways, some at once: answered, given up, not sent at all, or left by their clients. */
async function run(seed: number): Promise<{ idleMs: number; charges: number; calls: number; waiting: number }> {
  const random = seededRandom(seed)
  const below = (most: number): number => Math.floor(random() * most)
  const clock = new SimulatedClock(1_700_000_000_000)
  const near = new MemoryLedger(clock)
  const ledger = seed % 3 === 0 ? near : faraway(near, clock, random)
  const limit = limitOf({ id: 'limit', class: 'read', requests: 5 + below(20), windowMs: WINDOW_MS })
  const chargeSet = chargeSetOf('partition', [{ limit }])
  const capacity = new ClassCapacity([new QueueCapacity(1_000, 'calls')])
  const queue = new AdmissionQueue({ ledger, clock, name: 'queue', partition: 'partition', capacity })
  let [charges, calls, idleMs, worstMs] = [0, 0, 0, 0]
  const charge = near.charge.bind(near)
  near.charge = (...asked) => {
    charges++
    return charge(...asked)
  }
  const end = (permit: Permit): void => {
    const how = random()
    if (how > 0.3) permit.sent()
    if (how > 0.6) permit.commit()
    permit[Symbol.dispose]()
  }
  const use = async (admission: Admission, isGone: boolean): Promise<void> => {
    if (admission.kind !== 'admitted') return
    const how = random()
    if (isGone || how < 0.15) return admission.permit[Symbol.dispose]()
    if (how > 0.3) return void clock.schedule(random() * 400, () => end(admission.permit))
    for (let turns = below(8); turns > 0; turns--) await Promise.resolve()
    end(admission.permit)
  }
  const enter = async (): Promise<void> => {
    calls++
    const cancellation = new Cancellation()
    if (random() < 0.3) clock.schedule(random() * 3_000, () => cancellation.cancel())
    const client = { name: `client ${below(3)}`, weight: 1 + below(3), share: 0, priority: 'interactive' as const }
    const priority = (['interactive', 'normal', 'batch'] as const)[below(3)]!
    const maxWaitMs = random() < 0.2 ? 0 : random() * 8_000
    const admission = await queue.enter({ chargeSet, maxWaitMs, client, priority, cancellation })
    await use(admission, cancellation.isCancelled)
  }
  for (let at = 0; at < END_MS; at += STEP_MS) {
    if (at < LOAD_MS && random() < 0.12) for (let n = 1 + below(5); n > 0; n--) void enter()
    await clock.advance(STEP_MS)
    const [{ used } = { used: 0 }] = await near.usage(chargeSet)
    idleMs = queue.waiting > 0 && used < limit.requests ? idleMs + STEP_MS : 0
    worstMs = Math.max(worstMs, idleMs)
  }
  return { idleMs: worstMs, charges, calls, waiting: queue.waiting }
}

describe('calls that wait', () => {
  it.each(SEEDS)('are woken when quota comes back, whatever happens just then, with seed %i', async (seed) => {
    const { idleMs, charges, calls, waiting } = await run(seed)
    expect(waiting).toBe(0)
    expect(idleMs).toBeLessThanOrEqual(IDLE_MS)
    // Nobody asks again and again for what is not there.
    expect(charges).toBeLessThan(calls)
  })
})
