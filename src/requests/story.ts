import type { Wait, Call } from '../gateway/call.ts'
import { ADVICE_OF, type FailureKind, type Failure } from '../gateway/failure.ts'
import { allowedOf, type LimitUsage } from '../ledger/ledger.ts'
import { amountOf } from '../schema/price-schema.ts'
import { type Limit, limitName } from '../ledger/limit.ts'
import type { AccessLine, Try } from '../observe/log.ts'
import type { BreakerFailure, BreakerState } from '../resilience/breaker.ts'
import type { EpochMs } from '../time/clock.ts'
import type { RequestOptions } from '../gateway/request-options.ts'

/** What is known of a call besides its access line. It is kept as JSON. */
export interface Circumstances {
  /** When it ended; of one that is under way, now. */
  readonly at: EpochMs
  readonly isRunning: boolean
  readonly route?: RequestStory['route'] | undefined
  readonly asked?: RequestStory['asked'] | undefined
  /** Its limits as of its latest charge or refusal. */
  readonly limits: readonly LimitState[]
  readonly waits?: readonly WaitStory[] | undefined
  /** Undefined where it never came to a breaker. */
  readonly breaker?: BreakerState | undefined
  /** The failure that opened the breaker by which it was refused. */
  readonly openedBy?: BreakerFailure | undefined
  readonly retryAfterMs?: number | undefined
  /** The value of Cache-Status, where the cache took part. */
  readonly cacheStatus?: string | undefined
  /** Whether its quota was checked without the store, which did not answer. */
  readonly isStoreDegraded: boolean
}

/** A call as whoever asks later what became of it gets it. */
export interface RequestRecord extends Circumstances {
  readonly line: AccessLine
}

/** One call, as `GET /v1/requests` lists it. */
export interface RequestRow {
  readonly correlationId: string
  /** The gateway process that served it. */
  readonly instance: string
  /** When it ended; of one that is under way, now. */
  readonly time: string
  readonly isRunning: boolean
  readonly client: string | null
  readonly upstream: string | null
  readonly account: string | null
  readonly class: string | null
  readonly method: string | null
  readonly path: string
  readonly status: string
  readonly outcome: string
  readonly reason: string | null
  readonly heldBy: string | null
  readonly attempts: number
  readonly waitMs: number
  readonly durationMs: number
}

/** All that is known of one call, as `GET /v1/requests/{correlationId}` tells it. */
export interface RequestStory extends RequestRow {
  readonly cameAt: string
  /** Of one that came with a trace, or whose spans are exported. */
  readonly traceId: string | null
  readonly address: string | null
  /** What of the table of routes decided the class, and what that means. */
  readonly route: {
    /** The path as the table has it; null where a rule decided, because the table has no line for it. */
    readonly pattern: string | null
    /** The line of the table by which its calls are counted, with its methods. */
    readonly line: string
    readonly charges: readonly string[]
    readonly retry: 'safe' | 'unsafe'
  } | null
  /** What the client asked for, within what it may. */
  readonly asked: {
    readonly maxWaitMs: number
    readonly timeoutMs: number | null
    readonly retry: boolean
    readonly priority: string
  } | null
  readonly limits: readonly LimitState[]
  readonly waits: readonly WaitStory[]
  readonly tries: readonly TryStory[]
  readonly cache: { readonly result: string | null; readonly status: string | null } | null
  readonly breaker: {
    readonly state: string
    readonly openedBy: { readonly because: string; readonly correlationId: string } | null
  } | null
  /** Why the gateway refused it, and what to do. */
  readonly refusal: {
    readonly kind: string
    readonly message: string
    readonly whatToDo: string
    readonly retryAfterMs: number | null
  } | null
  /** Limits with `enforce: false` that would have held it back. */
  readonly wouldDeny: readonly string[]
  /** Whether its quota was checked without the store, which did not answer. */
  readonly storeDegraded: boolean
  readonly upstreamMs: number
  readonly backoffMs: number
  readonly gatewayMs: number
  readonly requestBytes: number
  readonly responseBytes: number
}

/** A limit as it was when the call was charged, or refused. */
export interface LimitState {
  readonly limit: string
  /** Units, or an amount of money where the name ends with its currency; so are the numbers below. */
  readonly requests: number
  /** Less than that while the upstream lets less through. */
  readonly effective: number
  readonly used: number
  readonly remaining: number
  /** What the call is charged of it. */
  readonly units: number | null
  readonly resetMs: number
  readonly enforced: boolean
}

/** One wait of a call, or why it was refused without waiting. */
export interface WaitStory {
  /** Number of the attempt that it came before. */
  readonly beforeAttempt: number
  readonly because: string
  /** The limit that decided when its turn was; `pause` while the upstream wanted no calls. */
  readonly heldBy: string | null
  readonly limits: readonly LimitState[]
  /** Among all calls that waited when it came, at all gateways. */
  readonly place: number
  /** After how long its turn was expected, and how long it waited. */
  readonly promisedMs: number
  readonly waitedMs: number
  /** `admitted`, `gone` (the client), or the kind of the refusal. */
  readonly ended: string
  /**
   * Whose calls this gateway served in the same queue meanwhile: of the last 256 of them, the five that had most. Null if it never stood in
   * the queue, because it was refused at once.
   */
  readonly servedBefore: { readonly calls: number; readonly byClient: Readonly<Record<string, number>> } | null
}

/** One attempt. */
export interface TryStory {
  readonly number: number
  /** From the call's arrival to when it was sent. */
  readonly startedMs: number
  /** Since the attempt before it ended: the delay before a retry, and another wait for quota. */
  readonly delayMs: number
  readonly status: number | null
  readonly error: string | null
  /** To the response's headers, or to the failure. */
  readonly ms: number
  readonly end: string | null
  readonly credential: string | null
  readonly credentialVersion: number | null
  /** Why that one of a pool: `expires-first`, `session` and so on, and which had to wait. */
  readonly credentialBecause: string | null
  readonly requestId: string | null
}

/** With the name of its upstream, as far as both were known; null if neither was. */
export function accountOf({ upstream, account }: Pick<RequestRow, 'upstream' | 'account'>): string | null {
  return upstream === null ? null : account === null ? upstream : `${upstream}/${account}`
}

export function rowOf({ line, at, isRunning }: RequestRecord, instance: string): RequestRow {
  return {
    correlationId: line.correlationId,
    instance,
    time: new Date(at).toISOString(),
    isRunning,
    client: line.client ?? null,
    upstream: line.upstream ?? null,
    account: line.account ?? null,
    class: line.class ?? null,
    method: line.method ?? null,
    path: line.path,
    status: line.status,
    outcome: line.outcome,
    reason: line.reason ?? null,
    heldBy: line.heldBy ?? null,
    attempts: line.attempts,
    waitMs: line.waitMs,
    durationMs: line.durationMs,
  }
}

export function storyOf(record: RequestRecord, instance: string): RequestStory {
  const { line, at, route, asked, limits, waits, cacheStatus, breaker, openedBy, retryAfterMs } = record
  return {
    ...rowOf(record, instance),
    cameAt: new Date(at - line.durationMs).toISOString(),
    traceId: line.traceId ?? null,
    address: line.address ?? null,
    route: route ?? null,
    asked: asked ?? null,
    limits,
    waits: waits ?? [],
    // As in the trace: of two at once the second may end first.
    tries: (line.tries ?? []).toSorted((a, b) => a.startedMs - b.startedMs).map(tryStory),
    cache:
      line.cache === undefined && cacheStatus === undefined
        ? null
        : { result: line.cache ?? null, status: cacheStatus ?? null },
    breaker: breaker === undefined ? null : { state: breaker, openedBy: openedBy ?? null },
    refusal:
      line.reason === undefined
        ? null
        : {
            kind: line.outcome,
            message: line.reason,
            whatToDo: ADVICE_OF[line.outcome as FailureKind],
            retryAfterMs: retryAfterMs === undefined ? null : Math.ceil(retryAfterMs),
          },
    wouldDeny: line.wouldDeny ?? [],
    storeDegraded: record.isStoreDegraded,
    upstreamMs: line.upstreamMs,
    backoffMs: line.backoffMs,
    gatewayMs: line.gatewayMs,
    requestBytes: line.requestBytes,
    responseBytes: line.responseBytes,
  }
}

export function limitState(usage: LimitUsage, units: number | undefined): LimitState {
  const { limit, used, resetMs } = usage
  const effective = allowedOf(usage)
  return {
    limit: limitName(limit),
    requests: amountOf(limit, limit.requests),
    effective: amountOf(limit, effective),
    used: amountOf(limit, used),
    remaining: amountOf(limit, Math.max(0, effective - used)),
    units: units === undefined ? null : amountOf(limit, units),
    resetMs: Math.round(resetMs),
    enforced: limit.isEnforced,
  }
}

export function waitStory({ record, waitedMs, ended, attempt }: Wait): WaitStory {
  const { because, heldBy, usage, position, expectedMs, served } = record
  return {
    beforeAttempt: attempt,
    because,
    heldBy: nameOf(heldBy) ?? null,
    limits: usage.map((one) => limitState(one, undefined)),
    place: position,
    promisedMs: Math.round(expectedMs),
    waitedMs: Math.round(waitedMs),
    ended,
    servedBefore: served === undefined ? null : { calls: served.calls, byClient: Object.fromEntries(served.byClient) },
  }
}

function tryStory(one: Try, i: number, all: readonly Try[]): TryStory {
  const before = all[i - 1]
  const delayMs = before === undefined ? 0 : one.startedMs - before.startedMs - before.ms
  return {
    number: i + 1,
    startedMs: Math.round(one.startedMs),
    delayMs: Math.max(0, Math.round(delayMs)),
    status: one.status ?? null,
    error: one.error ?? null,
    ms: one.ms,
    end: one.end ?? null,
    credential: one.credential ?? null,
    credentialVersion: one.credentialVersion ?? null,
    credentialBecause: one.credentialBecause ?? null,
    requestId: one.requestId ?? null,
  }
}

/** What held a call back first: the name of a limit, `pause` or `concurrency`. */
export function heldByOf(waits: readonly Wait[] | undefined): string | undefined {
  const record = waits?.[0]?.record
  return record && (record.because === 'concurrency' ? record.because : nameOf(record.heldBy))
}

export function nameOf(heldBy: Limit | 'pause' | undefined): string | undefined {
  return typeof heldBy === 'object' ? limitName(heldBy) : heldBy
}

const NONE: readonly never[] = []

type Route = NonNullable<Call['route']>

/** What is told of the route of a call. */
export function aboutRoute({ pattern, countedAs, charges, retry }: Route): NonNullable<RequestStory['route']> {
  return { pattern: pattern ?? null, line: countedAs, charges, retry }
}

const ROUTE_TEXTS = new WeakMap<Route, string>()

/** The same as JSON. It is the same for each call of the route, so it is made once. */
export function routeTextOf(route: Route): string {
  let text = ROUTE_TEXTS.get(route)
  if (text === undefined) ROUTE_TEXTS.set(route, (text = JSON.stringify(aboutRoute(route))))
  return text
}

/** All but the route. `failure` is why the gateway refused it. */
export function circumstancesOf(
  call: Call,
  { at, failure, isRunning = false }: { at: EpochMs; failure: Failure | undefined; isRunning?: boolean },
): Circumstances {
  const { target, usage } = call
  const units = target?.admissionPolicy.chargeSet.units
  return {
    at,
    isRunning,
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
