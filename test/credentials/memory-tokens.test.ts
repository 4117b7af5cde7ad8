import { expect, it } from 'vitest'
import { MemoryTokens } from '../../src/credentials/token-store.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('keeps a token until it expires, and says how long that is', async () => {
  const clock = new SimulatedClock()
  const tokens = new MemoryTokens(clock)
  expect(await tokens.get('a')).toBeUndefined()
  await tokens.set('a', 'sealed', 1_000)
  await clock.advance(400)
  expect(await tokens.get('a')).toEqual({ sealed: 'sealed', leftMs: 600 })
  await clock.advance(600)
  expect(await tokens.get('a')).toBeUndefined()
})

it('locks for one owner at a time, until that one unlocks it, or has died', async () => {
  const clock = new SimulatedClock()
  const tokens = new MemoryTokens(clock)
  const locked = await Promise.all(['one', 'two'].map((owner) => tokens.lock('a', owner, 1_000)))
  expect(locked).toEqual([true, false])
  expect(await tokens.lock('b', 'two', 1_000)).toBe(true)
  await tokens.unlock('a', 'two')
  expect(await tokens.lock('a', 'two', 1_000)).toBe(false)
  await tokens.unlock('a', 'one')
  expect(await tokens.lock('a', 'two', 1_000)).toBe(true)
  await clock.advance(1_000)
  expect(await tokens.lock('a', 'one', 1_000)).toBe(true)
  // The one that was taken for dead ends nobody else's lock.
  await tokens.unlock('a', 'two')
  expect(await tokens.lock('a', 'three', 1_000)).toBe(false)
})
