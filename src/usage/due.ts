import type { ClientDue } from '../observe/gauges.ts'
import { TimeSlice } from '../observe/time-slice.ts'
import { costsOf } from '../queue/fair-share.ts'
import { OTHER } from './day-row.ts'
import type { ClientUse } from './recent-use.ts'

/** What a client's part of a limit is computed from. */
export type Claim = Pick<ClientUse, 'client' | 'weight' | 'share' | 'used' | 'hour'>

/**
 * The part of a quota, from 0 to 1, that each client is due among the clients that used it in its window or in the last hour. It goes
 * by weight, but no client gets less than its share: waiting calls are served by the same rule. A client may use more than it is due,
 * because others may leave it the rest. The name `other` is left out, because it stands for several clients.
 */
export function dueOf(claims: readonly Claim[]): Map<string, number> {
  const active = claims.filter(({ client, used, hour }) => client !== OTHER && (used > 0 || hour > 0))
  const costs = costsOf(active.map(({ weight, share }) => ({ weight, share, calls: 0, virtualService: 0 })))
  let parts = 0
  for (const cost of costs) parts += 1 / cost
  return new Map(active.map(({ client }, i) => [client, 1 / costs[i]! / parts]))
}

/** Adds up the rows that have the same key, such as those of one client and limit from several processes. Delays no calls. */
export async function addUp(
  rows: Iterable<ClientUse>,
  keyOf: (row: ClientUse) => string,
  slice = new TimeSlice(),
): Promise<ClientUse[]> {
  const sums = new Map<string, ClientUse>()
  for (const row of rows) {
    const key = keyOf(row)
    const other = sums.get(key)
    if (other === undefined) sums.set(key, row)
    else {
      const { used, hour, day, since } = other
      // The sum is complete only since the process that started last.
      const sum = { used: row.used + used, hour: row.hour + hour, day: row.day + day }
      sums.set(key, { ...row, ...sum, since: Math.max(since, row.since) })
    }
    await slice.endIfOver()
  }
  return [...sums.values()]
}

/** The part that each client is due of the quotas of each account and class, for metrics. Delays no calls. */
export async function duesByClass(rows: Iterable<ClientUse>): Promise<ClientDue[]> {
  const slice = new TimeSlice()
  const dues: ClientDue[] = []
  for (const group of (await groupsOf(rows, classKey, slice)).values()) {
    const { upstream, account, class: name } = group[0]!
    // The limits of a class count the same calls.
    const claims = await addUp(group, ({ client }) => client, slice)
    for (const [client, due] of dueOf(claims)) dues.push({ upstream, account, class: name, client, due })
  }
  return dues
}

export async function groupsOf(
  rows: Iterable<ClientUse>,
  keyOf: (row: ClientUse) => string,
  slice: TimeSlice,
): Promise<Map<string, ClientUse[]>> {
  const groups = new Map<string, ClientUse[]>()
  for (const row of rows) {
    groups.getOrInsertComputed(keyOf(row), () => []).push(row)
    await slice.endIfOver()
  }
  return groups
}

function classKey({ upstream, account, class: name }: ClientUse): string {
  return `${upstream}\n${account}\n${name}`
}
