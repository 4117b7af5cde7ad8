import { styleText } from 'node:util'
import { noAnswerOf } from '../requests/question.ts'
import { fullnessOf, NOT_KNOWN, type QuotaRow } from '../server/admin/status.ts'
import { type AdminOptions, adminPortOf, askAdmin } from './admin-port.ts'
import { jsonOf, printable } from './printable.ts'
import { columnsOf, outputWidth, short } from './table.ts'
import type { UsageNow } from '../server/admin/usage-view.ts'

interface Options extends AdminOptions {
  readonly json?: boolean
  readonly by?: 'client'
}

/** Prints the quotas of a running gateway once, the fullest first. `sluice top` shows them continuously. */
export async function quota(options: Options): Promise<void> {
  const admin = await adminPortOf(options)
  const table = { width: outputWidth(), paint: colour }
  if (options.by === 'client') {
    const usage = await askAdmin<UsageAnswer>(admin, `/v1/usage?limit=${MOST_LIMITS}`)
    process.stdout.write(options.json === true ? jsonOf(usage) : clientTables(usage, table))
    if (usage.data.length === MOST_LIMITS)
      process.stderr.write(
        `only the ${MOST_LIMITS} fullest limits are shown: see GET /v1/usage with offset for others\n`,
      )
    return
  }
  const answer = await askAdmin<{ data: QuotaRow[] }>(admin, '/v1/quota')
  process.stdout.write(options.json === true ? jsonOf(answer) : quotaTable(answer.data, table) + noteOf(answer.data))
}

/** What `?` means, where there is one. */
function noteOf(rows: readonly Pick<QuotaRow, 'isLocal'>[]): string {
  return rows.some(({ isLocal }) => isLocal)
    ? `
?: ${NOT_KNOWN}
`
    : ''
}

/** The most rows that the admin port lists at once. */
const MOST_LIMITS = 1_000

/** Paints used-up limits red and nearly used-up ones yellow, unless NO_COLOR is set or the output is no terminal. */
export function colour(text: string, fullness: number): string {
  if (fullness < NEARLY_OUT) return text
  return styleText(fullness >= 1 ? 'red' : 'yellow', text, { stream: process.stdout })
}

const NEARLY_OUT = 0.9

export interface TableOptions {
  readonly width: number
  /** How many lines there is room for. The least full rows are left out, and their number is shown. Default: no bound. */
  readonly height?: number
  /** Paints a line by how full its limit is: 1 if nothing is left. */
  paint(line: string, fullness: number): string
}

const HEAD = ['ACCOUNT', 'CLASS', 'WINDOW', 'LIMIT', 'NOW', 'USED', 'RESETS', 'ENDS', 'BURN', 'WAIT']
/** The titles of columns with names. */
const NAMES = ['ACCOUNT', 'CLASS', 'WINDOW', 'CLIENT', 'WHOSE']
/** What a narrow terminal can do without. */
const SPARE = ['BURN', 'ENDS', 'NOW', 'HOUR', 'DAY', 'DUE']

/** A table no wider than `width`: names are cut if needed, the longest first, and columns left out. The fullest limits come first. */
export function quotaTable(all: readonly QuotaRow[], { width, height = Infinity, paint }: TableOptions): string {
  const room = Math.max(1, height - 1)
  const sorted = all.toSorted((a, b) => fullnessOf(b) - fullnessOf(a))
  const rows = sorted.slice(0, sorted.length > room ? Math.max(1, room - 1) : room)
  const lines = rows.map((row) => ({
    fullness: fullnessOf(row),
    cells: [
      `${row.upstream}/${row.account}`,
      row.class,
      row.window,
      String(row.limit),
      String(row.effective),
      usedOf(row),
      whenMore(row),
      row.exhaustionInMs === null ? '-' : row.exhaustionInMs === 0 ? 'now' : short(row.exhaustionInMs),
      row.burnRatio === null ? '-' : row.burnRatio.toFixed(1),
      String(row.waiting),
    ],
  }))
  const shown = paintedTable(HEAD, lines, { width, paint })
  const left = sorted.length - rows.length
  if (left > 0) shown.push(`… and ${left} that are less full: make the window higher, or see npx sluice quota`)
  return shown.map((text) => `${text}\n`).join('')
}

interface Line {
  readonly cells: readonly string[]
  /** How full the limit of the line is: 1 if nothing is left. */
  readonly fullness: number
}

/** The lines of a table, each painted by how full its limit is, but for the titles. */
function paintedTable(
  titles: readonly string[],
  lines: readonly Line[],
  { width, paint }: Pick<TableOptions, 'width' | 'paint'>,
): string[] {
  const rows = [titles, ...lines.map(({ cells }) => cells)]
  const [head = '', ...texts] = columnsOf(rows, { width, cuttable: NAMES, spare: SPARE })
  return [head, ...texts.map((text, i) => paint(text, lines[i]!.fullness))]
}

function usedOf({ used, isLocal }: Pick<QuotaRow, 'used' | 'isLocal'>): string {
  return isLocal === true ? '?' : String(used)
}

/** When more of it comes back; nothing does if nothing is used. */
function whenMore({ resetMs, isLocal }: Pick<QuotaRow, 'resetMs' | 'isLocal'>): string {
  return resetMs === 0 || isLocal === true ? '-' : short(resetMs)
}

/** What `GET /v1/usage` answers. */
interface UsageAnswer {
  readonly data: UsageNow['limits']
  readonly budgets: NonNullable<UsageNow['budgets']> | null
  readonly since: string | null
  readonly away: UsageNow['away']
}

/** Tables of who uses each limit, what each client is due, and what is left of budgets; no wider than `width`. */
function clientTables(
  { data, budgets, since, away }: UsageAnswer,
  { width, paint }: Pick<TableOptions, 'width' | 'paint'>,
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
  const texts =
    used.length === 0 ? ['No client has used a limit within a day.'] : paintedTable(head, used, { width, paint })
  if (budgets !== null && budgets.length > 0) {
    const rows = budgets.map((one) => ({
      fullness: fullnessOf({ ...one, effective: one.limit }),
      cells: [
        one.level === 'client' ? one.name : `${one.level} ${one.name}`,
        one.window,
        String(one.limit),
        usedOf(one),
        one.isLocal === true ? '?' : String(one.remaining),
        whenMore(one),
      ],
    }))
    const titles = ['WHOSE', 'BUDGET', 'LIMIT', 'USED', 'LEFT', 'RESETS']
    texts.push('', ...paintedTable(titles, rows, { width, paint }))
  }
  if (since !== null) texts.push('', printable(`Counted since ${since}.`))
  texts.push(...away.map((one) => printable(noAnswerOf(one))))
  return texts.map((text) => `${text}\n`).join('') + noteOf(budgets ?? [])
}
