import type { IncomingHttpHeaders } from 'node:http'
import type { Pointer } from '../answers/pointer.ts'
import { Price } from '../answers/price.ts'
import type { Fields } from '../http/fields.ts'
import { amountText, DEFAULT_FINISH_MS } from '../schema/price-schema.ts'
import type { PriceList, Tariff } from './price-list.ts'
import {
  allowedBy,
  type Base,
  EVERY_CALL,
  idOf,
  isByCall,
  labelOf,
  paceOf,
  scopeOf,
  type Split,
} from '../schema/limits.ts'
import type { LimitConfig, UpstreamConfig } from '../schema/schema.ts'
import { concurrentSuffix, type Limit, limitOf, nextOrder, windowOf } from '../ledger/limit.ts'
import type { Route } from '../routing/route.ts'
import { segmentsNamed } from '../routing/route-file.ts'
import { bodyText } from '../answers/body-text.ts'
import { isStatusOf } from '../http/status.ts'
import type { Counting } from './counting.ts'
import { Failure } from './failure.ts'
import { type LearnedPrices, Reserve } from './reserve.ts'

/** The traits of a call, besides its route, that limits may depend on. */
export interface Traits {
  readonly method: string
  readonly headers: IncomingHttpHeaders
  /** The normalized path. */
  readonly path: string
  readonly client: string
  /** The name of the credential in its pool. */
  readonly credential: string | undefined
  /** The whole body of the request; undefined if it is not here yet, or is not kept. */
  readonly body?: Buffer | undefined
}

/**
 * A limit may count by a `{name}` in the route or by a text in the body. Both may be any text, so each text falls into one of this many
 * groups. Texts of one group share a count: they may wait for one another, but never exceed the limit.
 */
const GROUPS = 64

/** The account that a rule is for, and what all rules of the account have in common. */
export interface RuleOptions {
  readonly config: UpstreamConfig
  readonly account: string
  readonly counting: Counting
  /** What calls cost in money; undefined if they cost none. */
  readonly prices: PriceList | undefined
}

/** A configured limit, as the calls of an account are charged to it. */
export class Rule {
  readonly class: string
  /** The account that metrics name: `*` for a limit of the whole upstream. */
  readonly account: string
  readonly isEnforced: boolean
  readonly allowed: number
  readonly label: string
  readonly #config: LimitConfig
  readonly #countingToleranceMs: number
  readonly #base: Base
  readonly #splits: readonly Split[]
  /** Whether each credential of a pool has a count of its own. */
  readonly isOfPool: boolean
  readonly #id: string
  readonly #price: Price | undefined
  /** Set if the limit counts money. */
  readonly #prices: PriceList | undefined
  readonly #reserve: Reserve | undefined
  readonly #finishMs: number
  readonly #uncounted: ReadonlySet<number | string> | undefined
  /** That of the configuration, however late a limit is made: a call may begin before a reload, and be charged after it. */
  readonly #order = nextOrder()
  readonly #limits = new Map<string, Limit>()
  readonly #paces = new Map<string, Limit>()

  constructor(
    className: string,
    config: LimitConfig,
    { config: upstream, account, counting, prices }: RuleOptions,
    learned: LearnedPrices,
  ) {
    const { base, splits } = scopeOf(config)
    const owner = base === 'credential' ? (counting.credentialOwner.get(account) ?? account) : account
    this.class = className
    this.account = base === 'upstream' ? '*' : owner
    this.isEnforced = config.enforce ?? true
    this.allowed = allowedBy(config, upstream.headroom)
    // Alerts leave out labels with the word `shadow`. The id does not have it, so the count goes on when the limit is enforced.
    this.label = labelOf(config) + (this.isEnforced ? '' : ' shadow')
    this.#config = config
    this.#countingToleranceMs = upstream.slack
    this.#base = base
    this.#splits = splits
    this.isOfPool = base === 'credential' && counting.pools.has(account)
    this.#id = idOf(className, config) + baseSuffix(base, owner, counting.isShared)
    this.#uncounted = config.counts && new Set(config.counts.except)
    const { cost } = config
    const { response } = isByCall(cost) ? cost : {}
    this.#prices = config.amount === undefined ? undefined : prices
    this.#price = response === undefined ? undefined : new Price(response)
    this.#reserve = isByCall(cost)
      ? new Reserve(cost.reserve, this.#id, learned, { isFinal: response === undefined })
      : undefined
    this.#finishMs = response === undefined || !isByCall(cost) ? 0 : (cost.finish ?? DEFAULT_FINISH_MS)
  }

  get isSplit(): boolean {
    return this.#splits.length > 0 || this.isOfPool
  }

  /** Whether the charge depends on more than the kind of a call. */
  get isVarying(): boolean {
    const { cost, when } = this.#config
    return this.isSplit || when !== undefined || this.#prices !== undefined || isVaried(cost)
  }

  /** Whether the charge depends on the request's body: how much to reserve, or in which group to count. */
  get readsBody(): boolean {
    if (this.#reserve?.readsBody === true || this.#prices?.readsBody === true) return true
    return this.#splits.some((split) => split.startsWith('/'))
  }

  /** Where the body of an answer tells what a call costs. */
  get pointers(): readonly Pointer[] {
    return (this.#price ?? this.#prices)?.pointers ?? []
  }

  /** The units that a call costs by its answer; undefined if that is not known. `found` has the numbers at `pointers`, in that order. */
  spent(tariff: Tariff, fields: Fields, found: readonly (number | undefined)[]): number | undefined {
    return this.#prices === undefined ? this.#price?.units(fields, found) : this.#prices.units(fields, found, tariff)
  }

  /** How long an answer is read on for its price after its client has left, in milliseconds; 0 for not at all. */
  finishMsFor(tariff: Tariff): number {
    return this.#prices?.finishMsFor(tariff) ?? this.#finishMs
  }

  /** Whether the head of an answer tells all that a call has cost. */
  isToldBy(fields: Fields): boolean {
    return this.#prices === undefined && this.#price?.isToldBy(fields) === true
  }

  /** Whether a call that is answered with this status costs nothing. */
  isUncounted(status: number): boolean {
    if (this.#prices?.isFree(status) === true) return true
    return this.#uncounted !== undefined && isStatusOf(this.#uncounted, status)
  }

  /** Learns from what a call cost by its answer. Does nothing if the limit counts money: those costs are learned by the price list. */
  observe(route: Route, client: string, units: number): void {
    if (this.#prices === undefined) this.#reserve?.observe(route, client, units)
  }

  /** Whether calls of this route are charged to the limit. A limit by credential leaves out calls without a credential. */
  concerns(route: Route): boolean {
    return this.#base !== 'credential' || route.credential !== 'none'
  }

  /** The units that a call is charged; 0 if it is not charged; a failure if it can never be admitted. */
  unitsOf(route: Route, traits: Traits): number | Failure {
    const { method, headers } = traits
    const { cost = 1, when } = this.#config
    if (isByCall(cost) || this.#prices !== undefined) return this.#reservedFor(route, traits)
    const isByBytes = typeof cost === 'object' && 'bytes' in cost
    const bytes = isByBytes || when !== undefined ? bodyBytes(headers) : 0
    // A limit that is not enforced refuses nothing. It does not count a body whose size is unknown.
    if (bytes === undefined) return this.isEnforced ? lengthMissing(this) : 0
    if (when !== undefined && bytes <= when.bodyOver) return 0
    const units = isByBytes ? Math.ceil(bytes / cost.bytes) : flatCost(cost, route, method)
    return units > this.allowed && this.isEnforced ? tooExpensive(this, units) : units
  }

  #reservedFor(route: Route, traits: Traits): number | Failure {
    const { when } = this.#config
    if (when !== undefined) {
      const bytes = bodyBytes(traits.headers)
      if (bytes === undefined) return this.isEnforced ? lengthMissing(this) : 0
      if (bytes <= when.bodyOver) return 0
    }
    const prices = this.#prices
    if (prices === undefined) return this.#reserve!.unitsOf(route, traits)
    const { client, body } = traits
    const units = prices.reserveFor({ route, client, body }, prices.tariffFor(route, body))
    return units > this.allowed && this.isEnforced ? tooExpensive(this, units, prices.unit) : units
  }

  /** The group in which the call is counted; undefined if its path lacks the segment that decides it. */
  groupOf(route: Route, traits: Traits): string | undefined {
    let group = this.isOfPool ? `:of=${traits.credential}` : ''
    for (const split of this.#splits) {
      const value = valueOf(split, route, traits)
      if (value === undefined) return undefined
      group += `:${split}=${value}`
    }
    return group
  }

  limitOf(group: string): Limit {
    return this.#limits.getOrInsertComputed(group, () => {
      const { requests, amount, unit, window, kind = 'rolling', concurrent, name, cost } = this.#config
      const isPriced = this.#price !== undefined || this.#prices !== undefined
      const settles = isPriced ? 'at-end' : this.#uncounted === undefined ? 'at-once' : 'at-head'
      const limit = limitOf({
        settles,
        name: isByCall(cost) ? name : undefined,
        isVaried: isPriced || isVaried(this.#config.cost),
        id: this.#id + group + (concurrent === undefined ? '' : concurrentSuffix(this.#countingToleranceMs)),
        class: this.class,
        label: this.label,
        requests: this.allowed,
        published: requests ?? amount ?? this.allowed,
        unit,
        ...(concurrent === undefined ? { kind, ...windowOf(window!, this.#config) } : { kind: 'concurrent' }),
        countingToleranceMs: this.#countingToleranceMs,
        isEnforced: this.isEnforced,
        order: this.#order,
      })
      RULES.set(limit, this)
      return limit
    })
  }

  /** The limit that spreads the charges of this limit over time; undefined if they are not spread. */
  paceOf(group: string): Limit | undefined {
    const pace = paceOf(this.#config, this.allowed)
    if (pace === undefined) return undefined
    return this.#paces.getOrInsertComputed(group, () =>
      limitOf({
        // The id has the exact length. Rounded, two lengths could share one id, and so one bucket.
        id: `${this.#id}${group}${PACE}${pace.windowMs}`,
        class: this.class,
        kind: 'smoothing',
        order: this.#order,
        ...pace,
      }),
    )
  }
}

const PACE = ':pace.'

/** The id of the limit whose charges a pace spreads. */
export function pacedBy({ id }: Limit): string {
  return id.slice(0, id.lastIndexOf(PACE))
}

const RULES = new WeakMap<Limit, Rule>()

/** The configured rule behind a limit; undefined for a limit that `limitOf` of a rule did not make, such as one of `paceOf`. */
export function ruleOf(limit: Limit): Rule | undefined {
  return RULES.get(limit)
}

/** The rules of a route's classes, in the order the route names them, then those of every call. */
export function rulesFor(
  route: Route,
  upstream: UpstreamConfig,
  ruleOf: (className: string, config: LimitConfig) => Rule,
): Rule[] {
  const rules: Rule[] = []
  for (const className of new Set([...route.charges, EVERY_CALL])) {
    for (const config of upstream.limits[className] ?? []) {
      rules.push(ruleOf(className, config))
    }
  }
  return rules
}

function isVaried(cost: LimitConfig['cost']): boolean {
  return cost !== undefined && typeof cost !== 'number'
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

function flatCost(cost: number | 'route' | Readonly<Record<string, number>>, route: Route, method: string): number {
  if (typeof cost === 'number') return cost
  if (cost === 'route') return route.cost
  // A HEAD is a GET without the body (RFC 9110 §9.3.2).
  return cost[method] ?? (method === 'HEAD' ? cost['GET'] : undefined) ?? cost['default'] ?? 1
}

function valueOf(split: Split, route: Route, { path, client, body }: Traits): string | undefined {
  if (split === 'route') return route.countedAs
  if (split === 'client') return client
  if (split.startsWith('/')) {
    // Calls without a known text are counted together: their body was not kept, or lacks it.
    const said = body && bodyText(body, split)
    return said ? String(groupNumber(said)) : ''
  }
  const { countedAs } = route
  const [index] = segmentsNamed(countedAs.slice(countedAs.indexOf('/')), [split.slice(1, -1)])
  if (index === undefined) return undefined
  const text = path.split('/').filter((segment) => segment !== '')[index]
  // A path may have bytes beyond ASCII that are not escaped, each as one character.
  return text === undefined ? undefined : String(groupNumber(Buffer.from(text, 'latin1').toString()))
}

/** The group of a text. Percent-encoding and capitals make no difference. */
function groupNumber(text: string): number {
  let name = text
  try {
    name = decodeURIComponent(text)
  } catch {
    // A malformed encoding counts as it is.
  }
  let hash = 0
  for (const character of name.toLowerCase()) hash = (Math.imul(hash, 31) + character.codePointAt(0)!) >>> 0
  return hash % GROUPS
}

/** The declared length of the body; undefined if it is chunked. */
function bodyBytes(headers: IncomingHttpHeaders): number | undefined {
  return headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : undefined
}

function lengthMissing({ class: className, label }: Rule): Failure {
  const message = `the ${className} limit (${label}) depends on the size of the body, so the request needs a Content-Length`
  return new Failure('invalid_request', message)
}

/** The failure of a call that costs more than the limit ever allows: no 429, because waiting does not help. `unit` is that of its price. */
export function tooExpensive(
  { class: className, label, allowed }: Pick<Rule, 'class' | 'label' | 'allowed'>,
  units: number,
  unit?: string,
): Failure {
  const [cost, most] =
    unit === undefined ? [`${units} units`, allowed] : [units, allowed].map((one) => amountText({ unit }, one))
  const message = `the call costs ${cost}, and the ${className} limit (${label}) never allows more than ${most}`
  return new Failure('invalid_request', message)
}
