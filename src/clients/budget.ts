import { type ChargeSet, chargeSetOf } from '../ledger/ledger.ts'
import { type Limit, limitOf, windowOf } from '../ledger/limit.ts'
import type { BudgetConfig } from '../schema/budget-schema.ts'
import type { Config } from '../schema/schema.ts'
import { windowLabel } from '../schema/limits.ts'

export type LevelKind = 'client' | 'team' | 'organisation'

/** One window of the budget of a client, a team or an organisation. */
export interface BudgetLimit {
  readonly limit: Limit
  readonly kind: LevelKind
  readonly name: string
  /** The part of it, from 0 to 1, at which to warn. */
  readonly warnAt: number
}

/** A client, a team or an organisation with a budget, to ask for what is used of it. */
export interface Level {
  readonly kind: LevelKind
  readonly name: string
  readonly chargeSet: ChargeSet
}

export type Hierarchy = Pick<Config, 'teams' | 'organisations'>

/** A reservation differs from call to call; so many are remembered. */
const MOST_AMOUNTS = 256

/**
 * All that a client's calls are charged to beside the limits of vendors: its own budget, its team's and its organisation's. A call is
 * charged to all of them in one step, or to none. Therefore they are counted in one place, that of the highest of them: all calls
 * of an organisation are counted by one Redis node.
 */
export class Budget {
  readonly limits: readonly BudgetLimit[]
  /** Those of them that are the client's own. */
  readonly own: Level | undefined
  /** The currency in which some of them count. */
  readonly unit: string | undefined
  readonly #partition: string
  readonly #byMoney = new Map<number, ChargeSet>()

  constructor(partition: string, client: string, limits: readonly BudgetLimit[]) {
    this.#partition = partition
    this.limits = limits
    this.own = levelOf(
      partition,
      client,
      'client',
      limits.filter(({ kind }) => kind === 'client'),
    )
    this.unit = limits.find(({ limit }) => limit.unit !== undefined)?.limit.unit
  }

  /** Whose limit of a charge set it is. By its id, because the ledger may know it from another budget, made since by a reload. */
  levelOf({ id }: Limit): BudgetLimit {
    return this.limits.find(({ limit }) => limit.id === id)!
  }

  /** What a call is charged that costs `money`, in billionths. A call that costs none is charged to no amount of money. */
  chargeSetFor(money: number): ChargeSet {
    const amount = this.unit === undefined ? 0 : money
    let chargeSet = this.#byMoney.get(amount)
    if (chargeSet !== undefined) return chargeSet
    if (this.#byMoney.size >= MOST_AMOUNTS) this.#byMoney.clear()
    const charges = this.limits.map(({ limit }) => ({ limit, units: limit.unit === undefined ? 1 : amount }))
    chargeSet = chargeSetOf(
      this.#partition,
      charges.filter(({ units }) => units > 0),
    )
    this.#byMoney.set(amount, chargeSet)
    return chargeSet
  }
}

/** The teams and organisations of a configuration, and with them the budgets of clients. */
export class Budgets {
  readonly #teams = new Map<string, { partition: string; limits: readonly BudgetLimit[] }>()
  /** Teams and organisations that have a budget. */
  readonly levels: readonly Level[]

  constructor({ teams, organisations }: Hierarchy) {
    const levels: (Level | undefined)[] = []
    const ofOrganisations = new Map<string, readonly BudgetLimit[]>()
    for (const [name, { budget }] of Object.entries(organisations)) {
      const limits = limitsOf(budget, 'organisation', name, true)
      ofOrganisations.set(name, limits)
      levels.push(levelOf(`organisation:${name}`, name, 'organisation', limits))
    }
    for (const [name, { organisation, budget }] of Object.entries(teams)) {
      const partition = organisation === undefined ? `team:${name}` : `organisation:${organisation}`
      const limits = limitsOf(budget, 'team', name, true)
      levels.push(levelOf(partition, name, 'team', limits))
      const above = organisation === undefined ? [] : (ofOrganisations.get(organisation) ?? [])
      this.#teams.set(name, { partition, limits: [...limits, ...above] })
    }
    this.levels = levels.filter((level) => level !== undefined)
  }

  /** Undefined if nothing restricts the client. `missing-team`: its team is in the configuration no more. */
  of(client: string, budget: BudgetConfig | undefined, team: string | undefined): Budget | 'missing-team' | undefined {
    const above = team === undefined ? undefined : this.#teams.get(team)
    if (team !== undefined && above === undefined) return 'missing-team'
    const own = limitsOf(budget, 'client', client, above !== undefined)
    const limits = [...own, ...(above?.limits ?? [])]
    return limits.length === 0 ? undefined : new Budget(above?.partition ?? `client:${client}`, client, limits)
  }
}

/** No upstream or account can have the name of such a partition. */
function levelOf(partition: string, name: string, kind: LevelKind, limits: readonly BudgetLimit[]): Level | undefined {
  return limits.length === 0 ? undefined : { kind, name, chargeSet: chargeSetOf(partition, limits) }
}

const WARN_AT = 0.8
const CLASSES = { client: 'budget', team: 'team budget', organisation: 'organisation budget' } as const

function limitsOf(config: BudgetConfig = [], kind: LevelKind, name: string, isShared: boolean): BudgetLimit[] {
  return config.map((one) => {
    const { requests, amount, unit, window, enforce, warnAt = WARN_AT } = one
    const length = windowLabel(one, window)
    const id = `budget.${length.replaceAll(' ', '-')}${unit === undefined ? '' : `:${unit}`}${isShared ? `:${kind}=${name}` : ''}`
    const label = unit === undefined ? length : `${length} ${unit}`
    const counted =
      amount === undefined ? { requests: requests! } : { requests: amount, settles: 'at-end' as const, unit }
    const limit = limitOf({
      id,
      class: CLASSES[kind],
      label,
      ...windowOf(window, one),
      isEnforced: enforce ?? true,
      ...counted,
    })
    return { limit, kind, name, warnAt }
  })
}
