import type { EpochMs } from '../time/clock.ts'
import { msUntil, parseDate, senderNow } from '../http/date.ts'
import { type Field, type Fields, joined, membersOf, onlyValue } from '../http/fields.ts'
import type { Limit } from './limit.ts'

/** What a response says of one of the upstream's limits, in its units and milliseconds. */
export interface LimitReport {
  /** What is counted if not requests, such as `tokens`. The report is then of the limit with that `name`, and of no other. */
  readonly unit?: string | undefined
  readonly remaining: number
  readonly limit: number | undefined
  readonly windowMs: number | undefined
  /** In how many milliseconds some of what is counted, or all, comes back. */
  readonly resetMs: number | undefined
}

const NONE: readonly LimitReport[] = []

interface Dialect {
  readonly limit: string
  readonly remaining: string
  readonly reset: string
  readonly policy: string
  readonly unit: string | undefined
  /** By how much more may remain than the header says. */
  readonly rounding: number
}

function dialect(name: string, unit?: string, rounding = 0): Dialect {
  return {
    limit: name.replace('@', 'limit'),
    remaining: name.replace('@', 'remaining'),
    reset: name.replace('@', 'reset'),
    policy: name.replace('@', 'policy'),
    unit,
    rounding,
  }
}

const TOKENS = dialect('x-ratelimit-@-tokens', 'tokens')

/** "The number of tokens remaining (rounded to the nearest thousand)": https://platform.claude.com/docs/en/api/rate-limits */
const ROUNDING = 500

/**
 * The names under which the three numbers come, in the order in which they are looked for. Those that come together stand together,
 * and a response that lacks the first of them is not searched for the others.
 */
const DIALECTS: readonly (readonly Dialect[])[] = [
  [dialect('x-ratelimit-@')],
  [dialect('ratelimit-@')],
  [dialect('x-rate-limit-@')],
  [dialect('x-ratelimit-@-requests'), TOKENS],
  [TOKENS],
  [
    dialect('anthropic-ratelimit-requests-@'),
    ...['tokens', 'input-tokens', 'output-tokens'].map((unit) => {
      return dialect(`anthropic-ratelimit-${unit}-@`, unit, ROUNDING)
    }),
  ],
]

/**
 * Reads what a response's headers say of limits: `X-RateLimit-*` and its spellings, the `RateLimit-*` fields of the IETF
 * draft's older versions, and its `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11), also with the names
 * that are proposed for them (`a` for what is available, `w` for the time to wait); each as one value, as a list, or on
 * several lines; those of requests and tokens that OpenAI and Anthropic send; and what Datadog, HubSpot and Shopify have instead. What
 * makes no sense is left out. Without such headers it costs nine look-ups.
 */
export function readFeedback(fields: Fields, now: EpochMs): readonly LimitReport[] {
  const structured = fields['ratelimit']
  if (structured !== undefined) {
    const reports = readStructured(joined(structured), joined(fields['ratelimit-policy']))
    if (reports.length > 0) return reports
  }
  for (let i = 0; i < DIALECTS.length; i++) {
    const together = DIALECTS[i]!
    if (fields[together[0]!.remaining] === undefined) continue
    const reports = together.flatMap((one) => readNumbers(fields, one, now))
    if (reports.length > 0) return reports
  }
  return readNamed(fields)
}

/** Reads the headers that only one vendor has. */
function readNamed(fields: Fields): readonly LimitReport[] {
  // Shopify: of so many that a bucket holds, so many are in it: https://shopify.dev/docs/api/admin-rest/usage/rate-limits
  const calls = fields['x-shopify-shop-api-call-limit']
  if (typeof calls === 'string') {
    const [used, limit] = calls.split('/').map(countOf)
    if (used === undefined || limit === undefined) return NONE
    return [{ remaining: Math.max(0, limit - used), limit, windowMs: undefined, resetMs: undefined }]
  }
  // HubSpot: https://developers.hubspot.com/changelog/2018-11-06-rate-limit-information-headers-will-be-included-in-http-responses
  if (fields['x-hubspot-ratelimit-remaining'] === undefined) return NONE
  const numberOf = (name: string): number | undefined => countOf(onlyValue(fields[`x-hubspot-ratelimit-${name}`]))
  const reports = [
    { remaining: numberOf('remaining'), limit: numberOf('max'), windowMs: numberOf('interval-milliseconds') },
    { remaining: numberOf('daily-remaining'), limit: numberOf('daily'), windowMs: UNIT_MS.d },
  ]
  return reports.flatMap(({ remaining, limit, windowMs }) =>
    remaining === undefined ? [] : { remaining, limit, windowMs, resetMs: undefined },
  )
}

/**
 * Lists of as many numbers as there are of what remains belong together, member by member, as Brave's `1, 15000` of a second and a
 * month do: https://api-dashboard.search.brave.com/documentation/guides/rate-limiting
 */
function readNumbers(fields: Fields, dialect: Dialect, now: EpochMs): readonly LimitReport[] {
  const only = readPlain(fields, dialect, now)
  if (only !== undefined) return [only]
  const { unit, rounding } = dialect
  const remaining = numbersIn(fields[dialect.remaining])
  if (remaining.length === 0) return NONE
  const told = numbersIn(fields[dialect.limit])
  const resets = resetsIn(fields, dialect, now)
  // `100, 100;w=60` is one limit, and behind it its policy.
  const policies = [...told, ...numbersIn(fields[dialect.policy])].filter(({ windowMs }) => windowMs !== undefined)
  const bare = told.filter(({ windowMs }) => windowMs === undefined)
  const limits = bare.length > 0 ? bare : told
  const reports = new LimitReports()
  for (const [i, { count, windowMs }] of remaining.entries()) {
    const limit = memberFor(limits, i, remaining.length)?.count
    const policy = policies.length === remaining.length && policies[i]!.count === limit ? policies[i] : undefined
    const report = {
      unit,
      remaining: count === 0 ? 0 : count + rounding,
      limit,
      windowMs: windowMs ?? (policy ?? policies.find((one) => one.count === limit))?.windowMs,
      resetMs: resets.length === remaining.length ? resets[i] : resets.length === 0 ? undefined : Math.max(...resets),
    }
    reports.add(`${report.limit} ${report.windowMs}`, report)
  }
  return reports.all
}

/** Reads one number in each field, as nearly every response has it, which is quicker than lists. Undefined for anything else. */
function readPlain(fields: Fields, dialect: Dialect, now: EpochMs): LimitReport | undefined {
  const [remaining, limit, reset] = [fields[dialect.remaining], fields[dialect.limit], fields[dialect.reset]]
  if (typeof remaining !== 'string' || typeof limit !== 'string' || typeof reset !== 'string') return undefined
  if (fields[dialect.policy] !== undefined || dialect.unit !== undefined) return undefined
  const [left, all] = [countOf(remaining), countOf(limit)]
  if (left === undefined || all === undefined || countOf(reset) === undefined) return undefined
  // Datadog's period: https://docs.datadoghq.com/api/latest/rate-limits/
  const windowMs = msOf(countOf(onlyValue(fields['x-ratelimit-period'])))
  return { remaining: left, limit: all, windowMs, resetMs: parseReset(reset, senderNow(fields, now)) }
}

function memberFor<T>(members: readonly T[], i: number, count: number): T | undefined {
  return members.length === count ? members[i] : members[0]
}

function resetsIn(fields: Fields, { reset }: Dialect, now: EpochMs): number[] {
  const field = fields[reset]
  if (field === undefined) return []
  const theirNow = senderNow(fields, now)
  return numbersOf(field).flatMap((text) => parseReset(text, theirNow) ?? [])
}

/** Reports of several limits. If several are of one limit, the most careful one counts. */
class LimitReports {
  readonly #byLimit = new Map<string, LimitReport>()

  add(limit: string, report: LimitReport): void {
    const known = this.#byLimit.get(limit)
    if (known === undefined || isMoreCareful(report, known)) this.#byLimit.set(limit, report)
  }

  get all(): readonly LimitReport[] {
    return [...this.#byLimit.values()]
  }
}

function isMoreCareful(report: LimitReport, known: LimitReport): boolean {
  if (report.remaining !== known.remaining) return report.remaining < known.remaining
  return (report.resetMs ?? 0) > (known.resetMs ?? 0)
}

/** The number of the call's limit that a report is about; -1 if that can't be told. */
export function reportedLimit(
  { unit, limit, windowMs, resetMs }: LimitReport,
  limits: readonly Limit[],
  isOnlyReport: boolean,
): number {
  let only = -1
  let count = 0
  let covering = -1
  for (let i = 0; i < limits.length; i++) {
    const one = limits[i]!
    if (!isReportable(one)) continue
    const isSameWindow = windowMs === undefined || Math.abs(windowMs - one.windowMs) < 1_000
    if (unit === undefined ? limit === one.published && isSameWindow : unit === one.name && isSameWindow) return i
    if (unit !== undefined || one.name !== undefined) continue
    only = i
    count++
    const isCovering = resetMs !== undefined && one.windowMs >= resetMs
    if (isCovering && (covering === -1 || one.windowMs < limits[covering]!.windowMs)) covering = i
  }
  if (!isOnlyReport) return -1
  return count === 1 ? only : covering
}

/** Whether the limit is the vendor's and has a window. What is left of money no vendor reports. */
function isReportable({ kind, isEnforced, unit }: Limit): boolean {
  return isEnforced && unit === undefined && (kind === 'rolling' || kind === 'calendar')
}

/**
 * Milliseconds from now until a reset that is written in any of the usual ways: seconds, seconds or milliseconds since 1970,
 * an ISO 8601 or HTTP date, or a duration such as `1m30s` or `6ms`. Undefined for anything else, and for more than a year.
 */
export function parseReset(text: string | undefined, now: EpochMs): number | undefined {
  if (text === undefined) return undefined
  const number = countOf(text)
  return likelyReset(
    number === undefined ? (durationOf(text) ?? untilDate(text, now)) : Math.max(0, msUntil(number, now)),
  )
}

/** No vendor has longer windows. If a later reset was believed, a pool would leave out a credential that is used up for decades. */
const MOST_RESET_MS = 366 * 86_400_000

function likelyReset(ms: number | undefined): number | undefined {
  return ms !== undefined && ms <= MOST_RESET_MS ? ms : undefined
}

const UNIT_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const DURATION = /^(?:\d+(?:\.\d+)?(?:ms|[smhd]))+$/

function durationOf(text: string): number | undefined {
  if (text.length > 40 || !DURATION.test(text)) return undefined
  let sum = 0
  for (const [, count, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|[smhd])/g)) {
    sum += Number(count) * UNIT_MS[unit as keyof typeof UNIT_MS]
  }
  return Number.isFinite(sum) ? sum : undefined
}

function untilDate(text: string, now: EpochMs): number | undefined {
  const date = parseDate(text, now)
  return date === undefined ? undefined : Math.max(0, date - now)
}

/** A number, perhaps with the window that it is of: `100`, `100;w=60`. */
interface NumberIn {
  readonly count: number
  readonly windowMs: number | undefined
}

function numbersIn(field: Field): NumberIn[] {
  return numbersOf(field).flatMap((member) => {
    const [number, ...parameters] = member.split(';')
    const count = countOf(number)
    if (count === undefined) return []
    const seconds = countOf(/(?:^|;)\s*(?:w|window)\s*=\s*"?(\d+)/.exec(parameters.join(';'))?.[1])
    return [{ count, windowMs: msOf(seconds) }]
  })
}

/** One entry of a structured list (RFC 9651): its name, its parameters that are numbers, and what it counts. */
interface Item {
  readonly name: string
  readonly parameters: ReadonlyMap<string, number>
  readonly unit: string
}

function readStructured(values: string, policies: string): readonly LimitReport[] {
  const items = itemsOf(values)
  const reports = readPairs(items)
  if (reports.all.length > 0) return reports.all
  const policyOf = new Map(itemsOf(policies).map((policy) => [policy.name, policy]))
  for (const { name, parameters } of items) {
    const left = parameters.get('r') ?? parameters.get('a')
    const policy = policyOf.get(name)
    if (left === undefined || (policy !== undefined && policy.unit !== 'requests')) continue
    const reset = parameters.get('t') ?? parameters.get('w')
    const [limit, window] = [policy?.parameters.get('q'), policy?.parameters.get('w')]
    reports.add(name, { remaining: left, limit, windowMs: msOf(window), resetMs: likelyReset(msOf(reset)) })
  }
  return reports.all
}

/** As in the draft's versions 7 and 8: limit=100, remaining=50, reset=30. A name that comes again begins the next limit. */
function readPairs(items: readonly Item[]): LimitReports {
  const reports = new LimitReports()
  let pairs = new Map<string, number>()
  const end = (): void => {
    const [remaining, limit] = [pairs.get('remaining'), pairs.get('limit')]
    if (remaining !== undefined)
      reports.add(`${limit}`, { remaining, limit, windowMs: undefined, resetMs: likelyReset(msOf(pairs.get('reset'))) })
    pairs = new Map()
  }
  for (const { name } of items) {
    for (const [key, value] of pairOf(name)) {
      if (pairs.has(key)) end()
      pairs.set(key, value)
    }
  }
  end()
  return reports
}

/** No more characters of a header are read. The policies of any upstream take less. */
const LONGEST = 2_000

function itemsOf(text: string): Item[] {
  return [...text.slice(0, LONGEST).matchAll(/(?:"[^"]*"|[^",])+/g)].map(([item]) => {
    const [name = '', ...rest] = [...item.matchAll(/(?:"[^"]*"|[^";])+/g)].map(([part]) => part.trim())
    const unit = rest.map((part) => /^qu\s*=\s*"?([^"]*)"?$/.exec(part)?.[1]).find((found) => found !== undefined)
    const parameters = new Map(rest.flatMap((part) => pairOf(part)))
    return { name: name.replaceAll('"', ''), parameters, unit: unit ?? 'requests' }
  })
}

function pairOf(text: string): [string, number][] {
  const at = text.indexOf('=')
  const value = at === -1 ? undefined : countOf(text.slice(at + 1))
  return value === undefined ? [] : [[text.slice(0, at).trim(), value]]
}

const COUNT = /^\s*\d{1,15}(?:\.\d{1,9})?\s*$/
/** One number with commas between its thousands. In a list there are blanks behind the commas, or other numbers of digits. */
const GROUPED = /^\s*\d{1,3}(?:,\d{3}){1,4}\s*$/

/** A number that is not negative; whatever else is said is no count. */
function countOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (COUNT.test(text)) return Number(text)
  return GROUPED.test(text) ? Number(text.replaceAll(',', '')) : undefined
}

/** The members of a list on any number of lines. A line that is one number with commas is one member. */
function numbersOf(field: Field): readonly string[] {
  if (typeof field === 'object') return field.flatMap(numbersOf)
  return field !== undefined && GROUPED.test(field) ? [field] : membersOf(field)
}

function msOf(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds * 1_000
}
