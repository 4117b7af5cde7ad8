import { expect, it } from 'vitest'
import { LearnedPrice } from '../../src/answers/learned-price.ts'
import { seededRandom } from '../support/seeded-random.ts'

it('knows nothing until it has seen enough for its miss rate', () => {
  const learned = new LearnedPrice()
  for (let n = 1; n < 20; n++) {
    expect(learned.reserve(0.05)).toBeUndefined()
    learned.observe(n)
  }
  learned.observe(20)
  expect(learned.reserve(0.05)).toBe(20)
})

it('reserves by the miss rate of now, from the prices that were seen before', () => {
  const learned = new LearnedPrice()
  for (let n = 1; n <= 100; n++) learned.observe(n)
  expect([learned.reserve(0.5), learned.reserve(0.05)]).toEqual([51, 96])
})

it('forgets what prices were long ago', () => {
  const learned = new LearnedPrice()
  for (let n = 0; n < 500; n++) learned.observe(1_000)
  for (let n = 0; n < 1_000; n++) learned.observe(10)
  expect(learned.reserve(0.1)).toBe(10)
})

it.each([0.01, 0.05, 0.2])('is exceeded by at most the share %d of prices, however heavy their tail is', (missRate) => {
  let misses = 0
  let calls = 0
  for (let seed = 1; seed <= 10; seed++) {
    const random = seededRandom(seed)
    const learned = new LearnedPrice()
    for (let n = 0; n < 2_500; n++) {
      const price = Math.ceil(10 / (1 - random()) ** 0.8)
      const reserve = learned.reserve(missRate)
      if (reserve !== undefined) {
        calls++
        if (price > reserve) misses++
      }
      learned.observe(price)
    }
  }
  expect(misses / calls).toBeLessThan(missRate * 1.1)
  expect(misses / calls).toBeGreaterThan(missRate * 0.7)
})
