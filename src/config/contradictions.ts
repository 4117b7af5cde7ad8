import { isIP } from 'node:net'
import { isLocalhost, isLoopback, isPublicAddress, withoutBrackets } from '../net/address.ts'
import { checkClients } from './client-problems.ts'
import { faultOfLine, HEADER_VALUE } from '../http/fields.ts'
import { isMadeAnew } from '../http/hop-by-hop.ts'
import { accessOf, isAccessAllowed, normalHost } from '../clients/network-access.ts'
import { checkCredentials, checkHeaderValue, checkLines, checkPlaceOfId, checkSecrets } from './credential-problems.ts'
import { checkLimits } from './limit-problems.ts'
import { checkMoney } from './money-problems.ts'
import { classesOf, EVERY_CALL } from '../schema/limits.ts'
import { presets } from './presets/index.ts'
import type { Preset } from './presets/preset.ts'
import { checkName, didYouMean, type Path, type Problem, type Report } from './problem.ts'
import type { Config, UpstreamConfig } from '../schema/schema.ts'
import { checkListenerTls, checkTls } from './tls-problems.ts'
import { whyNoProxy } from '../schema/proxy.ts'
import type { Secret } from '../schema/secret.ts'
import { whyNoWebhook } from '../schema/webhook-schema.ts'

/**
 * Finds settings that exclude one another, or refer to what does not exist. Messages name keys, which are in the file.
 * They repeat no value, which may have come from a reference.
 */
export function findContradictions(config: Config): Problem[] {
  const problems: Problem[] = []
  const report = (path: Path, message: string) => void problems.push({ path, message })
  checkLines([], config, report)
  checkListeners(config, report)
  checkStore(config, report)
  checkSecrets(config.secrets, report)
  checkCache(config, report)
  checkAddressing(config, report)
  for (const [name, upstream] of Object.entries(config.upstreams)) checkUpstream(['upstreams', name], upstream, report)
  checkClients(config, report)
  checkWebhooks(config, report)
  for (const [name, value] of Object.entries(config.telemetry.traces?.headers ?? {}))
    checkHeaderValue(['telemetry', 'traces', 'headers', name], value, report)
  return problems
}

function checkListeners({ server, admin, forwardProxy, clients }: Config, report: Report): void {
  checkListenerTls(['server', 'tls'], server.tls, report)
  if (!isLoopback(server.host) && clients === undefined) {
    report(['server', 'host'], 'clients must be configured when the gateway listens beyond loopback')
  }
  if (!isLoopback(admin.host) && admin.token === undefined && Object.keys(admin.tokens).length === 0) {
    report(['admin', 'host'], 'admin.token is required when the admin port listens beyond loopback')
  }
  checkTokens(admin, report)
  if (server.proxyProtocol && server.trustedProxies.length === 0) {
    report(['server', 'proxyProtocol'], 'it needs server.trustedProxies: the balancers whose headers are believed')
  }
  if (server.port === admin.port && server.port !== 0) {
    report(['admin', 'port'], 'is the port of server, too; they must differ')
  }
  if (forwardProxy === undefined) return
  if (!isLoopback(forwardProxy.host) && clients === undefined) {
    report(['forwardProxy', 'host'], 'clients must be configured when the forward proxy listens beyond loopback')
  }
  if (forwardProxy.port !== 0 && [server.port, admin.port].includes(forwardProxy.port)) {
    report(['forwardProxy', 'port'], 'is the port of server or admin, too; they must differ')
  }
}

function checkTokens({ token, tokens, metricsToken }: Config['admin'], report: Report): void {
  const named = Object.entries(tokens).map(([name, secret]): [Path, Secret] => [['admin', 'tokens', name], secret])
  const all: (readonly [Path, Secret | undefined])[] = [
    [['admin', 'token'], token],
    ...named,
    [['admin', 'metricsToken'], metricsToken],
  ]
  const owners = new Map<string, string>()
  for (const [path, secret] of all) {
    if (secret === undefined) continue
    const text = secret.reveal()
    checkHeaderValue(path, secret, report)
    // The token for metrics alone proves no call to /v1. So one value in both places does not confuse the audit trail: it is a warning.
    const owner = secret === metricsToken ? undefined : owners.get(text)
    if (owner === undefined) owners.set(text, path.join('.'))
    else report(path, `has the value of ${owner}: give each token its own`)
  }
  if (token !== undefined && Object.hasOwn(tokens, 'admin'))
    report(['admin', 'tokens', 'admin'], 'is how the audit trail names admin.token: choose another name')
}

function checkStore({ store, upstreams }: Config, report: Report): void {
  checkRegions(store, upstreams, report)
  const places = (['url', 'sentinels', 'cluster'] as const).filter((key) => store[key] !== undefined)
  if (store.kind === 'redis') {
    if (places.length === 0) report(['store'], 'store.kind is redis, so one of url, sentinels or cluster is needed')
    if (store.dir !== undefined) report(['store', 'dir'], 'dir belongs to store.kind: memory')
    checkRedis(['store'], store, report)
  } else {
    for (const key of [...places, ...LOGIN, ...OF_SENTINELS]) {
      if (store[key] !== undefined) report(['store', key], `${key} belongs to store.kind: redis`)
    }
  }
  for (const key of places.slice(1)) report(['store', key], `only one of ${places.join(', ')} may be given`)
}

const LOGIN = ['username', 'password', 'tls'] as const
const OF_SENTINELS = ['master', 'sentinelUsername', 'sentinelPassword'] as const

/** Shares are computed by each gateway, so a mistake here would grant a quota twice. */
function checkRegions({ kind, regions }: Config['store'], upstreams: Config['upstreams'], report: Report): void {
  if (regions === undefined) return
  const path = ['store', 'regions']
  const { name, weights, home, longestCall } = regions
  if (kind !== 'redis') report(path, 'regions need store.kind: redis, with a Redis in each region')
  if (Object.keys(weights).length < 2) report([...path, 'weights'], 'at least two regions are needed')
  if (!Object.hasOwn(weights, name))
    report([...path, 'name'], `must be one of the regions that weights names${didYouMean(name, Object.keys(weights))}`)
  if ((home.url === undefined) === (home.sentinels === undefined))
    report([...path, 'home'], 'one of url and sentinels is needed; a cluster can not be home')
  checkRedis([...path, 'home'], home, report)
  for (const [upstream, { timeouts }] of Object.entries(upstreams)) {
    if (timeouts.headers > longestCall)
      report(['upstreams', upstream, 'timeouts', 'headers'], 'must not be longer than store.regions.longestCall')
  }
}

function checkRedis(path: Path, redis: NonNullable<Config['store']['regions']>['home'], report: Report): void {
  const { url, tls, sentinels } = redis
  checkTls([...path, 'tls'], tls, report)
  if (tls !== undefined && url?.reveal().startsWith('redis:') === true)
    report([...path, 'tls'], 'the url is redis://, so tls does nothing; write rediss://')
  if (sentinels !== undefined) return
  for (const key of OF_SENTINELS) if (redis[key] !== undefined) report([...path, key], `${key} belongs to sentinels`)
}

function checkCache({ cache: { store, maxBytes, maxEntryBytes }, store: { kind } }: Config, report: Report): void {
  if (store === 'redis') {
    if (kind !== 'redis') report(['cache', 'store'], 'the cache can only be kept in Redis where store.kind is redis')
    if (maxBytes !== undefined) report(['cache', 'maxBytes'], 'maxBytes belongs to cache.store: memory')
  } else if (maxBytes !== undefined && maxEntryBytes > maxBytes) {
    report(['cache', 'maxEntryBytes'], 'must not be larger than cache.maxBytes')
  }
}

function checkAddressing({ server, upstreams, defaultUpstream }: Config, report: Report): void {
  const names = Object.keys(upstreams)
  if (names.length === 0) report(['upstreams'], 'at least one upstream is needed')
  if (defaultUpstream !== undefined)
    checkName(['defaultUpstream'], defaultUpstream, names, 'there is no such upstream', report)
  const owners = new Map<string, string>()
  for (const [name, { hosts }] of Object.entries(upstreams)) {
    for (const [index, host] of hosts.entries()) {
      const owner = owners.get(normalHost(host))
      if (owner !== undefined) report(['upstreams', name, 'hosts', index], `belongs to upstream "${owner}" already`)
      owners.set(normalHost(host), name)
    }
  }
  for (const [index, host] of server.hosts.entries()) {
    const owner = owners.get(normalHost(host))
    if (owner !== undefined) report(['server', 'hosts', index], `belongs to upstream "${owner}"`)
  }
}

function checkUpstream(path: Path, upstream: UpstreamConfig, report: Report): void {
  if (upstream.url === undefined) report([...path, 'url'], 'the key "url" is missing; only a preset can leave it out')
  if (Object.keys(upstream.accounts).length === 0) report([...path, 'accounts'], 'at least one account is needed')
  const preset = upstream.preset === undefined ? undefined : presets[upstream.preset]
  checkAccounts(path, upstream, preset, report)
  checkPlaceOfId(path, upstream, report)
  const classes = classesOf(upstream)
  checkRoutes([...path, 'routes'], upstream, classes, report)
  if (preset?.aliasPrefix !== undefined) checkAliases(path, upstream, preset.aliasPrefix, report)
  for (const [name, most] of Object.entries(upstream.concurrency)) {
    if (typeof most === 'object' && most.min > most.max)
      report([...path, 'concurrency', name], 'min must not be more than max')
    checkName([...path, 'concurrency', name], name, classes, `there is no class "${name}"`, report)
  }
  checkLimitSet(path, upstream, preset, report)
  if (upstream.cache?.routes === 'proposed' && preset?.proposedCache === undefined) {
    report([...path, 'cache', 'routes'], 'nothing is proposed without a preset that does so; mark routes with cache')
  }
  checkLimits(path, upstream, preset, report)
  checkMoney(path, upstream, report)
  checkDisguises([...path, 'throttle', 'when'], upstream, classes, report)
  const { baseDelay, maxDelay } = upstream.retry
  if (baseDelay > maxDelay) report([...path, 'retry', 'baseDelay'], 'must not be longer than retry.maxDelay')
  checkPrivateAddress(path, upstream, report)
  checkProxy([...path, 'proxy'], upstream.proxy, report)
  checkTls([...path, 'tls'], upstream.tls, report)
  if (upstream.tls !== undefined && upstream.url?.startsWith('http:')) {
    report([...path, 'tls'], 'the url is http://, so tls does nothing')
  }
}

function checkRoutes(path: Path, { routes }: UpstreamConfig, classes: string[], report: Report): void {
  for (const [index, route] of routes.entries()) {
    const at = [...path, index]
    checkClass([...at, 'class'], route.class, classes, report)
    for (const [number, name] of (route.charges ?? []).entries()) {
      // The route's own class was checked above.
      if (name !== route.class) checkClass([...at, 'charges', number], name, classes, report)
    }
    const methods = route.method === undefined ? ['GET'] : [route.method].flat()
    if (methods.includes('HEAD') && !methods.includes('GET')) {
      report([...at, 'method'], 'a HEAD has the route of the GET: write GET in place of HEAD')
    }
    if (route.cache !== undefined && route.cache !== false && !methods.includes('GET')) {
      report([...at, 'cache'], 'only answers to GET are cached, which is no method of this route')
    }
    for (const [number, name] of (route.redact ?? []).entries()) {
      if (!route.path.includes(`{${name}}`)) {
        report([...at, 'redact', number], 'the path has no {name} of this name')
      }
    }
  }
}

/** Calls are compared without the prefix under which a vendor serves its paths again. */
function checkAliases(at: Path, upstream: UpstreamConfig, prefix: string, report: Report): void {
  const { routes, accountClaims, accountQuery } = upstream
  const { paths: ofClaims = [] } = accountClaims ?? {}
  const { paths: ofQuery = [] } = accountQuery ?? {}
  const paths: [Path, string][] = [
    ...routes.map(({ path }, index): [Path, string] => [[...at, 'routes', index, 'path'], path]),
    ...ofClaims.map((path, index): [Path, string] => [[...at, 'accountClaims', 'paths', index], path]),
    ...ofQuery.map((path, index): [Path, string] => [[...at, 'accountQuery', 'paths', index], path]),
  ]
  for (const [where, path] of paths) {
    if (path.startsWith(`${prefix}/`))
      report(
        where,
        `leave out ${prefix}: the vendor serves the same paths with and without it, and calls are compared without it`,
      )
  }
}

function checkClass(path: Path, name: string, classes: readonly string[], report: Report): void {
  if (name === EVERY_CALL) report(path, '"all" is no class of calls: its limits are charged by every call')
  else if (!classes.includes(name)) {
    const hint = didYouMean(name, classes) || '; add one, [] for no limit'
    report(path, `this class has no entry in limits${hint}`)
  }
}

/** Messages repeat nothing of a URL: it may hold a secret. */
function checkWebhooks({ webhooks, networkAccess }: Config, report: Report): void {
  for (const [name, { url, headers = {}, proxy, privateAddresses, tls }] of Object.entries(webhooks)) {
    const path = ['webhooks', name]
    const text = url.reveal()
    const fault = whyNoWebhook(text)
    if (fault !== undefined) report([...path, 'url'], fault)
    else {
      checkPrivateAddress(path, { url: text, privateAddresses }, report)
      const blocked = networkAccess?.blocked ?? []
      if (!isAccessAllowed(text, [accessOf({ blocked })])) report([...path, 'url'], 'is blocked by networkAccess')
    }
    for (const [header, value] of Object.entries(headers)) {
      if (isMadeAnew(header.toLowerCase()) || /^content-type$/i.test(header))
        report([...path, 'headers', header], 'must be the name of a header that can be added to a request')
      checkHeaderValue([...path, 'headers', header], value, report)
    }
    checkProxy([...path, 'proxy'], proxy, report)
    checkTls([...path, 'tls'], tls, report)
  }
}

function checkDisguises(path: Path, { throttle }: UpstreamConfig, classes: string[], report: Report): void {
  for (const [index, { status = 200, classes: named = [], header, body }] of throttle.when.entries()) {
    if (header === undefined && body === undefined && [status].flat().some((one) => one < 400)) {
      report([...path, index], 'every such answer would be a refusal: add header or body, or a status of 400 and more')
    }
    for (const [number, name] of named.entries())
      checkName([...path, index, 'classes', number], name, classes, 'there is no such class', report)
  }
}

function checkProxy(path: Path, proxy: Secret | undefined, report: Report): void {
  const problem = proxy && whyNoProxy(proxy.reveal())
  if (problem !== undefined) report(path, problem)
}

function checkPrivateAddress(
  path: Path,
  { url, privateAddresses }: { url?: string; privateAddresses?: 'allow' | 'deny' | undefined },
  report: Report,
): void {
  if (url === undefined || privateAddresses !== 'deny') return
  const host = withoutBrackets(new URL(url).hostname)
  if (isLocalhost(host) || (isIP(host) !== 0 && !isPublicAddress(host))) {
    report([...path, 'privateAddresses'], 'the url names a private address itself')
  }
}

function checkLimitSet(path: Path, { limitSet }: UpstreamConfig, preset: Preset | undefined, report: Report): void {
  if (limitSet === undefined) return
  const known = Object.keys(preset?.limitSets ?? {})
  if (known.length === 0) report([...path, 'limitSet'], 'only a preset with several sets of limits has one to choose')
  else checkName([...path, 'limitSet'], limitSet, known, 'there is no such set', report)
}

function checkAccounts(path: Path, upstream: UpstreamConfig, preset: Preset | undefined, report: Report): void {
  const owners = new Map<string, string>()
  for (const [name, account] of Object.entries(upstream.accounts)) {
    const { id, credential } = account
    const at = [...path, 'accounts', name]
    const inCredential = credential?.value && preset?.accountInCredential?.(credential.value.reveal())
    if (id !== undefined && inCredential !== undefined && inCredential !== id) {
      report([...at, 'id'], 'the credential belongs to another account')
    }
    const fault = id && faultOfLine(id)
    if (fault !== undefined) report([...at, 'id'], fault)
    checkCredentials(at, account, report)
    if (preset?.needsAccountId === true && id === undefined && inCredential === undefined) {
      report([...at, 'id'], 'the key "id" is missing, and the credential does not carry the account')
    }
    const identity = id ?? inCredential
    if (identity === undefined) continue
    if (upstream.accountHeader !== undefined && !HEADER_VALUE.test(identity)) {
      report(
        [...at, 'id'],
        `holds a character that no header value may have, but goes upstream in ${upstream.accountHeader}`,
      )
    }
    const owner = owners.get(identity)
    if (owner !== undefined) {
      report(at, `account "${owner}" has the same id; its quota would be counted twice`)
    }
    owners.set(identity, name)
  }
}
