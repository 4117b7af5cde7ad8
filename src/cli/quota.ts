import { setTimeout as pause } from 'node:timers/promises'
import type { QuotaRow } from '../server/admin/status.ts'
import { type AdminOptions, adminPortOf, askAdmin } from './admin-port.ts'

interface Options extends AdminOptions {
  readonly once?: boolean
}

/** Shows the quotas of a running gateway, again every second where somebody is looking. */
export async function quota(options: Options): Promise<void> {
  const admin = await adminPortOf(options)
  const isLive = process.stdout.isTTY && options.once !== true
  do {
    const { data } = await askAdmin<{ data: QuotaRow[] }>(admin, '/v1/quota')
    const table = format(data, process.stdout.columns ?? USUAL_WIDTH)
    process.stdout.write(isLive ? `\u001B[2J\u001B[H${table}` : table)
    if (isLive) await pause(1_000)
  } while (isLive)
}

/** Of a terminal, and of what does not say how wide it is. */
const USUAL_WIDTH = 80
/** Names are not cut shorter than that, however narrow the terminal is. */
const SHORTEST_NAME = 8
const NAMES = ['ACCOUNT', 'WINDOW', 'CLASS']

/** A table no wider than that: names that are too long are cut, the longest first. */
function format(rows: readonly QuotaRow[], width: number): string {
  const head = ['ACCOUNT', 'CLASS', 'WINDOW', 'LIMIT', 'NOW', 'USED', 'LEFT', 'RESETS', 'WAITING']
  const lines = rows.map((row) => [
    `${row.upstream}/${row.account}`,
    row.class,
    row.window,
    String(row.limit),
    String(row.effective),
    String(row.used),
    String(row.remaining),
    `${Math.ceil(row.resetMs / 1_000)}s`,
    String(row.waiting),
  ])
  const widths = head.map((title, i) => Math.max(title.length, ...lines.map((line) => line[i]!.length)))
  const cuttable = NAMES.map((name) => head.indexOf(name))
  for (let over = sum(widths) + 2 * (widths.length - 1) - width; over > 0; over--) {
    const widest = cuttable.reduce((a, b) => (widths[b]! > widths[a]! ? b : a))
    if (widths[widest]! <= SHORTEST_NAME) break
    widths[widest]!--
  }
  return [head, ...lines]
    .map(
      (line) =>
        `${line
          .map((cell, i) => cut(cell, widths[i]!).padEnd(widths[i]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}

/** The end of a name tells more than its middle: `eu-production-main` is cut to `eu-pro…-main`. */
function cut(text: string, width: number): string {
  if (text.length <= width) return text
  const end = Math.floor((width - 1) / 2)
  return `${text.slice(0, width - 1 - end)}…${text.slice(text.length - end)}`
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0)
}
