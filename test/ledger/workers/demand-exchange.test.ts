import { expect, it } from 'vitest'
import type { Demand } from '../../../src/ledger/demand.ts'
import { DemandExchange } from '../../../src/ledger/workers/demand-exchange.ts'

function wants(client: string): Demand {
  return { client, weight: 1, share: 0, priority: 'normal', calls: 3, waitedMs: 0, perSecond: 1 }
}

it('lets all begin alike once the last worker where calls waited has died', () => {
  const exchange = new DemandExchange()
  const [dying, next] = [{}, {}]
  exchange.exchange(dying, 'queue', [wants('a')], 0)
  exchange.serve('queue', [['a', 500]], 1)
  exchange.exchange(dying, 'queue', [wants('a')], 1_000)
  exchange.forget(dying)
  const { virtualService, turns } = exchange.exchange(next, 'queue', [wants('a'), wants('b')], 2_000)
  expect(virtualService).toEqual([
    ['a', 0],
    ['b', 0],
  ])
  expect(turns).toBe(0)
})

it('goes on with what was served while calls wait at another worker', () => {
  const exchange = new DemandExchange()
  const [dying, other] = [{}, {}]
  exchange.exchange(dying, 'queue', [wants('a')], 0)
  exchange.exchange(other, 'queue', [wants('a')], 0)
  exchange.serve('queue', [['a', 500]], 1)
  exchange.forget(dying)
  expect(exchange.exchange(other, 'queue', [wants('a')], 1_000)).toEqual({
    virtualService: [['a', 500]],
    turns: 1,
    others: [],
  })
})
