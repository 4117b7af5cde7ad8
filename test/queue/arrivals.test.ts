import { expect, it } from 'vitest'
import { Arrivals } from '../../src/queue/arrivals.ts'
import { Served } from '../../src/queue/served.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('keeps nothing of clients that have stopped coming, however many have come', async () => {
  const clock = new SimulatedClock()
  const arrivals = new Arrivals(clock)
  for (let n = 0; n < 10_000; n++) {
    arrivals.add(`client ${n}`)
    arrivals.add('always')
    await clock.advance(1_000)
  }
  expect(arrivals.size).toBeLessThanOrEqual(200)
  expect(arrivals.perSecond('client 0')).toBe(0)
  expect(arrivals.perSecond('always')).toBeCloseTo(1, 0)
})

it('remembers what was served to those that wait, and of the others only who has had more', () => {
  const served = new Served()
  const waiting = new Set(['first'])
  for (let n = 0; n < 10_000; n++) {
    const client = `client ${n}`
    served.begin(client, n, (name) => waiting.has(name))
    served.add(client, 1)
    served.add('greedy', 2)
    served.add('first', 1)
  }
  expect(served.costs.size).toBeLessThanOrEqual(200)
  expect([served.costs.get('greedy'), served.costs.get('first')]).toEqual([20_000, 10_000])
  served.begin('greedy', 10_000, () => true)
  served.begin('late', 10_000, () => true)
  expect([served.costs.get('greedy'), served.costs.get('late')]).toEqual([20_000, 10_000])
})
