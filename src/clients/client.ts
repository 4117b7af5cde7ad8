import type { ClientScope } from '../config/client-schema.ts'
import type { Claimant } from '../quota/client-queue.ts'
import { formatDuration } from '../config/units.ts'
import { type Meter, meterOf } from '../quota/ledger.ts'
import { limitOf } from '../quota/limit.ts'
import { simplifyPath, withoutAlias } from '../routing/path.ts'
import { accessOf, type NetworkAccess } from './network-access.ts'

/** Who calls, and what it may do. What is undefined is not restricted. */
export interface Client extends Claimant {
  readonly upstreams: ReadonlySet<string> | undefined
  /** As `upstream/account`. */
  readonly accounts: ReadonlySet<string> | undefined
  readonly classes: ReadonlySet<string> | undefined
  readonly methods: ReadonlySet<string> | undefined
  readonly paths: readonly RegExp[] | undefined
  readonly networkAccess: NetworkAccess | undefined
  /** What its calls to all upstreams together are charged to, each once. */
  readonly budget: Meter | undefined
}

export const ANONYMOUS: Client = {
  name: 'anonymous',
  weight: 1,
  share: 0,
  priority: 'normal',
  upstreams: undefined,
  accounts: undefined,
  classes: undefined,
  methods: undefined,
  paths: undefined,
  networkAccess: undefined,
  budget: undefined,
}

export function clientOf(name: string, scope: ClientScope): Client {
  return {
    name,
    weight: scope.weight ?? 1,
    share: scope.share ?? 0,
    priority: scope.priority ?? 'normal',
    upstreams: scope.upstreams && new Set(scope.upstreams),
    accounts: scope.accounts && new Set(scope.accounts),
    classes: scope.classes && new Set(scope.classes),
    methods: scope.methods && new Set(scope.methods),
    paths: scope.paths?.map(toPattern),
    networkAccess: scope.networkAccess && accessOf(scope.networkAccess),
    budget: scope.budget && budgetOf(name, scope.budget),
  }
}

function budgetOf(name: string, limits: NonNullable<ClientScope['budget']>): Meter {
  const charges = limits.map(({ requests, window }) => {
    const label = formatDuration(window)
    return { limit: limitOf({ id: `budget.${label}`, class: 'budget', label, requests, windowMs: window }) }
  })
  // No upstream or account can have such a name.
  return meterOf(`client:${name}`, charges)
}

/** What of a call scopes are about. */
export interface ScopedCall {
  readonly upstream: string
  readonly class: string
  readonly method: string
  /** Below the upstream's URL, as it was sent, and normalized, as routes are found by it. */
  readonly path: string
  readonly normalPath: string
  readonly aliasPrefix: string
}

/** What of a call is outside of its client's scope, as it would be told the client; undefined if nothing is. */
export function outOfScope({ upstreams, classes, methods, paths }: Client, call: ScopedCall): string | undefined {
  if (upstreams !== undefined && !upstreams.has(call.upstream)) return `may not use ${call.upstream}`
  if (classes !== undefined && !classes.has(call.class)) return `may not make ${call.class} calls`
  // A HEAD is a GET without the body (RFC 9110 §9.3.2).
  if (methods !== undefined && !methods.has(call.method) && !(call.method === 'HEAD' && methods.has('GET'))) {
    return `may not make ${call.method} calls`
  }
  // Some servers look at the parameters of a path and some do not, so both readings must be allowed.
  if (paths === undefined) return undefined
  const literal = withoutAlias(simplifyPath(call.path), call.aliasPrefix)
  return isIn(paths, call.normalPath) && isIn(paths, literal) ? undefined : 'may not call this path'
}

function isIn(patterns: readonly RegExp[], path: string): boolean {
  return patterns.some((pattern) => pattern.test(path))
}

/** `{name}` stands for one segment or a part of it, a final `*` for the rest, which may be empty. */
function toPattern(path: string): RegExp {
  const literal = path.replace(/\/?\*$/, '')
  const open = literal
    .split(/\{[^}]*\}/)
    .map((text) => RegExp.escape(text))
    .join('[^/]+')
  const end = path.endsWith('/*') ? '(?:/.*)?' : path.endsWith('*') ? '.*' : '/?'
  return new RegExp(`^${open}${end}$`)
}
