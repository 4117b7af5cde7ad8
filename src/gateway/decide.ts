import type { Random } from '../time/clock.ts'
import { backoffMs, type BackoffPolicy } from '../resilience/backoff.ts'

export interface Answered {
  readonly kind: 'response'
  readonly status: number
  readonly retryAfterMs: number | undefined
}

/** How an attempt ended, before anything of it was passed to the client. */
export type Ending =
  | Answered
  /** The upstream refused the call for its rate, and wants none for `pauseMs`. */
  | { readonly kind: 'throttled'; readonly status: number; readonly pauseMs: number }
  | Unanswered

/** How an attempt without a response ended. */
export type Unanswered =
  /** No byte was sent, or the upstream says that it has done nothing of the call. */
  | { readonly kind: 'unreachable' }
  /** The connection broke after the first byte was sent and before the response's headers, or they are no well-formed HTTP. */
  | {
      readonly kind: 'interrupted'
      /** The status of an interim response that had come: the upstream had begun with the call. */
      readonly interim?: number | undefined
      /** The connection was broken by the gateway, which takes no head as large as that of the response. */
      readonly isHeadTooLarge?: boolean
    }
  | { readonly kind: 'timeout'; readonly phase: 'headers' | 'total' }

export interface RetryPolicy extends BackoffPolicy {
  readonly retries: number
  /** The statuses of responses after which a call is retried. */
  readonly statuses: ReadonlySet<number>
  /** Which calls may be sent again after the upstream refused them for their rate: any, if it refuses before it acts. */
  readonly throttled: 'any' | 'safe'
}

export interface Situation {
  /** Attempts made so far, this one included. */
  readonly attempts: number
  /** Whether the call may reach the upstream twice: by its method, or because its route is marked. */
  readonly isSafe: boolean
  /** Whether the body can be sent again from its beginning. */
  readonly isReplayable: boolean
  /** The delay before this attempt; 0 before the first. */
  readonly previousMs: number
  /** Time left until the whole call must have response headers. */
  readonly leftMs: number
}

/**
 * Milliseconds after which to send a call once more; undefined if this attempt was the last one. A call that can't be repeated
 * safely, or in time, ends as it is.
 */
export function decide(ending: Ending, policy: RetryPolicy, situation: Situation, random: Random): number | undefined {
  if (situation.attempts > policy.retries || !situation.isReplayable) return undefined
  if (!mayRetry(ending, policy, situation.isSafe)) return undefined
  // It does not sleep, but waits with the others for its turn, which does not come before the pause is over.
  if (ending.kind === 'throttled') return ending.pauseMs < situation.leftMs ? 0 : undefined
  const retryAfterMs = ending.kind === 'response' ? ending.retryAfterMs : undefined
  const { attempts: retry, previousMs } = situation
  const delayMs = backoffMs(policy, { retry, previousMs, retryAfterMs }, random)
  return delayMs < situation.leftMs ? delayMs : undefined
}

function mayRetry(ending: Ending, { statuses, throttled }: RetryPolicy, isSafe: boolean): boolean {
  switch (ending.kind) {
    case 'unreachable':
      return true // nothing was done, so even a POST is safe to retry
    case 'interrupted':
      return isSafe && ending.isHeadTooLarge !== true
    case 'throttled':
      // A server that answers 5xx may have begun; a limiter in front of it has not.
      return isSafe || (throttled === 'any' && ending.status < 500)
    case 'timeout':
      return false // the time was the call's; and an upstream that is too slow needs no second copy
    case 'response':
      return (isSafe || (throttled === 'any' && ending.status === 429)) && statuses.has(ending.status)
  }
}
