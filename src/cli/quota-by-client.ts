import type { UsageNow } from '../server/admin/usage-view.ts'
import { columnsOf, short } from './table.ts'

/** What `GET /v1/usage` answers. */
export interface UsageAnswer {
  readonly data: UsageNow['limits']
  readonly budgets: NonNullable<UsageNow['budgets']> | null
  readonly since: string | null
  readonly away: UsageNow['away']
}

/** Tables of who uses each limit, what each client is due, and what is left of budgets; no wider than `width`. */
export function clientTables(
  { data, budgets, since, away }: UsageAnswer,
  { width, paint }: { width: number; paint(line: string, fullness: number): string },
): string {
  const head = ['ACCOUNT', 'CLASS', 'WINDOW', 'CLIENT', 'USED', 'OF', 'DUE', 'HOUR', 'DAY']
  const used = data.flatMap(({ upstream, account, class: name, window, effective, clients }) =>
    clients.map((one) => ({
      fullness: effective === null || effective === 0 ? 0 : one.used / effective,
      cells: [
        `${upstream}/${account}`,
        name,
        window,
        one.client,
        String(one.used),
        effective === null ? '-' : String(effective),
        one.dueUnits === null ? '-' : `${one.dueUnits}`,
        String(one.hour),
        String(one.day),
      ],
    })),
  )
  const [title = '', ...lines] = columnsOf([head, ...used.map(({ cells }) => cells)], { width, cuttable: 4 })
  const texts =
    used.length === 0
      ? ['No client has used a limit within a day.']
      : [title, ...lines.map((line, i) => paint(line, used[i]!.fullness))]
  if (budgets !== null && budgets.length > 0) {
    const rows = budgets.map((one) => {
      const whose = one.level === 'client' ? one.name : `${one.level} ${one.name}`
      return [whose, one.window, String(one.limit), String(one.used), String(one.remaining), short(one.resetMs)]
    })
    const [columns = '', ...ofBudgets] = columnsOf([['WHOSE', 'BUDGET', 'LIMIT', 'USED', 'LEFT', 'RESETS'], ...rows], {
      width,
      cuttable: 1,
    })
    texts.push('', columns, ...ofBudgets.map((line, i) => paint(line, budgets[i]!.used / budgets[i]!.limit)))
  }
  if (since !== null) texts.push('', `Counted since ${since}.`)
  texts.push(...away.map(({ instance, why }) => `not heard of: ${instance}: ${why}`))
  return texts.map((text) => `${text}\n`).join('')
}
