import { expect, it } from 'vitest'
import { Arrivals } from '../../src/queue/client-queues.ts'
import { VirtualService } from '../../src/queue/fair-share.ts'
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
  const virtualService = new VirtualService()
  const waiting = new Set(['first'])
  for (let n = 0; n < 10_000; n++) {
    const client = `client ${n}`
    virtualService.begin(client, n, (name) => waiting.has(name))
    virtualService.add(client, 1)
    virtualService.add('greedy', 2)
    virtualService.add('first', 1)
  }
  expect(virtualService.costs.size).toBeLessThanOrEqual(200)
  expect([virtualService.costs.get('greedy'), virtualService.costs.get('first')]).toEqual([20_000, 10_000])
  virtualService.begin('greedy', 10_000, () => true)
  virtualService.begin('late', 10_000, () => true)
  expect([virtualService.costs.get('greedy'), virtualService.costs.get('late')]).toEqual([20_000, 10_000])
})
