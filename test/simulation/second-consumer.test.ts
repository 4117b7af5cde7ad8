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

describe('somebody else who takes two fifths of a quota', () => {
  it.each<[string, Partial<Story>]>([
    ['is refused as we are', {}],
    ['is let in first', { isFavoured: true }],
    ['comes in bursts', { isFavoured: true, isBursty: true }],
    ['meets one gateway with the embedded ledger', { gateways: 0, isFavoured: true }],
    ['uses an account of which the upstream says what remains', { dialect: 'headers' }],
    ['uses a limit of 300 in five seconds', { requests: 300, windowMs: 5_000, latencyMs: { min: 5, max: 60 } }],
  ])(
    'and %s: few calls are refused from the third window on, and all of it comes back in five',
    async (_, story) => {
      for (const seed of [1, 2]) {
        const told = { ...MINUTE, ...story, seed }
        const tale = await tell(told)
        const { refusedShare, used, seen } = summaryOf(told, tale)
        // Of a dozen seeds each `npm run simulate:others` has the mean, which is below one in a hundred.
        expect(refusedShare, `seed ${seed}`).toBeLessThan(0.015)
        expect(used, `seed ${seed}`).toBeGreaterThan(0.93)
        expect(seen, `seed ${seed}`).toBe(0)
        expect(tale.wholeAfter, `seed ${seed}`).toBeLessThan(5)
      }
    },
    60_000,
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
