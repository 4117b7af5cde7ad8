import { type Fields, joined } from '../http/fields.ts'

/**
 * Header fields on their way through. Values stay as they were sent; what belongs to one connection only is dropped in
 * both directions (RFC 9110 §7.6.1).
 */
const HOP_BY_HOP =
  'connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade http2-settings'.split(
    ' ',
  )

/** Fields of a request that are not passed on as they are: made anew, or by the transport. */
const REQUEST_FIELDS = new Set([
  ...HOP_BY_HOP,
  ...'host content-length expect via x-correlation-id x-forwarded-for x-forwarded-host x-forwarded-proto'.split(' '),
])

/** Whether a request goes upstream without that field of the client's, or with another in its place. */
export function isMadeAnew(name: string): boolean {
  return REQUEST_FIELDS.has(name.toLowerCase())
}

/** Fields of a response in whose place the gateway gives its own answer. */
const RESPONSE_FIELDS = new Set([...HOP_BY_HOP, 'x-correlation-id', 'via'])
const QUOTA_FIELDS = new Set(
  'x-ratelimit-limit x-ratelimit-remaining x-ratelimit-reset ratelimit ratelimit-policy'.split(' '),
)

const OWN_PREFIX = 'x-sluice-'
const VIA = '1.1 sluice'

export interface Hop {
  /** Name by which the client called the gateway. */
  readonly host: string | undefined
  readonly clientAddress: string | undefined
  /** Whether the client's connection has TLS. */
  readonly isSecure: boolean
  readonly correlationId: string
  /** Lower-case names of further fields that are not the client's to send: those of keys and accounts. */
  readonly droppedNames: ReadonlySet<string>
}

/** The fields of a request as they go upstream, without credential and account. */
export function requestHeaders(raw: readonly string[], hop: Hop): string[] {
  const headers: string[] = []
  const named = namedByConnection(raw)
  let via = VIA
  let forwardedFor = hop.clientAddress
  let forwardedHost = hop.host
  let forwardedProto = hop.isSecure ? 'https' : 'http'
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!
    const value = raw[i + 1]!
    const lower = lowerCase(name)
    if (REQUEST_FIELDS.has(lower)) {
      if (lower === 'via') via = `${value}, ${via}`
      else if (lower === 'x-forwarded-for')
        forwardedFor = forwardedFor === undefined ? value : `${value}, ${forwardedFor}`
      else if (lower === 'x-forwarded-host') forwardedHost = value
      else if (lower === 'x-forwarded-proto') forwardedProto = value
      continue
    }
    if (hop.droppedNames.has(lower) || lower.startsWith(OWN_PREFIX) || named?.has(lower)) continue
    if (lower === 'cookie') {
      const kept = withoutOwnCookies(value)
      if (kept !== '') headers.push(name, kept)
      continue
    }
    headers.push(name, value)
  }
  headers.push('X-Correlation-Id', hop.correlationId, 'Via', via, 'X-Forwarded-Proto', forwardedProto)
  if (forwardedFor !== undefined) headers.push('X-Forwarded-For', forwardedFor)
  if (forwardedHost !== undefined) headers.push('X-Forwarded-Host', forwardedHost)
  return headers
}

/**
 * The fields of a response as they go to the client, names and values in turn, without what the gateway adds. The upstream's
 * word on quotas is left out only where the gateway gives its own.
 */
export function responseHeaders(fields: Fields, hasOwnQuota: boolean): string[] {
  const headers: string[] = []
  const [connection, via] = [fields['connection'], fields['via']].map((field) => field && joined(field))
  const named = connection === undefined ? undefined : addTokens(undefined, connection)
  for (const name in fields) {
    if (RESPONSE_FIELDS.has(name) || name.startsWith(OWN_PREFIX)) continue
    if (hasOwnQuota && QUOTA_FIELDS.has(name)) continue
    // A sender that names the frame of its own message is not obeyed: the message would change its meaning.
    if (named?.has(name) && name !== 'content-length') continue
    const value = fields[name]
    if (typeof value === 'string') headers.push(name, value)
    else for (const one of value ?? []) headers.push(name, one)
  }
  headers.push('Via', via === undefined ? VIA : `${via}, ${VIA}`)
  return headers
}

/** Names are few and come again with every message: to look one up is cheaper than to lower its case. */
function lowerCase(name: string): string {
  let lower = lowered.get(name)
  if (lower === undefined) {
    lower = name.toLowerCase()
    if (lowered.size < NAMES_KEPT) lowered.set(name, lower)
  }
  return lower
}

const NAMES_KEPT = 1_000
const lowered = new Map<string, string>()

/** Fields that the sender marked as meant for the next hop only. */
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
