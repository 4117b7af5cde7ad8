import { describe, expect, it } from 'vitest'
import { RetryBudget } from '../../src/resilience/retry-budget.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

function withdrawAll(budget: RetryBudget): number {
  let count = 0
  while (budget.withdraw()) count++
  return count
}

describe('a retry budget', () => {
  it('lets retries add their share to the traffic, and no more', () => {
    const budget = new RetryBudget(new SimulatedClock(), 0.2)
    withdrawAll(budget)
    for (let i = 0; i < 200; i++) budget.deposit()
    expect(withdrawAll(budget)).toBe(40)
  })

  it('leaves a little to an upstream with little traffic: ten at once, then one a second', async () => {
    const clock = new SimulatedClock()
    const budget = new RetryBudget(clock, 0.2)
    expect(withdrawAll(budget)).toBe(10)
    await clock.advance(3_000)
    expect(withdrawAll(budget)).toBe(3)
    await clock.advance(3_600_000)
    expect(withdrawAll(budget)).toBe(10)
  })

  it('does not save up for a storm', () => {
    const budget = new RetryBudget(new SimulatedClock(), 0.2)
    for (let i = 0; i < 100_000; i++) budget.deposit()
    expect(withdrawAll(budget)).toBe(100)
  })

  // What is spent here is known nowhere else, so this is what holds over all gateways together.
  it.each([1, 2, 3])(
    'lets gateways together retry no more than its share of all traffic, and a bucket for each: %i',
    async (seed) => {
      const random = seededRandom(seed)
      const clock = new SimulatedClock()
      const share = 0.2
      const gateways = Array.from({ length: 8 }, () => new RetryBudget(clock, share))
      let calls = 0
      let retries = 0
      let refused = 0
      const startedAt = clock.now()
      for (let step = 0; step < 5_000; step++) {
        // Some have much traffic and some hardly any, and everything fails, each call up to five times.
        const gateway = gateways[Math.floor(random() ** 2 * gateways.length)]!
        gateway.deposit()
        calls++
        for (let i = 0; i < 5; i++) {
          if (gateway.withdraw()) retries++
          else refused++
        }
        if (random() < 0.1) await clock.advance(random() * 100)
        const seconds = (clock.now() - startedAt) / 1_000
        expect(retries).toBeLessThanOrEqual(share * calls + gateways.length * (10 + seconds))
      }
      expect(refused).toBeGreaterThan(calls)
    },
  )
})
