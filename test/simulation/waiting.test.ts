import { expect, it } from 'vitest'
import { simulateWaiting } from './waiting.ts'

const SEEDS = 80

it('whoever waits is told in time, nothing leaks and no queue stands still, whatever leaves, dies or fails', async () => {
  const ends: Record<string, number> = {}
  for (let seed = 0; seed < SEEDS; seed++) {
    const outcome = await simulateWaiting(seed)
    const { unended, inFlight, waiting, counted, stuck } = outcome
    const left = { unended, inFlight, waiting, counted, stuck }
    expect(left, `seed ${seed}`).toEqual({ unended: 0, inFlight: 0, waiting: 0, counted: 0, stuck: 0 })
    expect(outcome.latestMs, `seed ${seed}`).toBeLessThan(1_000)
    for (const [end, count] of Object.entries(outcome.ends)) ends[end] = (ends[end] ?? 0) + count
  }
  // Every way to end has happened, so it was no idle run.
  for (const end of ['admitted', 'quota_exhausted', 'share_exceeded', 'queue_full', 'closed', 'gone'])
    expect(ends[end], end).toBeGreaterThan(SEEDS)
  expect(ends['store_unavailable']).toBeGreaterThan(0)
})
