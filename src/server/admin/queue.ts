import type { FastifyInstance } from 'fastify'
import type { Vitals } from './admin.ts'

/** The calls of one client that wait for one quota at this gateway, as `GET /v1/queue` lists them. */
export interface QueueRow {
  readonly upstream: string
  readonly account: string
  readonly class: string
  readonly client: string
  readonly waiting: number
  /** From now on, when the first of them will have its turn, and when the last, as far as is known. */
  readonly nextInMs: number
  readonly lastInMs: number
}

export function queueRoute(api: FastifyInstance, { queue }: Pick<Vitals, 'queue'>): void {
  api.get('/queue', async () => ({ data: await queue() }))
}

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
