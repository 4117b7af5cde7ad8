import { describe, expect, it } from 'vitest'
import { type Story, summaryOf, tell } from './second-consumer.ts'

const MINUTE: Story = {
  seed: 1,
  gateways: 2,
  requests: 1_000,
  windowMs: 60_000,
  latencyMs: { min: 20, max: 400 },
  dialect: 'silent',
  share: 0.4,
  from: 3,
  until: 13,
  windows: 19,
}

const FIVE_SECONDS = { requests: 300, windowMs: 5_000, latencyMs: { min: 5, max: 60 } }

describe('somebody else who takes two fifths of a quota', () => {
  it.each<[string, number, Partial<Story>]>([
    ['is refused as we are', 2, {}],
    ['is let in first', 2, { isFavoured: true }],
    ['comes in bursts', 2, { isFavoured: true, isBursty: true }],
    ['meets one gateway with the embedded ledger', 2, { gateways: 0, isFavoured: true }],
    ['uses an account of which the upstream says what remains', 2, { dialect: 'headers' }],
    ['uses a limit of 300 in five seconds', 10, FIVE_SECONDS],
    ['is let in first to a limit of 300 in five seconds', 10, { ...FIVE_SECONDS, gateways: 3, isFavoured: true }],
    ['meets the embedded ledger at a limit of 300', 10, { ...FIVE_SECONDS, gateways: 0, isFavoured: true }],
  ])(
    'and %s: few calls are refused from the third window on, and all of it comes back in five',
    async (_, seeds, story) => {
      let [refused, left] = [0, 0]
      for (let seed = 1; seed <= seeds; seed++) {
        const told = { ...MINUTE, ...story, seed }
        const tale = await tell(told)
        const { refusedShare, used, seen } = summaryOf(told, tale)
        refused += refusedShare
        left += 1 - used
        expect(refusedShare, `seed ${seed}`).toBeLessThan(0.01)
        // A call is a larger part of the smaller limit, so that single runs of it differ more.
        expect(used, `seed ${seed}`).toBeGreaterThan(seeds > 2 && told.isFavoured === true ? 0.88 : 0.93)
        expect(seen, `seed ${seed}`).toBe(0)
        expect(tale.wholeAfter, `seed ${seed}`).toBeLessThan(5)
      }
      expect(refused / seeds).toBeLessThan(0.006)
      expect(left / seeds).toBeLessThan(0.07)
    },
  )

  it('is noticed at all: without that, two fifths of the calls would be refused', async () => {
    const told = { ...MINUTE, isFavoured: true }
    const { chapters } = await tell(told)
    const first = chapters[told.from + 1]!
    expect(first.refused / (first.accepted + first.refused)).toBeGreaterThan(0.2)
  })

  it('teaches nothing where there is nobody', async () => {
    for (const dialect of ['silent', 'headers'] as const) {
      const { chapters, wholeAfter } = await tell({ ...MINUTE, share: 0, dialect, windows: 8, until: 4 })
      expect(wholeAfter).toBeLessThan(0.2)
      expect(chapters.map(({ refused }) => refused)).toEqual(chapters.map(() => 0))
    }
  })
})
