import { describe, expect, it } from 'vitest'
import type { AccessLine } from '../../src/observe/log.ts'
import type { EpochMs } from '../../src/time/clock.ts'
import { RequestHistory } from '../../src/requests/history.ts'
import { unreadRecord } from '../../src/requests/record.ts'

function record(id: number, bytes = 1_000) {
  return { ...unreadRecord({ correlationId: String(id) } as AccessLine, id as EpochMs), bytes }
}

function idsOf(history: RequestHistory): number[] {
  return [...history.newest()].map(({ line }) => Number(line.correlationId))
}

describe('the latest calls', () => {
  it('are kept up to a number, the newest first', () => {
    const history = new RequestHistory({ keep: 3, maxBytes: 1e6 })
    expect(idsOf(history)).toEqual([])
    for (let i = 1; i <= 20_000; i++) history.add(record(i))
    expect(idsOf(history)).toEqual([20_000, 19_999, 19_998])
    expect([history.size, history.bytes]).toEqual([3, 3_000])
  })

  it('are kept up to a size: a large one makes several of the oldest go', () => {
    const history = new RequestHistory({ keep: 100, maxBytes: 10_000 })
    for (let i = 1; i <= 10; i++) history.add(record(i))
    history.add(record(11, 3_500))
    expect(idsOf(history)).toEqual([11, 10, 9, 8, 7, 6, 5])
    expect(history.bytes).toBe(9_500)
    // One that is larger than all together drives nobody out.
    history.add(record(12, 10_001))
    expect(idsOf(history)).toEqual([11, 10, 9, 8, 7, 6, 5])
  })

  it.each([1, 2, 7, 1_000])('are right at every step of a ring of %i', (keep) => {
    const history = new RequestHistory({ keep, maxBytes: 4_000 })
    const expected: number[] = []
    for (let i = 1; i <= 3_000; i++) {
      const bytes = 100 + ((i * 7_919) % 1_500)
      history.add(record(i, bytes))
      expected.unshift(i)
      let [count, sum] = [0, 0]
      for (const id of expected) {
        sum += 100 + ((id * 7_919) % 1_500)
        if (sum > 4_000 || count >= keep) break
        count++
      }
      expected.length = count
      if (i % 97 === 0 || i < 50) expect(idsOf(history)).toEqual(expected)
    }
  })

  it('are none where none are to be kept', () => {
    const history = new RequestHistory({ keep: 0, maxBytes: 1e6 })
    for (let i = 1; i <= 10; i++) history.add(record(i))
    expect(idsOf(history)).toEqual([])
  })
})
