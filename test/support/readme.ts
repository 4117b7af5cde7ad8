import { readdirSync } from 'node:fs'
import { readText, ROOT } from '../deploy/repository.ts'

/** What is told in files of its own is part of it. */
export const README_FILES = [
  'README.md',
  ...readdirSync(`${ROOT}/docs`)
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

export const README = README_FILES.map((file) => readText(file)).join('\n')

/** The rows of the table whose first column is headed so; each has the text of its cells by their headings. */
export function readmeTable(firstHeading: string): Record<string, string>[] {
  const lines = README.split('\n')
  const start = lines.findIndex((line, i) => cellsOf(line)[0] === firstHeading && lines[i + 1]?.startsWith('| -'))
  if (start < 0) throw new Error(`the README has no table whose first column is headed "${firstHeading}"`)
  const headings = cellsOf(lines[start]!)
  const end = lines.findIndex((line, i) => i > start && !line.startsWith('|'))
  // The line below the headings only draws the border.
  return lines
    .slice(start + 2, end)
    .map((line) => Object.fromEntries(cellsOf(line).map((cell, i) => [headings[i] ?? '', cell])))
}

/** The only block of code in this language. */
export function readmeBlock(language: string): string {
  const blocks = [...README.matchAll(/^```(\w+)\n(.*?)^```$/gms)].filter(([, name]) => name === language)
  if (blocks.length !== 1) throw new Error(`the README has ${blocks.length} blocks of ${language} instead of one`)
  return blocks[0]![2]!
}

function cellsOf(line: string): string[] {
  if (!line.startsWith('|')) return []
  const cells = line.split(/(?<!\\)\|/).slice(1, -1)
  return cells.map((cell) =>
    cell
      .trim()
      .replaceAll('\\|', '|')
      .replace(/^`([^`]*)`$/, '$1'),
  )
}
