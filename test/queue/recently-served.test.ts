import { expect, it } from 'vitest'
import { RecentlyServed } from '../../src/queue/recently-served.ts'

it('counts whose calls were served since, the most first', () => {
  const served = new RecentlyServed()
  served.add('early')
  const since = served.count
  for (const client of ['a', 'b', 'b']) served.add(client)
  expect(served.since(since)).toEqual({
    calls: 3,
    byClient: [
      ['b', 2],
      ['a', 1],
    ],
  })
  expect(served.since(served.count)).toEqual({ calls: 0, byClient: [] })
})

it('names few clients, of the last calls only, however many were served', () => {
  const served = new RecentlyServed()
  for (let i = 0; i < 10_000; i++) served.add(`client-${i % 9}`)
  const { calls, byClient } = served.since(0)
  expect(calls).toBe(10_000)
  expect(byClient).toHaveLength(5)
  expect(byClient.reduce((sum, [, count]) => sum + count, 0)).toBeLessThanOrEqual(256)
})
