import { isSame } from '../schema/difference.ts'
import { EVERY_CALL } from '../schema/limits.ts'
import type { Config, UpstreamConfig } from '../schema/schema.ts'
import { bareHost, isLocalhost } from '../net/address.ts'
import { Disguises } from '../answers/disguise.ts'
import { presets } from '../config/presets/index.ts'
import type { LookupFunction } from 'node:net'
import type { SharedCache } from '../cache/open-cache.ts'
import { Callers } from '../clients/callers.ts'
import type { ManagedClients } from '../clients/managed.ts'
import { TokenIssuers } from '../clients/token-issuers.ts'
import { accessLists, isAddressAllowed, type NetworkAccess, normalHost } from '../clients/network-access.ts'
import type { TimeoutPhase } from '../observe/metrics.ts'
import type { CounterSeries } from '../observe/series.ts'
import type { BreakerChange, BreakerState } from '../resilience/breaker.ts'
import { Breakers } from '../resilience/breakers.ts'
import { Hedging } from '../resilience/hedging.ts'
import { RetryBudget } from '../resilience/retry-budget.ts'
import type { ClaimRules } from '../routing/account.ts'
import type { RouteTable } from '../routing/route-table.ts'
import { guardedLookup } from '../net/guarded-lookup.ts'
import { proxyOf } from '../schema/proxy.ts'
import { tlsOptions } from '../schema/upstream-schema.ts'
import { Transport } from '../upstream/transport.ts'
import { Account } from './account.ts'
import type { AccountServices } from './admission-policies.ts'
import { CallCount } from './call-count.ts'
import { buildClaims, buildRoutes, isCached } from './build-routes.ts'
import { countingOf } from './counting.ts'
import { PriceList } from './price-list.ts'
import { LearnedPrices } from './reserve.ts'
import { type Origins, originsOf } from './origins.ts'
import type { RetryPolicy } from './decide.ts'

/** Everything that one configuration means. It is built once and never changed. A call uses one snapshot from beginning to end. */
export interface Snapshot {
  readonly config: Config
  readonly upstreams: ReadonlyMap<string, Upstream>
  /** Upstreams by the lower-case host names that they own. */
  readonly hosts: ReadonlyMap<string, Upstream>
  /** Where the forward proxy looks up the upstream of a request. */
  readonly origins: Origins<Upstream>
  /** The configured host names of the gateway itself, in lower case. */
  readonly ownHosts: ReadonlySet<string>
  readonly defaultUpstream: Upstream | undefined
  readonly callers: Callers
  /** The issuers of signed tokens; undefined if there are none. */
  readonly issuers: TokenIssuers | undefined
  /** Lower-case names of every header in which a client may present its key. */
  readonly keyHeaders: readonly string[]
  /** The calls that use this snapshot. */
  readonly calls: CallCount
}

export interface Upstream {
  readonly name: string
  readonly url: URL
  /** Path of the URL without a slash at its end. It is put before the path of every call. */
  readonly basePath: string
  readonly config: UpstreamConfig
  readonly routes: RouteTable
  readonly claims: ClaimRules
  /** Lower-case names of the headers in which a call may name its account. */
  readonly accountFields: ReadonlySet<string>
  readonly accounts: ReadonlyMap<string, Account>
  /** What calls cost in money; undefined if they cost none. */
  readonly prices: PriceList | undefined
  /** What was learned of those prices. A reload keeps it. */
  readonly learnedMoney: LearnedPrices
  readonly transport: Transport
  /** How many WebSockets are open, and how many may be. */
  readonly webSockets: { open: number; most: number }
  readonly breakers: Breakers
  readonly retryPolicy: RetryPolicy
  /** Recognises refusals for rate that have another status than 429; undefined if none are configured. */
  readonly disguises: Disguises | undefined
  readonly retryBudget: RetryBudget
  /** Decides when a slow call is sent a second time beside the first; undefined if no call is. */
  readonly hedging: Hedging | undefined
  /** Counts retries that the retry budget did not allow. */
  readonly budgetExhausted: CounterSeries
  /** Counts timeouts, by phase. */
  readonly timeouts: Readonly<Record<TimeoutPhase, CounterSeries>>
  /** Undefined if no response of the upstream is cached, nor was before a reload. */
  readonly cache: SharedCache | undefined
  /** The prefix under which the vendor serves the same paths a second time; empty if there is none. */
  readonly aliasPrefix: string
  /** Lower-case names of the response headers in which the vendor may put its own id of a request. */
  readonly requestIdHeaders: readonly string[]
  /** Lower-case names of the headers in which clients may present their key. */
  readonly keyHeaders: ReadonlySet<string>
  /** The configured network access lists: of the gateway, and of the upstream. Either may be missing. */
  readonly access: readonly NetworkAccess[]
}

/** Names a breaker: that of a whole upstream, or of one group of its routes. */
export interface BreakerName {
  readonly upstream: string
  readonly group: string | undefined
}

/** What the program provides to every snapshot. All of it outlives the snapshots. */
export interface Services extends AccountServices {
  /** The clients of the admin API. */
  readonly managed?: ManagedClients
  /** Looks up the addresses of upstreams and token issuers. Default: the system's look-up. */
  readonly lookup?: LookupFunction | undefined
  /** Without it nothing is cached. */
  readonly cache?: SharedCache
  onBreakerChange(breaker: BreakerName, state: BreakerState, change: BreakerChange): void
}

/**
 * Builds the snapshot of a configuration. Parts of `previous` whose own configuration is the same are used again: connections,
 * breakers, retry budgets and queues keep their state. Put the result in force at once, because it takes over state of `previous`.
 */
export function buildSnapshot(config: Config, services: Services, previous?: Snapshot): Snapshot {
  const building = snapshotInSteps(config, services, previous)
  for (let step = building.next(); ; step = building.next()) if (step.done === true) return step.value
}

/**
 * Builds a snapshot as `buildSnapshot` does, in many small steps. Only the last step changes anything that the previous snapshot
 * uses. After it, put the new snapshot in force at once.
 */
export function* snapshotInSteps(
  config: Config,
  services: Services,
  previous?: Snapshot,
): Generator<undefined, Snapshot, undefined> {
  const takeOvers: (() => void)[] = []
  const upstreams = new Map<string, Upstream>()
  const hosts = new Map<string, Upstream>()
  for (const [name, upstreamConfig] of Object.entries(config.upstreams)) {
    const access = accessLists([config, upstreamConfig])
    const building = { services, previous: previous?.upstreams.get(name), takeOvers }
    const upstream = yield* buildUpstream(name, upstreamConfig, access, building)
    upstreams.set(name, upstream)
    // A Host field is looked up as the client wrote it. So an IPv6 address is found in its shortest form and in the configured form.
    for (const host of upstreamConfig.hosts) hosts.set(normalHost(host), upstream).set(bareHost(host), upstream)
  }
  const issuers = issuersOf(config, services, previous)
  const keyHeaders = new Set<string>()
  for (const upstream of upstreams.values()) for (const name of upstream.keyHeaders) keyHeaders.add(name)
  yield
  const callers = new Callers({
    configured: config.clients,
    managed: services.managed,
    hierarchy: config,
    issuers,
    clock: services.clock,
  })
  // These counters begin at zero; see `Metrics.beginAccount`.
  for (const { kind, name, chargeSet } of callers.levels(config.metrics.maxClients))
    for (const { label } of chargeSet.limits) services.metrics.budgetLow.of({ level: kind, name, window: label })
  yield
  for (const takeOver of takeOvers) takeOver()
  return {
    config,
    upstreams,
    hosts,
    origins: originsOf(upstreams.values()),
    ownHosts: new Set(config.server.hosts.map(normalHost)),
    defaultUpstream: config.defaultUpstream === undefined ? undefined : upstreams.get(config.defaultUpstream),
    callers,
    issuers,
    keyHeaders: [...keyHeaders],
    calls: new CallCount(),
  }
}

/** Uses the previous issuers again if their configuration is the same, since they have fetched keys and checked tokens. */
function issuersOf(config: Config, { clock, lookup }: Services, previous?: Snapshot): TokenIssuers | undefined {
  const { tokenIssuers: configs, networkAccess } = config
  if (Object.keys(configs).length === 0) return undefined
  const before = previous?.config
  if (isSame([before?.tokenIssuers, before?.networkAccess], [configs, networkAccess])) return previous!.issuers
  return new TokenIssuers({ configs, access: accessLists([config]), clock, lookup })
}

export async function closeSnapshot(snapshot: Snapshot): Promise<void> {
  await Promise.all([...snapshot.upstreams.values()].map((upstream) => upstream.transport.close()))
}

interface Building {
  readonly services: Services
  readonly previous: Upstream | undefined
  /** Run in the last step, just before the new snapshot is put in force. */
  readonly takeOvers: (() => void)[]
}

function* buildUpstream(
  name: string,
  config: UpstreamConfig,
  access: readonly NetworkAccess[],
  { services, previous, takeOvers }: Building,
): Generator<undefined, Upstream, undefined> {
  if (previous !== undefined && isSame([previous.config, previous.access], [config, access])) return previous
  const preset = config.preset === undefined ? undefined : presets[config.preset]
  const url = new URL(config.url ?? '')
  const keyHeaders = keyHeadersOf(config)
  const accounts = new Map<string, Account>()
  const counting = countingOf(config)
  const learned = previous?.learnedMoney ?? new LearnedPrices()
  const prices = config.price && new PriceList(config.price, learned)
  for (const accountName of Object.keys(config.accounts)) {
    const before = previous?.accounts.get(accountName)
    const options = { config, preset, keyHeaders, counting, prices, services, previous: before }
    const account = new Account(name, accountName, options)
    accounts.set(accountName, account)
    if (before !== undefined) takeOvers.push(() => account.admissionPolicies.takeOver(before.admissionPolicies))
    yield
  }
  const routes = yield* buildRoutes(config, preset)
  const claims = buildClaims(config, preset)
  yield
  const webSockets = previous?.webSockets ?? { open: 0, most: 0 }
  takeOvers.push(() => void (webSockets.most = config.maxWebSockets))
  return {
    name,
    url,
    basePath: url.pathname.replace(/\/$/, ''),
    config,
    routes,
    claims,
    accountFields: new Set([claims.headers, config.accountHeader?.toLowerCase() ?? []].flat()),
    accounts,
    prices,
    learnedMoney: learned,
    transport: transportOf(config, access, url, services, previous),
    webSockets,
    breakers: breakersOf(name, config, { services, previous, takeOvers }),
    retryPolicy: {
      throttled: config.throttle.retry,
      retries: config.retry.retries,
      statuses: new Set(config.retry.statuses),
      baseDelayMs: config.retry.baseDelay,
      maxDelayMs: config.retry.maxDelay,
      jitter: config.retry.jitter,
    },
    disguises: config.throttle.when.length === 0 ? undefined : new Disguises(config.throttle.when),
    retryBudget:
      previous?.config.retry.budget === config.retry.budget
        ? previous.retryBudget
        : new RetryBudget(services.clock, config.retry.budget),
    hedging: hedgingOf(config, previous),
    budgetExhausted: services.metrics.budgetExhausted.of({ upstream: name }),
    timeouts: services.metrics.timeoutsOf(name),
    cache: services.cache?.of(name, isCached(config)),
    aliasPrefix: preset?.aliasPrefix ?? '',
    requestIdHeaders: config.requestIdHeaders.map((name) => name.toLowerCase()),
    keyHeaders,
    access,
  }
}

function hedgingOf({ hedge, url }: UpstreamConfig, previous: Upstream | undefined): Hedging | undefined {
  if (hedge === undefined) return undefined
  const before = previous?.config
  const isKept = isSame([before?.hedge, before?.url], [hedge, url])
  return (isKept ? previous?.hedging : undefined) ?? new Hedging(hedge.after)
}

/** Uses the previous breakers again if their configuration, their groups and the upstream's URL are the same. */
function breakersOf(
  upstream: string,
  config: UpstreamConfig,
  { services: { clock, onBreakerChange }, previous, takeOvers }: Building,
): Breakers {
  const { url, breaker, routes, limits } = config
  const { failures, reset, maxReset, probes, per } = breaker
  const named = routes.flatMap((route) => route.breaker ?? [])
  const classes = [...Object.keys(limits).filter((name) => name !== EVERY_CALL), ...routes.map((route) => route.class)]
  const groups = [...new Set([...named, ...(per === 'class' ? classes : [])])]
  if (previous !== undefined) {
    const { config: before, breakers } = previous
    if (isSame([before.url, before.breaker, breakers.groups], [url, breaker, groups])) return breakers
  }
  const breakers = new Breakers({
    clock,
    failures,
    resetMs: reset,
    maxResetMs: maxReset,
    probes,
    isPerClass: per === 'class',
    groups,
    onChange: (group, state, change) => onBreakerChange({ upstream, group }, state, change),
  })
  if (previous !== undefined) takeOvers.push(() => breakers.holdAs(previous.breakers))
  return breakers
}

/** Uses the previous transport again, and so its connections, if nothing that it depends on has changed. */
function transportOf(
  config: UpstreamConfig,
  access: readonly NetworkAccess[],
  url: URL,
  { lookup }: Services,
  previous: Upstream | undefined,
): Transport {
  if (previous !== undefined && isSame(reachOf(previous.config, previous.access), reachOf(config, access))) {
    return previous.transport
  }
  return new Transport({
    url,
    connections: config.connections,
    connectTimeoutMs: config.timeouts.connect,
    tlsTimeoutMs: config.timeouts.tls,
    idleTimeoutMs: config.timeouts.idle,
    http2: config.http2,
    proxy: proxyOf(config.proxy),
    tls: tlsOptions(config.tls),
    lookup: lookupOf(config, access, url, lookup),
  })
}

/** A look-up that finds only the addresses of an upstream that its calls may reach. */
export function lookupOf(
  config: UpstreamConfig,
  access: readonly NetworkAccess[],
  url: URL,
  lookup?: LookupFunction,
): LookupFunction {
  // The address of a host name is known only when a connection is made. Of all names, only localhost is private by definition.
  const arePrivateAllowed = config.privateAddresses === 'allow' || isLocalhost(url.hostname)
  return guardedLookup({ isAllowed: (address) => isAddressAllowed(address, access, arePrivateAllowed), lookup })
}

/** The parts of the configuration that a transport depends on. */
function reachOf(config: UpstreamConfig, access: unknown): unknown {
  const { url, connections, timeouts, tls, privateAddresses, http2, proxy } = config
  const { headers: _, total: __, ...ofConnections } = timeouts
  return { url, connections, ofConnections, tls, privateAddresses, http2, proxy, access }
}

function keyHeadersOf(config: UpstreamConfig): ReadonlySet<string> {
  const names = new Set(['x-sluice-key', config.credentialHeader.toLowerCase(), 'authorization'])
  for (const { credential, credentials = [] } of Object.values(config.accounts)) {
    for (const { header } of [credential ?? {}, ...credentials])
      if (header !== undefined) names.add(header.toLowerCase())
  }
  return names
}
