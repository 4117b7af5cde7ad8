import { roughly } from '../../schema/units.ts'
import { type Html, html, type Part } from './html.ts'
import { cell, numberCell, row, table } from './page-parts.ts'
import type { BudgetRow } from './status.ts'
import type { ClientPart, UsageNow, UsedLimit } from './usage-view.ts'

/** So many clients and limits are shown: whoever used most of the fullest limits. */
const MOST_SHOWN = 20
const CLIENT_COLUMNS = ['Account', 'Class', 'Window', 'Client', 'Used', 'Due', 'Last hour', 'Last day']
const BUDGET_COLUMNS = ['Whose', 'Window', 'Used', 'Left', 'More in']

/** Who uses which limit, and what is left of budgets. */
export function spenders({ limits, budgets = [] }: UsageNow): Part {
  const all = limits.flatMap((limit) => limit.clients.map((client) => clientRow(limit, client)))
  const emptiest = budgets.toSorted((a, b) => a.remaining / a.limit - b.remaining / b.limit)
  return [
    table('Clients by limit', CLIENT_COLUMNS, all.slice(0, MOST_SHOWN), 'Nobody has, within a day.'),
    budgets.length > 0 && [
      html`<h3>Budgets</h3>`,
      table('Budgets', BUDGET_COLUMNS, emptiest.slice(0, MOST_SHOWN).map(budgetRow), ''),
    ],
  ]
}

function clientRow({ upstream, account, class: kind, window, effective }: UsedLimit, part: ClientPart): Html {
  const used = effective === null ? part.used : `${part.used} of ${effective}`
  const numbers = [used, part.dueUnits ?? '', part.hour, part.day].map(numberCell)
  return row([kind, window, part.client].map(cell).concat(numbers), { head: `${upstream}/${account}` })
}

function budgetRow({ level, name, window, limit, used, remaining, resetMs }: BudgetRow): Html {
  const numbers = [`${used} of ${limit}`, remaining, used === 0 ? '' : roughly(resetMs)].map(numberCell)
  const head = level === 'client' ? name : `${level} ${name}`
  return row([cell(window), ...numbers], { head, isFailing: remaining === 0 })
}
