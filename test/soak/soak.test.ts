import { expect, it } from 'vitest'
import { Stillness } from '../support/stillness.ts'
import { KINDS } from '../system/faults/table.ts'
import { FEW, shortcomingsOf } from './bars.ts'
import { type CallRecord, isAnswered } from './records.ts'
import { runSoak } from './run-soak.ts'
import type { Sky } from './weather.ts'

const MET = ['upstream', 'quiet', 'store', 'both'] as const satisfies Sky[]

/** As long as it may go on, and rest, on a machine that stands still most of the time. */
const WITHIN_MS = 400_000

it(
  'answers calls of all kinds while its lines fail by turns, and holds nothing any more after them',
  { timeout: WITHIN_MS },
  async () => {
    const { records, wrong, retriedPosts, faults, left, stderr } = await runSoak({
      // Three bad spells, and quiet after them.
      ms: 22_000,
      seed: 5,
      rate: 30,
      sampleMs: 1_000,
      // Of each sky, and of each kind in quiet, where nothing stood still: how many that are is no matter of time.
      isEnough: (records) =>
        MET.every((sky) => records.filter((record) => record.sky === sky).length >= 2 * FEW) &&
        KINDS.every(
          (kind) => records.filter((record) => record.sky === 'quiet' && record.kind === kind).length >= FEW,
        ) &&
        records.filter(isAnswered).length > 30 * KINDS.length &&
        new Set(records.map(({ end }) => end)).size > 4,
    })
    expect({ wrong, retriedPosts, stderr }).toEqual({ wrong: [], retriedPosts: 0, stderr: '' })
    expect(left).toEqual(Object.fromEntries(Object.keys(left).map((what) => [what, 0])))
    expect(shortcomingsOf(records)).toEqual([])
    expect(records.filter(({ end }) => end === 'internal')).toEqual([])
    // It was no idle run, nor one without faults.
    expect(records.filter(isAnswered).length).toBeGreaterThan(30 * KINDS.length)
    expect(records.map(({ sky }) => sky)).toEqual(expect.arrayContaining([...MET]))
    expect(new Set(records.map(({ end }) => end)).size).toBeGreaterThan(4)
    expect(faults.upstream).toBeGreaterThan(10)
  },
)

const CALM: readonly CallRecord[] = Array.from({ length: 400 }, (_, i) => ({
  kind: KINDS[i % KINDS.length]!,
  end: 'answered',
  began: i * 100,
  ended: i * 100 + 10,
  sky: 'quiet',
  stretch: Math.floor(i / 100),
}))

it.each<[string, (record: CallRecord, i: number) => boolean, Partial<CallRecord>, RegExp]>([
  [
    'a queue stands still for two seconds in quiet',
    (_, i) => i > 120 && i < 141,
    { end: 'quota_exhausted' },
    /stretch 1/,
  ],
  ['one kind of call is refused in quiet', ({ kind }) => kind === 'WebSocket', { end: 'timeout' }, /of kind WebSocket/],
  [
    'too many are refused because of the store',
    (_, i) => i % 20 === 0,
    { sky: 'store', end: 'store_unavailable' },
    /ended as store_unavailable/,
  ],
  [
    'too many are lost because something stood still',
    (_, i) => i % 5 === 0,
    { sky: 'still', end: 'timeout' },
    /under still/,
  ],
  [
    'nothing is answered for five seconds',
    (_, i) => i < 50,
    { sky: 'upstream', end: 'interrupted' },
    /from second 0 on/,
  ],
])('is told where %s', (_, isHit, change, told) => {
  expect(shortcomingsOf(CALM)).toEqual([])
  const records = CALM.map((record, i) => (isHit(record, i) ? changed(record, change) : record))
  expect(shortcomingsOf(records).join('\n')).toMatch(told)
})

function changed(record: CallRecord, change: Partial<CallRecord>): CallRecord {
  return { ...record, ...change }
}

it('knows when this process stood still, and that which others felt of it for some time', async () => {
  using stillness = new Stillness(500, () => performance.now(), [])
  const from = performance.now()
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 700)
  const until = performance.now()
  await expect.poll(() => stillness.ms).toBeGreaterThan(650)
  expect(stillness.met(from, from, 0)).toBe(true)
  expect(stillness.met(until + 90_000, until + 90_000, 100_000)).toBe(true)
  expect(stillness.met(until + 900_000, until + 900_000, 100)).toBe(false)
  expect(stillness.met(from - 10_000, from - 9_000, 100_000)).toBe(false)
})
