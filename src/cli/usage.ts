import { type DayRow, KEPT_DAYS } from '../usage/day-row.ts'
import { type AdminOptions, adminPortOf, askAdmin, queryOf } from './admin-port.ts'
import { jsonOf, printable } from './printable.ts'
import { columnsOf, outputWidth } from './table.ts'

const FILTERS = ['since', 'until', 'client', 'account', 'class', 'team', 'organisation'] as const

interface Options extends AdminOptions, Readonly<Partial<Record<(typeof FILTERS)[number], string>>> {
  readonly format?: 'table' | 'csv' | 'json'
}

/** A row of `GET /v1/usage/days`. */
type Row = Omit<DayRow, 'waitMs' | 'unit' | 'team' | 'organisation'> & {
  readonly waitSeconds: number
  /** In units of its currency. */
  readonly spent: number
} & Readonly<Record<'unit' | 'team' | 'organisation', string | null>>

const FIELDS = [
  'day',
  'client',
  'upstream',
  'account',
  'class',
  'units',
  'calls',
  'refusals',
  'waits',
  'waitSeconds',
  'savedUnits',
  'spent',
  'unit',
  'team',
  'organisation',
] as const satisfies readonly (keyof Row)[]

const NAMES = ['CLIENT', 'UPSTREAM', 'ACCOUNT', 'CLASS', 'TEAM', 'ORGANISATION']
/** What a narrow terminal can do without. */
const SPARE = ['SAVED UNITS', 'WAIT SECONDS', 'WAITS', 'REFUSALS']
/** What a table has of any usage. Other columns are left out where all of their cells are empty or 0. */
const ALWAYS: ReadonlySet<string> = new Set(['day', 'client', 'upstream', 'account', 'class', 'units', 'calls'])

/** The gateway sends nothing while it reads days of which no row was asked for. */
const SILENT_MS = 60_000

/** Prints what clients have used by the day, for charge-back: as a table, CSV or JSON. */
export async function usage({ format = 'table', ...options }: Options): Promise<void> {
  const admin = await adminPortOf(options)
  const query = queryOf({ since: `${KEPT_DAYS}d`, ...options }, FILTERS)
  const { data } = await askAdmin<{ data: Row[] }>(admin, `/v1/usage/days?${query.toString()}`, {
    silentMs: SILENT_MS,
  })
  const rows = data.sort((a, b) => {
    for (const field of FIELDS) if (a[field] !== b[field]) return (a[field] ?? '') < (b[field] ?? '') ? -1 : 1
    return 0
  })
  process.stdout.write(textOf(rows, format))
}

function textOf(rows: readonly Row[], format: NonNullable<Options['format']>): string {
  if (format === 'json') return jsonOf(rows)
  const head = FIELDS.map(snake)
  const lines = rows.map((row) =>
    FIELDS.map((field) => {
      const value = row[field] ?? ''
      if (typeof value === 'number') return decimal(value)
      return format === 'csv' ? asText(value) : value
    }),
  )
  if (format === 'csv') return [head, ...lines].map((line) => `${line.map(quoted).join(',')}\n`).join('')
  const filled = FIELDS.map((field, i) => ALWAYS.has(field) || lines.some((line) => !/^0?$/.test(line[i]!)))
  const titles = head.map((title) => title.replace('_', ' ').toUpperCase())
  const shown = [titles, ...lines].map((line) => line.filter((_, i) => filled[i]))
  const texts = columnsOf(shown, { width: outputWidth(), cuttable: NAMES, spare: SPARE })
  return texts.map((text) => `${text}\n`).join('')
}

function snake(field: string): string {
  return field.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** Money without an exponent, which spreadsheets would take for a text. */
function decimal(amount: number): string {
  return String(amount).includes('e') ? amount.toFixed(9) : String(amount)
}

/** A spreadsheet would compute a cell that begins like a formula. Behind an apostrophe it is a text. */
function asText(value: string): string {
  return printable(/^[=+\-@\t\r]/.test(value) ? `'${value}` : value)
}

/** RFC 4180, but for its line ends, which are those that the tools of a command line want. */
function quoted(cell: string): string {
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell
}
