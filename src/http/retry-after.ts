import type { EpochMs } from '../time/clock.ts'
import { msUntil, parseDate, senderNow } from './date.ts'
import { type Fields, membersOf, onlyValue } from './fields.ts'

/** The longest time of RFC 9111 §1.2.2. With this bound, sums stay exact. */
const MOST_SECONDS = 2 ** 31
const SECONDS = /^\d+(?:\.\d*)?$/

/**
 * Milliseconds until a response asks the client to come back (RFC 9110 §10.2.3). It may say seconds, also with a
 * fraction, or a moment, by the sender's clock: a date in any form, or seconds or milliseconds since 1970. If it says several, the latest
 * counts, because a client that comes later than needed is served, too. Undefined if there is none, if none can be read, or if it
 * says "at once" or a moment that is over: servers that say so know no better, and retries at once would only add to the load.
 * `retry-after-ms`, which Azure OpenAI adds and the SDKs of OpenAI and Anthropic prefer, says the same more precisely:
 * https://github.com/openai/openai-node/blob/master/src/client.ts (`retryRequest`).
 */
export function retryAfterOf(fields: Fields, now: EpochMs): number | undefined {
  const ms = onlyValue(fields['retry-after-ms'])
  if (ms !== undefined && SECONDS.test(ms) && Number(ms) > 0) return Math.min(Number(ms), MOST_SECONDS * 1_000)
  const field = fields['retry-after']
  if (field === undefined) return undefined
  let latest = 0
  for (const text of membersOf(field)) latest = Math.max(latest, parseRetryAfter(text, now, fields))
  return latest === 0 ? undefined : latest
}

/** 0 for what says nothing. */
function parseRetryAfter(text: string, now: EpochMs, fields: Fields): number {
  const theirNow = senderNow(fields, now)
  const ms = SECONDS.test(text) ? msUntil(Number(text), theirNow) : (parseDate(text, now) ?? 0) - theirNow
  return Math.min(Math.max(0, ms), MOST_SECONDS * 1_000)
}

/**
 * What Retry-After says to a client that is to wait so many milliseconds: whole seconds, at least one (RFC 9110 §10.2.3). They
 * are rounded up, because a client that comes back a moment too soon is refused again.
 */
export function retryAfterSeconds(ms: number): number {
  return Math.max(1, Math.ceil(ms / 1_000))
}
