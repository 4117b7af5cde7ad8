import type { ClientScope } from '../schema/client-schema.ts'
import type { QueuedClient } from '../queue/admission.ts'
import { type Budget, Budgets } from './budget.ts'
import { readingsOf } from '../routing/path.ts'
import { PathPattern, segmentsOf } from '../routing/path-pattern.ts'
import { accessOf, type NetworkAccess } from './network-access.ts'

/** A client and what it may do. A field that is undefined restricts nothing. */
export interface Client extends QueuedClient {
  readonly upstreams: ReadonlySet<string> | undefined
  /** As `upstream/account`. */
  readonly accounts: ReadonlySet<string> | undefined
  readonly classes: ReadonlySet<string> | undefined
  readonly methods: ReadonlySet<string> | undefined
  readonly paths: readonly AllowedPath[] | undefined
  readonly networkAccess: NetworkAccess | undefined
  /** Limits that all its calls are charged to, each call once, whatever its upstream. */
  readonly budget: Budget | 'missing-team' | undefined
}

const NO_TEAMS = new Budgets({ teams: {}, organisations: {} })

export function clientOf(name: string, scope: ClientScope, budgets = NO_TEAMS): Client {
  return {
    name,
    weight: scope.weight ?? 1,
    share: scope.share ?? 0,
    priority: scope.priority ?? 'normal',
    upstreams: scope.upstreams && new Set(scope.upstreams),
    accounts: scope.accounts && new Set(scope.accounts),
    classes: scope.classes && new Set(scope.classes),
    methods: scope.methods && new Set(scope.methods),
    paths: scope.paths?.map((path) => ({ literal: new PathPattern(path), decoded: new PathPattern(path, true) })),
    networkAccess: scope.networkAccess && accessOf(scope.networkAccess),
    budget: budgets.of(name, scope.budget, scope.team),
  }
}

/** The client of every call where no clients are described. It may do everything. */
export const ANONYMOUS: Client = clientOf('anonymous', {})

/** The properties of a call that a client's scope is checked against. */
export interface ScopedCall {
  readonly upstream: string
  readonly class: string
  /** The class of the call for a server that decodes escaped slashes in its path; undefined if it is the same. */
  readonly otherClass?: string | undefined
  readonly method: string
  /** The path below the upstream's URL, as the client sent it. */
  readonly path: string
  readonly aliasPrefix: string
}

/** Why a call is outside of its client's scope, in words for the client; undefined if it is inside. */
export function outOfScope({ upstreams, classes, methods, paths }: Client, call: ScopedCall): string | undefined {
  if (upstreams !== undefined && !upstreams.has(call.upstream)) return `may not use ${call.upstream}${only(upstreams)}`
  for (const name of [call.class, call.otherClass]) {
    if (classes !== undefined && name !== undefined && !classes.has(name)) {
      return `may not make ${name} calls${only(classes)}`
    }
  }
  // A HEAD is a GET without the body (RFC 9110 §9.3.2).
  if (methods !== undefined && !methods.has(call.method) && !(call.method === 'HEAD' && methods.has('GET'))) {
    return `may not make ${call.method} calls${only(methods)}`
  }
  if (paths === undefined) return undefined
  const { literal, decoded } = readingsOf(call.path, call.aliasPrefix)
  const isAllowed = isEachIn(paths, literal, 'literal') && isEachIn(paths, decoded, 'decoded')
  return isAllowed ? undefined : 'may not call this path'
}

function only(allowed: ReadonlySet<string>): string {
  return `, only ${[...allowed].join(', ')}`
}

/**
 * An allowed path in two forms: literal, and with its escaped slashes decoded. Each is compared with paths of its own
 * form.
 */
interface AllowedPath {
  readonly literal: PathPattern
  readonly decoded: PathPattern
}

/** Servers read one path in different ways, so every reading must be allowed. */
function isEachIn(allowed: readonly AllowedPath[], readings: readonly string[], form: keyof AllowedPath): boolean {
  return readings.every((reading) => {
    const segments = segmentsOf(reading)
    return allowed.some((path) => path[form].matches(segments))
  })
}
