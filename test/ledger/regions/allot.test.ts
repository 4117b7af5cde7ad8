import { expect, it } from 'vitest'
import { divide, type RegionState, wantedBy } from '../../../src/ledger/regions/allot.ts'

function region(need: number, state: Partial<RegionState> = {}): RegionState {
  return { weight: 1, reserve: 10, extra: 0, need, chunk: 0, ...state }
}

it.each<[string, RegionState[], number, number, number[]]>([
  ['what all want is divided evenly', [region(100), region(100), region(100)], 60, 0, [20, 20, 20]],
  ['or by weight', [region(100, { weight: 2 }), region(100)], 60, 0, [40, 20]],
  ['who needs less leaves it to the others', [region(15), region(100), region(100)], 66, 0, [5, 31, 30]],
  ['who needs no more than its reserve gets nothing that others need', [region(10), region(100)], 60, 0, [0, 60]],
  ['what nobody needs is divided, too', [region(15), region(0), region(0)], 65, 0, [25, 20, 20]],
  ['of too few units one after the other has its turn', [region(90), region(90), region(90)], 1, 0, [1, 0, 0]],
  ['the turn is another’s later', [region(90), region(90), region(90)], 1, 2, [0, 0, 1]],
  [
    'a call that costs more than a fair part has its turn',
    [region(100, { chunk: 60 }), region(100, { chunk: 60 })],
    80,
    1,
    [15, 65],
  ],
])('%s', (_, regions, pool, first, parts) => {
  expect(divide(regions, pool, first)).toEqual(parts)
})

it.each<[string, RegionState[], number[], { over: number; sinceMs: number }, number]>([
  ['it asks for more at once', [region(100, { extra: 5 }), region(0)], [40, 0], { over: 5, sinceMs: 1_000 }, 40],
  ['it keeps what nobody needs', [region(0, { extra: 40 }), region(0)], [20, 20], { over: 0, sinceMs: 1_000 }, 40],
  [
    'it gives what it does not use at once',
    [region(20, { extra: 40 }), region(90)],
    [10, 30],
    { over: 12, sinceMs: 10 },
    12,
  ],
  [
    'and the rest as its window empties',
    [region(90, { extra: 40 }), region(90)],
    [20, 20],
    { over: 40, sinceMs: 1_000 },
    37,
  ],
])('%s', (_, regions, parts, about, wanted) => {
  expect(wantedBy(regions, parts, { own: 0, windowMs: 10_000, ...about })).toBe(wanted)
})
