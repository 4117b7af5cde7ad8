import { setTimeout as pause } from 'node:timers/promises'
import { styleText } from 'node:util'
import type { QuotaRow } from '../server/admin/status.ts'
import { type AdminOptions, adminPortOf, askAdmin } from './admin-port.ts'

interface Options extends AdminOptions {
  readonly once?: boolean
}

/** Shows the quotas of a running gateway, the fullest first; again every second where somebody is looking. */
export async function quota(options: Options): Promise<void> {
  const admin = await adminPortOf(options)
  const isLive = process.stdout.isTTY && options.once !== true
  do {
    const { data } = await askAdmin<{ data: QuotaRow[] }>(admin, '/v1/quota')
    const width = process.stdout.columns ?? USUAL_WIDTH
    const height = isLive ? (process.stdout.rows ?? USUAL_HEIGHT) : Infinity
    const table = quotaTable(data, { width, height, paint: colour })
    process.stdout.write(isLive ? `\u001B[2J\u001B[H${table}` : table)
    if (isLive) await pause(1_000)
  } while (isLive)
}

/** What is used up is red, and what nearly is, yellow; unless NO_COLOR is set, or nobody sees it. */
function colour(text: string, fullness: number): string {
  if (fullness < NEARLY_OUT) return text
  return styleText(fullness >= 1 ? 'red' : 'yellow', text, { stream: process.stdout })
}

const NEARLY_OUT = 0.9

/** Of a terminal, and of what does not say how wide it is. */
const USUAL_WIDTH = 80
const USUAL_HEIGHT = 24
/** Names are not cut shorter than that, however narrow the terminal is. */
const SHORTEST_NAME = 8
const NAMES = ['ACCOUNT', 'WINDOW', 'CLASS']

export interface TableOptions {
  readonly width: number
  /** Lines that there is room for; the least full rows are left out, and counted. */
  readonly height: number
  /** Marks a line by how full its limit is: 1 where nothing is left. */
  paint(line: string, fullness: number): string
}

/** A table no wider than that: names that are too long are cut, the longest first. The fullest limits come first. */
export function quotaTable(all: readonly QuotaRow[], { width, height, paint }: TableOptions): string {
  // The last line of a screen stays empty, and what is left out needs one.
  const room = Math.max(1, height - 2)
  const sorted = all.toSorted((a, b) => fullnessOf(b) - fullnessOf(a))
  const rows = sorted.slice(0, sorted.length > room ? room - 1 : room)
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
  const texts = [head, ...lines].map((line) =>
    line
      .map((cell, i) => cut(cell, widths[i]!).padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  )
  const shown = texts.map((text, i) => (i === 0 ? text : paint(text, fullnessOf(rows[i - 1]!))))
  const left = sorted.length - rows.length
  if (left > 0) shown.push(`… and ${left} that are less full: make the window higher, or pass --once`)
  return shown.map((text) => `${text}\n`).join('')
}

function fullnessOf({ used, effective }: QuotaRow): number {
  return effective === 0 ? 1 : used / effective
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
