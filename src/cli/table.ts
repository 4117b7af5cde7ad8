import { roughly } from '../schema/units.ts'
import { printable } from './printable.ts'

/** Names are never cut shorter than this, however narrow the terminal is. */
const SHORTEST_NAME = 6

/** The width of the terminal. A pipe, or a terminal that does not say how wide it is, has no bound: `grep` would not find what is cut. */
export function outputWidth(): number {
  return process.stdout.columns || Infinity
}

/** Prints rows below their titles, without the columns in which no row has anything. Prints nothing if there are no rows. */
export function printTable(
  titles: readonly string[],
  rows: readonly (readonly string[])[],
  cuttable: readonly string[] = [],
): void {
  if (rows.length === 0) return
  const filled = titles.map((_, i) => rows.some((row) => row[i] !== ''))
  const lines = [titles, ...rows].map((line) => line.filter((_, i) => filled[i]))
  const texts = columnsOf(lines, { width: outputWidth(), cuttable })
  process.stdout.write(texts.map((text) => `${text}\n`).join(''))
}

interface Fit {
  readonly width: number
  /** The titles of columns whose cells may be cut, the longest first, if a line is wider than `width`. */
  readonly cuttable?: readonly string[]
  /** The titles of columns that are left out, in this order, if cutting alone would not make the lines fit. */
  readonly spare?: readonly string[]
}

/**
 * Aligns rows of cells as columns, which are safe to print. The first row has the titles, which are never cut. Lines that would not fit
 * even so are left whole: names would be hard to tell, for nothing.
 */
export function columnsOf(lines: readonly (readonly string[])[], { width, cuttable = [], spare = [] }: Fit): string[] {
  const titles = lines[0]!
  const widths = titles.map(() => 0)
  // No list of all their lengths as arguments: there may be more lines than a call takes.
  for (const line of lines) for (const [i, cell] of line.entries()) widths[i] = Math.max(widths[i]!, cell.length)
  const least = widths.map((most, i) =>
    cuttable.includes(titles[i]!) ? Math.min(most, Math.max(SHORTEST_NAME, titles[i]!.length)) : most,
  )
  const shown = titles.map((_, i) => i)
  const lengthOf = (all: readonly number[]): number => shown.reduce((sum, i) => sum + all[i]! + 2, -2)
  for (const title of spare) {
    if (lengthOf(least) <= width) break
    const index = shown.findIndex((i) => titles[i] === title)
    if (index >= 0) shown.splice(index, 1)
  }
  for (let over = lengthOf(least) > width ? 0 : lengthOf(widths) - width; over > 0; over--) {
    const [widest] = shown.filter((i) => widths[i]! > least[i]!).toSorted((a, b) => widths[b]! - widths[a]!)
    widths[widest!]!--
  }
  return lines.map((line) =>
    shown
      .map((i) => printable(cut(line[i]!, widths[i]!).padEnd(widths[i]!)))
      .join('  ')
      .trimEnd(),
  )
}

/** The end of a name tells more than its middle: `eu-production-main` is cut to `eu-pro…-main`. */
function cut(text: string, width: number): string {
  if (text.length <= width) return text
  const end = Math.floor((width - 1) / 2)
  return `${text.slice(0, width - 1 - end)}…${text.slice(text.length - end)}`
}

/** `59s`, `4min`, `2h`, `5days`. */
export function short(ms: number): string {
  return roughly(ms).replace(' ', '')
}
