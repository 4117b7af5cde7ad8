import type { Config } from '../schema/schema.ts'
import type { BudgetConfig } from '../schema/budget-schema.ts'
import { windowLabel } from '../schema/limits.ts'
import { calendarOf } from '../time/calendar.ts'
import { systemClock } from '../time/clock.ts'

/** A budget that the calls of a client count against. */
export interface ClientBudget {
  readonly level: 'client' | 'team' | 'organisation'
  readonly name: string
  /** How many calls; undefined where it is money. */
  readonly requests: number | undefined
  readonly amount: number | undefined
  /** The currency of the amount. */
  readonly unit: string | undefined
  readonly window: string
  /** When the current window ends, if that is a window of a calendar. */
  readonly ends?: string
}

/** The budgets of a client of the configuration, and those of its team and organisation; none without a client. */
export function budgetsOf(name: string | undefined, { clients = {}, teams, organisations }: Config): ClientBudget[] {
  if (name === undefined) return []
  const client = clients[name]
  const team = client?.team
  const organisation = team === undefined ? undefined : teams[team]?.organisation
  return [
    ...entries('client', name, client?.budget),
    ...(team === undefined ? [] : entries('team', team, teams[team]?.budget)),
    ...(organisation === undefined ? [] : entries('organisation', organisation, organisations[organisation]?.budget)),
  ]
}

function entries(level: ClientBudget['level'], name: string, budget: BudgetConfig = []): ClientBudget[] {
  return budget.map((one) => {
    const { requests, amount, unit, window, timezone, anchor } = one
    const label = windowLabel(one, window)
    const isLength = typeof window === 'number'
    const ends = isLength ? {} : { ends: calendarOf({ unit: window, timezone, anchor }).endText(systemClock.wall()) }
    return { level, name, requests, amount, unit, window: label, ...ends }
  })
}

export function describeBudget({ level, name, requests, amount, unit, window, ends }: ClientBudget): string {
  const whose = level === 'client' ? '' : ` of the ${level} ${name}`
  return `${requests ?? `${amount} ${unit}`} per ${window}${ends === undefined ? '' : ` until ${ends}`}${whose}`
}
