import { createInterface } from 'node:readline'
import type { CachePolicy } from '../schema/cache-policy.ts'
import { systemClock } from '../time/clock.ts'
import { type Client, clientOf } from '../clients/client.ts'
import type { ClientConfig } from '../schema/client-schema.ts'
import { findConfig } from '../config/find.ts'
import { METHODS } from '../http/node-http.ts'
import { isLoopback, bareHost } from '../net/address.ts'
import type { Path } from '../config/problem.ts'
import { formatDuration } from '../schema/units.ts'
import type { Pool } from '../credentials/credential-set.ts'
import type { Account } from '../gateway/account.ts'
import { isCredentialInAuthorization } from '../gateway/cached-read.ts'
import type { Target } from '../gateway/call.ts'
import { Failure, isFailure } from '../gateway/failure.ts'
import { withAccount } from '../gateway/outgoing.ts'
import { type Identity, identify } from '../gateway/identify.ts'
import { buildSnapshot, closeSnapshot, type Snapshot, type Upstream } from '../gateway/snapshot.ts'
import { Metrics } from '../observe/metrics.ts'
import { Usage } from '../usage/usage.ts'
import type { ChargeSet } from '../ledger/ledger.ts'
import { MemoryLedger } from '../ledger/embedded/memory-ledger.ts'
import { withoutAlias } from '../routing/path.ts'
import { classifyByMethod, type Route } from '../routing/route.ts'
import { demoConfig } from './demo.ts'
import { CommandError } from './command-error.ts'
import { budgetsOf, type ClientBudget, describeBudget } from './explain-budget.ts'
import { jsonOf, printable } from './printable.ts'

interface Options {
  readonly config?: string
  readonly json?: boolean
  readonly batch?: boolean
  readonly client?: string
}

/** What the gateway would do with a call: where it goes, what it is charged to, and whether it may be retried. */
interface Explanation {
  readonly method: string
  readonly url: string
  readonly upstream: string | null
  readonly account: string | null
  readonly class: string | null
  readonly charges: readonly string[]
  readonly retry: 'safe' | 'unsafe' | null
  /** The name of the credential, never its value; null if none is injected. */
  readonly credential: string | null
  readonly error?: { readonly kind: string; readonly message: string }
}

/** Further facts, which only the text for people shows. */
interface Details {
  /** The URL that the call goes to, with the account's id where the gateway adds it; null if it was refused. */
  readonly sentTo: string | null
  /** Why the call has its class; null if it was refused before that was known. */
  readonly because: string | null
  /** The limits that it is charged to. */
  readonly limits: readonly {
    readonly class: string
    readonly requests: number
    readonly window: string
    /** When the current window ends, if that is a window of a calendar. */
    readonly ends?: string
    /** How many units the call takes, if not one. */
    readonly units?: number
  }[]
  /** Which answers are cached; null if none are, because the route is not cached or the call is no read. */
  readonly cache: CacheDetails | null
  /** How one of several credentials is chosen; null if there is only one. */
  readonly pool: Pick<Pool, 'order' | 'members' | 'affinity'> | null
}

interface CacheDetails {
  readonly scope: CachePolicy['scope']
  /** How long an answer stays fresh that does not say so itself. */
  readonly freshForMs: number
  /** Which answers are cached: all, all that do not say private, or those that allow it although the call has Authorization (RFC 9111 §3). */
  readonly keeps: 'all' | 'not-private' | 'only-public'
}

interface Explained {
  readonly explanation: Explanation
  readonly details: Details
  /** Why the URL may have been misunderstood. */
  readonly doubt: string | undefined
}

/** Says what the gateway would do with a call, without making it. With `client` it is the call of a configured client. */
export async function explain(method: string | undefined, url: string | undefined, options: Options): Promise<void> {
  if (options.batch === true && method !== undefined)
    throw new CommandError('--batch reads its calls from stdin: leave it out, or METHOD and URL')
  // If no clients are configured, anybody may call.
  const found = (await findConfig(options.config, { ignores: isUnimportant }))?.config ?? demoConfig('http://sandbox')
  const { clients = {}, ...config } = found
  const client = options.client === undefined ? undefined : clientNamed(options.client, clients)
  const metrics = new Metrics()
  const snapshot = buildSnapshot(config, {
    clock: systemClock,
    random: Math.random,
    ledger: new MemoryLedger(systemClock),
    metrics,
    usage: new Usage({ metrics, clock: systemClock }),
    onBreakerChange: () => undefined,
  })
  try {
    if (options.batch) await explainLines(snapshot, client)
    else if (method === undefined || url === undefined) throw new CommandError('usage: npx sluice explain METHOD URL')
    else print(explainOne(snapshot, method, url, client), budgetsOf(options.client, found), options.json ?? false)
  } finally {
    await closeSnapshot(snapshot)
  }
}

/**
 * Whether the explanation does not need this part of the configuration. It only names credentials, and it connects to nothing.
 */
function isUnimportant([first, , field, , detail]: Path): boolean {
  return (
    first !== 'upstreams' ||
    field === 'tls' ||
    (field === 'accounts' && (detail === 'credential' || detail === 'credentials'))
  )
}

function clientNamed(name: string, clients: Readonly<Record<string, ClientConfig>>): Client {
  const config = Object.hasOwn(clients, name) ? clients[name] : undefined
  if (config !== undefined) return clientOf(name, config)
  const names = Object.keys(clients)
  const known = names.length === 0 ? 'it has none' : `it has ${names.join(', ')}`
  throw new CommandError(
    `the configuration has no client "${name}": ${known}; those of the admin API are not known here`,
  )
}

async function explainLines(snapshot: Snapshot, client: Client | undefined): Promise<void> {
  const doubts = new Set<string | undefined>()
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === '') continue
    const [method = '', url = ''] = line.trim().split(/\s+/)
    const { explanation, doubt } = explainOne(snapshot, method, url, client)
    if (doubt !== undefined && !doubts.has(doubt)) warn(doubt)
    doubts.add(doubt)
    process.stdout.write(jsonOf(explanation, 0))
  }
}

function explainOne(snapshot: Snapshot, method: string, url: string, client: Client | undefined): Explained {
  const meant = targetOf(snapshot, url)
  const head = {
    method: method.toUpperCase(),
    url: withoutGateway(snapshot, meant),
    headers: {},
    connection: {},
    client,
  }
  const identity: Identity = { client: undefined, upstream: undefined, route: undefined, prefix: '', path: '' }
  const target = METHODS.includes(head.method)
    ? identify(snapshot, head, identity)
    : new Failure('invalid_request', 'this is no method of HTTP that the gateway reads')
  const { upstream, route } = identity
  const account = isFailure(target) ? undefined : target.account
  const explanation: Explanation = {
    method,
    url,
    upstream: upstream?.name ?? null,
    account: account?.name ?? null,
    class: route?.class ?? null,
    charges: route?.charges ?? [],
    retry: route?.retry ?? null,
    credential: route?.credential === 'none' ? null : (account?.credential?.name ?? null),
    ...(isFailure(target) ? { error: { kind: target.kind, message: target.message } } : {}),
  }
  const limits = isFailure(target) ? [] : limitsOf(target.admissionPolicy.chargeSet)
  const because = route === undefined ? null : reasonFor(route, head.method)
  const cache = route === undefined ? null : cacheOf(route, account, head.method)
  const pool = explanation.credential === null ? null : poolOf(account)
  const sentTo = isFailure(target) ? null : destinationOf(target)
  return {
    explanation,
    details: { sentTo, because, limits, cache, pool },
    doubt: doubtAbout(meant, snapshot, identity),
  }
}

function destinationOf({ upstream, account, route, path, query }: Target): string {
  const wanted = route.credential === 'none' ? undefined : upstream.config.accountQuery
  const whole =
    wanted === undefined ? query : withAccount(query, wanted, account.id, withoutAlias(path, upstream.aliasPrefix))
  return upstream.url.origin + upstream.basePath + path + whole
}

function poolOf(account: Account | undefined): Details['pool'] {
  const { order, members, affinity } = account?.credential?.pool ?? {}
  return order === undefined ? null : { order, members: members!, affinity }
}

const ORDERS = {
  'expires-first': 'the one whose unused quota comes back soonest',
  'least-used': 'the one with the fewest calls in flight',
  'round-robin': 'each in turn',
} satisfies Record<Pool['order'], string>

function describePool(pool: Details['pool']): string {
  if (pool === null) return ''
  const { order, members, affinity } = pool
  const kept =
    affinity === undefined
      ? ''
      : `; calls with the same ${affinity.header} stay on one, unless its quota takes more than ${formatDuration(affinity.maxWaitMs)}`
  return `: ${members.join(', ')}, of those that can serve now ${ORDERS[order]}${kept}`
}

function cacheOf({ cache, ...route }: Route, account: Account | undefined, method: string): CacheDetails | null {
  if (cache === undefined || cache === false || (method !== 'GET' && method !== 'HEAD')) return null
  const isInAuthorization = account !== undefined && isCredentialInAuthorization({ cache, ...route }, account)
  const keeps = cache.isPrivate ? 'all' : isInAuthorization ? 'only-public' : 'not-private'
  return { scope: cache.scope, freshForMs: cache.freshForMs, keeps }
}

const KEEPS = {
  all: '',
  'not-private': '; none that says private, without private: true',
  'only-public':
    '; only if it says public, s-maxage or must-revalidate, without private: true, as the credential travels in Authorization',
} satisfies Record<CacheDetails['keeps'], string>

function describeCache(cache: CacheDetails | null): string {
  if (cache === null) return 'no'
  const fresh =
    cache.freshForMs === 0
      ? 'as long as the answer says'
      : `${formatDuration(cache.freshForMs)} unless the answer says otherwise`
  return `for ${cache.scope === 'account' ? 'all clients of the account' : 'the client'}, fresh ${fresh}${KEEPS[cache.keeps]}`
}

function reasonFor({ pattern, charges }: Route, method: string): string {
  if (pattern !== undefined) return `route ${pattern}`
  const usual = classifyByMethod(method).class
  const isUsual = charges.length === 1 && charges[0] === usual
  const why = isUsual ? `${method} ${usual === 'read' ? 'reads' : 'changes something'}` : 'by its path'
  return `rule, as no route is known for it: ${why}`
}

/** A URL that belongs to no upstream is taken for a URL of the gateway, which may have any name. On this machine it has one port. */
function doubtAbout(url: string, { hosts, config }: Snapshot, { upstream, prefix }: Identity): string | undefined {
  if (upstream === undefined || prefix !== '' || !URL.canParse(url)) return undefined
  const { host, hostname, port, protocol } = new URL(url)
  if (hosts.has(bareHost(hostname))) return undefined
  const ownPort = config.server.port
  if (isLoopback(hostname) && (ownPort === 0 || ownPort === Number(port || (protocol === 'https:' ? 443 : 80))))
    return undefined
  return `no upstream is at this URL of ${host}, so it is taken for one of the gateway, for its default ${upstream.name}`
}

function warn(doubt: string): void {
  process.stderr.write(`warning: ${doubt}\n`)
}

/** Makes a vendor's own URL a path below the gateway. Everything else is read as the gateway would read it. */
function targetOf(snapshot: Snapshot, url: string): string {
  const rest = /^https?:\/\/[^/?#]*(.*)$/i.exec(url)?.[1]
  if (rest === undefined || !URL.canParse(url)) return url
  const { origin } = new URL(url)
  let found: Upstream | undefined
  for (const upstream of snapshot.upstreams.values()) {
    const { basePath } = upstream
    const isBelow = rest.startsWith(basePath) && /^(?:[/?]|$)/.test(rest.slice(basePath.length))
    const isCloser = found === undefined || basePath.length > found.basePath.length
    if (upstream.url.origin === origin && isBelow && isCloser) found = upstream
  }
  return found === undefined ? url : `/${found.name}${rest.slice(found.basePath.length)}`
}

/**
 * The request target that a client would send. For a URL of the gateway that is its path. A URL with the host of an upstream is
 * sent whole.
 */
function withoutGateway({ hosts }: Snapshot, url: string): string {
  if (!URL.canParse(url) || hosts.has(bareHost(new URL(url).hostname))) return url
  const rest = /^https?:\/\/[^/?#]*(.*)$/i.exec(url)?.[1]
  return rest === undefined || rest.startsWith('/') ? (rest ?? url) : `/${rest}`
}

/** The limits of a charge set. The body of the call is not known, so that a cost that depends on its size is left out. */
function limitsOf({ limits, units }: ChargeSet): Details['limits'] {
  return limits.map(({ class: className, requests, label, calendar }, i) => {
    const cost = units[i]!
    const ends = calendar === undefined ? {} : { ends: calendar.endText(systemClock.wall()) }
    return { class: className, requests, window: label, ...ends, ...(cost === 1 ? {} : { units: cost }) }
  })
}

/** Prints the explanation as text or JSON. If the call would be refused, the exit code is 1. */
function print({ explanation, details, doubt }: Explained, budgets: readonly ClientBudget[], asJson: boolean): void {
  if (doubt !== undefined) warn(doubt)
  const { error, method, url, upstream, account, retry, credential } = explanation
  if (asJson) {
    process.stdout.write(jsonOf({ ...explanation, ...details, budgets }, 0))
    if (error !== undefined) process.exitCode = 1
    return
  }
  if (error !== undefined)
    throw new CommandError(printable(`${method} ${url} would be refused (${error.kind}): ${error.message}`))
  const charged = details.limits.map(({ class: className, requests, window, ends, units }) => {
    const span = window.startsWith('at once') ? window : `per ${window}`
    const until = ends === undefined ? '' : ` until ${ends}`
    return `${className} ${requests} ${span}${until}${units === undefined ? '' : ` (${units} units)`}`
  })
  const rows = [
    ['call', `${method} ${url}`],
    ['sent to', details.sentTo],
    ['upstream', upstream],
    ['account', account],
    ['class', explanation.class],
    ['because', details.because],
    ['charged to', charged.length > 0 ? charged.join(', ') : 'no limit'],
    ...(budgets.length === 0 ? [] : [['budget', budgets.map(describeBudget).join(', ')]]),
    ['retry', retry === 'safe' ? 'safe' : 'only if nothing was sent'],
    ['credential', (credential ?? 'none') + describePool(details.pool)],
    ['cache', describeCache(details.cache)],
  ]
  for (const [name, value] of rows) process.stdout.write(`${printable(`${name?.padEnd(12)}${value}`)}\n`)
}
