import type { IncomingHttpHeaders } from 'node:http'
import { allowedBy, type Base, EVERY_CALL, idOf, labelOf, paceOf, scopeOf, type Split } from '../schema/limits.ts'
import type { LimitConfig, UpstreamConfig } from '../schema/schema.ts'
import { identityOf } from '../credentials/build.ts'
import { type Limit, limitOf } from '../ledger/limit.ts'
import type { Route } from '../routing/route.ts'
import { segmentsNamed } from '../routing/route-file.ts'
import { Failure } from './failure.ts'

/** What limits may depend on besides a call's route. */
export interface Traits {
  readonly method: string
  readonly headers: IncomingHttpHeaders
  /** Normalized, as routes are found by it. */
  readonly path: string
  readonly client: string
  /** Which of a pool it is sent with. */
  readonly credential: string | undefined
}

/** Who shares what at an upstream: where its limits are counted, and by which names. */
export interface Counting {
  /** One partition for all accounts, because something is counted over several of them. */
  readonly isShared: boolean
  /** Of each account, the first one that has the same credential. */
  readonly credentialOwner: ReadonlyMap<string, string>
  /** Accounts with several credentials, each of which has its own count where limits are by credential. */
  readonly pools: ReadonlySet<string>
}

/**
 * Charges are all or nothing only within one partition, which is one hash slot. So where a limit spans accounts, the upstream
 * itself is the partition of all of them: every call to it is counted by one Redis node, and an account that is busy takes
 * processor time of that node from the others. Without such a limit each account has a partition of its own.
 */
export function countingOf({ limits, accounts, credentialHeader }: UpstreamConfig): Counting {
  const credentialOwner = new Map<string, string>()
  const owners = new Map<string, string>()
  const pools = new Set<string>()
  let isCredentialShared = false
  for (const [name, { credential, credentials }] of Object.entries(accounts)) {
    if (credentials !== undefined) pools.add(name)
    if (credential === undefined) continue
    const owner = owners.getOrInsert(identityOf(credential, credentialHeader), name)
    credentialOwner.set(name, owner)
    isCredentialShared ||= owner !== name
  }
  const bases = new Set(Object.values(limits).flatMap((ofClass) => ofClass.map((limit) => scopeOf(limit).base)))
  return { isShared: bases.has('upstream') || (isCredentialShared && bases.has('credential')), credentialOwner, pools }
}

export function partitionOf({ isShared }: Counting, upstream: string, account: string): string {
  return isShared ? upstream : `${upstream}/${account}`
}

/**
 * A path can have any text where a route has a `{name}`, so what is counted by it is counted in this many groups: those of
 * one group share a limit, which may make them wait for each other, but never lets through more than the limit.
 */
const GROUPS = 64

/** One configured limit, as an account's calls are charged to it. */
export class Rule {
  readonly class: string
  /** Whose it is, as metrics name accounts. */
  readonly account: string
  readonly isEnforced: boolean
  readonly allowed: number
  readonly label: string
  readonly #config: LimitConfig
  readonly #countingToleranceMs: number
  readonly #base: Base
  readonly #splits: readonly Split[]
  readonly #isOfPool: boolean
  readonly #id: string
  readonly #limits = new Map<string, Limit>()
  readonly #paces = new Map<string, Limit>()

  constructor(className: string, config: LimitConfig, upstream: UpstreamConfig, account: string, counting: Counting) {
    const { base, splits } = scopeOf(config)
    const owner = base === 'credential' ? (counting.credentialOwner.get(account) ?? account) : account
    this.class = className
    this.account = base === 'upstream' ? '*' : owner
    this.isEnforced = config.enforce ?? true
    this.allowed = allowedBy(config, upstream.headroom)
    // So that alerts can leave it out; its count goes on under the same id when it is enforced.
    this.label = labelOf(config) + (this.isEnforced ? '' : ' shadow')
    this.#config = config
    this.#countingToleranceMs = upstream.slack
    this.#base = base
    this.#splits = splits
    this.#isOfPool = base === 'credential' && counting.pools.has(account)
    this.#id = idOf(className, config) + baseSuffix(base, owner, counting.isShared)
  }

  get isSplit(): boolean {
    return this.#splits.length > 0 || this.#isOfPool
  }

  /** Whether what a call of a kind is charged depends on more than its kind. */
  get isVarying(): boolean {
    const { cost, when } = this.#config
    return this.isSplit || when !== undefined || (cost !== undefined && typeof cost !== 'number')
  }

  /** A limit on a credential is none on calls that don't carry it. */
  concerns(route: Route): boolean {
    return this.#base !== 'credential' || route.credential !== 'none'
  }

  /** Units that a call is charged; 0 if it is not charged at all. Why not, if it never can be. */
  unitsOf(route: Route, { method, headers }: Traits): number | Failure {
    const { cost = 1, when } = this.#config
    const isByBytes = typeof cost === 'object' && 'bytes' in cost
    const bytes = isByBytes || when !== undefined ? bodyBytes(headers) : 0
    // A limit that is not enforced refuses nothing: it does not count what it can't measure.
    if (bytes === undefined) return this.isEnforced ? lengthMissing(this) : 0
    if (when !== undefined && bytes <= when.bodyOver) return 0
    const units = isByBytes ? Math.ceil(bytes / cost.bytes) : flatCost(cost, route, method)
    return units > this.allowed && this.isEnforced ? tooExpensive(this, units) : units
  }

  /** What the call is counted with, apart from others; undefined if it lacks a segment that decides that. */
  groupOf(route: Route, traits: Traits): string | undefined {
    let group = this.#isOfPool ? `:of=${traits.credential}` : ''
    for (const split of this.#splits) {
      const value = valueOf(split, route, traits)
      if (value === undefined) return undefined
      group += `:${split}=${value}`
    }
    return group
  }

  limitOf(group: string): Limit {
    return this.#limits.getOrInsertComputed(group, () => {
      const { requests, window, kind, concurrent } = this.#config
      return limitOf({
        id: this.#id + group,
        class: this.class,
        label: this.label,
        requests: this.allowed,
        published: requests ?? this.allowed,
        ...(concurrent === undefined ? { windowMs: window!, kind: kind ?? 'rolling' } : { kind: 'concurrent' }),
        countingToleranceMs: this.#countingToleranceMs,
        isEnforced: this.isEnforced,
      })
    })
  }

  /** The limit that spreads the charges of that one, if they are to be spread. */
  paceOf(group: string): Limit | undefined {
    const pace = paceOf(this.#config, this.allowed)
    if (pace === undefined) return undefined
    return this.#paces.getOrInsertComputed(group, () =>
      limitOf({
        id: `${this.#id}${group}:pace.${Math.round(pace.windowMs)}`,
        class: this.class,
        kind: 'smoothing',
        ...pace,
      }),
    )
  }
}

/** The limits that calls of a route's kind are charged to, in the order in which the classes are named. */
export function rulesFor(
  route: Route,
  upstream: UpstreamConfig,
  ruleOf: (className: string, config: LimitConfig) => Rule,
): Rule[] {
  const rules: Rule[] = []
  for (const className of new Set([...route.charges, EVERY_CALL])) {
    for (const config of upstream.limits[className] ?? []) {
      const rule = ruleOf(className, config)
      if (rule.concerns(route)) rules.push(rule)
    }
  }
  return rules
}

function baseSuffix(base: Base, owner: string, isShared: boolean): string {
  switch (base) {
    case 'account':
      return isShared ? `:account=${owner}` : ''
    case 'credential':
      return `:credential=${owner}`
    case 'upstream':
      return ':upstream'
  }
}

type FlatCost = number | 'route' | Readonly<Record<string, number>>

function flatCost(cost: FlatCost, route: Route, method: string): number {
  if (typeof cost === 'number') return cost
  if (cost === 'route') return route.cost
  // A HEAD is a GET without the body (RFC 9110 §9.3.2).
  return cost[method] ?? (method === 'HEAD' ? cost['GET'] : undefined) ?? cost['default'] ?? 1
}

function valueOf(split: Split, route: Route, { path, client }: Traits): string | undefined {
  if (split === 'route') return route.countedAs
  if (split === 'client') return client
  const { countedAs } = route
  const [index] = segmentsNamed(countedAs.slice(countedAs.indexOf('/')), [split.slice(1, -1)])
  if (index === undefined) return undefined
  const text = path.split('/').filter((segment) => segment !== '')[index]
  return text === undefined ? undefined : String(groupNumber(text))
}

/** However a name is written: percent-encoded or not, in capitals or not. */
function groupNumber(text: string): number {
  let name = text
  try {
    name = decodeURIComponent(text)
  } catch {
    // It is taken as it stands.
  }
  let hash = 0
  for (const character of name.toLowerCase()) hash = (Math.imul(hash, 31) + character.codePointAt(0)!) >>> 0
  return hash % GROUPS
}

/** Undefined where only its end will tell. */
function bodyBytes(headers: IncomingHttpHeaders): number | undefined {
  return headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : undefined
}

function lengthMissing({ class: className, label }: Rule): Failure {
  const message = `the ${className} limit (${label}) depends on the size of the body, so the request needs a Content-Length`
  return new Failure('invalid_request', message)
}

/** No 429, because waiting does not help. */
function tooExpensive({ class: className, label, allowed }: Rule, units: number): Failure {
  const message = `the call costs ${units} units, and the ${className} limit (${label}) never allows more than ${allowed}`
  return new Failure('invalid_request', message)
}
