import type { Kind } from '../system/faults/table.ts'
import type { Met } from './weather.ts'

/** How one call ended. Times are milliseconds since the start. */
export interface CallRecord extends Met {
  /** `left` is a client that went away in the middle. */
  readonly kind: Kind | 'left'
  /** `answered`, the kind of its refusal, or what else became of it. */
  readonly end: string
  readonly began: number
  readonly ended: number
}

/** The part of calls that ended so, of those that could: 1 of none at all. */
export function partOf(records: readonly CallRecord[], isMeant: (record: CallRecord) => boolean): number {
  const all = records.filter(({ kind }) => kind !== 'left')
  return all.length === 0 ? 1 : all.filter(isMeant).length / all.length
}

export function isAnswered({ end }: CallRecord): boolean {
  return end === 'answered'
}

/** How many ended in which way, as lines of a table: by kind of call, then by what they met. */
export function tableOf(records: readonly CallRecord[]): string[] {
  const ends = [...new Set(['answered', ...records.map(({ end }) => end)])].filter((end) => end !== 'left')
  const rowOf = (name: string, some: readonly CallRecord[]): string[] => [
    name,
    ...ends.map((end) => String(some.filter((record) => record.end === end).length)),
    `${(100 * partOf(some, isAnswered)).toFixed(1)} %`,
  ]
  const calls = records.filter(({ kind }) => kind !== 'left')
  const groups = [Map.groupBy(calls, ({ kind }): string => kind), Map.groupBy(calls, ({ sky }): string => sky)]
  const rows = groups.flatMap((group) => [...group].map(([name, some]) => rowOf(name, some)))
  const lines = [['', ...ends, 'answered'], ...rows, rowOf('all', calls)]
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((cells) => cells[i]!.length)))
  return lines.map((cells) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  '),
  )
}
