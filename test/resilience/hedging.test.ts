import { expect, it } from 'vitest'
import { Hedging } from '../../src/resilience/hedging.ts'

it('a hedge after a time is after that time, whatever calls take', () => {
  const hedging = new Hedging({ ms: 200 })
  hedging.observe('read', 5_000)
  expect(hedging.afterMs('read')).toBe(200)
})

it('a hedge after a part of the calls waits until enough of that class are known, and follows them', () => {
  const hedging = new Hedging({ quantile: 0.95 })
  for (let i = 0; i < 19; i++) hedging.observe('read', 100)
  expect(hedging.afterMs('read')).toBeUndefined()
  hedging.observe('read', 100)
  expect(hedging.afterMs('read')).toBe(100)
  expect(hedging.afterMs('write')).toBeUndefined()
  // Of the latest 256, a tenth is slow; then all are.
  for (let i = 0; i < 256; i++) hedging.observe('read', i % 10 === 0 ? 900 : 100)
  expect(hedging.afterMs('read')).toBe(900)
  for (let i = 0; i < 288; i++) hedging.observe('read', 50)
  expect(hedging.afterMs('read')).toBe(50)
})
