import { describe, expect, it } from 'vitest'
import { callsAhead, costsOf, type Flow, type Part, servingOrder } from '../../src/queue/fair-share.ts'
import { seededRandom } from '../support/seeded-random.ts'

function flow(weight: number, share = 0, { calls = Infinity, virtualService = 0 } = {}): Flow {
  return { weight, share, calls, virtualService }
}

/** A flow whose last calls are less urgent. */
function mixed(weight: number, share: number, parts: readonly Part[], virtualService = 0): Flow {
  return { weight, share, parts, virtualService, calls: parts.reduce((sum, { calls }) => sum + calls, 0) }
}

/** What part of a long run each flow gets, in per cent. */
function partsOf(flows: readonly Flow[]): number[] {
  const counts = flows.map(() => 0)
  const calls = 10_000
  for (const i of servingOrder(flows, costsOf(flows), calls)) counts[i]!++
  return counts.map((count) => Math.round((100 * count) / calls))
}

describe('fair shares', () => {
  it.each([
    ['of one client: everything', [flow(1)], [100]],
    ['of equals: equal parts', [flow(1), flow(1), flow(1), flow(1)], [25, 25, 25, 25]],
    ['by weight', [flow(1), flow(1), flow(2), flow(4)], [13, 13, 25, 50]],
    ['with a share that is more than the weight gives', [flow(1, 0.4), flow(1), flow(1), flow(1)], [40, 20, 20, 20]],
    ['with a share that is less than the weight gives', [flow(4, 0.4), flow(1)], [80, 20]],
    ['with several shares', [flow(1, 0.5), flow(1, 0.3), flow(1), flow(1)], [50, 30, 10, 10]],
    [
      'with shares of everything, which leave the others next to nothing',
      [flow(1, 0.6), flow(1, 0.4), flow(1)],
      [59, 40, 1],
    ],
    ['with shares only', [flow(1, 0.6), flow(1, 0.2)], [60, 40]],
  ] as const)('%s', (_, flows, parts) => {
    for (const [i, part] of partsOf(flows).entries()) expect(Math.abs(part - parts[i]!)).toBeLessThanOrEqual(1)
  })

  it('lend out what a client does not want', () => {
    const flows = [flow(1, 0.5, { calls: 10 }), flow(1)]
    const order = [...servingOrder(flows, costsOf(flows), 100)]
    expect(order.filter((i) => i === 0)).toHaveLength(10)
    expect(order.slice(30).every((i) => i === 1)).toBe(true)
  })

  it('serve whoever was served least until all are even', () => {
    const flows = [flow(1, 0, { virtualService: 5 }), flow(1)]
    expect([...servingOrder(flows, costsOf(flows), 7)]).toEqual([1, 1, 1, 1, 1, 0, 1])
  })

  it('weigh each call by its own urgency', () => {
    const flows = [
      mixed(4, 0, [
        { calls: 4, times: 1 },
        { calls: 20, times: 4 },
      ]),
      flow(1, 0, { calls: 20 }),
    ]
    expect([...servingOrder(flows, costsOf(flows), 12)]).toEqual([0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0])
  })

  it('give a client its share, however urgent its calls are', () => {
    const flows = [
      mixed(4, 0.9, [
        { calls: 1, times: 1 },
        { calls: 999, times: 16 },
      ]),
      flow(1),
    ]
    expect([...servingOrder(flows, costsOf(flows), 100)].filter((i) => i === 0)).toHaveLength(90)
  })

  it('tell how many calls go before one as the order of service has it', () => {
    const random = seededRandom(4)
    for (let round = 0; round < 500; round++) {
      const flows = Array.from({ length: 1 + Math.floor(random() * 6) }, () => {
        const [weight, share] = [[1, 1, 2, 0.25, 8][Math.floor(random() * 5)]!, random() < 0.3 ? 0.15 : 0]
        const [calls, virtualService] = [1 + Math.floor(random() * 20), Math.floor(random() * 10)]
        if (random() < 0.5) return flow(weight, share, { calls, virtualService })
        const parts = [1, 4, 16].map((times) => ({ calls: 1 + Math.floor(random() * 9), times }))
        return mixed(weight, share, parts, virtualService)
      })
      const costs = costsOf(flows)
      const order = [...servingOrder(flows, costs, 1_000)]
      const turns = flows.map(() => 0)
      for (const [position, i] of order.entries()) {
        turns[i]!++
        expect(callsAhead(flows, costs, i, turns[i]!) + turns[i]!).toBe(position + 1)
      }
      expect(turns).toEqual(flows.map(({ calls }) => calls))
    }
  })
})
