import type { Call } from '../gateway/call.ts'
import type { Failure } from '../gateway/failure.ts'
import type { RequestOptions } from '../gateway/request-options.ts'
import type { EpochMs } from '../time/clock.ts'
import { type Circumstances, limitState, type RequestStory, waitStory } from './story.ts'

const NONE: readonly never[] = []

/** `failure` is why the gateway refused it. */
export function circumstancesOf(
  call: Call,
  { at, failure, isRunning = false }: { at: EpochMs; failure: Failure | undefined; isRunning?: boolean },
): Circumstances {
  const { target, usage, route } = call
  const units = target?.admissionPolicy.chargeSet.units
  return {
    at,
    isRunning,
    route: route && {
      pattern: route.pattern ?? null,
      line: route.countedAs,
      charges: route.charges,
      retry: route.retry,
    },
    asked: target && askedOf(target.requestOptions),
    limits: usage.map((one, i) => limitState(one, units?.[i])),
    waits: call.waits?.map(waitStory),
    breaker: call.breaker ?? (call.attempts > 0 ? 'closed' : undefined),
    openedBy: failure?.openedBy,
    retryAfterMs: failure?.retryAfterMs,
    cacheStatus: call.cacheStatus,
    isStoreDegraded: call.isStoreDegraded,
  }
}

function askedOf({ maxWaitMs, timeoutMs, mayRetry, priority }: RequestOptions): RequestStory['asked'] {
  return { maxWaitMs, timeoutMs: timeoutMs === Infinity ? null : timeoutMs, retry: mayRetry, priority }
}

/** Those of what never became a call: a request that is no HTTP, or a connection that was lost. */
export function unread(at: EpochMs): Circumstances {
  return { at, isRunning: false, limits: NONE, isStoreDegraded: false }
}
