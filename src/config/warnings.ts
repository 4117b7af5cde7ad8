import { keyOf } from '../clients/keys.ts'
import { expiryOf } from '../credentials/credential-set.ts'
import { isRotating } from '../credentials/rotation.ts'
import { lifeOfCertificate } from '../net/certificate-end.ts'
import { isLoopback } from '../net/address.ts'
import type { Config, CredentialConfig, UpstreamConfig } from '../schema/schema.ts'
import { EVERY_CALL } from '../schema/limits.ts'
import { presets } from './presets/index.ts'
import { isScalar, type Node, type Scalar, visit } from 'yaml'
import { didYouMean, joinPath, type Path, type Problem } from './problem.ts'
import { pathOf, type YamlText } from './yaml.ts'

/** Enough time to bring a new key or certificate to all places that use the old one. */
const EXPIRES_SOON_MS = 7 * 86_400_000
/** A certificate that is renewed automatically is replaced with a third of its life left, and may live for a day only. */
const LAST_PART_OF_LIFE = 1 / 3

/** Everything in a configuration, and in its text, that is allowed but probably does not do what was intended. */
export function allWarnings({
  config,
  ofText = [],
}: {
  readonly config: Config
  readonly ofText?: readonly Problem[]
}): string[] {
  return [...ofText.map((warning) => `line ${warning.line}: ${warningText(warning)}`), ...warningsOf(config)]
}

/** The text of a warning: its path, and then what is said of that. */
export function warningText({ path, message }: Problem): string {
  return `${joinPath(path)} ${message}`
}

/** The texts of the warnings that need only the configuration itself. */
export function warningsOf(config: Config, now?: number): string[] {
  return warningsIn(config, now).map(warningText)
}

/** The warnings that need only the configuration itself, without their places in its file. */
export function warningsIn(config: Config, now = Date.now()): Problem[] {
  const warnings: Problem[] = []
  const warn = (path: Path, message: string): void => void warnings.push({ path, message })
  for (const [path, end = Infinity, soonMs = EXPIRES_SOON_MS] of endsIn(config)) {
    if (end <= now) warn(path, 'has expired')
    else if (end <= now + soonMs) warn(path, `expires ${new Date(end).toISOString()}`)
  }
  const { token, tokens, metricsToken } = config.admin
  if ([token, ...Object.values(tokens)].some((one) => metricsToken && one?.reveal() === metricsToken.reveal())) {
    warn(['admin', 'metricsToken'], 'is an admin token, too, so whoever reads metrics may do everything')
  }
  if (config.forwardProxy !== undefined && !isLoopback(config.forwardProxy.host)) {
    warn(['forwardProxy', 'host'], 'is beyond loopback, so the keys of its clients travel unencrypted to it')
  }
  if (isPlain(config.secrets.vault?.url)) {
    warn(['secrets', 'vault', 'url'], 'is http://, so its secrets travel unencrypted')
  }
  for (const [name, { jwks }] of Object.entries(config.tokenIssuers)) {
    if (!isPlain(jwks)) continue
    warn(['tokenIssuers', name, 'jwks'], 'is http://, so whoever is between can be any client: it sends its own keys')
  }
  const { endpoint, headers = {} } = config.telemetry.traces ?? {}
  if (isPlain(endpoint) && Object.keys(headers).length > 0)
    warn(['telemetry', 'traces', 'endpoint'], 'is http://, so its headers travel unencrypted')
  for (const [name, { url }] of Object.entries(config.webhooks)) {
    if (isPlain(url.reveal())) warn(['webhooks', name, 'url'], 'is http://, so what it tells travels unencrypted')
  }
  for (const [name, upstream] of Object.entries(config.upstreams)) {
    const path = ['upstreams', name]
    warnings.push(...cacheWarnings(path, upstream), ...costWarnings(path, upstream))
    warnings.push(...deadRoutes(path, upstream), ...unlimitedClasses(path, upstream), ...deadClasses(path, upstream))
    // A URL is missing if it was a reference that may stay unresolved.
    if (isPlain(upstream.url)) warn([...path, 'url'], 'is http://, so its credentials travel unencrypted')
  }
  for (const [path, { tokenUrl }] of credentialsIn(config.upstreams))
    if (isPlain(tokenUrl)) warn([...path, 'tokenUrl'], 'is http://, so what proves the client travels unencrypted')
  for (const [name, { accounts }] of Object.entries(config.upstreams)) {
    for (const [account, { credential }] of Object.entries(accounts)) {
      if (credential?.canary === undefined || isRotating(credential)) continue
      warn(
        ['upstreams', name, 'accounts', account, 'credential', 'canary'],
        'does nothing: there is no next, and no secret of the store that could be rotated',
      )
    }
  }
  return warnings
}

/** Something that may expire. `end` is when it does, if that is known. `soonMs` before that a warning begins. */
type Ending = readonly [path: Path, end?: number | undefined, soonMs?: number]

function* endsIn({ clients = {}, server, store, upstreams, webhooks }: Config): Iterable<Ending> {
  for (const [name, { keys }] of Object.entries(clients))
    for (const [index, key] of keys.entries()) yield [['clients', name, 'keys', index], keyOf(key).expires]
  yield endOf(['server'], server.tls)
  yield endOf(['store'], store.tls)
  yield endOf(['store', 'regions', 'home'], store.regions?.home.tls)
  for (const [name, { tls }] of Object.entries(webhooks)) yield endOf(['webhooks', name], tls)
  for (const [name, { tls }] of Object.entries(upstreams)) yield endOf(['upstreams', name], tls)
  for (const [path, credential] of credentialsIn(upstreams)) yield [path, expiryOf('', credential)[0]?.at]
}

function endOf(of: Path, tls: { readonly cert?: string | undefined } | undefined): Ending {
  const path = [...of, 'tls', 'cert']
  const life = lifeOfCertificate(tls?.cert)
  return life ? [path, life.end, Math.min(EXPIRES_SOON_MS, life.validMs * LAST_PART_OF_LIFE)] : [path]
}

/** Every credential with its path. A `next` is listed separately, and not in the one before it. */
function* credentialsIn(upstreams: Config['upstreams']): Iterable<[Path, Omit<CredentialConfig, 'next'>]> {
  for (const [name, { accounts }] of Object.entries(upstreams)) {
    for (const [account, { credential: { next, ...credential } = {}, credentials = [] }] of Object.entries(accounts)) {
      const path = ['upstreams', name, 'accounts', account]
      yield [[...path, 'credential'], credential]
      if (next !== undefined) yield [[...path, 'credential', 'next'], next]
      for (const [index, member] of credentials.entries()) yield [[...path, 'credentials', index], member]
    }
  }
}

/** Warns of routes that no call comes to, because earlier routes have their path and methods. */
function deadRoutes(of: Path, { routes }: UpstreamConfig): Problem[] {
  const taken = new Map<string, Set<string>>()
  return routes.flatMap(({ path, method }, index) => {
    // Paths are the same if they differ only in the names of parameters or in a slash at the end.
    const shape = path.replaceAll(/\{[^{}]*\}/g, '{}').replace(/\/$/, '')
    const earlier = taken.getOrInsertComputed(shape, () => new Set())
    // A route without methods takes the methods that others leave.
    const own = method === undefined ? ['all'] : [method].flat()
    const isDead = own.every((one) => earlier.has(one))
    for (const one of own) earlier.add(one)
    if (!isDead) return []
    return { path: [...of, 'routes', index], message: 'does nothing: earlier ones have its path and methods' }
  })
}

/** The classes of calls without a route. */
const BY_METHOD = { read: [], write: [] }

/** Warns of calls that no limit holds back where others are: those of a class that calls without a route get by their method. */
function unlimitedClasses(of: Path, { preset, limits, routes }: UpstreamConfig): Problem[] {
  const classes = Object.keys(limits)
  const isRouted = routes.some(({ path, method }) => path === '/*' && method === undefined)
  const isLimited = Object.values(limits).some((those) => those.length > 0)
  if (preset !== undefined || isRouted || !isLimited || classes.includes(EVERY_CALL)) return []
  return Object.keys(BY_METHOD)
    .filter((one) => !classes.includes(one))
    .map((one) => ({
      path: [...of, 'limits'],
      message: `has none for ${one}, so such calls are not held back: add it, or ${one}: [] if that is meant`,
    }))
}

/** Warns of limits that no call is charged to, because no call is of their class. */
function deadClasses(of: Path, { preset, limits, routes }: UpstreamConfig): Problem[] {
  const { config, limitSets = {} } = (preset !== undefined && presets[preset]) || { config: { limits: BY_METHOD } }
  const used = [config.limits, ...Object.values(limitSets)].flatMap(Object.keys)
  used.push(EVERY_CALL, ...routes.flatMap((route) => [route.class, ...(route.charges ?? [])]))
  return Object.keys(limits)
    .filter((name) => limits[name]!.length > 0 && !used.includes(name))
    .map((name) => ({
      path: [...of, 'limits', name],
      message: `does nothing: no call is of this class, as no route has it${didYouMean(name, [...new Set(used)])}`,
    }))
}

/** Warns of routes with a cost that no limit charges. */
function costWarnings(of: Path, { limits, routes }: UpstreamConfig): Problem[] {
  return routes.flatMap((route, index) => {
    const charged = [EVERY_CALL, ...(route.charges ?? [route.class])].flatMap((one) => limits[one] ?? [])
    if (route.cost === undefined || charged.some(({ cost }) => cost === 'route')) return []
    const message = 'does nothing: no limit that it is charged to has cost: route'
    return { path: [...of, 'routes', index, 'cost'], message }
  })
}

function isPlain(url: string | undefined): boolean {
  // The URL may be a reference that was left unresolved.
  if (url === undefined || !URL.canParse(url)) return false
  const { protocol, hostname } = new URL(url)
  return protocol === 'http:' && !isLoopback(hostname)
}

/**
 * Warns of routes that are marked as cached although hardly any answer can be: their credential is sent in
 * Authorization, and a shared cache must not store such answers (RFC 9111 §3.5). No warning where the configuration
 * says that this is intended.
 */
function cacheWarnings(of: Path, upstream: UpstreamConfig): Problem[] {
  const isInAuthorization = Object.values(upstream.accounts).some((account) =>
    [account.credential ?? [], account.credentials ?? []].flat().some((one) => travelsInAuthorization(one, upstream)),
  )
  const { cache: ofAll } = upstream
  const warnings: Problem[] = []
  const judge = (place: Path, rule: object, isConcerned = isInAuthorization): void => {
    const { private: isPrivate } = { ...ofAll, ...rule } as { private?: boolean }
    if (isConcerned && isPrivate === undefined) warnings.push({ path: [...of, ...place], message: WARNING })
  }
  for (const [index, { cache = false, credential }] of upstream.routes.entries()) {
    const isConcerned = credential === 'bearer' || (credential !== 'none' && isInAuthorization)
    if (cache !== false) judge(['routes', index, 'cache'], cache === true ? {} : cache, isConcerned)
  }
  if (ofAll?.routes === 'proposed') {
    const { proposedCache = [] } = presets[upstream.preset!]!
    if (proposedCache.some(({ rule }) => rule.private === undefined)) judge(['cache', 'routes'], {})
  }
  return warnings
}

const WARNING =
  'keeps hardly anything: its credential travels in Authorization, and of such answers only those are kept that say public, s-maxage or must-revalidate; write private: true to keep the others as well, or private: false if that is meant'

function travelsInAuthorization(credential: CredentialConfig, { credentialHeader }: UpstreamConfig): boolean {
  const { type = 'header', header = credentialHeader } = credential
  return type === 'header' ? header.toLowerCase() === 'authorization' : type !== 'query'
}

/**
 * Warns of text in a configuration file that is valid but probably means something else than intended. Does not repeat the
 * text, which may be a secret.
 */
export function textWarnings({ text, document, lines, problems }: YamlText): Problem[] {
  if (problems.length > 0) return []
  const warnings: Problem[] = []
  const used = new Set<string>()
  visit(document, { Alias: (_, { source }) => void used.add(source) })
  const warn = (node: Node, path: Path, message: string): void => {
    const { line, col } = lines.linePos(node.range?.[0] ?? 0)
    warnings.push({ path, message, line, column: col })
  }
  visit(document, {
    Node(key, node, ancestors) {
      if (key === 'key') return
      const path = pathOf(node, ancestors)
      if ('anchor' in node && node.anchor !== undefined && !used.has(node.anchor)) {
        warn(node, path, 'begins with an anchor that no alias uses: put quotes around a text that begins with "&"')
      }
      if (!isScalar(node)) return
      if (isCut(node, text)) warn(node, path, CUT)
      if (typeof node.value === 'string' && VARIABLE.test(node.value)) warn(node, path, LITERAL)
      if (typeof node.value === 'number' && /^[-+]?0\d/.test(node.source ?? '')) {
        warn(node, path, `is read as the decimal number ${node.value}`)
      }
    },
  })
  return warnings
}

const CUT = 'ends before " #", which begins a comment: put quotes around the text, or a space behind the "#"'
const LITERAL = 'is taken literally, "$" and all: write ${env:NAME} for an environment variable'

/**
 * Matches `$NAME` and `$(NAME)`. Matches `$name` only as a whole word, because paths of APIs have parts such as
 * `/v1/$metadata`.
 */
const VARIABLE = /(?<![\w$])\$(?:[A-Z_][A-Z0-9_]*(?!\w)|\([A-Za-z_]\w*\))|(?<!\S)\$[A-Za-z_]\w*(?!\S)/

/** Whether a "#" that was probably meant as text begins a comment. A real comment mostly has a space behind the "#". */
function isCut({ type, range, value }: Scalar, text: string): boolean {
  if (type !== 'PLAIN' || range == null || value === null) return false
  return /^[ \t]+#[^\s#]/.test(text.slice(range[1], range[1] + 100))
}
