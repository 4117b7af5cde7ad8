import { describe, expect, it } from 'vitest'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { type ChargeSet, chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import type { Priority } from '../../src/ledger/demand.ts'
import type { Admission } from '../../src/queue/admission.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import { Cancellation } from '../../src/time/cancellation.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const WINDOW_MS = 60_000
const HOUR = 60 * WINDOW_MS

function chargeSetsOf(requests: number): (units: number) => ChargeSet {
  const limit = limitOf({ id: 'limit', class: 'read', requests, windowMs: WINDOW_MS, isVaried: true })
  const byUnits = new Map<number, ChargeSet>()
  return (units) => byUnits.getOrInsertComputed(units, () => chargeSetOf('partition', [{ limit, units }]))
}

/** Five of ten units are used, and a call of ten waits. */
function setUp() {
  const clock = new SimulatedClock()
  const of = chargeSetsOf(10)
  const capacity = new ClassCapacity([new QueueCapacity(100, 'calls')])
  const ledger = new MemoryLedger(clock)
  const queue = new AdmissionQueue({ ledger, clock, name: 'queue', partition: 'partition', capacity })
  const enter = (
    units: number,
    maxWaitMs: number,
    { client = 'a', priority = 'normal' }: { client?: string; priority?: Priority } = {},
  ) => {
    const cancellation = new Cancellation()
    const entry: { admission?: Admission; leave: () => void } = { leave: () => cancellation.cancel() }
    const entered = queue.enter({
      chargeSet: of(units),
      maxWaitMs,
      client: { name: client, weight: 1, share: 0, priority: 'interactive' },
      priority,
      cancellation,
    })
    void Promise.resolve(entered).then((admission) => {
      entry.admission = admission
      if (admission.kind !== 'admitted') return
      admission.permit.commit()
      admission.permit.leave()
    })
    return entry
  }
  enter(5, 0)
  return { clock, queue, enter, big: enter(10, HOUR) }
}

describe('calls that cost different units of one limit', () => {
  it('have their turn as soon as a larger one leaves that was first', async () => {
    const { clock, enter, big } = setUp()
    const small = [enter(1, HOUR, { client: 'b' }), enter(1, HOUR, { client: 'b' })]
    await clock.advance(100)
    expect(small.map(({ admission }) => admission)).toEqual([undefined, undefined])
    big.leave()
    await clock.advance(10)
    expect(small.map(({ admission }) => admission?.kind)).toEqual(['admitted', 'admitted'])
  })

  it('go before a larger one, which has no room yet, if they are first', async () => {
    const { clock, enter, big } = setUp()
    await clock.advance(100)
    const urgent = enter(1, 10_000, { priority: 'interactive' })
    await clock.advance(10)
    expect(urgent.admission?.kind).toBe('admitted')
    await clock.advance(WINDOW_MS - 1_000)
    expect(big.admission).toBeUndefined()
    await clock.advance(2_000)
    expect(big.admission?.kind).toBe('admitted')
  })

  it('do not pass a larger one that came before them', async () => {
    const { clock, enter, big } = setUp()
    const small = enter(1, HOUR)
    await clock.advance(WINDOW_MS + 1_000)
    expect([big.admission?.kind, small.admission]).toEqual(['admitted', undefined])
    await clock.advance(WINDOW_MS + 1_000)
    expect(small.admission?.kind).toBe('admitted')
  })

  it('go on after a reload by which one of them costs more than the limit ever allows', async () => {
    const { clock, queue, enter, big } = setUp()
    const small = enter(1, HOUR)
    await clock.advance(100)
    const now = chargeSetsOf(8)
    queue.replaceChargeSets(({ units }) => now(units[0]!))
    await clock.advance(10)
    expect(big.admission).toMatchObject({ kind: 'too_expensive', units: 10, limit: { requests: 8 } })
    expect(small.admission?.kind).toBe('admitted')
    expect(queue.waiting).toBe(0)
  })
})
