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
  /** The part of the limit, from 0 to 1, at which to warn. */
  readonly warnAt: number
}

/** A client, a team or an organisation with a budget. Its charge set serves to ask how much is used. */
export interface Level {
  readonly kind: LevelKind
  readonly name: string
  readonly chargeSet: ChargeSet
}

export type Hierarchy = Pick<Config, 'teams' | 'organisations'>

/** How many charge sets are remembered by their amount of money, which may differ from call to call. */
const MOST_AMOUNTS = 256

/**
 * The budgets that a client's calls are charged to, beside the limits of vendors: its own, its team's and its organisation's. A call
 * is charged to all of them in one step, or to none. Therefore they are all in one partition, that of the highest level: one Redis
 * node counts all calls of an organisation.
 */
export class Budget {
  readonly limits: readonly BudgetLimit[]
  /** The client's own limits. Undefined if only its team or organisation has a budget. */
  readonly own: Level | undefined
  /** The currency of the limits that count money. Undefined if none does. */
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

  /** Finds a limit of this budget by its id: after a reload, the ledger may hold an equal limit of another budget. */
  levelOf({ id }: Limit): BudgetLimit {
    return this.limits.find(({ limit }) => limit.id === id)!
  }

  /** The charge set of a call that costs `money`, in billionths. A call that costs nothing is not charged to limits of money. */
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

/** The teams and organisations of a configuration. Makes the budgets of clients. */
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

  /** The budget of a client. Undefined if nothing restricts it. `missing-team` if its team is not in the configuration. */
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
