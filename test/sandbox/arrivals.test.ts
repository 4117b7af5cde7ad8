import { describe, expect, test } from 'vitest'
import { Arrivals } from '../../src/sandbox/arrivals.ts'
import { seededRandom } from '../support/seeded-random.ts'

describe('arrivals', () => {
  test('leave the window at the very instant at which it is over', () => {
    const arrivals = new Arrivals(100)
    arrivals.add(1_000)
    expect(arrivals.count(1_099.999)).toBe(1)
    expect(arrivals.count(1_100)).toBe(0)
  })

  test('are counted as by hand, however they come', () => {
    const random = seededRandom(7)
    const arrivals = new Arrivals(50)
    const times: number[] = []
    let now = 0
    for (let i = 0; i < 20_000; i++) {
      // Bursts at one instant, and gaps in which the window empties.
      now += random() < 0.3 ? 0 : random() < 0.001 ? 60 : random() / 10
      arrivals.add(now)
      times.push(now)
      const byHand = times.slice(-5_000).filter((at) => at > now - 50).length
      if (arrivals.count(now) !== byHand) expect(arrivals.count(now)).toBe(byHand)
    }
  })

  test('tell when there will be fewer of them', () => {
    const arrivals = new Arrivals(100)
    for (const at of [1, 2, 3]) arrivals.add(at)
    expect(arrivals.fewerThanAt(3)).toBe(101)
    expect(arrivals.fewerThanAt(1)).toBe(103)
  })
})
