/** What one client has used of one account and class on one day (UTC). Every number sums to a metric: see docs/usage.md. */
export interface DayRow {
  /** Such as `2026-11-28`. */
  readonly day: string
  readonly client: string
  readonly upstream: string
  readonly account: string
  readonly class: string
  /** Units that attempts were charged. */
  readonly units: number
  /** Calls that ended, with whatever outcome. */
  readonly calls: number
  /** How many of `calls` the gateway refused. */
  readonly refusals: number
  /** How often calls waited for quota and got it, and for how many milliseconds in total. */
  readonly waits: number
  readonly waitMs: number
  /** Units that were not charged, because the cache answered. */
  readonly savedUnits: number
  /** What calls have cost, in billionths of `unit`. Counted as for budgets, even if the client has none. */
  readonly spent: number
  /** The currency of the upstream's prices, and what the client belongs to; undefined where there is none. */
  readonly unit?: string | undefined
  readonly team?: string | undefined
  readonly organisation?: string | undefined
}

/** The common name of accounts or clients that are counted together, because there are too many. */
export const OTHER = 'other'

/** Rows are kept for this many days, and deleted then. */
export const KEPT_DAYS = 90

/** How many rows of a day have their own names, for all instances together. Later ones are folded: see `foldsOf`. */
export const MOST_ROWS = 10_000

export const DAY_MS = 86_400_000

/** The day of a moment, UTC. */
export function dayOf(wallMs: number): string {
  return new Date(wallMs).toISOString().slice(0, 10)
}

/** When the next day (UTC) begins. Both times are in milliseconds since 1970. */
export function nextDay(wallMs: number): number {
  return (Math.floor(wallMs / DAY_MS) + 1) * DAY_MS
}

/** The days that are kept, from the one of `since` to that of `until`, the oldest first. */
export function daysBetween(since: number, until: number, now: number): string[] {
  const days: string[] = []
  const last = Math.min(until, now)
  for (let at = Math.max(since, now - KEPT_DAYS * DAY_MS); dayOf(at) <= dayOf(last); at += DAY_MS) days.push(dayOf(at))
  return days
}

/** Makes a row of what stores keep: its names, in the order of `namesOf`, and its numbers, in the order of `NUMBERS`. */
export function rowOf(day: string, names: readonly string[], numbers: readonly number[]): DayRow {
  const [client = '', upstream = '', account = '', className = ''] = names
  const [team, organisation, unit] = names.slice(4).map((name) => name || undefined)
  const [units = 0, calls = 0, refusals = 0, waits = 0, waitMs = 0, savedUnits = 0, spent = 0] = numbers
  const counts = { units, calls, refusals, waits, waitMs, savedUnits, spent }
  return { day, client, upstream, account, class: className, ...counts, team, organisation, unit }
}

/** What names a row within its day. A row without team, organisation and unit has four names, so that older releases can read it. */
export function namesOf({ client, upstream, account, class: className, team, organisation, unit }: DayRow): string[] {
  const more = [team, organisation, unit].map((name) => name ?? '')
  return [client, upstream, account, className, ...(more.every((name) => name === '') ? [] : more)]
}

/** The numbers of a row, in the order in which stores keep them. */
export const NUMBERS = ['units', 'calls', 'refusals', 'waits', 'waitMs', 'savedUnits', 'spent'] as const

/** The rows that a row is added to when there are too many: first without its account, then without its client, too. */
export function foldsOf(row: DayRow): [DayRow, DayRow] {
  return [
    { ...row, account: OTHER },
    { ...row, account: OTHER, client: OTHER },
  ]
}
