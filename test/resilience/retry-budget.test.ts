import { describe, expect, it } from 'vitest'
import { RetryBudget } from '../../src/resilience/retry-budget.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

function withdrawAll(budget: RetryBudget): number {
  let count = 0
  while (budget.withdraw()) count++
  return count
}

describe('a retry budget', () => {
  it('lets repeats add their share to the traffic, and no more', () => {
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
})
