import type { IncomingHttpHeaders } from 'node:http'
import { isDecodable } from '../http/decode.ts'
import { joined, onlyMember } from '../http/fields.ts'
import { ANONYMOUS, type Client, outOfScope } from '../clients/client.ts'
import { isAccessAllowed } from '../clients/network-access.ts'
import { chooseAccount, collectClaims } from '../routing/account.ts'
import { isOverlong } from '../routing/path.ts'
import type { Route } from '../routing/route.ts'
import { isOwnHost, type LocalEnd, readAbsoluteTarget } from './absolute-target.ts'
import type { Account } from './account.ts'
import { authenticate, authenticateProxied } from './authenticate.ts'
import type { Target } from './call.ts'
import { candidatesFor } from './candidates.ts'
import { Failure, invalid, isFailure } from './failure.ts'
import { findProxied } from './find-proxied.ts'
import { type Proxied, proxyKey } from './proxied.ts'
import { bareHost } from '../net/address.ts'
import type { Snapshot, Upstream } from './snapshot.ts'
import { readRequestOptions } from './request-options.ts'
import { refuseWebPage } from './web-page.ts'

/** The head of a request, as far as identification needs it. */
export interface RequestHead {
  readonly method: string
  /** The request target as it was sent. */
  readonly url: string
  readonly headers: IncomingHttpHeaders
  /** The client's connection. */
  readonly connection: LocalEnd
  /** Set for a request to the forward proxy: its target is a URL of the vendor, and its key is in the proxy credentials. */
  readonly proxied?: Proxied | undefined
  /** The client, if it is known already. */
  readonly client?: Client | undefined
}

/** Who calls, and where to. A refusal logs as much of it as was found out. */
export interface Identity {
  client: Client | undefined
  upstream: Upstream | undefined
  route: Route | undefined
  /** The part of the path that named the upstream, such as `/harness`; empty if none did. */
  prefix: string
  /** The rest of the path, as it was sent. */
  path: string
}

/** Finds the client, upstream, account and class of a call; or why it is refused. Notes in `identity` what it found. */
export function identify(snapshot: Snapshot, head: RequestHead, identity: Identity): Target | Failure {
  const { method, headers } = head
  if (overridesMethod(headers)) return invalid(OVERRIDDEN)
  // The answer to a TRACE holds the request as it arrived, with the injected credential.
  if (method === 'TRACE') return invalid('TRACE is not forwarded, because the answer would show the credential')
  if (headers.via !== undefined && headers.via.split(',', MOST_HOPS).length === MOST_HOPS) return invalid(CIRCLE)
  const address = findUpstream(snapshot, head)
  if (!isFailure(address)) {
    identity.upstream = address.upstream
    identity.prefix = address.prefix
    identity.path = address.path
  }
  const client = head.client ?? clientOf(snapshot, head, identity.upstream)
  if (isFailure(client)) return client
  identity.client = client
  // This check comes before any refusal that names upstreams, because a web page could read that.
  const refusal = client === ANONYMOUS ? refuseWebPage(snapshot, head) : undefined
  if (refusal !== undefined) return refusal
  if (isFailure(address)) return address
  return identifyAt(address, head, client, identity)
}

/** Whether a header field names another method. Some servers obey such a field instead of the method of the request. */
function overridesMethod(headers: IncomingHttpHeaders): boolean {
  return (
    headers['x-http-method-override'] !== undefined ||
    headers['x-method-override'] !== undefined ||
    headers['x-http-method'] !== undefined
  )
}

const OVERRIDDEN =
  'X-HTTP-Method-Override, X-Method-Override and X-HTTP-Method are not forwarded, because scopes, limits, retries and the cache go by the method of the request: send it with the method that is meant'
/** More proxies than stand between any tool and a vendor. Each gateway adds itself to Via (RFC 9110 §7.6.3). */
const MOST_HOPS = 16
const CIRCLE = `the request came through ${MOST_HOPS} proxies, as its Via says, and probably goes round in a circle: see whether the url of an upstream leads back to this gateway`

function clientOf(snapshot: Snapshot, head: RequestHead, upstream: Upstream | undefined): Client | Failure {
  const { proxied } = head
  if (proxied === undefined) return authenticate(snapshot, head, upstream)
  return authenticateProxied(snapshot, { ...head, headers: proxyKey(proxied, head.headers) })
}

interface Address {
  readonly upstream: Upstream
  readonly prefix: string
  readonly path: string
  readonly query: string
  readonly host: string | undefined
}

function identifyAt(
  { upstream, path, query, host }: Address,
  { method, headers }: RequestHead,
  client: Client,
  identity: Identity,
): Target | Failure {
  const { aliasPrefix } = upstream
  const { route, path: normalPath, otherPath, otherClass } = upstream.routes.locate(method, path, aliasPrefix)
  identity.route = route
  // The scope is checked before the account, because refusals about the account name the upstream's accounts.
  const call = { upstream: upstream.name, class: route.class, otherClass, method, path, aliasPrefix }
  const outside = outOfScope(client, call)
  if (outside !== undefined) return forbidden(`the client ${client.name} ${outside}`)
  const paths = otherPath === undefined ? [normalPath] : [normalPath, otherPath]
  const account = accountFor(upstream, client, paths, query, headers)
  if (isFailure(account)) return account
  if (client.networkAccess !== undefined || upstream.access.length > 0) {
    const refusal = refuseAccess(upstream, client, path)
    if (refusal !== undefined) return refusal
  }
  const requestOptions = readRequestOptions(headers, {
    maxWaitMs: upstream.config.queue.maxWait,
    priority: client.priority,
  })
  if (isFailure(requestOptions)) return requestOptions
  const traits = { method, headers, path: normalPath, client: client.name, credential: undefined }
  const credentials = route.credential === 'none' ? undefined : account.credential
  const candidates = credentials?.pool && candidatesFor(account, route, traits)
  if (candidates !== undefined && isFailure(candidates)) return candidates
  const best = candidates?.[0]
  const credential = best?.credential ?? credentials?.choose()
  const why = credential?.whyNot?.({ path, query, headers })
  if (why !== undefined) return invalid(why)
  const admissionPolicy = best?.admissionPolicy ?? account.admissionPolicies.policyFor(route, traits)
  if (isFailure(admissionPolicy)) return admissionPolicy
  return {
    client,
    upstream,
    account,
    route,
    credential,
    admissionPolicy,
    candidates,
    host,
    path,
    normalPath,
    query,
    requestOptions,
  }
}

function refuseAccess({ url: { origin }, basePath, aliasPrefix, access }: Upstream, client: Client, path: string) {
  const url = `${origin}${basePath}${escapeBytes(path)}`
  const alias = { base: basePath, prefix: aliasPrefix }
  if (!isAccessAllowed(url, access, alias)) return forbidden('the network access lists do not allow this address')
  if (client.networkAccess === undefined || isAccessAllowed(url, [client.networkAccess], alias)) return undefined
  return forbidden(`the network access list of ${client.name} does not allow this address`)
}

/** Escapes raw bytes beyond ASCII. Each is one character of a request target, and a URL would encode it as two bytes. */
function escapeBytes(path: string): string {
  return path.replaceAll(/[\x80-\xff]/g, (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase()}`)
}

/**
 * A segment `..`, in any encoding, also with parameters. It would lead above the upstream's base path, to resources that clients
 * must not reach.
 */
const CLIMBS = /(?:\/|\\|%2f|%5c)(?:\.|%2e){2}(?:\/|\\|%2f|%5c|;|%3b|%00|$)/i

/** Finds the upstream of a request: by the host name that it owns, else by the first segment of the path, else the default. */
function findUpstream(snapshot: Snapshot, head: RequestHead): Address | Failure {
  const { url, headers, connection, proxied } = head
  // A request target has no fragment (RFC 9112 §3.2). Servers and route tables do not agree on where to cut one off.
  if (url.includes('#')) return invalid('the request target must not have a fragment: "#" is written %23')
  let target = url
  let host = headers.host
  let hostname: string | undefined
  let owner: Upstream | undefined
  let prefix = ''
  if (proxied !== undefined) {
    const found = findProxied(snapshot.origins, head, proxied)
    if (isFailure(found)) return found
    ;({ host, target, upstream: owner, basePath: prefix } = found)
  } else if (!target.startsWith('/')) {
    const absolute = readAbsoluteTarget(target)
    if (isFailure(absolute)) return absolute
    const isOwned = snapshot.hosts.has(absolute.hostname)
    if (!isOwned && !isOwnHost(absolute, snapshot.ownHosts, connection)) return foreign(absolute.authority)
    // A target in absolute form overrides the Host header (RFC 9112 §3.2.2).
    ;({ authority: host, hostname, rest: target } = absolute)
  }
  const queryAt = target.indexOf('?')
  const path = queryAt < 0 ? target : target.slice(0, queryAt)
  const query = queryAt < 0 ? '' : target.slice(queryAt)

  const isEscaped = path.includes('%')
  if (isEscaped && !isDecodable(path))
    return invalid('the path must be well-formed: "%" only before two hex digits of UTF-8')
  // HTTP/2 allows raw bytes here. Like escaped ones they must be UTF-8 in its shortest form.
  if (isOverlong(path)) return invalid('the path must be well-formed: bytes beyond ASCII only as UTF-8')
  if ((isEscaped || path.includes('..')) && CLIMBS.test(path))
    return invalid('the path must not have ".." segments, nor encoded ones')
  // Some servers cut the path off at a NUL. Routes and access rules would then apply to another path.
  if (isEscaped && path.includes('%00')) return invalid('the path must not have an encoded NUL, %00')
  if (owner === undefined && snapshot.hosts.size > 0 && host !== undefined)
    owner = snapshot.hosts.get(hostname ?? bareHost(host))
  if (owner !== undefined) return { upstream: owner, prefix, path, query, host }
  const slash = path.indexOf('/', 1)
  const name = slash < 0 ? path.slice(1) : path.slice(1, slash)
  const named = snapshot.upstreams.get(name)
  if (named !== undefined) {
    return { upstream: named, prefix: `/${name}`, path: slash < 0 ? '/' : path.slice(slash), query, host }
  }
  if (snapshot.defaultUpstream !== undefined)
    return { upstream: snapshot.defaultUpstream, prefix: '', path, query, host }
  return new Failure(
    'unknown_upstream',
    `the path must begin with the name of an upstream: ${[...snapshot.upstreams.keys()].join(', ')}`,
  )
}

/** A client that takes the gateway for an open proxy must not be answered by the default upstream. */
function foreign(authority: string): Failure {
  return new Failure(
    'unknown_upstream',
    `this is no proxy to ${authority}, which is a name neither of an upstream (upstreams.*.hosts) nor of the gateway (server.hosts): send the request to the gateway itself`,
  )
}

function accountFor(
  upstream: Upstream,
  client: Client,
  paths: readonly string[],
  query: string,
  headers: IncomingHttpHeaders,
): Account | Failure {
  const claims = collectClaims(upstream.claims, paths, query.slice(1), headers)
  const named = headers['x-sluice-account']
  // If lines of the header differ, none of them counts: their joined value names no account.
  const wanted = named === undefined ? undefined : (onlyMember(named) ?? joined(named))
  const isAllowed = (account: Account): boolean => client.accounts?.has(account.key) ?? true
  const usable = (): string =>
    [...upstream.accounts.values()]
      .filter(isAllowed)
      .map(({ name, id }) => (id === undefined ? name : `${name} (${id})`))
      .join(', ')
  const choice = chooseAccount(upstream.accounts, isAllowed, wanted, claims)
  switch (choice.kind) {
    case 'chosen':
      return choice.account
    case 'unknown':
      return invalid(`there is no account "${choice.wanted}" at ${upstream.name}${orRather(usable())}`)
    case 'forbidden':
      return forbidden(
        `the client ${client.name} may not use the account "${choice.wanted}" of ${upstream.name}${orRather(usable())}`,
      )
    case 'unknown_claim': {
      const { place, id } = choice.claim
      return new Failure(
        'account_mismatch',
        `the ${place} names account ${id.slice(0, 64)}, which is none of ${usable()}`,
      )
    }
    case 'undecided': {
      const names = usable()
      if (names === '')
        return new Failure('forbidden', `the client ${client.name} may use no account of ${upstream.name}`)
      return invalid(`say which account is meant, with X-Sluice-Account: one of ${names}`)
    }
    case 'conflict':
      return new Failure(
        'account_mismatch',
        `the ${choice.claim.place} names another account than ${choice.account.key} (${choice.account.id}), which this call would use: send ${choice.account.id} instead`,
      )
  }
}

/** Ends a message with the values that X-Sluice-Account may have. */
function orRather(names: string): string {
  return names === '' ? '' : `: X-Sluice-Account may be ${names}`
}

function forbidden(message: string): Failure {
  return new Failure('forbidden', message)
}
