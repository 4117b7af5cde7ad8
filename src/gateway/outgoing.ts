import { CONDITIONS } from '../cache/conditional.ts'
import type { RequestBody } from '../upstream/body.ts'
import { withoutAlias } from '../routing/path.ts'
import { type OutgoingTrace, requestHeaders } from '../upstream/headers.ts'
import type { OutgoingRequest } from '../upstream/transport.ts'
import type { Account } from './account.ts'
import type { Call, Target } from './call.ts'
import type { UpstreamConfig } from '../schema/schema.ts'
import { countHop } from './max-forwards.ts'
import type { RequestCredential } from './request-credential.ts'

/**
 * The request as it goes upstream: the client's request without what was meant for the gateway, but with account and credential.
 * `conditions`, if given, take the place of the client's own.
 */
export function outgoingRequest(
  call: Call,
  target: Target,
  body: RequestBody | undefined,
  credential: RequestCredential | undefined,
  conditions?: readonly string[],
): OutgoingRequest {
  const { upstream, account } = target
  const { request } = call
  const dropped = droppedNames(call, account)
  const headers = requestHeaders(request.rawHeaders, {
    host: target.host,
    peerAddress: request.socket.remoteAddress,
    isSecure: 'encrypted' in request.socket,
    correlationId: call.id,
    droppedNames: conditions === undefined ? dropped : dropped.union(CONDITIONS),
    forward: upstream.config.forward,
    trace: upstream.config.forward.length === 0 ? undefined : traceOf(call),
  })
  if (request.method === 'OPTIONS') countHop(headers)
  if (conditions !== undefined) headers.push(...conditions)
  const { accountHeader } = upstream.config
  if (accountHeader !== undefined && account.id !== undefined) headers.push(accountHeader, account.id)
  if (body?.streamedLength !== undefined) headers.push('Content-Length', String(body.streamedLength))
  const outgoing = {
    method: request.method as string,
    path: upstream.basePath + target.path + queryWithAccount(target),
    headers,
    body: body?.content() ?? null,
    upgrade: call.upgrade === undefined ? null : ('websocket' as const),
  }
  credential?.addTo(outgoing)
  return outgoing
}

/** The attempt, which is counted already, is the parent of what the vendor does. */
function traceOf({ trace, attempts }: Call): OutgoingTrace | undefined {
  return trace && { traceparent: trace.traceparent(attempts), tracestate: trace.parent?.state }
}

/** Adds the headers of other upstreams in which the client put a key of the gateway: such a key goes to no vendor. */
function droppedNames({ snapshot, request }: Call, { droppedNames: names }: Account): ReadonlySet<string> {
  const { callers, keyHeaders } = snapshot
  if (callers.isOpen) return names
  let dropped = names
  for (const name of keyHeaders) {
    if (request.headers[name] === undefined || dropped.has(name)) continue
    const values = request.headersDistinct[name] ?? []
    if (values.some((value) => callers.isKnown(value, request.socket))) dropped = new Set(dropped).add(name)
  }
  return dropped
}

/** The client's query. The account is added if the vendor's API wants it there, and the client left it out. */
function queryWithAccount({ upstream, account, route, path, query }: Target): string {
  const wanted = upstream.config.accountQuery
  if (wanted === undefined || route.credential === 'none') return query
  return withAccount(query, wanted, account.id, withoutAlias(path, upstream.aliasPrefix))
}

/** Adds the account's id to a query that lacks it, if the id is known and wanted at that path, which lies below the upstream's URL. */
export function withAccount(
  query: string,
  { name, paths }: NonNullable<UpstreamConfig['accountQuery']>,
  id: string | undefined,
  path: string,
): string {
  if (id === undefined || !paths.some((prefix) => isBelow(path, prefix))) return query
  if (query.includes(`?${name}=`) || query.includes(`&${name}=`)) return query
  return `${query === '' ? '?' : `${query}&`}${name}=${encodeURIComponent(id)}`
}

function isBelow(path: string, prefix: string): boolean {
  const bare = prefix.endsWith('/') ? prefix.slice(0, -1) : prefix
  return path.startsWith(bare) && (path.length === bare.length || path[bare.length] === '/')
}
