import { describe, expect, it } from 'vitest'
import { backoffMs, type Jitter } from '../../src/resilience/backoff.ts'

const policy = { baseDelayMs: 1_000, maxDelayMs: 60_000, jitter: 'full' } as const

function delay(
  retry: number,
  random: number,
  rest: { previousMs?: number; retryAfterMs?: number; jitter?: Jitter } = {},
) {
  const { jitter = 'full', previousMs = 0, retryAfterMs } = rest
  return Math.round(backoffMs({ ...policy, jitter }, { retry, previousMs, retryAfterMs }, () => random))
}

describe('back-off', () => {
  const ALL = 0.999_999

  it('is a random part of a bound that doubles with every retry, up to the longest', () => {
    expect([1, 2, 3, 6, 7, 20].map((retry) => delay(retry, ALL))).toEqual([1_000, 2_000, 4_000, 32_000, 60_000, 60_000])
    expect(delay(5, 0)).toBe(0)
    expect(delay(3, 0.5)).toBe(2_000)
  })

  it('with equal jitter is at least half of that bound', () => {
    const jitter = 'equal'
    expect([1, 2, 3, 7].map((retry) => delay(retry, 0, { jitter }))).toEqual([500, 1_000, 2_000, 30_000])
    expect([1, 2, 3, 7].map((retry) => delay(retry, ALL, { jitter }))).toEqual([1_000, 2_000, 4_000, 60_000])
  })

  it('with decorrelated jitter is from the base to three times the one before, up to the longest', () => {
    const jitter = 'decorrelated'
    expect(delay(1, ALL, { jitter })).toBe(1_000)
    expect(delay(2, 0, { jitter, previousMs: 1_000 })).toBe(1_000)
    expect(delay(2, ALL, { jitter, previousMs: 1_000 })).toBe(3_000)
    expect(delay(9, 0.5, { jitter, previousMs: 5_000 })).toBe(8_000)
    expect(delay(9, ALL, { jitter, previousMs: 50_000 })).toBe(60_000)
  })

  it.each<Jitter>(['full', 'equal', 'decorrelated'])('waits at least as long as the upstream said: %s', (jitter) => {
    expect(delay(1, 0, { jitter, retryAfterMs: 7_000 })).toBe(7_000)
    // A little more, so that not all come back together.
    expect(delay(9, 0.5, { jitter, retryAfterMs: 7_000 })).toBe(7_500)
    expect(delay(1, 0.9, { jitter, retryAfterMs: 0 })).toBe(0)
  })
})
