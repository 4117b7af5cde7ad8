import { describe, expect, it } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { type ResponseHead, applyFeedback } from '../../src/gateway/upstream-feedback.ts'
import { CounterSeries } from '../../src/observe/series.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import { chargeSetOf } from '../../src/ledger/ledger.ts'
import { type Limit, limitOf, windowOf } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { ANYONE } from '../support/anyone.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const minute = limitOf({ id: 'm', class: 'read', requests: 100, windowMs: 60_000 })
const second = limitOf({ id: 's', class: 'read', requests: 20, windowMs: 1_000 })
const shadow = limitOf({ id: 'x', class: 'read', requests: 1, windowMs: 60_000, isEnforced: false })

function quota(limit: number, resetSeconds: number): Record<string, string> {
  const numbers = { limit, remaining: 0, reset: resetSeconds }
  return Object.fromEntries(Object.entries(numbers).map(([name, number]) => [`x-ratelimit-${name}`, `${number}`]))
}

const UNKNOWN = {
  ratelimit: '"burst";r=0;t=5, "daily";r=9;t=60',
  'ratelimit-policy': '"burst";q=7;w=10, "daily";q=10;w=86400',
}

/** One account of an upstream with that preset, or none. */
function setUp(limits: readonly Limit[], preset?: string, store: object = {}, othersInMs?: number) {
  const clock = new SimulatedClock(Date.parse('2026-11-21T10:00:00Z'))
  const ledger = new MemoryLedger(clock)
  const chargeSet = chargeSetOf(
    'it/main',
    limits.map((limit) => ({ limit })),
  )
  const queue = new AdmissionQueue({
    ledger,
    clock,
    name: 'any',
    partition: 'it/main',
    capacity: new ClassCapacity([new QueueCapacity(10, 'calls')]),
  })
  const account = { credential: { value: 'x' }, id: 'abc' }
  const upstream = preset === undefined ? { url: 'http://127.0.0.1:1' } : { preset }
  const config = checkConfig({ store, upstreams: { it: { ...upstream, accounts: { main: account } } } }, 'test')
  const throttled = { explained: new CounterSeries({}), unexplained: new CounterSeries({}) }
  const target = {
    upstream: { config: config.upstreams['it']! },
    account: { throttledAt: -Infinity },
    credential: othersInMs === undefined ? undefined : { othersInMs },
    admissionPolicy: { metrics: { throttled } },
  }
  /** So many calls are sent together; the head of each one's response, in turn. */
  const answered = async (heads: readonly Partial<ResponseHead>[], tookMs = 100) => {
    const waiter = { ...ANYONE, chargeSet, maxWaitMs: 0 }
    const admissions = await Promise.all(heads.map(async () => queue.enter(waiter)))
    await clock.advance(tookMs)
    return admissions.map((admission, i) => {
      if (admission.kind !== 'admitted') throw new Error(admission.kind)
      const head = { status: 200, fields: {}, tookMs, isDisguised: false, ...heads[i] }
      const pauseMs = applyFeedback({ id: 'x', clock, snapshot: { config } }, target, admission.permit, head)
      admission.permit.commit()
      admission.permit.leave()
      return pauseMs
    })
  }
  const effective = async () => (await ledger.usage(chargeSet)).map((usage) => usage.effective)
  const counts = () => [throttled.explained, throttled.unexplained].map((series) => series.values('n')[0]!.value)
  return { clock, queue, chargeSet, answered, effective, counts }
}

describe('a response', () => {
  it.each<[string, string | undefined, number, Record<string, string>, number | undefined]>([
    ['429 with seconds', undefined, 429, { 'retry-after': '7' }, 7_000],
    ['429 with a date', undefined, 429, { 'retry-after': 'Sat, 21 Nov 2026 10:00:09 GMT' }, 8_900],
    ['429 that asks for an hour: no longer than is configured', undefined, 429, { 'retry-after': '3600' }, 300_000],
    ['429 with nonsense', undefined, 429, { 'retry-after': 'soon' }, 1_000],
    ['429 of Harness, which says nothing', 'harness', 429, {}, 1_000],
    ['429 by which nothing remains, which is believed', undefined, 429, { 'x-ratelimit-remaining': '0' }, 0],
    ['403 of GitHub with seconds', 'github', 403, { 'retry-after': '7' }, 7_000],
    ['403 of GitHub by which nothing remains', 'github', 403, { 'x-ratelimit-remaining': '0' }, 0],
    ['403 of GitHub that is about something else', 'github', 403, { 'x-ratelimit-remaining': '9' }, undefined],
    ['403 of another upstream', undefined, 403, { 'retry-after': '7' }, undefined],
    ['429 with a reset, which is believed', undefined, 429, quota(100, 5), 5_000],
    ['429 with the reset of a limit that is not known', undefined, 429, UNKNOWN, 5_000],
    ['429 with a reset and a later Retry-After', undefined, 429, { ...quota(100, 5), 'retry-after': '9' }, 9_000],
    ['429 with a reset and an earlier Retry-After', undefined, 429, { ...quota(100, 50), 'retry-after': '9' }, 9_000],
    ['429 with a reset that is over', undefined, 429, quota(100, 0), 0],
    [
      '429 with a reset that lies behind the window, for which it is believed',
      undefined,
      429,
      quota(100, 3_600),
      60_000,
    ],
    ['503', undefined, 503, { 'retry-after': '7' }, undefined],
    ['200 that names a time', undefined, 200, { 'retry-after': '7' }, undefined],
  ])('%s', async (_, preset, status, fields, pauseMs) => {
    const { answered, queue, chargeSet, clock } = setUp([minute], preset)
    expect(await answered([{ status, fields }])).toEqual([pauseMs])
    const admission = await queue.enter({ ...ANYONE, chargeSet, maxWaitMs: 0 })
    expect(admission.kind).toBe(pauseMs === undefined ? 'admitted' : 'quota_exhausted')
    if (pauseMs === undefined || pauseMs === 0) return
    await clock.advance(pauseMs)
    expect((await queue.enter({ ...ANYONE, chargeSet, maxWaitMs: 0 })).kind).toBe('admitted')
  })

  it('that says less remains than was thought is believed, of the limit that it means', async () => {
    const { answered, effective } = setUp([second, minute])
    await answered([{ fields: { 'x-ratelimit-limit': '100', 'x-ratelimit-remaining': '40' } }])
    // Less what others may have used while the answer travelled; the call itself is of these 39.
    expect(await effective()).toEqual([undefined, 39])
  })

  it.each([
    ['of a fixed length', { kind: 'calendar', windowMs: 3_600_000 }],
    ['of the calendar', windowOf('hour', {})],
  ] as const)(
    'that says less remains of a window %s is believed, unless it may be about the one before or after',
    async (_, window) => {
      const hour = limitOf({ id: 'h', class: 'read', requests: 100, ...window })
      const fields = { 'x-ratelimit-limit': '100', 'x-ratelimit-remaining': '40' }
      const { clock, answered, effective } = setUp([hour])
      await answered([{ fields }])
      expect(await effective()).toEqual([undefined])
      await clock.advance(3_598_000)
      await answered([{ fields }], 1_000)
      expect(await effective()).toEqual([undefined])
      await clock.advance(1_800_000)
      await answered([{ fields }])
      // The call near the border is of this window, too.
      expect(await effective()).toEqual([40])
      // What others used is over with its window, and no answer from its end is taken for one of the next.
      await clock.advance(1_800_300)
      await answered([{ fields }], 1_000)
      await clock.advance(1_000)
      expect(await effective()).toEqual([undefined])
    },
  )

  it('that was refused for too many calls counts as unexplained once, and those under way with it as explained', async () => {
    const { answered, counts, effective } = setUp([minute])
    await answered(Array.from({ length: 10 }, () => ({ status: 429 })))
    expect(counts()).toEqual([9, 1])
    // Ten were refused of ten: nothing got through, but half is the least.
    expect(await effective()).toEqual([47])
  })

  it('that was refused is explained where a limit that is not enforced was exceeded, and teaches nothing', async () => {
    const { answered, counts, effective } = setUp([minute, shadow])
    await answered([{}, { status: 429 }])
    expect(counts()).toEqual([1, 0])
    expect(await effective()).toEqual([undefined, undefined])
  })

  it('that was refused teaches of the limit of which most is used', async () => {
    const { answered, effective } = setUp([minute, second])
    await answered(Array.from({ length: 15 }, (_, i) => ({ status: i === 14 ? 429 : 200 })))
    expect(await effective()).toEqual([undefined, 13])
  })

  it('that was refused with a reset is believed once, and teaches nothing else of the limit', async () => {
    const { answered, queue, chargeSet, clock } = setUp([minute])
    // The first has its own clock of 5 s; the window of 60 s is not waited for, and then not half of it used.
    await answered([{}, { status: 429, fields: quota(100, 5) }])
    await clock.advance(5_000)
    await answered([{ fields: { ...quota(100, 60), 'x-ratelimit-remaining': '99' } }])
    await clock.advance(20)
    const enter = () => queue.enter({ ...ANYONE, chargeSet, maxWaitMs: 0 })
    const kinds = await Promise.all(Array.from({ length: 98 }, async () => (await enter()).kind))
    expect(kinds.filter((kind) => kind === 'admitted')).toHaveLength(97)
  })

  it('to one credential of several pauses nobody', async () => {
    const { answered, counts, effective } = setUp([minute], undefined, {}, 0)
    expect(await answered([{ status: 429 }])).toEqual([undefined])
    expect(counts()).toEqual([0, 1])
    expect(await effective()).toEqual([undefined])
  })

  it('to the last credential of several pauses the account until another may be used again', async () => {
    const { answered, effective } = setUp([minute], undefined, {}, 5_000)
    const fields = { 'retry-after': '60' }
    expect(await answered([{ status: 429, fields }])).toEqual([5_000])
    expect(await effective()).toEqual([47])
  })
})
