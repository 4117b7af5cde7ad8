import type { Random } from '../time/clock.ts'

/**
 * How delays are spread, so that calls that failed together are not retried together. After AWS, "Exponential Backoff and
 * Jitter".
 * - `full`: all of the delay is random.
 * - `equal`: half of it is random.
 * - `decorrelated`: it is random between the base delay and three times the delay before.
 */
export type Jitter = 'full' | 'equal' | 'decorrelated'

export interface BackoffPolicy {
  readonly baseDelayMs: number
  readonly maxDelayMs: number
  readonly jitter: Jitter
}

/**
 * How long to wait before a retry, in milliseconds. `retry` counts from 1. `previousMs` is the delay before the last retry, 0 for
 * the first one. The wait is at most `maxDelayMs`. For `full` and `equal` its bound doubles with every retry. If the upstream said
 * when to come back, `retryAfterMs`, the wait is that long plus a random part of the base delay, even beyond `maxDelayMs`.
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

/** How long to wait after `failures` failures in a row (at least 1), in milliseconds: a second, doubled each time, up to a minute. */
export function backoffOf(failures: number): number {
  return Math.min(LONGEST_MS, FIRST_MS * 2 ** (failures - 1))
}
