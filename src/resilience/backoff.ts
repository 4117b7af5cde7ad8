import type { Random } from '../time/clock.ts'

/**
 * How delays are spread, so that those who failed together do not come back together. After AWS, "Exponential Backoff and
 * Jitter": `full`, all of the delay is random; `equal`, half of it; `decorrelated`, between the base and three times the
 * delay before.
 */
export type Jitter = 'full' | 'equal' | 'decorrelated'

export interface BackoffPolicy {
  readonly baseDelayMs: number
  readonly maxDelayMs: number
  readonly jitter: Jitter
}

/**
 * How long to wait before the given retry (1 for the first), after a delay of `previousMs` (0 for the first): up to a bound
 * that doubles with every retry. Where the upstream said when to come back, that long, and a random part of the base delay
 * more.
 */
export function backoffMs(
  policy: BackoffPolicy,
  { retry, previousMs, retryAfterMs }: { retry: number; previousMs: number; retryAfterMs: number | undefined },
  random: Random,
): number {
  const { baseDelayMs, maxDelayMs, jitter } = policy
  if (retryAfterMs !== undefined) return retryAfterMs + random() * Math.min(baseDelayMs, retryAfterMs)
  const bound = Math.min(maxDelayMs, baseDelayMs * 2 ** (retry - 1))
  switch (jitter) {
    case 'full':
      return random() * bound
    case 'equal':
      return bound / 2 + (random() * bound) / 2
    case 'decorrelated': {
      const most = Math.max(baseDelayMs, 3 * previousMs)
      return Math.min(maxDelayMs, baseDelayMs + random() * (most - baseDelayMs))
    }
  }
}

const FIRST_MS = 1_000
const LONGEST_MS = 60_000

/** How long to wait after so many failures in a row, at least one: a second, doubled with each, and at most a minute. */
export function backoffOf(failures: number): number {
  return Math.min(LONGEST_MS, FIRST_MS * 2 ** (failures - 1))
}
