import type { CredentialServices } from '../credentials/build.ts'
import type { LimitConfig } from '../schema/schema.ts'
import { amountOf } from '../schema/price-schema.ts'
import { ClassMetrics } from '../observe/call-metrics.ts'
import type { ClassLabels } from '../observe/series.ts'
import { ClassCapacity, QueueCapacity } from '../queue/capacity.ts'
import { type ChargeSet, chargeSetOf, type Ledger, unitsByClass } from '../ledger/ledger.ts'
import type { Limit } from '../ledger/limit.ts'
import type { Closing } from '../queue/admission.ts'
import { type QueueView, AdmissionQueue } from '../queue/admission-queue.ts'
import type { Route } from '../routing/route.ts'
import { CallUsage, type ChargedLimit, Spending, type Usage } from '../usage/usage.ts'
import { pacedBy, Rule, type RuleOptions, ruleOf, rulesFor, type Traits } from './charges.ts'
import { partitionOf } from './counting.ts'
import { type Failure, isFailure } from './failure.ts'
import { LearnedPrices } from './reserve.ts'
import { LimitWatch, type WatchServices } from './limit-watch.ts'

/** How many policies of one kind of calls are kept. Without a bound, costs by bytes could make any number. */
const POLICIES_KEPT = 1_024

/** What the program provides to every account. */
export interface AccountServices extends CredentialServices, WatchServices {
  readonly ledger: Ledger
  readonly usage: Usage
  /** How many calls may wait in the whole process. */
  readonly queueCapacity?: QueueCapacity
}

/** How calls of one kind are admitted: the limits that they are charged to, and the queue in which they wait. */
export interface AdmissionPolicy {
  readonly chargeSet: ChargeSet
  readonly queue: AdmissionQueue
  readonly labels: ClassLabels
  readonly metrics: ClassMetrics
  /** The watches of the charge set's limits, in their order; undefined for a limit that is not enforced, or is the gateway's own. */
  readonly watches: readonly (LimitWatch | undefined)[]
  readonly spending: Spending
  /** Indexes in the charge set of the limits that `spending` counts one by one. */
  readonly counted: readonly number[]
  readonly usage: CallUsage
  readonly capacity: ClassCapacity
  /** Whether another policy may be the right one once the request's body is here. */
  readonly readsBody: boolean
}

/** Calls of one kind. They have one policy, or one for each way in which their charges vary. */
interface Kind {
  readonly rules: readonly Rule[]
  readonly only: AdmissionPolicy | undefined
  readonly varying: Map<string, AdmissionPolicy>
}

interface Charge {
  readonly limit: Limit
  readonly units: number
}

/** The parts that all policies of a class share. */
interface ClassParts {
  readonly labels: ClassLabels
  readonly metrics: ClassMetrics
  readonly usage: CallUsage
  readonly capacity: ClassCapacity
  /** The queues, by what their calls need. Calls that need different limits do not wait for one another. */
  readonly queues: Map<string, AdmissionQueue>
}

/** A limit, and the account that metrics show it under: `*` for one of the whole upstream. */
export interface Shown {
  readonly limit: Limit
  readonly account: string
  readonly watch: LimitWatch
}

export interface AdmissionPoliciesOptions extends RuleOptions {
  readonly upstream: string
  readonly services: AccountServices
}

/**
 * What tells apart calls of a class that need different limits: the other classes that they are charged to, the groups in which they are
 * counted, and the limits that they are not charged to. The order in which a route names its classes makes no difference.
 */
function needsOf(route: Route, rules: readonly Rule[], charges: readonly { rule: Rule; group: string }[]): string {
  const needs = new Set(route.charges.filter((name) => name !== route.class).map((name) => `+${name}`))
  for (const rule of rules) {
    const charge = charges.find((one) => one.rule === rule)
    needs.add(charge === undefined ? `-${rule.class} ${rule.label}` : charge.group)
  }
  return [...needs].sort().join('')
}

/** The admission policies of one account. */
export class AdmissionPolicies {
  readonly #options: AdmissionPoliciesOptions
  readonly #partition: string
  readonly #kinds = new Map<string, Kind>()
  readonly #classes = new Map<string, ClassParts>()
  readonly #rules = new Map<LimitConfig, Rule>()
  readonly #shown = new Map<string, Shown>()
  /** How many calls of all classes may wait. */
  readonly #queueCapacity: QueueCapacity
  readonly #learned: LearnedPrices
  #chargeSet: ChargeSet | undefined
  #closing: Closing | undefined

  /** With `previous`, call `takeOver(previous)` when these policies are put in force. */
  constructor(options: AdmissionPoliciesOptions, previous?: AdmissionPolicies) {
    this.#options = options
    const { upstream, account, config } = options
    this.#queueCapacity =
      previous !== undefined
        ? previous.#queueCapacity
        : new QueueCapacity(config.queue.maxWaitingPerAccount ?? Infinity, `calls of ${upstream}/${account}`)
    this.#learned = previous === undefined ? new LearnedPrices() : previous.#learned
    this.#partition = partitionOf(options.counting, options.upstream, options.account)
    const { credential, credentials } = config.accounts[account]!
    const hasCredential = credential !== undefined || credentials !== undefined
    options.services.metrics.beginAccount(upstream, account, hasCredential, Object.keys(config.limits))
    // A limit is shown before its first call. A limit that is counted apart is shown from its first call on.
    for (const [className, limits] of Object.entries(options.config.limits)) {
      for (const limit of limits) {
        const rule = this.#ruleOf(className, limit)
        if (!rule.isSplit) this.#limitOf(rule, '')
      }
    }
  }

  /** Finds the policy of a call, or why there is none. It is one look-up if limits depend only on the route's kind. */
  policyFor(route: Route, traits: Traits): AdmissionPolicy | Failure {
    let kind = this.#kinds.get(route.kind)
    if (kind === undefined) this.#kinds.set(route.kind, (kind = this.#kindOf(route, traits)))
    return kind.only ?? this.#varyingPolicy(kind, route, traits)
  }

  /** Takes over the queues of `previous`: waiting calls keep their order, and calls in flight still count. */
  takeOver(previous: AdmissionPolicies): void {
    const { queue, concurrency } = this.#options.config
    this.#queueCapacity.most = queue.maxWaitingPerAccount ?? Infinity
    for (const [className, parts] of previous.#classes) {
      parts.capacity.change(queue, concurrency[className])
      this.#classes.set(className, parts)
    }
    this.#chargeAnew()
  }

  /**
   * Replaces the limits of waiting calls by the new limits of the same id, and the pace of a limit by its new one. Limits that are
   * counted apart stay as they were, and so does a pace that the new limit does not have.
   */
  #chargeAnew(): void {
    const chargeSets = new Map<ChargeSet, ChargeSet>()
    const chargeSetNow = (chargeSet: ChargeSet): ChargeSet =>
      chargeSets.getOrInsertComputed(chargeSet, ({ partition, account, limits, units }) => {
        const charges = limits.map((limit, i) => {
          const now = this.#limitNow(limit)
          return { limit: now, units: now.kind === 'smoothing' ? Math.min(units[i]!, now.requests) : units[i]! }
        })
        return chargeSetOf(partition, charges, account)
      })
    for (const { queues } of this.#classes.values())
      for (const queue of queues.values()) queue.replaceChargeSets(chargeSetNow)
  }

  #limitNow(limit: Limit): Limit {
    if (limit.kind !== 'smoothing') return this.#shown.get(limit.id)?.limit ?? limit
    const paced = this.#shown.get(pacedBy(limit))
    return (paced && ruleOf(paced.limit)?.paceOf('')) ?? limit
  }

  /** Ends the wait of all calls, and lets none wait any more. */
  close(because: Closing): void {
    this.#closing = because
    for (const { queues } of this.#classes.values()) for (const queue of queues.values()) queue.close(because)
  }

  /** How many calls wait, and are in flight, by class. */
  *waiting(): Iterable<{ labels: ClassLabels; waiting: number; inFlight: number; adapted: number | undefined }> {
    for (const { labels, capacity } of this.#classes.values()) {
      yield { labels, waiting: capacity.waiting, inFlight: capacity.inFlight, adapted: capacity.adapted }
    }
  }

  /** Which calls wait, by class and client. */
  *queued(): Iterable<{ labels: ClassLabels; view: QueueView }> {
    for (const { labels, queues } of this.#classes.values()) {
      for (const queue of queues.values()) for (const view of queue.view()) yield { labels, view }
    }
  }

  /** Every limit of the account. */
  get shown(): readonly Shown[] {
    return [...this.#shown.values()]
  }

  /** A charge set of all limits, in the order of `shown`, to ask for their usage. */
  get chargeSet(): ChargeSet {
    return (this.#chargeSet ??= chargeSetOf(
      this.#partition,
      this.shown.map(({ limit }) => ({ limit })),
    ))
  }

  #kindOf(route: Route, traits: Traits): Kind {
    const rules = rulesFor(route, this.#options.config, (className, limit) => this.#ruleOf(className, limit))
    const varying = new Map<string, AdmissionPolicy>()
    if (rules.some(({ isVarying }) => isVarying)) return { rules, only: undefined, varying }
    const only = this.#varyingPolicy({ rules, only: undefined, varying }, route, traits)
    return { rules, only: isFailure(only) ? undefined : only, varying }
  }

  #ruleOf(className: string, limit: LimitConfig): Rule {
    return this.#rules.getOrInsertComputed(limit, () => new Rule(className, limit, this.#options, this.#learned))
  }

  #varyingPolicy({ rules, varying }: Kind, route: Route, traits: Traits): AdmissionPolicy | Failure {
    const charges: { rule: Rule; units: number; group: string }[] = []
    let key = ''
    for (const rule of rules) {
      const units = rule.concerns(route) ? rule.unitsOf(route, traits) : 0
      if (typeof units !== 'number') return units
      const group = units === 0 ? undefined : rule.groupOf(route, traits)
      if (group === undefined) {
        key += '-\n'
        continue
      }
      key += `${units}${group}\n`
      charges.push({ rule, units, group })
    }
    let policy = varying.get(key)
    if (policy === undefined) {
      if (varying.size >= POLICIES_KEPT) varying.clear()
      policy = this.#buildPolicy(
        route.class,
        charges.flatMap(({ rule, units, group }) => this.#chargesOf(rule, units, group)),
        needsOf(route, rules, charges),
        rules.some((rule) => rule.readsBody && rule.concerns(route)),
      )
      varying.set(key, policy)
    }
    return policy
  }

  /** The charge to a limit and, if it has one, to its pace. The second is capped, so that a single call never exceeds the pace. */
  #chargesOf(rule: Rule, units: number, group: string): Charge[] {
    const charge = { limit: this.#limitOf(rule, group), units }
    const pace = rule.paceOf(group)
    return pace === undefined ? [charge] : [charge, { limit: pace, units: Math.min(units, pace.requests) }]
  }

  #limitOf(rule: Rule, group: string): Limit {
    const limit = rule.limitOf(group)
    if (!this.#shown.has(limit.id)) {
      const { account } = rule
      const { upstream, services } = this.#options
      this.#shown.set(limit.id, { limit, account, watch: new LimitWatch(limit, { upstream, account, services }) })
      this.#chargeSet = undefined
    }
    return limit
  }

  #buildPolicy(className: string, charges: readonly Charge[], needs: string, readsBody: boolean): AdmissionPolicy {
    const { labels, metrics, usage, capacity, queues } = this.#partsOf(className)
    const { upstream, account, services } = this.#options
    const { ledger, clock } = services
    const watches = charges.map(({ limit }) => (limit.isEnforced ? this.#shown.get(limit.id)?.watch : undefined))
    const name = `${account}:${className}${needs}`
    const queue = queues.getOrInsertComputed(
      needs,
      () => new AdmissionQueue({ ledger, clock, name, partition: this.#partition, capacity }),
    )
    if (this.#closing !== undefined) queue.close(this.#closing)
    const chargeSet = chargeSetOf(this.#partition, charges, `${upstream}/${account}`)
    const byClass = [...unitsByClass(chargeSet)].map(([name, units]) => ({ class: name, units }))
    const spending = new Spending(services.usage, labels, byClass, this.#countedLimits(charges))
    const counted = [...charges.keys()].filter((i) => this.#countedLimits([charges[i]!]).length > 0)
    return { chargeSet, queue, labels, metrics, usage, watches, spending, counted, capacity, readsBody }
  }

  /** The charges to limits whose use is shown by client. Limits of calls in flight, and the gateway's own, are left out. */
  #countedLimits(charges: readonly Charge[]): ChargedLimit[] {
    const { upstream } = this.#options
    return charges.flatMap(({ limit, units }) => {
      const account = this.#shown.get(limit.id)?.account
      if (account === undefined || limit.kind === 'concurrent') return []
      const { class: name, label: window, windowMs, kind, calendar } = limit
      return [
        {
          limit: { upstream, account, class: name, window, windowMs, isCalendar: kind === 'calendar', calendar },
          units: amountOf(limit, units),
        },
      ]
    })
  }

  #partsOf(className: string): ClassParts {
    const { upstream, account, config, services } = this.#options
    return this.#classes.getOrInsertComputed(className, () => {
      const labels = { upstream, account, class: className }
      const inProcess = services.queueCapacity === undefined ? [] : [services.queueCapacity]
      return {
        labels,
        metrics: new ClassMetrics(services.metrics, labels),
        usage: new CallUsage(services.usage, labels),
        capacity: new ClassCapacity(
          [
            new QueueCapacity(config.queue.maxWaiting, `${className} calls of ${upstream}/${account}`),
            this.#queueCapacity,
            ...inProcess,
          ],
          { concurrency: config.concurrency[className], mostPerClient: config.queue.maxWaitingPerClient },
        ),
        queues: new Map<string, AdmissionQueue>(),
      }
    })
  }
}
