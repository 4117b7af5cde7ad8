import type { Wait, Call } from '../gateway/call.ts'
import { ADVICE_OF, type FailureKind, type Failure } from '../gateway/failure.ts'
import { allowedOf, type LimitUsage } from '../ledger/ledger.ts'
import { amountOf } from '../schema/price-schema.ts'
import { type Limit, limitName } from '../ledger/limit.ts'
import type { AccessLine, Try } from '../observe/log.ts'
import type { BreakerFailure, BreakerState } from '../resilience/breaker.ts'
import type { EpochMs } from '../time/clock.ts'
import type { RequestOptions } from '../gateway/request-options.ts'

/** What is known of a call besides its access line. It is kept as JSON. A field that has its usual value is left out. */
export interface Circumstances {
  /** When the call ended; now, if it is still under way. */
  readonly at: EpochMs
  readonly isRunning?: true | undefined
  readonly asked?: Asked | undefined
  /** The limits of the call as of its latest charge or refusal. */
  readonly limits: readonly LimitRecord[]
  readonly waits?: readonly WaitStory[] | undefined
  /** Undefined if the breaker was closed, or none decided about the call: `breakerOf` tells which. */
  readonly breaker?: BreakerState | undefined
  /** If a breaker refused the call: the failure that opened it. */
  readonly openedBy?: BreakerFailure | undefined
  readonly retryAfterMs?: number | undefined
  /** The value of Cache-Status, if the cache took part. */
  readonly cacheStatus?: string | undefined
  /** Whether its quota was checked without the store, which did not answer. */
  readonly isStoreDegraded?: true | undefined
}

/** What the client asked for, within what it is allowed. */
interface Asked {
  readonly maxWaitMs: number
  /** Undefined without a timeout. */
  readonly timeoutMs?: number | undefined
  /** Undefined if true. */
  readonly mayRetry?: boolean | undefined
  readonly priority: string
}

/** What is kept of a limit as it was when the call was charged, or refused. Its numbers are units; of money, billionths of a currency. */
export interface LimitRecord {
  readonly limit: string
  /** The currency of a limit in money. */
  readonly unit?: string | undefined
  readonly requests: number
  /** Undefined where it is `requests`. */
  readonly effective?: number | undefined
  readonly used: number
  readonly units?: number | undefined
  readonly resetMs: number
  /** Undefined if true. */
  readonly isEnforced?: boolean | undefined
}

/** A call as it is told to whoever asks later what became of it. */
export interface RequestRecord extends Circumstances {
  readonly line: AccessLine
  readonly route?: RequestStory['route'] | undefined
}

/** One call, as `GET /v1/requests` lists it. */
export interface RequestRow {
  readonly correlationId: string
  /** The gateway process that served it. */
  readonly instance: string
  /** When the call ended; now, if it is still under way. */
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
  /** Null unless the call came with a trace or its spans are exported. */
  readonly traceId: string | null
  readonly address: string | null
  /** The route that decided the class of the call, and what follows from it. */
  readonly route: {
    /** The path as the table of routes has it; null if the table has no line for it, so that a rule decided. */
    readonly pattern: string | null
    /** The line of the table under which the call is counted, with the methods of that line. */
    readonly line: string
    readonly charges: readonly string[]
    readonly retry: 'safe' | 'unsafe'
  } | null
  /** What the client asked for, within what it is allowed. */
  readonly asked: {
    readonly maxWaitMs: number
    readonly timeoutMs: number | null
    readonly retry: boolean
    readonly priority: string
  } | null
  readonly limits: readonly LimitStory[]
  readonly waits: readonly WaitStory[]
  readonly tries: readonly TryStory[]
  readonly cache: { readonly result: string | null; readonly status: string | null } | null
  readonly breaker: {
    readonly state: string
    readonly openedBy: { readonly because: string; readonly correlationId: string } | null
  } | null
  /** Why the gateway refused the call, and what to do. */
  readonly refusal: {
    readonly kind: string
    readonly message: string
    readonly whatToDo: string
    readonly retryAfterMs: number | null
  } | null
  /** Shadow limits (`enforce: false`) that would have held the call back. */
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
export interface LimitStory {
  readonly limit: string
  /** Units, or money if the name ends with a currency. `effective`, `used`, `remaining` and `units` are in the same unit. */
  readonly requests: number
  /** The effective limit: less than `requests` while the upstream lets less through. */
  readonly effective: number
  readonly used: number
  readonly remaining: number
  /** What the call is charged. Null if that is not known, as in a wait. */
  readonly units: number | null
  readonly resetMs: number
  readonly enforced: boolean
}

/** One wait of a call, or its refusal without a wait. */
export interface WaitStory {
  /** The number, from 1, of the attempt that would follow the wait. */
  readonly beforeAttempt: number
  readonly because: string
  /** The limit that decided when its turn was; `pause` while the upstream wanted no calls. */
  readonly heldBy: string | null
  readonly limits: readonly LimitStory[]
  /** The place of the call, from 1, among all calls that waited at all gateways when it came. */
  readonly place: number
  /** How long the wait was expected to be when it began, and how long it was. */
  readonly promisedMs: number
  readonly waitedMs: number
  /** `admitted`, `gone` if the client left, or the kind of the refusal. */
  readonly ended: string
  /**
   * The calls that this gateway served from the same queue during the wait. `calls` counts all of them. `byClient` counts the last
   * 256 by client, for the five clients that had most. Null if the call never stood in the queue, because it was refused at once.
   */
  readonly servedBefore: { readonly calls: number; readonly byClient: Readonly<Record<string, number>> } | null
}

/** One attempt. */
export interface TryStory {
  readonly number: number
  /** From the call's arrival to the dispatch of the attempt. */
  readonly startedMs: number
  /** From the end of the attempt before it: the delay before a retry, and another wait for quota. */
  readonly delayMs: number
  readonly status: number | null
  readonly error: string | null
  /** From the dispatch to the response's headers, or to the failure. */
  readonly ms: number
  readonly end: string | null
  readonly credential: string | null
  readonly credentialVersion: number | null
  /** Why this credential of a pool was chosen: `expires-first`, `session` and so on, and which credentials had to wait. */
  readonly credentialBecause: string | null
  readonly requestId: string | null
}

/** The account as `upstream/account`; the upstream alone if the account is not known; null if the upstream is not known. */
export function accountOf({ upstream, account }: Pick<RequestRow, 'upstream' | 'account'>): string | null {
  return upstream === null ? null : account === null ? upstream : `${upstream}/${account}`
}

export function rowOf({ line, at, isRunning }: RequestRecord, instance: string): RequestRow {
  return {
    correlationId: line.correlationId,
    instance,
    time: new Date(at).toISOString(),
    isRunning: isRunning === true,
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
  const { line, at, route = null, asked, limits, waits, cacheStatus, openedBy, retryAfterMs } = record
  const breaker = breakerOf(record)
  return {
    ...rowOf(record, instance),
    cameAt: new Date(at - line.durationMs).toISOString(),
    traceId: line.traceId ?? null,
    address: line.address ?? null,
    route,
    asked: asked === undefined ? null : askedStory(asked),
    limits: limits.map(limitStory),
    waits: waits ?? [],
    // In the order of their starts, as in the trace. A hedge may have ended before the first attempt.
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
    storeDegraded: record.isStoreDegraded === true,
    upstreamMs: line.upstreamMs,
    backoffMs: line.backoffMs,
    gatewayMs: line.gatewayMs,
    requestBytes: line.requestBytes,
    responseBytes: line.responseBytes,
  }
}

export function limitRecord(usage: LimitUsage, units: number | undefined): LimitRecord {
  const { limit, used, resetMs } = usage
  const effective = allowedOf(usage)
  return {
    limit: limitName(limit),
    unit: limit.unit,
    requests: limit.requests,
    effective: effective === limit.requests ? undefined : effective,
    used,
    units,
    resetMs: Math.round(resetMs),
    isEnforced: limit.isEnforced ? undefined : false,
  }
}

export function limitStory(record: LimitRecord): LimitStory {
  const { limit, requests, effective = requests, used, units, resetMs, isEnforced = true } = record
  return {
    limit,
    requests: amountOf(record, requests),
    effective: amountOf(record, effective),
    used: amountOf(record, used),
    remaining: amountOf(record, Math.max(0, effective - used)),
    units: units === undefined ? null : amountOf(record, units),
    resetMs,
    enforced: isEnforced,
  }
}

/** The state of the breaker that decided about the call; undefined if none did. */
export function breakerOf({ line, breaker }: RequestRecord): BreakerState | undefined {
  return breaker ?? (line.attempts > 0 ? 'closed' : undefined)
}

function askedStory({ maxWaitMs, timeoutMs, mayRetry = true, priority }: Asked): RequestStory['asked'] {
  return { maxWaitMs, timeoutMs: timeoutMs ?? null, retry: mayRetry, priority }
}

export function waitStory({ record, waitedMs, ended, attempt }: Wait): WaitStory {
  const { because, heldBy, usage, position, expectedMs, served } = record
  return {
    beforeAttempt: attempt,
    because,
    heldBy: nameOf(heldBy) ?? null,
    limits: usage.map((one) => limitStory(limitRecord(one, undefined))),
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

const ROUTES = new WeakMap<Route, NonNullable<RequestStory['route']>>()

/** What the story of a call says about its route. Calls of one route share the object. */
export function aboutRoute(route: Route): NonNullable<RequestStory['route']> {
  let about = ROUTES.get(route)
  if (about === undefined) {
    const { pattern = null, countedAs, charges, retry } = route
    ROUTES.set(route, (about = { pattern, line: countedAs, charges, retry }))
  }
  return about
}

/** The circumstances of a call. `failure` is why the gateway refused the call. */
export function circumstancesOf(
  call: Call,
  { at, failure, isRunning }: { at: EpochMs; failure: Failure | undefined; isRunning?: true },
): Circumstances {
  const { target, usage } = call
  const units = target?.admissionPolicy.chargeSet.units
  return {
    at,
    isRunning,
    asked: target && askedOf(target.requestOptions),
    limits: usage.map((one, i) => limitRecord(one, units?.[i])),
    waits: call.waits?.map(waitStory),
    breaker: call.breaker,
    openedBy: failure?.openedBy,
    retryAfterMs: failure?.retryAfterMs,
    cacheStatus: call.cacheStatus,
    isStoreDegraded: call.isStoreDegraded || undefined,
  }
}

function askedOf({ maxWaitMs, timeoutMs, mayRetry, priority }: RequestOptions): Asked {
  return {
    maxWaitMs,
    timeoutMs: timeoutMs === Infinity ? undefined : timeoutMs,
    mayRetry: mayRetry ? undefined : false,
    priority,
  }
}

/** The circumstances of what never became a call: a request that is no HTTP, or a connection that was lost. */
export function unread(at: EpochMs): Circumstances {
  return { at, limits: NONE }
}
