import { describe, expect, it } from 'vitest'
import { backoffMs, parseRetryAfter } from '../../src/resilience/backoff.ts'

const policy = { baseDelayMs: 1_000, maxDelayMs: 60_000 }

describe('back-off', () => {
  it('is a random part of a bound that doubles with every repeat, up to the longest', () => {
    const bounds = [1, 2, 3, 6, 7, 20].map((repeat) => backoffMs(policy, repeat, undefined, () => 0.999_999))
    expect(bounds.map(Math.round)).toEqual([1_000, 2_000, 4_000, 32_000, 60_000, 60_000])
    expect(backoffMs(policy, 5, undefined, () => 0)).toBe(0)
    expect(backoffMs(policy, 3, undefined, () => 0.5)).toBe(2_000)
  })

  it('waits at least as long as the upstream said, and a little more so that not all come back together', () => {
    expect(backoffMs(policy, 1, 7_000, () => 0)).toBe(7_000)
    expect(backoffMs(policy, 9, 7_000, () => 0.5)).toBe(7_500)
    expect(backoffMs(policy, 1, 0, () => 0.9)).toBe(0)
  })
})

describe('Retry-After', () => {
  const now = Date.parse('Sat, 21 Nov 2026 10:00:00 GMT')
  it.each([
    ['120', 120_000],
    ['0', 0],
    [' 5 ', 5_000],
    ['Sat, 21 Nov 2026 10:00:30 GMT', 30_000],
    ['Saturday, 21-Nov-26 10:00:30 GMT', 30_000],
    ['Sat Nov 21 10:00:30 2026 GMT', 30_000],
    ['Sat, 21 Nov 2026 09:59:00 GMT', 0],
    ['-5', undefined],
    ['1.5', undefined],
    ['soon', undefined],
    ['Sat, 41 Nov 2026 10:00:30 GMT', undefined],
    ['', undefined],
  ])('"%s" is %s', (value, expected) => {
    expect(parseRetryAfter(value, now)).toBe(expected)
  })
})
