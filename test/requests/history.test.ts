import { describe, expect, it } from 'vitest'
import type { EpochMs } from '../../src/time/clock.ts'
import type { AccessLine } from '../../src/observe/log.ts'
import { RequestHistory, type Wanted } from '../../src/requests/history.ts'
import { answerHere } from '../../src/requests/question.ts'
import { type RequestRecord, unread } from '../../src/requests/story.ts'
import { countTurns } from '../support/turns.ts'

/** The text of a call takes so many bytes with all that is known of it. */
function add(history: RequestHistory, id: number, bytes = 1_000): void {
  const known = unread(0 as EpochMs)
  const line = { correlationId: String(id), path: '' }
  const least = Buffer.byteLength(`${JSON.stringify(line)}\n${JSON.stringify(known)}`)
  keep(history, { ...line, path: 'x'.repeat(bytes - least) }, known)
}

function keep(
  history: RequestHistory,
  line: object,
  known = unread(0 as EpochMs),
  route?: RequestRecord['route'],
): void {
  const whole = { outcome: 'delivered', status: '200', ...line } as AccessLine
  history.add(whole, JSON.stringify(line), known, route)
}

function all(history: RequestHistory, wanted?: Wanted): RequestRecord[] {
  return [...history.newest(wanted)].filter((record) => record !== undefined)
}

function idsOf(history: RequestHistory): number[] {
  return all(history).map(({ line }) => Number(line.correlationId))
}

describe('the latest calls', () => {
  it('are kept up to a number, the newest first', () => {
    const history = new RequestHistory({ keep: 3, maxBytes: 1e6 })
    expect(idsOf(history)).toEqual([])
    for (let i = 1; i <= 20_000; i++) add(history, i)
    expect(idsOf(history)).toEqual([20_000, 19_999, 19_998])
    expect([history.size, history.bytes]).toEqual([3, 3_000])
  })

  it('are kept up to a size: a large one makes several of the oldest go', () => {
    const history = new RequestHistory({ keep: 100, maxBytes: 10_000 })
    for (let i = 1; i <= 10; i++) add(history, i)
    add(history, 11, 3_500)
    expect(idsOf(history)).toEqual([11, 10, 9, 8, 7, 6, 5])
    expect(history.bytes).toBe(9_500)
    // One that is larger than all together drives nobody out.
    add(history, 12, 10_001)
    expect(idsOf(history)).toEqual([11, 10, 9, 8, 7, 6, 5])
  })

  it.each([1, 2, 7, 1_000])('are right at every step of a ring of %i', (keep) => {
    const history = new RequestHistory({ keep, maxBytes: 4_000 })
    const expected: number[] = []
    for (let i = 1; i <= 3_000; i++) {
      const bytes = 100 + ((i * 7_919) % 1_500)
      add(history, i, bytes)
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

  it.each([500, 2_700, 22_000, 40_000, 70_000])(
    'take hardly more memory than their bound, when each takes %i bytes',
    (bytes) => {
      const maxBytes = 16 * 1_048_576
      const history = new RequestHistory({ keep: 1e6, maxBytes })
      const before = process.memoryUsage().arrayBuffers
      // None is dropped, so that there is no garbage.
      for (let id = 100_000; history.bytes + bytes <= maxBytes; id++) add(history, id, bytes)
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan((maxBytes * 9) / 8)
      expect(history.bytes).toBeGreaterThan(maxBytes - bytes)
    },
  )

  it('each have their own route, or none', () => {
    const history = new RequestHistory({ keep: 3, maxBytes: 1e6 })
    const routeOf = (i: number) =>
      i % 4 === 0 ? undefined : { pattern: null, line: `GET /${i}`, charges: ['read'], retry: 'safe' as const }
    for (let i = 1; i <= 100; i++) {
      keep(history, { correlationId: String(i) }, undefined, routeOf(i))
      const last = [i, i - 1, i - 2].filter((one) => one > 0)
      expect(all(history).map(({ route }) => route)).toEqual(last.map(routeOf))
    }
  })

  it('are found by their whole id, of which several may have the same', () => {
    const history = new RequestHistory({ keep: 100, maxBytes: 1e6 })
    for (const id of ['a', 'a"b', 'é', 'aa', 'a']) keep(history, { correlationId: id })
    const found = (id: string): unknown[] => all(history, { id }).map(({ line }) => line.correlationId)
    expect(['a', 'a"b', 'é', 'b', ''].map(found)).toEqual([['a', 'a'], ['a"b'], ['é'], [], []])
  })

  it('come back as they were, whatever their length and their characters', () => {
    const history = new RequestHistory({ keep: 50, maxBytes: 1e6 })
    const texts = Array.from({ length: 200 }, (_, i) => 'aé€😀'[i % 5]!.repeat((i * 7_919) % 20_000))
    for (const reason of texts) {
      keep(history, { correlationId: 'a', reason })
      expect(all(history)[0]!.line.reason).toBe(reason)
    }
    expect(history.bytes).toBeLessThanOrEqual(1e6)
    expect(all(history).map(({ line }) => line.reason)).toEqual(texts.slice(-history.size).toReversed())
  })

  it('may be read with pauses, in which some are dropped', () => {
    const history = new RequestHistory({ keep: 5, maxBytes: 1e6 })
    for (let i = 1; i <= 5; i++) add(history, i)
    const records = history.newest()[Symbol.iterator]()
    expect(records.next().value!.line.correlationId).toBe('5')
    for (let i = 6; i <= 8; i++) add(history, i)
    expect(records.next().value!.line.correlationId).toBe('4')
    expect(records.next().done).toBe(true)
  })

  it('are found by whether they tell of trouble', () => {
    const history = new RequestHistory({ keep: 6, maxBytes: 1e6 })
    const ended = [
      ['delivered', '200'],
      ['queue_full', '429'],
      ['delivered', '404'],
      ['delivered', '502'],
      ['client_gone', 'none'],
      ['truncated', '200'],
      ['delivered', '201'],
    ]
    ended.forEach(([outcome, status], i) => keep(history, { correlationId: String(i), outcome, status }))
    const found = all(history, { isTrouble: true })
    expect(found.map(({ line }) => line.correlationId)).toEqual(['5', '3', '1'])
  })

  it('are looked through over many turns of the event loop, though none of them is wanted', async () => {
    const history = new RequestHistory({ keep: 400_000, maxBytes: 1e9 })
    for (let i = 0; i < 400_000; i++) keep(history, { correlationId: `call-${i}` })
    const known = {
      records: (wanted: Wanted) => history.newest(wanted),
      lately: history.lately,
      now: 0 as EpochMs,
      instance: 'one',
    }
    for (const question of [
      { kind: 'find', id: 'nobody' },
      { kind: 'list', filter: { isTrouble: true }, most: 1 },
    ] as const) {
      using turns = countTurns()
      expect(await answerHere(question, known)).toEqual([])
      expect(turns.count).toBeGreaterThan(5)
    }
  })

  it('are none where none are to be kept', () => {
    const history = new RequestHistory({ keep: 0, maxBytes: 1e6 })
    for (let i = 1; i <= 10; i++) add(history, i)
    expect(idsOf(history)).toEqual([])
  })
})
