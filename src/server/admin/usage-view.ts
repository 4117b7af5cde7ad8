import type { ClassLabels } from '../../observe/series.ts'
import { TimeSlice } from '../../observe/time-slice.ts'
import type { AwayInstance } from '../../requests/question.ts'
import { addUp, dueOf, groupsOf } from '../../usage/due.ts'
import type { ClientUse } from '../../usage/recent-use.ts'
import type { AdminParts } from './management.ts'
import { type BudgetRow, fullnessOf, type QuotaRow } from './status.ts'

/** One limit, and who uses it, as `GET /v1/usage` lists it. */
export interface UsedLimit extends ClassLabels {
  readonly window: string
  /** The currency of all numbers that are no time, if the limit counts money. */
  readonly unit?: string | undefined
  /** Null where this instance does not know the limit, or the quota store can't be asked. */
  readonly limit: number | null
  readonly effective: number | null
  /** By the quota store: what others use may be in it. */
  readonly used: number | null
  readonly resetMs: number | null
  /** Given if the quota store can't be asked: what is used is not known then, and `used` is what this instance may not use. */
  readonly isLocal?: true | undefined
  /** Whoever used most comes first. */
  readonly clients: readonly ClientPart[]
}

/** What a client has used of a limit, in units. */
export interface ClientPart {
  readonly client: string
  /** In the current window, and in the last hour and day, to within a twelfth of an hour and an hour. */
  readonly used: number
  readonly hour: number
  readonly day: number
  /** The part of the limit, from 0 to 1, that it is due, and in units of a window; null where it did not use it within the hour. */
  readonly due: number | null
  readonly dueUnits: number | null
}

export interface UsageNow {
  /** The fullest limits come first. */
  readonly limits: readonly UsedLimit[]
  /** Undefined while the quota store can't be asked. */
  readonly budgets: readonly BudgetRow[] | undefined
  readonly away: readonly AwayInstance[]
  /** Since when all that answered count, in milliseconds since 1970; undefined where none did. */
  readonly since: number | undefined
}

/** What the quota store knows. Undefined while it can't be asked. */
interface Quotas {
  readonly limits: readonly QuotaRow[] | undefined
  readonly budgets: readonly BudgetRow[] | undefined
}

/** Who uses which limit, at all instances. Delays no calls. `quotas` is given where the quota store is asked already. */
export async function usageNow(
  { status, requests }: Pick<AdminParts, 'status' | 'requests'>,
  quotas: Promise<Quotas> = quotasOf(status),
): Promise<UsageNow> {
  const [{ limits: quota, budgets }, { found, away, since: started = -Infinity }] = await Promise.all([
    quotas,
    requests.ask({ kind: 'usage' }),
  ])
  const slice = new TimeSlice()
  const uses = await addUp(found as readonly ClientUse[], (row) => `${limitKey(row)}\n${row.client}`, slice)
  const since = uses.reduce((latest, row) => Math.max(latest, row.since), started)
  const limits = await limitsOf(quota ?? [], uses, slice)
  return { limits, budgets, away, since: since === -Infinity ? undefined : since }
}

async function quotasOf(status: AdminParts['status']): Promise<Quotas> {
  const [limits, budgets] = await Promise.all([status.quota(), status.budgets()])
  return { limits, budgets }
}

async function limitsOf(
  quota: readonly QuotaRow[],
  uses: readonly ClientUse[],
  slice: TimeSlice,
): Promise<UsedLimit[]> {
  const byLimit = await groupsOf(uses, limitKey, slice)
  const limits: UsedLimit[] = []
  for (const row of quota) {
    const { upstream, account, class: name, window, unit, limit, effective, used, resetMs, isLocal } = row
    const clients = clientsOf(byLimit.get(limitKey(row)) ?? [], effective, unit)
    byLimit.delete(limitKey(row))
    limits.push({ upstream, account, class: name, window, unit, limit, effective, used, resetMs, isLocal, clients })
    await slice.endIfOver()
  }
  for (const rows of byLimit.values()) {
    const { upstream, account, class: name, window } = rows[0]!
    const unknown = { limit: null, effective: null, used: null, resetMs: null }
    limits.push({ upstream, account, class: name, window, ...unknown, clients: clientsOf(rows, undefined) })
    await slice.endIfOver()
  }
  return limits.sort((a, b) => rankOf(b) - rankOf(a))
}

function clientsOf(rows: readonly ClientUse[], effective: number | undefined, unit?: string): ClientPart[] {
  const dues = dueOf(rows)
  const parts = rows.map(({ client, used, hour, day }) => {
    const due = dues.get(client) ?? null
    const dueUnits = due === null || effective === undefined ? null : rounded(due * effective, unit)
    const [inWindow = 0, inHour = 0, inDay = 0] = [used, hour, day].map((one) =>
      unit === undefined ? one : rounded(one, unit),
    )
    return {
      client,
      used: inWindow,
      hour: inHour,
      day: inDay,
      due: due === null ? null : Math.round(due * 1_000) / 1_000,
      dueUnits,
    }
  })
  return parts.sort((a, b) => b.used - a.used || b.hour - a.hour || b.day - a.day)
}

/** Units are whole; of money nobody is told more than there is to count. */
function rounded(number: number, unit: string | undefined): number {
  return unit === undefined ? Math.round(number) : Number(number.toFixed(9))
}

function limitKey(row: ClassLabels & { readonly window: string }): string {
  return [row.upstream, row.account, row.class, row.window].join('\n')
}

/** Limits of which nothing is known come last. */
function rankOf({ used, effective, isLocal }: UsedLimit): number {
  return used === null || effective === null ? -1 : fullnessOf({ used, effective, isLocal })
}
