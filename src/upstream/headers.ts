import { asSent } from '../http/entity-tag.ts'
import { type Fields, joined } from '../http/fields.ts'
import { HOP_BY_HOP, isMadeAnew } from '../http/hop-by-hop.ts'
import { NamesByPlace } from '../http/names-by-place.ts'

/**
 * Fields that tell about traces of the client's own systems: those of W3C Trace Context and Baggage, and those of tracers that
 * are older than the standard. `traceparent` is one of them. It only holds random ids, but with it a vendor can link calls, and
 * it asks the vendor to take part in a trace. A trace that leaves an organisation should end there or begin anew (W3C Trace
 * Context §3.4, §7). A name that ends in "-" stands for every name that begins with it.
 */
export const TRACE_FIELDS: readonly string[] = [
  'traceparent tracestate baggage correlation-context request-context b3 x-b3-',
  'uber-trace-id uberctx- x-ot-span-context ot-tracer- ot-baggage- grpc-trace-bin',
  'x-cloud-trace-context x-amzn-trace-id x-datadog- sentry-trace elastic-apm-traceparent',
  'newrelic x-newrelic- x-dynatrace x-instana- jaeger-debug-id jaeger-baggage x-honeycomb-trace x-sf-trace-id',
].flatMap((names) => names.split(' '))

/**
 * Fields in which proxies, load balancers and service meshes in front of the gateway tell who the client is and where, its
 * identity and its tokens included. A name that ends in "-" stands for every name that begins with it.
 */
export const CLIENT_FIELDS: readonly string[] = [
  'forwarded x-forwarded x-forwarded- x-real-ip x-client-ip x-cluster-client-ip client-ip',
  'true-client-ip fastly-client-ip cf-connecting- cf-ipcountry cf-visitor cf-access-',
  'x-azure-clientip x-azure-socketip x-appengine- x-remote-ip x-remote-addr x-remote-user',
  'remote-user remote-groups remote-email remote-name x-scheme x-rewrite-url',
  'x-original-forwarded-for x-original-host x-original-uri x-original-url x-original-method',
  'x-auth-request- x-amzn-oidc- x-goog-iap-jwt-assertion x-goog-authenticated-user-',
  'x-ms-client-principal x-ms-client-principal- x-ms-token- client-cert client-cert-chain',
  'x-ssl-client- ssl-client- x-envoy- x-istio-attributes l5d-',
  'x-amzn-mtls- x-amzn-tls- cloudfront- x-arr- x-azure-fdid fly-client-ip fly-forwarded- do-connecting-ip',
  'x-nf-client-connection-ip x-vercel-forwarded-for x-vercel-ip- x-real-port x-client-cert x-tls-client-',
  'x-consumer- x-credential-identifier x-pomerium- x-authentik- x-webauth-',
].flatMap((names) => names.split(' '))

/**
 * Names of request fields that may decide whose data is answered, or which method is run. If a name is missing, the cache may give one
 * client's data to another. A name too many only costs hits of the cache.
 */
const IDENTIFYING = new RegExp(
  [
    'auth|token|secret|cookie|session|jwt|cert|principal|identi|user(?!-agent)|role|sudo|^from$|impersonat|behalf',
    'credential|consumer|e-?mail|group|claim|member|owner|profile|realm|^remote-|select-admin|api-scope',
    'account|tenant|org(?:ani[sz]ation)?(?:$|[-_]|s|ids?$)|customer|workspace|project|team|namespace|client-?id',
    'company|business|entit(?:y|ies)|subscription|shop|store|site-?id',
    'api-?key|(?<!idempotency-|surrogate-)key(?:$|[-_])|http-method|method-override|^x-forwarded-host$',
  ].join('|'),
)

/**
 * How a proxy treats a field of a request:
 * - `call`: it goes upstream.
 * - `made`: it is dropped, since it is about the client's connection. The gateway or its transport may write its own.
 * - `own`: it is dropped, since it is meant for the gateway.
 * - `cookie`: it goes without the gateway's cookies.
 * - `tags`: it goes with the vendor's own entity tags.
 * - `trace` and `client`: it goes only if `forward` says so.
 */
type FieldKind = 'call' | 'made' | 'own' | 'cookie' | 'tags' | 'trace' | 'client'

function kindOf(lower: string): FieldKind {
  if (isMadeAnew(lower)) return 'made'
  if (lower.startsWith(OWN_PREFIX)) return 'own'
  if (lower === 'cookie') return 'cookie'
  if (lower === 'if-match' || lower === 'if-none-match') return 'tags'
  if (isAmong(lower, TRACE_FIELDS)) return 'trace'
  return isAmong(lower, CLIENT_FIELDS) ? 'client' : 'call'
}

function isAmong(lower: string, fields: readonly string[]): boolean {
  return fields.some((field) => (field.endsWith('-') ? lower.startsWith(field) : lower === field))
}

/** Fields of a response that are dropped. The gateway writes its own X-Correlation-Id and Via. */
const DROPPED_FROM_RESPONSES = new Set([...HOP_BY_HOP, 'x-correlation-id', 'via'])
const QUOTA_FIELDS = new Set(
  'x-ratelimit-limit x-ratelimit-remaining x-ratelimit-reset ratelimit ratelimit-policy'.split(' '),
)

const OWN_PREFIX = 'x-sluice-'
const VIA = '1.1 sluice'

export interface Hop {
  /** The Host that the client sent. */
  readonly host: string | undefined
  /** The address at the other end of the connection, which may be that of a proxy; undefined once it is closed. */
  readonly peerAddress: string | undefined
  /** Whether the client's connection has TLS. */
  readonly isSecure: boolean
  readonly correlationId: string
  /** Lower-case names of further fields that are dropped: those that carry keys or accounts. */
  readonly droppedNames: ReadonlySet<string>
  /** Which fields about the client's own systems may go to the vendor. */
  readonly forward: readonly Forward[]
  /** The gateway's own trace, which replaces the client's if traces may go to the vendor. */
  readonly trace?: OutgoingTrace | undefined
}

export interface OutgoingTrace {
  readonly traceparent: string
  readonly tracestate: string | undefined
}

/** `trace`: the fields of traces. `client`: the fields that tell who the client is and how its request came. */
export type Forward = 'trace' | 'client'

/** The fields of a request as they go upstream. The credential and the account are not among them yet. */
export function requestHeaders(raw: readonly string[], hop: Hop): string[] {
  const headers: string[] = []
  const named = namedByConnection(raw)
  const isTraced = hop.forward.includes('trace')
  const isClientKnown = hop.forward.includes('client')
  const own = isTraced ? hop.trace : undefined
  let via: string | undefined
  let forwardedFor: string | undefined
  let forwardedHost = hop.host
  let forwardedProto = hop.isSecure ? 'https' : 'http'
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!
    const value = raw[i + 1]!
    const { lower, kind } = sentFields.at(i / 2, name)
    if (kind === 'made') {
      if (lower === 'via') via = followedBy(via, isClientKnown ? value : withoutHosts(value))
      else if (lower === 'x-forwarded-for') forwardedFor = followedBy(forwardedFor, value)
      else if (lower === 'x-forwarded-host') forwardedHost = value
      else if (lower === 'x-forwarded-proto') forwardedProto = value
      continue
    }
    if (kind === 'own' || hop.droppedNames.has(lower) || named?.has(lower)) continue
    if ((kind === 'trace' && !isTraced) || (kind === 'client' && !isClientKnown)) continue
    if (own !== undefined && (lower === 'traceparent' || lower === 'tracestate')) continue
    if (kind === 'cookie') {
      const kept = withoutOwnCookies(value)
      if (kept !== '') headers.push(name, kept)
      continue
    }
    headers.push(name, kind === 'tags' ? asSent(value) : value)
  }
  headers.push('X-Correlation-Id', hop.correlationId, 'Via', followedBy(via, VIA))
  if (own !== undefined) {
    headers.push('traceparent', own.traceparent)
    if (own.tracestate !== undefined) headers.push('tracestate', own.tracestate)
  }
  if (!isClientKnown) return headers
  headers.push('X-Forwarded-Proto', forwardedProto)
  const { peerAddress } = hop
  if (peerAddress !== undefined) forwardedFor = followedBy(forwardedFor, peerAddress)
  if (forwardedFor !== undefined) headers.push('X-Forwarded-For', forwardedFor)
  if (forwardedHost !== undefined) headers.push('X-Forwarded-Host', forwardedHost)
  return headers
}

/** A list field with one more value at its end. The first of a chain of proxies stands first (RFC 9110 §5.3, §7.6.3). */
function followedBy(list: string | undefined, value: string): string {
  return list === undefined || list === '' ? value : `${list}, ${value}`
}

/**
 * Removes the names from a value of Via. It still tells how many proxies there were and which protocol each spoke. Names of
 * hosts behind a firewall should not leave it (RFC 9110 §7.6.3).
 */
function withoutHosts(via: string): string {
  return via
    .replace(/\([^()]*\)/g, '')
    .split(',')
    .map((hop) => `${/^\s*((?:[a-z]+\/)?\d(?:\.\d)?)\s/i.exec(hop)?.[1] ?? '1.1'} internal`)
    .join(', ')
}

/**
 * The fields of a response as they go to the client, names and values in turn. An upstream's fields `x-sluice-` are dropped: only the
 * gateway may write those. With `hasOwnQuota` the upstream's fields about quotas are dropped too, since the gateway adds its own.
 */
export function responseHeaders(fields: Fields, hasOwnQuota: boolean): string[] {
  const headers: string[] = []
  const { connection, via } = fields
  const named = connection === undefined ? undefined : addTokens(undefined, joined(connection))
  for (const name in fields) {
    if (DROPPED_FROM_RESPONSES.has(name) || name.startsWith(OWN_PREFIX)) continue
    if (hasOwnQuota && QUOTA_FIELDS.has(name)) continue
    // An upstream that names Content-Length in Connection is not obeyed: the client could no longer tell where the body ends.
    if (named?.has(name) && name !== 'content-length') continue
    const value = fields[name]
    if (typeof value === 'string') headers.push(name, value)
    else for (const one of value ?? []) headers.push(name, one)
  }
  headers.push('Via', followedBy(joined(via), VIA))
  return headers
}

/**
 * The trailers of a response as they go to the client, without fields that only have a meaning before a body (RFC 9110 §6.5.1).
 * If a hop-by-hop field were left in, Node would throw for a client of HTTP/2 where nobody can catch it, and the process would
 * end.
 */
export function responseTrailers(fields: Fields, hasOwnQuota: boolean): [name: string, value: string][] {
  const trailers: [string, string][] = []
  for (const name in fields) {
    if (DROPPED_FROM_RESPONSES.has(name) || name === 'content-length' || name.startsWith(OWN_PREFIX)) continue
    if (hasOwnQuota && QUOTA_FIELDS.has(name)) continue
    for (const value of [fields[name] ?? []].flat()) trailers.push([name, value])
  }
  return trailers
}

interface RequestField {
  readonly lower: string
  readonly kind: FieldKind
  /** Whether it may decide whose data is answered. */
  readonly isIdentifying: boolean
}

/** What is known of the name of a field. Most messages have the same few names, so each is judged once. */
export function fieldOf(name: string): RequestField {
  let field = fields.get(name)
  if (field === undefined) {
    const lower = name.toLowerCase()
    field = { lower, kind: kindOf(lower), isIdentifying: IDENTIFYING.test(lower) }
    if (fields.size < NAMES_KEPT) fields.set(name, field)
  }
  return field
}

/** Clients choose the names, so only so many are kept. */
const NAMES_KEPT = 1_000
const fields = new Map<string, RequestField>()
const sentFields = new NamesByPlace(fieldOf)

/** The names in Connection: fields that the sender means for the next hop only. */
function namedByConnection(raw: readonly string[]): Set<string> | undefined {
  let named: Set<string> | undefined
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!
    if (name.length === 10 && name.toLowerCase() === 'connection') named = addTokens(named, raw[i + 1]!)
  }
  return named
}

function addTokens(tokens: Set<string> | undefined, value: string): Set<string> | undefined {
  // By far the most common values name no further field.
  if (value === 'keep-alive' || value === 'close') return tokens
  const all = tokens ?? new Set()
  for (const token of value.split(',')) all.add(token.trim().toLowerCase())
  return all
}

function withoutOwnCookies(value: string): string {
  if (!/sluice/i.test(value)) return value
  return value
    .split(';')
    .filter((pair) => !/^\s*sluice[^=]*=/i.test(pair))
    .join(';')
    .trim()
}
