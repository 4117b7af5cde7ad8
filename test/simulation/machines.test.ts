import { describe, expect, it } from 'vitest'
import { burst, contend, grow, strand, type Weather } from './machines.ts'

describe('sixteen gateways that share one limit', () => {
  it('never exceed it, are fair within 5 %, and ask Redis three times for each call at most', async () => {
    const { unfairness, used, over, told } = await contend(16, 6)
    expect(over).toBe(0)
    expect(unfairness).toBeLessThan(0.05)
    expect(used).toBeGreaterThan(0.97)
    expect(told.commands).toBeLessThan(3)
  })

  it('tell Redis as much for each call as one gateway does', async () => {
    const [one, sixteen] = [await grow(1), await grow(16)]
    for (const what of ['commands', 'bytes', 'idleCommands', 'idleBytes'] as const) {
      expect(sixteen[what] / one[what], what).toBeLessThan(1.05)
    }
  })

  // Without Redis a gateway has its lease, and what it had charged in the window before.
  it.each<[number, boolean, Weather, number]>([
    [16, true, 'shared', 0.02],
    [16, false, 'shared', 0.02],
    [16, true, 'away', 0.5],
    [64, true, 'away', 0.1],
    [16, false, 'away', 0.02],
  ])('strand little of %i a minute (at all: %s, Redis: %s)', async (requests, isSpread, weather, most) => {
    const { part, over } = await strand({ gateways: 16, requests, isSpread, weather })
    expect(over).toBe(0)
    expect(part).toBeLessThan(most)
  })

  it('give a small limit that is free to a burst at one of them as soon as leases can come back', async () => {
    expect(await burst(16, 16, false)).toBeLessThan(750)
    expect(await burst(16, 64, true)).toBeLessThan(4_000)
  })
})
