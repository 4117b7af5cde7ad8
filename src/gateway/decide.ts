import type { Random } from '../clock.ts'
import { backoffMs, type BackoffPolicy } from '../resilience/backoff.ts'

/** How an attempt ended, before anything of it was passed to the client. */
export type Ending =
  | { readonly kind: 'response'; readonly status: number; readonly retryAfterMs: number | undefined }
  /** No byte was sent. */
  | { readonly kind: 'unreachable' }
  /** The connection broke after the first byte was sent and before the response's headers. */
  | { readonly kind: 'interrupted' }
  | { readonly kind: 'timeout' }

export interface RepeatPolicy extends BackoffPolicy {
  readonly retries: number
}

export interface Situation {
  /** Attempts made so far, this one included. */
  readonly attempts: number
  /** Whether the call may reach the upstream twice: by its method, or because its route is marked. */
  readonly isSafe: boolean
  /** Whether the body can be sent again from its beginning. */
  readonly isRepeatable: boolean
  /** Time left until the whole call must have response headers. */
  readonly leftMs: number
}

// 501 and 505 would only be repeated; a 500 is often momentary.
const REPEATABLE_STATUS = new Set([429, 500, 502, 503, 504])

/**
 * Milliseconds after which to send a call once more, or undefined if this attempt was the last one: what cannot be repeated
 * safely, or in time, ends the call as it is.
 */
export function decide(ending: Ending, policy: RepeatPolicy, situation: Situation, random: Random): number | undefined {
  if (situation.attempts > policy.retries || !situation.isRepeatable) return undefined
  if (!mayRepeat(ending, situation.isSafe)) return undefined
  const retryAfterMs = ending.kind === 'response' ? ending.retryAfterMs : undefined
  const delayMs = backoffMs(policy, situation.attempts, retryAfterMs, random)
  return delayMs < situation.leftMs ? delayMs : undefined
}

function mayRepeat(ending: Ending, isSafe: boolean): boolean {
  switch (ending.kind) {
    case 'unreachable':
      return true // no byte was sent, so even a POST is safe to repeat
    case 'interrupted':
      return isSafe
    case 'timeout':
      return false // the time was the call's; and an upstream that is too slow needs no second copy
    case 'response':
      return isSafe && REPEATABLE_STATUS.has(ending.status)
  }
}
