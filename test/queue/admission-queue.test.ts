import { describe, expect, it } from 'vitest'
import type { Clock } from '../../src/time/clock.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import type { QueuedClient } from '../../src/queue/admission.ts'
import {
  type Grant,
  type Ledger,
  type LimitUsage,
  type ChargeSet,
  chargeSetOf,
  StoreUnavailableError,
} from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import type { Priority } from '../../src/ledger/demand.ts'
import type { Permit } from '../../src/queue/permit.ts'
import type { Admission, WaitRecord } from '../../src/queue/admission.ts'
import { type QueueView, AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { Cancellation } from '../../src/time/cancellation.ts'

const MINUTE = 60_000
/** The ledger's own timer, for calls that are in flight. */
const RENEWALS = 1
const read = limitOf({ id: 'read.60000', class: 'read', requests: 2, windowMs: MINUTE })
const reads: ChargeSet = chargeSetOf('harness/prod', [{ limit: read }])
const named = { name: 'prod:read', partition: 'harness/prod' }
const anyone = { client: queuedClient('anyone'), priority: 'normal' as const }

function queuedClient(name: string, weight = 1, share = 0): QueuedClient {
  return { name, weight, share, priority: 'interactive' }
}

function setUp(options: { maxWaiting?: number; concurrency?: number; ledger?: Ledger; clock?: SimulatedClock } = {}) {
  const { clock = new SimulatedClock() } = options
  const { ledger = new MemoryLedger(clock), maxWaiting = 100, concurrency } = options
  const capacity = new ClassCapacity([new QueueCapacity(maxWaiting, 'calls')], { concurrency })
  const queue = new AdmissionQueue({ ...named, ledger, clock, capacity })
  /** Enters a call; the entry tells what became of it so far. */
  const enter = (maxWaitMs: number, chargeSet = reads) => {
    const cancellation = new Cancellation()
    const entry: { admission?: Admission; error?: unknown; leave: () => void; admittedAt?: number } = {
      leave: () => cancellation.cancel(),
    }
    const admitted = queue.enter({
      ...anyone,
      chargeSet,
      maxWaitMs,
      cancellation,
    })
    void Promise.resolve(admitted).then(
      (admission) => {
        // Answered at once, so that quota comes back a window from now.
        if (admission.kind === 'admitted') admission.permit.commit()
        entry.admission = admission
        entry.admittedAt = clock.now()
      },
      (error: unknown) => void (entry.error = error),
    )
    return entry
  }
  return { clock, ledger, queue, capacity, enter }
}

/** Calls that are sent and answered at once. */
function spend(ledger: MemoryLedger, calls: number): void {
  const grant = ledger.charge(reads, calls)
  for (let i = 0; i < grant.granted; i++) ledger.commit(grant)
}

function permitOf(entry: { admission?: Admission }): Permit {
  if (entry.admission?.kind !== 'admitted') throw new Error(`not admitted but ${entry.admission?.kind}`)
  return entry.admission.permit
}

describe('an admission queue', () => {
  it('lets a call pass for which there is quota', async () => {
    const { clock, enter, queue } = setUp()
    const call = enter(0)
    await clock.advance(0)
    expect(call.admission).toMatchObject({ kind: 'admitted', because: undefined })
    expect(queue.waiting).toBe(0)
  })

  it('makes calls wait and serves them in the order in which they came', async () => {
    const { clock, enter, queue } = setUp()
    const calls = Array.from({ length: 6 }, () => enter(10 * MINUTE))
    await clock.advance(1)
    expect(calls.map(({ admission }) => admission?.kind)).toEqual(['admitted', 'admitted', ...Array<undefined>(4)])
    expect(queue.waiting).toBe(4)
    await clock.advance(61_000)
    expect(calls.map(({ admission }) => admission?.kind)).toEqual([
      ...Array<string>(4).fill('admitted'),
      undefined,
      undefined,
    ])
    await clock.advance(61_000)
    expect(calls.every(({ admission }) => admission?.kind === 'admitted')).toBe(true)
    expect(queue.waiting).toBe(0)
    expect(clock.timers).toBeLessThanOrEqual(RENEWALS)
  })

  it('does not let a late call pass those that wait', async () => {
    const { clock, enter } = setUp()
    const early = Array.from({ length: 4 }, () => enter(10 * MINUTE))
    await clock.advance(60_000)
    const late = enter(10 * MINUTE)
    await clock.advance(700)
    expect(early.every(({ admission }) => admission?.kind === 'admitted')).toBe(true)
    expect(late.admission).toBeUndefined()
  })

  it('tells of a call that waited what held it back, its place, and who was served before it', async () => {
    const { clock, queue, enter } = setUp()
    const noisy = queuedClient('noisy')
    const from = async (client: QueuedClient): Promise<Admission> => {
      const waiter = { ...anyone, client, chargeSet: reads, maxWaitMs: 10 * MINUTE }
      const admission = await queue.enter(waiter)
      if (admission.kind === 'admitted') admission.permit.commit()
      return admission
    }
    enter(0)
    enter(0)
    const before = [from(noisy), from(noisy)]
    const own = from(noisy)
    await clock.advance(3 * MINUTE)
    for (const one of before) expect(await one).toMatchObject({ kind: 'admitted', wait: { heldBy: read } })
    const { wait } = (await own) as { wait: WaitRecord }
    expect(wait).toMatchObject({ because: 'quota', heldBy: read, position: 3, usage: [{ limit: read, used: 2 }] })
    expect(wait.expectedMs).toBeGreaterThan(MINUTE)
    expect(wait.served).toEqual({ calls: 2, byClient: [['noisy', 2]] })
  })

  it('tells of a call that is refused which of its limits it was', async () => {
    const { enter, clock } = setUp()
    const hour = limitOf({ id: 'read.3600000', class: 'read', requests: 3, windowMs: 60 * MINUTE })
    const both = chargeSetOf('harness/prod', [{ limit: read }, { limit: hour }])
    enter(0, both)
    enter(0, both)
    const first = enter(0, both)
    await clock.advance(2 * MINUTE)
    enter(0, both)
    const second = enter(0, both)
    await clock.advance(0)
    const held = [first, second].map(({ admission }) => (admission as { wait: WaitRecord }).wait.heldBy)
    expect(held).toEqual([read, hour])
  })

  it('refuses at once what could not be admitted in time, with the time at which it could', async () => {
    const { clock, enter } = setUp()
    enter(0)
    enter(0)
    const refused = enter(5_000)
    await clock.advance(0)
    expect(refused.admission).toMatchObject({ kind: 'quota_exhausted' })
    const { waitMs } = refused.admission as { waitMs: number }
    expect(waitMs).toBeGreaterThan(MINUTE - 1)
    expect(waitMs).toBeLessThanOrEqual(MINUTE + 600)
    await clock.advance(waitMs)
    const again = enter(0)
    await clock.advance(0)
    expect(again.admission?.kind).toBe('admitted')
  })

  it('refuses at once what would have its turn at the very end of its time, after calls that are still to be admitted', async () => {
    const { clock, enter } = setUp()
    for (let i = 0; i < 4; i++) enter(10 * MINUTE)
    await clock.advance(0)
    const refused = enter(122_000)
    const waiting = enter(126_000)
    await clock.advance(0)
    expect(refused.admission).toMatchObject({ kind: 'quota_exhausted' })
    expect((refused.admission as { waitMs: number }).waitMs).toBeLessThan(122_000)
    expect(waiting.admission).toBeUndefined()
    await clock.advance(122_000)
    expect(waiting.admission?.kind).toBe('admitted')
  })

  it('lets thousands that get their quota or lose their queue at one moment go on over many turns of the event loop', async () => {
    const clock = new SimulatedClock()
    const limit = limitOf({ id: 'many.60000', class: 'read', requests: 1_000, windowMs: MINUTE })
    const many: ChargeSet = chargeSetOf('harness/prod', [{ limit }])
    const ledger = new MemoryLedger(clock)
    const used = ledger.charge(many, 1_000)
    for (let i = 0; i < used.granted; i++) ledger.commit(used)
    const queues = ['prod:read', 'prod:write'].map((name) => {
      const capacity = new ClassCapacity([new QueueCapacity(1_000, 'calls')])
      return new AdmissionQueue({ ledger, clock, name, partition: 'harness/prod', capacity })
    })
    const told: Record<string, number> = {}
    let turn = 0
    const nextTurn = (): Promise<void> => new Promise((resolve) => void setImmediate(() => resolve(void turn++)))
    const perTurn = new Map<number, number>()
    for (const queue of queues) {
      for (let i = 0; i < 1_000; i++) {
        const waiter = { ...anyone, chargeSet: many, maxWaitMs: 10 * MINUTE }
        void Promise.resolve(queue.enter(waiter)).then(({ kind }) => {
          told[kind] = (told[kind] ?? 0) + 1
          perTurn.set(turn, (perTurn.get(turn) ?? 0) + 1)
        })
      }
    }
    await clock.advance(0)
    const advanced = clock.advance(2 * MINUTE)
    const stop = advanced.then(() => queues.forEach((queue) => queue.close('removed')))
    while ((told['admitted'] ?? 0) + (told['closed'] ?? 0) < 2_000) await nextTurn()
    await stop
    expect(told).toEqual({ admitted: 1_000, closed: 1_000 })
    expect(Math.max(...perTurn.values())).toBeLessThan(100)
  })

  it('charges those whose turn it is a few hundred at a time, in the order in which all would have been served', async () => {
    const CALLS = 1_000
    const clock = new SimulatedClock()
    const limit = limitOf({ id: 'many.60000', class: 'read', requests: CALLS, windowMs: MINUTE })
    const many: ChargeSet = chargeSetOf('harness/prod', [{ limit }])
    const ledger = new MemoryLedger(clock)
    const used = ledger.charge(many, CALLS)
    for (let i = 0; i < CALLS; i++) ledger.commit(used)
    const { queue } = setUp({ clock, ledger, maxWaiting: CALLS })
    const charge = ledger.charge.bind(ledger)
    const together: number[] = []
    ledger.charge = (chargeSet, wanted, turn) => {
      const grant = charge(chargeSet, wanted, turn)
      together.push(grant.granted)
      return grant
    }
    const clients = [queuedClient('one', 3), queuedClient('two', 1)]
    const served: string[] = []
    for (let i = 0; i < CALLS; i++) {
      const client = clients[i % 2]!
      const entry = queue.enter({ ...anyone, client, chargeSet: many, maxWaitMs: 10 * MINUTE })
      void Promise.resolve(entry).then(() => served.push(client.name))
    }
    await clock.advance(2 * MINUTE)
    // Until the first one has no more calls.
    const inTurn = Array.from({ length: 660 }, (_, i) => (i % 4 === 1 ? 'two' : 'one'))
    expect(served.slice(0, 660)).toEqual(inTurn)
    expect(served).toHaveLength(CALLS)
    expect(together.reduce((sum, granted) => sum + granted, 0)).toBe(CALLS)
    expect(Math.max(...together)).toBeLessThanOrEqual(256)
  })

  it('tells of the first and the last of a client as of the same moment', async () => {
    const clock = new SimulatedClock()
    let isTicking = false
    let ticks = 0
    // Time passes while it is read.
    const ticking: Clock = {
      now: () => clock.now() + (isTicking ? ++ticks : 0),
      wall: () => clock.wall(),
      boot: undefined,
      schedule: (delayMs, wake) => clock.schedule(delayMs, wake),
      soon: (run) => clock.soon(run),
    }
    const ledger = new MemoryLedger(clock)
    spend(ledger, 2)
    const queue = new AdmissionQueue({
      ...named,
      ledger,
      clock: ticking,
      capacity: new ClassCapacity([new QueueCapacity(10, 'calls')]),
    })
    void queue.enter({ ...anyone, chargeSet: reads, maxWaitMs: 5 * MINUTE })
    await clock.advance(0)
    isTicking = true
    const [{ nextInMs, lastInMs }] = queue.view() as [QueueView]
    expect(lastInMs).toBe(nextInMs)
  })

  it('counts those ahead when it computes whether a call can be in time', async () => {
    const { clock, enter } = setUp()
    for (let i = 0; i < 4; i++) enter(10 * MINUTE)
    const fifth = enter(70_000)
    await clock.advance(0)
    expect(fifth.admission).toMatchObject({ kind: 'quota_exhausted' })
    expect((fifth.admission as { waitMs: number }).waitMs).toBeGreaterThan(2 * MINUTE - 1)
  })

  it('refuses when as many wait as may', async () => {
    const { clock, enter } = setUp({ maxWaiting: 2 })
    for (let i = 0; i < 4; i++) enter(10 * MINUTE)
    const fifth = enter(10 * MINUTE)
    await clock.advance(0)
    expect(fifth.admission?.kind).toBe('queue_full')
  })

  it('frees the place of a call whose client left', async () => {
    const { clock, enter, queue } = setUp()
    enter(0)
    enter(0)
    const [first, second] = [enter(10 * MINUTE), enter(10 * MINUTE)]
    const third = enter(10 * MINUTE)
    await clock.advance(1_000)
    first.leave()
    second.leave()
    await clock.advance(0)
    expect(first.admission?.kind).toBe('gone')
    expect(queue.waiting).toBe(1)
    await clock.advance(60_000)
    expect(third.admission?.kind).toBe('admitted')
    expect(clock.timers).toBeLessThanOrEqual(RENEWALS)
  })

  it('refuses a call whose time is up because others took the quota that it waited for', async () => {
    const clock = new SimulatedClock()
    const inner = new MemoryLedger(clock)
    const contested: Ledger = Object.assign(Object.create(inner) as Ledger, {
      charge: (chargeSet: ChargeSet, wanted: number) => {
        spend(inner, 2) // another gateway is always a moment sooner
        return inner.charge(chargeSet, wanted)
      },
    })
    spend(inner, 2)
    const { enter, queue } = setUp({ ledger: contested, clock })
    const waiting = enter(61_000)
    await clock.advance(60_999)
    expect(queue.waiting).toBe(1)
    await clock.advance(1)
    expect(waiting.admission).toMatchObject({ kind: 'quota_exhausted' })
    expect((waiting.admission as { waitMs: number }).waitMs).toBeGreaterThan(58_000)
    expect(clock.timers).toBeLessThanOrEqual(RENEWALS)
  })

  it('takes the quota back that was granted to a call that left meanwhile', async () => {
    const clock = new SimulatedClock()
    const inner = new MemoryLedger(clock)
    let answer: (() => void) | undefined
    const slow = withCharge(
      inner,
      (chargeSet, wanted) =>
        new Promise<Grant>((resolve) => void (answer = () => resolve(inner.charge(chargeSet, wanted)))),
    )
    spend(inner, 2)
    const queue = new AdmissionQueue({
      ...named,
      ledger: slow,
      clock,
      capacity: new ClassCapacity([new QueueCapacity(10, 'calls')]),
    })
    const cancellation = new Cancellation()
    const admission = queue.enter({
      ...anyone,
      chargeSet: reads,
      maxWaitMs: 5 * MINUTE,
      cancellation,
    })
    await clock.advance(0)
    answer!()
    await clock.advance(60_700)
    cancellation.cancel()
    answer!()
    await clock.advance(0)
    expect(await admission).toMatchObject({ kind: 'gone' })
    expect((await inner.usage(reads))[0]!.used).toBe(0)
  })

  it('keeps to the concurrency together with the other queues of its class, while the ledger is asked too', async () => {
    const clock = new SimulatedClock()
    const inner = new MemoryLedger(clock)
    const charge = async (chargeSet: ChargeSet, wanted: number): Promise<Grant> => {
      await new Promise<void>((resolve) => void clock.schedule(5, resolve))
      return inner.charge(chargeSet, wanted)
    }
    const slow = withCharge(inner, charge)
    const capacity = new ClassCapacity([new QueueCapacity(100, 'calls')], { concurrency: 3 })
    const queues = [1, 2].map((i) => {
      const limit = limitOf({ id: `read.60000:client=${i}`, class: 'read', requests: 50, windowMs: MINUTE })
      return {
        chargeSet: chargeSetOf('harness/prod', [{ limit }]),
        queue: new AdmissionQueue({ ...named, ledger: slow, clock, capacity }),
      }
    })
    let most = 0
    let ended = 0
    for (let i = 0; i < 40; i++) {
      const { chargeSet, queue } = queues[i % 2]!
      const entered = queue.enter({ ...anyone, chargeSet, maxWaitMs: MINUTE })
      void Promise.resolve(entered).then((admission) => {
        if (admission.kind !== 'admitted') throw new Error(admission.kind)
        most = Math.max(most, capacity.inFlight)
        clock.schedule(10 + (i % 7), () => {
          admission.permit.commit()
          admission.permit.leave()
          ended++
        })
      })
    }
    await clock.advance(1_000)
    expect({ most, ended }).toEqual({ most: 3, ended: 40 })
    expect(capacity).toMatchObject({ inFlight: 0, waiting: 0 })
  })

  it('keeps to the concurrency, and lets the next one in as soon as one is out', async () => {
    const { clock, enter, capacity } = setUp({ concurrency: 2 })
    const unlimited = chargeSetOf('harness/prod', [])
    const calls = Array.from({ length: 5 }, () => enter(MINUTE, unlimited))
    await clock.advance(0)
    expect(calls.filter(({ admission }) => admission !== undefined)).toHaveLength(2)
    permitOf(calls[0]!).leave()
    await clock.advance(0)
    expect(calls[2]!.admission?.kind).toBe('admitted')
    expect(capacity.inFlight).toBe(2)
    for (const call of calls.slice(1, 3)) permitOf(call).leave()
    await clock.advance(0)
    for (const call of calls.slice(3)) permitOf(call).leave()
    expect(capacity.inFlight).toBe(0)
  })

  it('tells whether quota or a place in flight was missing', async () => {
    const { clock, enter } = setUp({ concurrency: 1 })
    const first = enter(MINUTE)
    await clock.advance(0)
    expect(first.admission).toMatchObject({ kind: 'admitted', because: undefined })
    const [second, impatient, refused] = [enter(MINUTE), enter(1_000), enter(0)]
    await clock.advance(1_000)
    expect(impatient.admission).toMatchObject({ kind: 'quota_exhausted', because: 'concurrency' })
    expect(refused.admission).toMatchObject({ kind: 'quota_exhausted', because: 'concurrency', waitMs: 0 })
    permitOf(first).leave()
    await clock.advance(0)
    expect(second.admission).toMatchObject({ kind: 'admitted', because: 'concurrency' })
    permitOf(second).leave()
    const third = enter(1_000)
    await clock.advance(0)
    expect(third.admission).toMatchObject({ kind: 'quota_exhausted', because: 'quota' })
  })

  it('tells the usage to those it refuses without asking, for as long as it is known', async () => {
    const { clock, enter } = setUp({ maxWaiting: 1 })
    for (let i = 0; i < 3; i++) enter(10 * MINUTE)
    await clock.advance(10_000)
    const [full, impatient] = [enter(10 * MINUTE), enter(1_000)]
    const other = enter(1_000, chargeSetOf('harness/prod', [{ limit: read }]))
    await clock.advance(0)
    for (const { admission } of [full, impatient]) {
      const { usage } = admission as { usage: readonly LimitUsage[] }
      expect(usage).toMatchObject([{ limit: reads.limits[0], used: 2 }])
      expect(usage[0]!.resetMs).toBeGreaterThan(49_000)
      expect(usage[0]!.resetMs).toBeLessThan(51_000)
    }
    expect(full.admission?.kind).toBe('queue_full')
    expect(other.admission).toMatchObject({ kind: 'quota_exhausted', usage: [] })
  })

  it('tells a call that others go before the time of its turn as the reset of the limit that is used up', async () => {
    const { clock, queue, enter } = setUp()
    for (let i = 0; i < 5; i++) enter(10 * MINUTE)
    await clock.advance(10_000)
    for (const comesBack of [false, true]) {
      const refused = await queue.enter({
        ...anyone,
        chargeSet: reads,
        maxWaitMs: 0,
        comesBack,
      })
      const { kind, waitMs, usage } = refused as { kind: string; waitMs: number; usage: readonly LimitUsage[] }
      expect(kind).toBe('quota_exhausted')
      expect(waitMs).toBeGreaterThan(MINUTE)
      expect(usage.map(({ resetMs }) => resetMs)).toEqual([waitMs])
    }
  })

  it('keeps no turn during a pause where nothing is limited', async () => {
    const { clock, ledger, queue, enter } = setUp()
    const free = chargeSetOf('harness/prod', [])
    ledger.applyFeedback(await ledger.charge(free, 1), { kind: 'pause', ms: 5_000 })
    enter(MINUTE, free)
    await clock.advance(0)
    for (let i = 0; i < 50; i++) await queue.enter({ ...anyone, chargeSet: free, maxWaitMs: 0, comesBack: true })
    expect(queue.waiting).toBe(1)
  })

  it('gives a turn that it kept to the next call of the client, and to nothing that is none of its calls', async () => {
    const { clock, queue, enter } = setUp()
    const next = (comesBack?: boolean) =>
      queue.enter({ ...anyone, chargeSet: reads, maxWaitMs: 0, ...(comesBack !== undefined && { comesBack }) })
    for (let i = 0; i < 3; i++) enter(10 * MINUTE)
    await clock.advance(0)
    const { waitMs } = (await next(true)) as { waitMs: number }
    await clock.advance(waitMs)
    expect(await next(false)).toMatchObject({ kind: 'quota_exhausted' })
    expect(await next()).toMatchObject({ kind: 'admitted' })
    expect(await next()).toMatchObject({ kind: 'quota_exhausted' })
  })

  it('keeps no turn over a change of the limits, after which no call comes that is charged alike', async () => {
    const { clock, queue, enter } = setUp()
    for (let i = 0; i < 3; i++) enter(10 * MINUTE)
    await clock.advance(0)
    await queue.enter({ ...anyone, chargeSet: reads, maxWaitMs: 0, comesBack: true })
    expect(queue.waiting).toBe(2)
    queue.replaceChargeSets(() => chargeSetOf('harness/prod', [{ limit: read }]))
    expect(queue.waiting).toBe(1)
  })

  it('keeps those that wait when the store can not be asked, and fails those whose time is up before it can', async () => {
    const clock = new SimulatedClock()
    const inner = new MemoryLedger(clock)
    let isAway = false
    const ledger = withCharge(inner, (chargeSet, wanted) =>
      isAway ? Promise.reject(new StoreUnavailableError('away')) : inner.charge(chargeSet, wanted),
    )
    const { enter, queue } = setUp({ ledger, clock })
    enter(0)
    enter(0)
    const [patient, impatient] = [enter(5 * MINUTE), enter(62_000)]
    await clock.advance(0)
    isAway = true
    await clock.advance(63_000)
    expect(impatient.error).toBeInstanceOf(StoreUnavailableError)
    expect(queue.waiting).toBe(1)
    isAway = false
    await clock.advance(200)
    expect(patient.admission?.kind).toBe('admitted')
    expect(clock.timers).toBeLessThanOrEqual(RENEWALS)
  })

  it('asks again for quota that came back while the ledger was asked, and did not know of it', async () => {
    const clock = new SimulatedClock()
    const inner = new MemoryLedger(clock)
    let hold: (() => void)[] | undefined
    const slow = withCharge(inner, async (chargeSet, wanted) => {
      const grant = inner.charge(chargeSet, wanted)
      if (hold !== undefined) await new Promise<void>((resolve) => hold!.push(resolve))
      return grant
    })
    const { enter, queue } = setUp({ ledger: slow, clock })
    const spent = [queue.enter({ ...anyone, chargeSet: reads, maxWaitMs: 0 }), enter(0)]
    const waiting = enter(5 * MINUTE)
    await clock.advance(0)
    hold = []
    queue.refunded()
    await clock.advance(0)
    expect(hold).toHaveLength(1)
    permitOf({ admission: (await spent[0]) as Admission }).refund()
    const [answer] = hold
    hold = undefined
    answer!()
    await clock.advance(0)
    expect(waiting.admission?.kind).toBe('admitted')
  })

  it('has no place for a call that has left before it got one', async () => {
    const clock = new SimulatedClock()
    const inner = new MemoryLedger(clock)
    spend(inner, 2)
    const capacity = new ClassCapacity([new QueueCapacity(10, 'calls')], { concurrency: 1 })
    const queue = new AdmissionQueue({ ...named, ledger: inner, clock, capacity })
    const cancellation = new Cancellation()
    cancellation.cancel()
    const admission = queue.enter({
      ...anyone,
      chargeSet: reads,
      maxWaitMs: 5 * MINUTE,
      cancellation,
    })
    expect(await admission).toMatchObject({ kind: 'gone' })
    expect(queue.waiting).toBe(0)
    await clock.advance(2 * MINUTE)
    expect(capacity.inFlight).toBe(0)
    expect((await inner.usage(reads))[0]!.used).toBe(0)
  })

  it('wakes those that wait for a place which was kept for a call that was then refused', async () => {
    const clock = new SimulatedClock()
    const inner = new MemoryLedger(clock)
    spend(inner, 2)
    let answer: (() => void) | undefined
    const slow = withCharge(
      inner,
      (chargeSet, wanted) =>
        new Promise<Grant>((resolve) => void (answer = () => resolve(inner.charge(chargeSet, wanted)))),
    )
    const { enter } = setUp({ ledger: slow, clock, concurrency: 1 })
    const refused = enter(0)
    const waiting = enter(5 * MINUTE)
    answer!()
    await clock.advance(60_700)
    expect(refused.admission?.kind).toBe('quota_exhausted')
    answer!()
    await clock.advance(0)
    expect(waiting.admission?.kind).toBe('admitted')
  })
})

describe('an admission queue of several clients', () => {
  /** Takes all quota, then lets calls of clients wait; tells in which order they were admitted. */
  async function order(
    calls: readonly { client: QueuedClient; priority?: Priority }[],
    options: { maxWaiting?: number } = {},
  ) {
    const { clock, queue, enter } = setUp(options)
    enter(0)
    enter(0)
    const admitted: string[] = []
    const kinds: string[] = []
    for (const [i, { client, priority = 'normal' }] of calls.entries()) {
      const entered = queue.enter({ client, priority, chargeSet: reads, maxWaitMs: 1e9 })
      void Promise.resolve(entered).then((admission) => {
        kinds[i] = admission.kind
        if (admission.kind !== 'admitted') return
        admission.permit.commit()
        admitted.push(client.name)
      })
    }
    await clock.advance(40 * MINUTE)
    return { admitted: admitted.join(''), kinds }
  }

  function calls(client: QueuedClient, count: number, priority?: Priority) {
    return Array.from({ length: count }, () => (priority === undefined ? { client } : { client, priority }))
  }

  it('serves them in turn, however many calls of one came first', async () => {
    const { admitted } = await order([...calls(queuedClient('a'), 8), ...calls(queuedClient('b'), 3)])
    expect(admitted).toBe('abababaaaaa')
  })

  it('serves them by weight', async () => {
    const { admitted } = await order([...calls(queuedClient('a'), 9), ...calls(queuedClient('b', 2), 6)])
    expect(admitted.slice(0, 9).replaceAll('a', '')).toBe('bbbbbb')
    expect(admitted.slice(0, 3)).toContain('a')
  })

  it('gives nobody less than its share', async () => {
    const { admitted } = await order([...calls(queuedClient('a', 4), 12), ...calls(queuedClient('b', 1, 0.5), 6)])
    expect(admitted.slice(0, 12).replaceAll('a', '')).toBe('bbbbbb')
  })

  it('serves the more urgent calls of a client first', async () => {
    const client = queuedClient('a')
    const { clock, queue, enter } = setUp()
    enter(0)
    enter(0)
    const admitted: string[] = []
    for (const priority of ['batch', 'normal', 'interactive', 'normal'] as const) {
      const entered = queue.enter({ client, priority, chargeSet: reads, maxWaitMs: 1e9 })
      void Promise.resolve(entered).then((admission) => {
        if (admission.kind === 'admitted') admission.permit.commit()
        admitted.push(priority)
      })
    }
    await clock.advance(10 * MINUTE)
    expect(admitted).toEqual(['interactive', 'normal', 'normal', 'batch'])
  })

  it('serves urgent calls more often, but not only them', async () => {
    const urgent = calls(queuedClient('u'), 8, 'interactive')
    const { admitted } = await order([...calls(queuedClient('n'), 8), ...urgent])
    expect(admitted.slice(0, 10).replaceAll('n', '')).toBe('uuuuuuuu')
  })

  it('weighs each call by its own priority, though many go at once, and says when they will', async () => {
    const limit = limitOf({ id: 'month', class: 'read', requests: 100, windowMs: MINUTE, kind: 'calendar' })
    const chargeSet = chargeSetOf('harness/prod', [{ limit }])
    const clock = new SimulatedClock(10 * MINUTE)
    const ledger = new MemoryLedger(clock)
    const { queue } = setUp({ clock, ledger, maxWaiting: 1_000 })
    const used = ledger.charge(chargeSet, 100)
    for (let i = 0; i < 100; i++) ledger.commit(used)
    const served: string[] = []
    const send = (name: string, priority: Priority, count: number): void => {
      for (let i = 0; i < count; i++) {
        const entered = queue.enter({ client: queuedClient(name), priority, chargeSet, maxWaitMs: 10 * MINUTE })
        void Promise.resolve(entered).then((admission) => {
          if (admission.kind !== 'admitted') return
          served.push(`${name} ${priority}`)
          admission.permit.commit()
        })
      }
    }
    send('mixed', 'batch', 299)
    send('plain', 'normal', 99)
    send('mixed', 'interactive', 1)
    await clock.advance(1)
    const lasts = queue.view().map(({ client, lastInMs }) => [client, Math.round(lastInMs / MINUTE)])
    expect(lasts).toEqual([
      ['mixed', 4],
      ['plain', 2],
    ])
    await clock.advance(MINUTE + 5_000)
    const countOf = (what: string): number => served.filter((one) => one === what).length
    expect(['mixed interactive', 'mixed batch', 'plain normal'].map(countOf)).toEqual([1, 20, 79])
  })

  it('makes room for a client that has few calls waiting at the expense of the one that has most', async () => {
    const { kinds } = await order([...calls(queuedClient('noisy'), 5), ...calls(queuedClient('quiet'), 2)], {
      maxWaiting: 4,
    })
    const [kept, full] = ['admitted', 'queue_full']
    expect(kinds).toEqual([kept, kept, full, full, full, kept, kept])
  })

  it('says whether it is the quota or the others that a call would wait for too long', async () => {
    const { clock, queue, enter } = setUp()
    enter(0)
    enter(0)
    const [busy, idle] = [queuedClient('busy'), queuedClient('idle')]
    const visit = (client: QueuedClient, maxWaitMs: number) =>
      queue.enter({ client, priority: 'normal', chargeSet: reads, maxWaitMs })
    for (let i = 0; i < 2; i++) void visit(busy, 1e9)
    for (let i = 0; i < 2; i++) void visit(idle, 1e9)
    await clock.advance(0)
    expect(await visit(busy, 61_000)).toMatchObject({ kind: 'quota_exhausted' })
    const third = queuedClient('third')
    void visit(third, 1e9)
    await clock.advance(0)
    expect(await visit(third, 61_000)).toMatchObject({ kind: 'share_exceeded' })
  })

  it('lets no client have more than its number of calls waiting', async () => {
    const clock = new SimulatedClock()
    const ledger = new MemoryLedger(clock)
    spend(ledger, 2)
    const capacity = new ClassCapacity([new QueueCapacity(100, 'calls')], { mostPerClient: 1 })
    const queue = new AdmissionQueue({ ...named, ledger, clock, capacity })
    const visit = (client: QueuedClient) =>
      queue.enter({ client, priority: 'normal', chargeSet: reads, maxWaitMs: MINUTE * 9 })
    void visit(queuedClient('a'))
    void visit(queuedClient('b'))
    const full = { kind: 'queue_full', full: { most: 1, of: 'calls of a' } }
    expect(await visit(queuedClient('a'))).toMatchObject(full)
    const apart = new AdmissionQueue({ ...named, name: 'prod:read:client=a', ledger, clock, capacity })
    const waiter = { client: queuedClient('a'), priority: 'normal', chargeSet: reads, maxWaitMs: MINUTE * 9 } as const
    expect(await apart.enter(waiter)).toMatchObject(full)
  })

  it('makes room at the expense of the client that has most in all queues of the class', async () => {
    const clock = new SimulatedClock()
    const ledger = new MemoryLedger(clock)
    spend(ledger, 2)
    const capacity = new ClassCapacity([new QueueCapacity(4, 'calls')])
    const [one, other] = ['one', 'other'].map((name) => new AdmissionQueue({ ...named, name, ledger, clock, capacity }))
    const kinds: string[] = []
    const enter = (queue: AdmissionQueue, name: string): void => {
      const i = kinds.push('waits') - 1
      const waiter = {
        client: queuedClient(name),
        priority: 'normal',
        chargeSet: reads,
        maxWaitMs: MINUTE * 9,
      } as const
      void Promise.resolve(queue.enter(waiter)).then(({ kind }) => (kinds[i] = kind))
    }
    for (let i = 0; i < 4; i++) enter(one!, 'noisy')
    enter(other!, 'quiet')
    await clock.advance(1)
    expect(kinds).toEqual(['waits', 'waits', 'waits', 'queue_full', 'waits'])
    expect(capacity.waiting).toBe(4)
  })

  it.each(['account', 'process'] as const)(
    'makes room at the expense of the client that has most in all classes if the %s is full',
    async (full) => {
      const clock = new SimulatedClock()
      const ledger = new MemoryLedger(clock)
      spend(ledger, 2)
      const [account, process] = [full === 'account' ? 4 : 100, full === 'process' ? 4 : 100]
      const shared = [new QueueCapacity(account, 'calls of the account'), new QueueCapacity(process, 'calls')]
      const [read, write] = ['read', 'write'].map((name) => {
        const capacity = new ClassCapacity([new QueueCapacity(100, name), ...shared])
        return new AdmissionQueue({ ...named, name, ledger, clock, capacity })
      })
      const kinds: string[] = []
      const enter = (queue: AdmissionQueue, name: string, priority: Priority = 'normal'): void => {
        const i = kinds.push('waits') - 1
        const entered = queue.enter({ client: queuedClient(name), priority, chargeSet: reads, maxWaitMs: MINUTE * 9 })
        void Promise.resolve(entered).then(({ kind }) => (kinds[i] = kind))
      }
      enter(read!, 'noisy', 'batch')
      for (let i = 0; i < 3; i++) enter(read!, 'noisy')
      for (const name of ['quiet', 'other']) enter(write!, name)
      enter(write!, 'noisy')
      await clock.advance(1)
      expect(kinds).toEqual(['queue_full', 'waits', 'waits', 'queue_full', 'waits', 'waits', 'queue_full'])
      expect(shared.map(({ waiting }) => waiting)).toEqual([4, 4])
    },
  )

  it('makes room by the weight that a client has since a reload, also when a call from before it has left', () => {
    const clock = new SimulatedClock()
    const ledger = new MemoryLedger(clock)
    spend(ledger, 2)
    const capacity = new ClassCapacity([new QueueCapacity(3, 'calls')])
    const [one, other] = ['one', 'other'].map((name) => new AdmissionQueue({ ...named, name, ledger, clock, capacity }))
    const enter = (queue: AdmissionQueue, client: QueuedClient, cancellation?: Cancellation) =>
      queue.enter({ client, priority: 'normal', chargeSet: reads, maxWaitMs: MINUTE * 9, cancellation })
    const before = new Cancellation()
    void enter(one!, queuedClient('a', 1), before)
    void enter(other!, queuedClient('a', 10))
    void enter(other!, queuedClient('a', 10))
    before.cancel()
    void enter(one!, queuedClient('b'))
    expect(enter(one!, queuedClient('c'))).toMatchObject({ kind: 'queue_full' })
  })

  it('tells a call that makes room when quota comes back that it waited for itself', async () => {
    const clock = new SimulatedClock()
    const ledger = new MemoryLedger(clock)
    const capacity = new ClassCapacity([new QueueCapacity(2, 'calls')])
    const enter = (hours: number, name: string) => {
      const limit = limitOf({ id: `of ${hours}`, class: 'read', requests: 1, windowMs: hours * 60 * MINUTE })
      const chargeSet = chargeSetOf('harness/prod', [{ limit }])
      const queue = new AdmissionQueue({ ...named, name: `${hours}`, ledger, clock, capacity })
      ledger.charge(chargeSet, 1)
      return queue.enter({ client: queuedClient(name), priority: 'normal', chargeSet, maxWaitMs: Infinity })
    }
    const outdone = enter(10, 'noisy')
    void enter(1, 'noisy')
    void enter(1, 'quiet')
    const { kind, waitMs } = (await outdone) as { kind: string; waitMs: number }
    expect(kind).toBe('queue_full')
    expect(waitMs).toBeGreaterThan(600 * MINUTE)
  })

  it('tells when the calls of each are expected to be served, and they are', async () => {
    const { clock, queue, enter } = setUp()
    enter(0)
    enter(0)
    const ended = new Map<string, number[]>()
    for (const [name, count] of [
      ['a', 4],
      ['b', 2],
    ] as const) {
      for (let i = 0; i < count; i++) {
        const client = queuedClient(name)
        const entered = queue.enter({
          client,
          priority: 'normal',
          chargeSet: reads,
          maxWaitMs: 1e9,
        })
        void Promise.resolve(entered).then((admission) => {
          if (admission.kind === 'admitted') admission.permit.commit()
          ended.set(name, [...(ended.get(name) ?? []), clock.now()])
        })
      }
    }
    await clock.advance(1)
    const [view, now] = [queue.view(), clock.now()]
    await clock.advance(10 * MINUTE)
    for (const { client, waiting, nextInMs, lastInMs } of view) {
      const times = ended.get(client)!
      expect(times).toHaveLength(waiting)
      expect(Math.abs(times[0]! - now - nextInMs)).toBeLessThan(700)
      expect(Math.abs(times.at(-1)! - now - lastInMs)).toBeLessThan(2_000)
    }
  })
})

/** A ledger that charges in its own way. */
function withCharge(inner: Ledger, charge: Ledger['charge']): Ledger {
  return Object.assign(Object.create(inner) as Ledger, {
    charge,
    commit: (grant: Grant) => inner.commit(grant),
    abandon: (grant: Grant) => inner.abandon(grant),
    refund: (grant: Grant) => inner.refund(grant),
    leave: (grant: Grant) => inner.leave(grant),
    usage: (chargeSet: ChargeSet) => inner.usage(chargeSet),
  })
}
