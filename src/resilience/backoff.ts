import type { EpochMs, Random } from '../clock.ts'

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
 * How long to wait before the given repeat (1 for the first), after a delay of `previousMs` (0 for the first): up to a bound
 * that doubles with every repeat. Where the upstream said when to come back, that long, and a random part of the base delay
 * more.
 */
export function backoffMs(
  policy: BackoffPolicy,
  { repeat, previousMs, retryAfterMs }: { repeat: number; previousMs: number; retryAfterMs: number | undefined },
  random: Random,
): number {
  const { baseDelayMs, maxDelayMs, jitter } = policy
  if (retryAfterMs !== undefined) return retryAfterMs + random() * Math.min(baseDelayMs, retryAfterMs)
  const bound = Math.min(maxDelayMs, baseDelayMs * 2 ** (repeat - 1))
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

/** RFC 9111 §1.2.2 has no longer time either; and what is reckoned with it stays a number. */
const MOST_SECONDS = 2 ** 31

/** Reads a `Retry-After` field: seconds, or an HTTP date (RFC 9110 §10.2.3). Undefined for anything else. */
export function parseRetryAfter(value: string, now: EpochMs): number | undefined {
  const text = value.trim()
  if (/^\d+$/.test(text)) return Math.min(Number(text), MOST_SECONDS) * 1_000
  if (!/^[A-Z][a-z]{2,8},? /.test(text)) return undefined
  const date = Date.parse(text)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}
