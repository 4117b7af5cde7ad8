import type { QueueRow } from './status.ts'

/** Each worker has queues of its own; together they are one. */
export function mergeQueues(rows: readonly QueueRow[]): QueueRow[] {
  const merged = new Map<string, QueueRow>()
  for (const row of rows) {
    const key = [row.upstream, row.account, row.class, row.client].join('\n')
    const other = merged.get(key)
    merged.set(key, other === undefined ? row : add(row, other))
  }
  return [...merged.values()]
}

function add(row: QueueRow, other: QueueRow): QueueRow {
  return {
    ...row,
    waiting: row.waiting + other.waiting,
    nextInMs: Math.min(row.nextInMs, other.nextInMs),
    lastInMs: Math.max(row.lastInMs, other.lastInMs),
  }
}
