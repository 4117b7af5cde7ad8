import { roughly } from '../schema/units.ts'
import { printable } from './printable.ts'

/** Names are never cut shorter than this, however narrow the terminal is. */
const SHORTEST_NAME = 6

/** The width of the terminal. A pipe, or a terminal that does not say how wide it is, has no bound: `grep` would not find what is cut. */
export function outputWidth(): number {
  return process.stdout.columns || Infinity
}

/** Aligns rows of cells as columns, which are safe to print. If a line is wider than `width`, its first `cuttable` cells are cut, the longest first. */
export function columnsOf(
  lines: readonly (readonly string[])[],
  { width, cuttable }: { width: number; cuttable: number },
): string[] {
  const widths = lines[0]!.map(() => 0)
  // No list of all their lengths as arguments: there may be more lines than a call takes.
  for (const line of lines) for (const [i, cell] of line.entries()) widths[i] = Math.max(widths[i]!, cell.length)
  for (let over = widths.reduce((a, b) => a + b) + 2 * (widths.length - 1) - width; over > 0; over--) {
    let widest = 0
    for (let i = 1; i < cuttable; i++) if (widths[i]! > widths[widest]!) widest = i
    if (widths[widest]! <= SHORTEST_NAME) break
    widths[widest]!--
  }
  return lines.map((line) =>
    line
      .map((cell, i) => printable(cut(cell, widths[i]!).padEnd(widths[i]!)))
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
