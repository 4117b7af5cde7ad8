import type { Random } from '../clock.ts'

export interface BackoffPolicy {
  readonly baseDelayMs: number
  readonly maxDelayMs: number
}

/**
 * How long to wait before the given repeat (1 for the first): "full jitter" after AWS, a random part of a bound that doubles
 * with every repeat. Where the upstream said when to come back, that long, and a random part of the base delay more, so that
 * those who were all told the same do not all return at once.
 */
export function backoffMs(
  policy: BackoffPolicy,
  repeat: number,
  retryAfterMs: number | undefined,
  random: Random,
): number {
  if (retryAfterMs !== undefined) return retryAfterMs + random() * Math.min(policy.baseDelayMs, retryAfterMs)
  return random() * Math.min(policy.maxDelayMs, policy.baseDelayMs * 2 ** (repeat - 1))
}

/** Reads a `Retry-After` field: seconds, or an HTTP date (RFC 9110 §10.2.3). Undefined for anything else. */
export function parseRetryAfter(value: string, nowEpochMs: number): number | undefined {
  const text = value.trim()
  if (/^\d+$/.test(text)) return Number(text) * 1_000
  if (!/^[A-Z][a-z]{2,8},? /.test(text)) return undefined
  const date = Date.parse(text)
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowEpochMs)
}
