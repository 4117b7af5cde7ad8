import type { Attributes } from '@opentelemetry/api'
import type { Call, Wait } from '../gateway/call.ts'
import type { TraceContext } from '../http/trace-context.ts'
import type { Try } from '../observe/log.ts'
import { breakerOf, limitRecord, limitStory, type LimitStory, nameOf, type RequestRecord } from '../requests/story.ts'

/** A span that has ended, in the terms of OpenTelemetry's semantic conventions for HTTP 1.23 and later. Times are since 1970. */
export interface CallSpan {
  readonly kind: 'server' | 'client'
  /** The number of the attempt; 0 for the call itself, which is the parent of all others. */
  readonly number: number
  readonly name: string
  readonly startMs: number
  readonly endMs: number
  readonly attributes: Attributes
  readonly events: readonly SpanEvent[]
  /** Set if it counts as an error. */
  readonly error: { readonly type: string; readonly message: string | undefined } | undefined
}

export interface SpanEvent {
  readonly name: string
  readonly atMs: number
  readonly attributes: Attributes
}

const METHODS = new Set(['CONNECT', 'DELETE', 'GET', 'HEAD', 'OPTIONS', 'PATCH', 'POST', 'PUT', 'QUERY', 'TRACE'])

/**
 * The spans of a call that has ended: its own, and one of each attempt. They hold what its log line and its story hold: no query,
 * no header, no body, no secret.
 */
export function spansOf(call: Call, record: RequestRecord, trace: TraceContext): CallSpan[] {
  const cameMs = record.at - record.line.durationMs
  // In the order in which they were sent, which is that of their numbers: of two at once the second may end first.
  const tries = call.tries.toSorted((a, b) => a.startedMs - b.startedMs)
  return [ownSpan(call, record, trace, cameMs), ...tries.map((one, i) => attemptSpan(call, record, one, i + 1, cameMs))]
}

function ownSpan(call: Call, record: RequestRecord, trace: TraceContext, cameMs: number): CallSpan {
  const { line } = record
  const { request } = call
  const { httpVersion } = request
  return {
    kind: 'server',
    number: 0,
    name: nameFor(line.method, line.route),
    startMs: cameMs,
    endMs: record.at,
    attributes: {
      ...methodOf(line.method),
      'url.scheme': 'encrypted' in request.socket ? 'https' : 'http',
      'url.path': line.path,
      'http.route': line.route,
      'http.response.status_code': line.status === 'none' ? undefined : Number(line.status),
      'network.protocol.version': httpVersion === '2.0' ? '2' : httpVersion,
      ...serverOf(call.target?.host),
      'client.address': line.address,
      'sluice.correlation_id': line.correlationId,
      'sluice.client': line.client,
      'sluice.upstream': line.upstream,
      'sluice.account': line.account,
      'sluice.class': line.class,
      'sluice.outcome': line.outcome,
      'sluice.reason': line.reason,
      'sluice.attempts': line.attempts,
      'sluice.held_by': line.heldBy,
      'sluice.wait_ms': line.waitMs,
      'sluice.upstream_ms': line.upstreamMs,
      'sluice.backoff_ms': line.backoffMs,
      'sluice.gateway_ms': line.gatewayMs,
      'sluice.cache': line.cache,
      'sluice.breaker': breakerOf(record),
      'sluice.would_deny': line.wouldDeny?.slice(),
      'sluice.store_degraded': record.isStoreDegraded,
      // Who counts spans must know which of them stand for others.
      'sluice.sampled_by': trace.isSampled ? (trace.parent === undefined ? 'ratio' : 'parent') : 'failure',
    },
    events: [...(call.waits ?? []).flatMap((wait) => waitEvents(wait, cameMs)), ...quotaEvents(call, record, cameMs)],
    error: errorOf(record),
  }
}

/** As the conventions want it of a server: what the client did wrong, or gave up, is no error of it. */
function errorOf({ line: { status, outcome, reason } }: RequestRecord): CallSpan['error'] {
  if (outcome === 'broken_off') return { type: outcome, message: undefined }
  if (status < '500' || status === 'none') return undefined
  return { type: outcome === 'delivered' ? status : outcome, message: reason }
}

function attemptSpan(call: Call, record: RequestRecord, one: Try, number: number, cameMs: number): CallSpan {
  const { line } = record
  const upstream = call.upstream!
  const { hostname, origin, port, protocol } = upstream.url
  const startMs = cameMs + one.startedMs
  return {
    kind: 'client',
    number,
    name: nameFor(line.method, line.route),
    startMs,
    endMs: startMs + one.ms,
    attributes: {
      ...methodOf(line.method),
      'url.full': origin + upstream.basePath + line.path.slice(call.prefix.length),
      'url.template': line.route,
      'server.address': hostname,
      'server.port': Number(port) || (protocol === 'https:' ? 443 : 80),
      'http.response.status_code': one.status,
      'http.request.resend_count': number > 1 ? number - 1 : undefined,
      'sluice.account': line.account,
      'sluice.attempt.end': one.end,
      'sluice.credential': one.credential,
      'sluice.credential.version': one.credentialVersion,
      'sluice.upstream_request_id': one.requestId,
    },
    events: [],
    error: attemptErrorOf(one),
  }
}

/** As the conventions want it of a client: a status of 400 and above is an error. */
function attemptErrorOf({ status, error, end }: Try): CallSpan['error'] {
  if (error !== undefined) return { type: error.replace(/ \(.*/s, ''), message: error }
  if (status !== undefined && status >= 400) return { type: String(status), message: undefined }
  return end === 'broken_off' ? { type: end, message: undefined } : undefined
}

function waitEvents({ record, endedMs, waitedMs, ended, attempt }: Wait, cameMs: number): SpanEvent[] {
  const atMs = cameMs + endedMs
  return [
    {
      name: 'sluice.queue.enter',
      atMs: atMs - waitedMs,
      attributes: {
        'sluice.attempt': attempt,
        'sluice.because': record.because,
        'sluice.held_by': nameOf(record.heldBy),
        'sluice.place': record.position,
        'sluice.expected_ms': Math.round(record.expectedMs),
      },
    },
    {
      name: 'sluice.queue.leave',
      atMs,
      attributes: { 'sluice.ended': ended, 'sluice.waited_ms': Math.round(waitedMs) },
    },
  ]
}

/** The limits as of the latest charge, which is that of the last attempt; or as of the refusal. */
function quotaEvents(
  { tries, budgetUsage, budgetUnits }: Call,
  { line, limits }: RequestRecord,
  cameMs: number,
): SpanEvent[] {
  const last = tries.reduce((latest, { startedMs }) => Math.max(latest, startedMs), -1)
  const atMs = cameMs + (last < 0 ? line.durationMs : last)
  return [
    ...limits.map((one) => ({ name: 'sluice.quota', atMs, attributes: limitAttributes(limitStory(one)) })),
    ...budgetUsage.map((one, i) => ({
      name: 'sluice.budget',
      atMs,
      attributes: limitAttributes(limitStory(limitRecord(one, budgetUnits[i]))),
    })),
  ]
}

function limitAttributes({ limit, effective, used, units, resetMs, enforced }: LimitStory): Attributes {
  return {
    'sluice.limit': limit,
    'sluice.limit.allowed': effective,
    'sluice.limit.used': used,
    'sluice.limit.units': units ?? undefined,
    'sluice.limit.reset_ms': resetMs,
    'sluice.limit.enforced': enforced,
  }
}

/** Names of spans are few: a path is in them only as the table of routes has it. */
function nameFor(method: string | undefined, route: string | undefined): string {
  const known = method !== undefined && METHODS.has(method) ? method : 'HTTP'
  return route === undefined ? known : `${known} ${route}`
}

function methodOf(method: string | undefined): Attributes {
  if (method !== undefined && METHODS.has(method)) return { 'http.request.method': method }
  return { 'http.request.method': '_OTHER', 'http.request.method_original': method }
}

/** The name by which the client called the gateway. */
function serverOf(host: string | undefined): Attributes {
  if (host === undefined || !URL.canParse(`http://${host}`)) return {}
  const { hostname, port } = new URL(`http://${host}`)
  return { 'server.address': hostname, 'server.port': port === '' ? undefined : Number(port) }
}
