import type { Call, Wait } from '../gateway/call.ts'
import type { Failure } from '../gateway/failure.ts'
import type { RequestOptions } from '../gateway/request-options.ts'
import type { LimitUsage } from '../ledger/ledger.ts'
import type { AccessLine } from '../observe/log.ts'
import type { BreakerFailure, BreakerState } from '../resilience/breaker.ts'
import type { Route } from '../routing/route.ts'
import type { EpochMs } from '../time/clock.ts'

/**
 * A call as it is kept for whoever asks later what became of it. It holds plain values that the call had anyway, and what many
 * calls share (routes, limits). It must not hold the call itself, nor its request, target or failure: those keep sockets,
 * bodies, credentials and stacks alive.
 */
export interface RequestRecord {
  readonly line: AccessLine
  /** When it ended; of one that is under way, now. */
  readonly at: EpochMs
  readonly isRunning: boolean
  readonly route?: Route | undefined
  readonly options?: RequestOptions | undefined
  /** State of its limits as of its latest charge or refusal, and how many units it is charged of each. */
  readonly usage: readonly LimitUsage[]
  readonly units: readonly number[]
  readonly waits?: readonly Wait[] | undefined
  /** Undefined where it never came to a breaker. */
  readonly breaker?: BreakerState | undefined
  /** The failure that opened the breaker by which it was refused. */
  readonly openedBy?: BreakerFailure | undefined
  readonly retryAfterMs?: number | undefined
  /** The value of Cache-Status, where the cache took part. */
  readonly cacheStatus?: string | undefined
  readonly isStoreDegraded: boolean
  /** About so much memory it takes. */
  readonly bytes: number
}

// Measured as growth of the heap by 20,000 calls that are kept, with Node 26: 1,150 bytes for a call with one limit and one attempt,
// 1,560 for one that is refused for want of quota.
const BASE_BYTES = 800
const TRY_BYTES = 200
const WAIT_BYTES = 500
const LIMIT_BYTES = 100
const NONE: readonly never[] = []

/** `failure` is why the gateway refused it, `line` what is logged of it. */
export function recordOf(
  call: Call,
  line: AccessLine,
  { at, failure, isRunning = false }: { at: EpochMs; failure: Failure | undefined; isRunning?: boolean },
): RequestRecord {
  const { target, usage, waits } = call
  // A path that is cut out of the request target keeps the whole of it alive.
  const textBytes = (call.request.url?.length ?? 0) + (failure?.message.length ?? 0)
  const bytes = textBytes + BASE_BYTES + call.tries.length * TRY_BYTES + usage.length * LIMIT_BYTES
  return {
    line,
    at,
    isRunning,
    route: call.route,
    options: target?.requestOptions,
    usage,
    units: target?.admissionPolicy.chargeSet.units ?? NONE,
    waits,
    breaker: call.breaker ?? (call.attempts > 0 ? 'closed' : undefined),
    openedBy: failure?.openedBy,
    retryAfterMs: failure?.retryAfterMs,
    cacheStatus: call.cacheStatus,
    isStoreDegraded: call.isStoreDegraded,
    bytes: bytes + (waits === undefined ? 0 : waits.length * (WAIT_BYTES + usage.length * LIMIT_BYTES)),
  }
}

/** The record of what never became a call: a request that is no HTTP, or a connection that was lost. */
export function unreadRecord(line: AccessLine, at: EpochMs): RequestRecord {
  return { line, at, isRunning: false, usage: NONE, units: NONE, isStoreDegraded: false, bytes: BASE_BYTES }
}
