import { fullerOf } from '../observe/gauges.ts'
import type { BreakerState } from '../resilience/breaker.ts'
import type { BreakerRow, CredentialRow, QueueRow, QuotaRow } from '../server/admin/status.ts'

/** Makes one row of all that have the same key, in the order in which each key came first. */
export function mergeRows<Row>(
  rows: Iterable<Row>,
  keyOf: (row: Row) => readonly (string | null | undefined)[],
  merge: (known: Row, row: Row) => Row,
): Row[] {
  const merged = new Map<string, Row>()
  for (const row of rows) {
    const key = JSON.stringify(keyOf(row))
    const known = merged.get(key)
    merged.set(key, known === undefined ? row : merge(known, row))
  }
  return [...merged.values()]
}

/** Each worker has queues of its own. Together they are one. */
export function mergeQueues(rows: readonly QueueRow[]): QueueRow[] {
  return mergeRows(
    rows,
    (row) => [row.upstream, row.account, row.class, row.client],
    (known, row) => ({
      ...row,
      waiting: row.waiting + known.waiting,
      nextInMs: Math.min(row.nextInMs, known.nextInMs),
      lastInMs: Math.max(row.lastInMs, known.lastInMs),
    }),
  )
}

const WORSE = { closed: 0, 'half-open': 1, open: 2 } satisfies Record<BreakerState, number>

/** Each worker has breakers of its own. The worst state of each is shown. */
export function mergeBreakers(rows: readonly BreakerRow[]): BreakerRow[] {
  return mergeRows(
    rows,
    ({ upstream, group }) => [upstream, group],
    (known, row) => (WORSE[row.state] > WORSE[known.state] ? row : known),
  )
}

/** Each worker quarantines credentials by itself. Where rows are about the same credential, the one with the most in quarantine is shown. */
export function mergeCredentials(rows: readonly CredentialRow[]): CredentialRow[] {
  return mergeRows(
    rows,
    ({ upstream, account, credential }) => [upstream, account, credential],
    (known, row) => (known.quarantined < row.quarantined ? row : known),
  )
}

/** Workers count in one store, but each has queues of its own. */
export function mergeQuotas(rows: readonly QuotaRow[]): QuotaRow[] {
  return mergeRows(
    rows,
    (row) => [row.upstream, row.account, row.class, row.window],
    (known, row) => ({ ...fullerOf(known, row), waiting: row.waiting + known.waiting }),
  )
}
