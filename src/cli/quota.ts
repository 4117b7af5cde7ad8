import { styleText } from 'node:util'
import type { QuotaRow } from '../server/admin/status.ts'
import { type AdminOptions, adminPortOf, askAdmin } from './admin-port.ts'
import { clientTables, type UsageAnswer } from './quota-by-client.ts'
import { columnsOf, short } from './table.ts'

interface Options extends AdminOptions {
  readonly json?: boolean
  readonly by?: 'client'
}

/** Prints the quotas of a running gateway once, the fullest first. `sluice top` shows them continuously. */
export async function quota(options: Options): Promise<void> {
  const admin = await adminPortOf(options)
  const table = { width: process.stdout.columns ?? 80, paint: colour }
  if (options.by === 'client') {
    const usage = await askAdmin<UsageAnswer>(admin, `/v1/usage?limit=${MOST_LIMITS}`)
    return void process.stdout.write(options.json === true ? jsonOf(usage) : clientTables(usage, table))
  }
  const { data } = await askAdmin<{ data: QuotaRow[] }>(admin, '/v1/quota')
  process.stdout.write(options.json === true ? jsonOf(data) : quotaTable(data, table))
}

function jsonOf(answer: object): string {
  return `${JSON.stringify(answer, undefined, 2)}\n`
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

/** A table no wider than `width`. Names are cut if needed, the longest first. The fullest limits come first. */
export function quotaTable(all: readonly QuotaRow[], { width, height = Infinity, paint }: TableOptions): string {
  const room = Math.max(1, height - 1)
  const sorted = all.toSorted((a, b) => fullnessOf(b) - fullnessOf(a))
  const rows = sorted.slice(0, sorted.length > room ? Math.max(1, room - 1) : room)
  const lines = rows.map((row) => [
    `${row.upstream}/${row.account}`,
    row.class,
    row.window,
    String(row.limit),
    String(row.effective),
    String(row.used),
    short(row.resetMs),
    row.exhaustionInMs === null ? '-' : row.exhaustionInMs === 0 ? 'now' : short(row.exhaustionInMs),
    row.burnRatio === null ? '-' : row.burnRatio.toFixed(1),
    String(row.waiting),
  ])
  const [head = '', ...texts] = columnsOf([HEAD, ...lines], { width, cuttable: 3 })
  const shown = [head, ...texts.map((text, i) => paint(text, fullnessOf(rows[i]!)))]
  const left = sorted.length - rows.length
  if (left > 0) shown.push(`… and ${left} that are less full: make the window higher, or see sluice quota`)
  return shown.map((text) => `${text}\n`).join('')
}

/** How full a limit is, by what can be used now: 1 if nothing is left. */
function fullnessOf({ used, effective }: QuotaRow): number {
  return effective === 0 ? 1 : used / effective
}
