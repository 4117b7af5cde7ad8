import type { IncomingMessage } from 'node:http'
import type { Call } from '../gateway/call.ts'
import type { Failure } from '../gateway/failure.ts'
import { type AccessLine, hasFailed, type Try } from '../observe/log.ts'
import { heldByOf } from '../requests/story.ts'
import { redactPath } from '../routing/path.ts'
import { flatCopy } from '../schema/flat-copy.ts'

/** How a call ended, or how it stands if it is still under way. */
interface Ended {
  readonly client: string
  readonly status: string
  readonly outcome: string
  readonly failure: Failure | undefined
  readonly durationMs: number
  readonly overheadMs: number
}

/** What the access log says about a call. */
export function lineOf(call: Call, { client, status, outcome, failure, durationMs, overheadMs }: Ended): AccessLine {
  const last = lastTry(call.tries)
  return {
    correlationId: call.id,
    traceId: traceIdOf(call, hasFailed({ outcome, status })),
    client,
    address: call.address,
    upstream: call.upstream?.name,
    account: call.target?.account.name,
    class: call.route?.class,
    route: call.route?.pattern,
    method: call.request.method,
    path: pathForLog(call),
    status,
    outcome,
    attempts: call.attempts,
    tries: call.tries.length === 0 ? undefined : call.tries,
    credential: last?.credential,
    upstreamRequestId: last?.requestId,
    requestBytes: call.body?.receivedBytes ?? 0,
    responseBytes: call.responseBytes,
    waitMs: rounded(call.waitedMs),
    expectedMs: expectedMsOf(call),
    upstreamMs: rounded(call.upstreamMs),
    backoffMs: rounded(call.sleptMs),
    gatewayMs: rounded(overheadMs),
    durationMs: rounded(durationMs),
    heldBy: heldByOf(call.waits),
    reason: failure?.message,
    wouldDeny: call.wouldDeny,
    cache: call.cached,
    keyHash: failure?.guess?.slice(0, HASH_PREFIX),
    userAgent: isAboutKey(failure) ? call.request.headers['user-agent']?.slice(0, 200) : undefined,
  }
}

/** The id of the trace, if there are spans to find by it: those of this call, if they are exported, or those of the client. */
function traceIdOf({ trace }: Call, hasFailed: boolean): string | undefined {
  return trace?.parent !== undefined || trace?.isKept(hasFailed) === true ? flatCopy(trace.traceId) : undefined
}

/** What the access log says about a request that could not be read, so that it never became a call. */
export function lineOfUnread(known: Pick<AccessLine, 'correlationId' | 'address' | 'status' | 'outcome' | 'reason'>) {
  const bytes = { requestBytes: 0, responseBytes: 0 }
  const times = { waitMs: 0, upstreamMs: 0, backoffMs: 0, gatewayMs: 0, durationMs: 0 }
  return { ...known, client: 'unknown', path: '', attempts: 0, ...bytes, ...times } satisfies AccessLine
}

/** The request target as it was sent, before Fastify rewrote it. */
export function originalUrl(request: IncomingMessage & { originalUrl?: string }): string {
  return request.originalUrl ?? request.url ?? ''
}

/**
 * The path without its query and without secrets. If the upstream is not known, only the first segment is kept, since the
 * rest may hold anything.
 */
function pathForLog({ request, upstream, route, prefix, path }: Call): string {
  // The target of a CONNECT is the host and port of its tunnel.
  if (request.method === 'CONNECT') return originalUrl(request).slice(0, 261)
  if (upstream === undefined) {
    const [sent = ''] = originalUrl(request).split('?', 1)
    return `/${sent.split('/')[1]?.slice(0, 64) ?? ''}`
  }
  if (route?.secretSegments.length === 0) return flatCopy(prefix, path)
  // A call without a valid key was not routed, but its path may hold a secret as well.
  const { route: known, path: normalPath } = upstream.routes.locate(request.method ?? '', path, upstream.aliasPrefix)
  if (known.secretSegments.length === 0) return flatCopy(prefix, path)
  // The route numbers the segments of the normal path, so that is the form that is logged.
  return prefix + redactPath(normalPath, known.secretSegments)
}

/** The forecast of the first wait that ended with admission, if there was one. */
function expectedMsOf({ waits }: Call): number | undefined {
  const first = waits?.find(({ ended }) => ended === 'admitted')
  return first && rounded(first.record.expectedMs)
}

/** How many characters of a key's hash are shown, here as in lists of keys and in metrics. */
const HASH_PREFIX = 'sha256:'.length + 8

/** Whether a call was refused because of its key. It is not known who sent such a call: the User-Agent is the only hint. */
function isAboutKey(failure: Failure | undefined): boolean {
  return failure !== undefined && /^(?:proxy_)?unauthenticated$|^too_many_attempts$/.test(failure.kind)
}

/** The attempt that counts: the last one that was not superseded, or the last one if all were. */
function lastTry(tries: readonly Try[]): Try | undefined {
  const last = tries.at(-1)
  return last?.end === 'superseded' ? (tries.findLast(({ end }) => end !== 'superseded') ?? last) : last
}

function rounded(ms: number): number {
  return Math.round(ms * 100) / 100
}
