import { expect, it } from 'vitest'
import { KINDS } from '../system/faults/table.ts'
import { shortcomingsOf } from './bars.ts'
import { type CallRecord, isAnswered } from './records.ts'
import { runSoak } from './run-soak.ts'

it('answers calls of all kinds while its lines fail by turns, and holds nothing any more after them', async () => {
  const { records, wrong, retriedPosts, faults, left, stderr } = await runSoak({
    // Three bad spells, and quiet after them.
    ms: 22_000,
    seed: 5,
    rate: 30,
    sampleMs: 1_000,
  })
  expect({ wrong, retriedPosts, stderr }).toEqual({ wrong: [], retriedPosts: 0, stderr: '' })
  expect(left).toEqual(Object.fromEntries(Object.keys(left).map((what) => [what, 0])))
  expect(shortcomingsOf(records)).toEqual([])
  expect(records.filter(({ end }) => end === 'internal')).toEqual([])
  // It was no idle run, nor one without faults.
  expect(records.filter(isAnswered).length).toBeGreaterThan(30 * KINDS.length)
  expect(records.map(({ sky }) => sky)).toEqual(expect.arrayContaining(['upstream', 'quiet', 'store', 'both']))
  expect(new Set(records.map(({ end }) => end)).size).toBeGreaterThan(4)
  expect(faults.upstream).toBeGreaterThan(10)
})

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
