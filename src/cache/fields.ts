import type { IncomingHttpHeaders } from 'node:http'
import type { EpochMs } from '../clock.ts'

/** Directives of Cache-Control by their lower-case names; `true` for those without a value. */
export type Directives = ReadonlyMap<string, string | true>

const NONE: Directives = new Map()
/** One member of a list: a token, perhaps with a value, which may be quoted; whatever else is in the member spoils it. */
const MEMBER =
  /[ \t]*(?:([!#$%&'*+.^_`|~\w-]+)(?:=("(?:\\.|[^"\\])*"|[^\s,"]*))?(?=[ \t]*(?:,|$)))?(?:"(?:\\.|[^"\\])*"|[^,])*(?:,|$)/y

/** Reads Cache-Control. Of a directive that comes twice the first counts (RFC 9111 §4.2.1); what is malformed does not. */
export function parseDirectives(field: string | readonly string[] | undefined): Directives {
  const text = joined(field)
  if (text === '') return NONE
  const directives = new Map<string, string | true>()
  MEMBER.lastIndex = 0
  while (MEMBER.lastIndex < text.length) {
    const [, name, value] = MEMBER.exec(text) ?? []
    if (name !== undefined && !directives.has(name.toLowerCase()))
      directives.set(name.toLowerCase(), value === undefined ? true : unquoted(value))
    if (MEMBER.lastIndex === 0) break
  }
  return directives
}

/** A directive's number of seconds; undefined where it is missing, 0 where it is no number (RFC 9111 §4.2.1). */
export function secondsOf(directives: Directives, name: string): number | undefined {
  const value = directives.get(name)
  if (value === undefined) return undefined
  return typeof value === 'string' && /^\d+$/.test(value) ? Math.min(Number(value), FOREVER) : 0
}

/** RFC 9111 §1.2.2: what is larger than this is as good as for ever. */
const FOREVER = 2 ** 31

/** The seconds of an Age: of several the first counts, and what is no number is ignored (RFC 9111 §5.1). */
export function ageOf(fields: IncomingHttpHeaders): number {
  const [first = ''] = joined(fields.age).split(',')
  return /^\d+$/.test(first.trim()) ? Math.min(Number(first), FOREVER) : 0
}

const MONTHS = 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ')
const TIME = '(?<hours>\\d\\d):(?<minutes>\\d\\d):(?<seconds>\\d\\d)'
const FORMS = [
  `(?:mon|tue|wed|thu|fri|sat|sun), (?<day>\\d\\d) (?<month>[a-z]{3}) (?<year>\\d{4}) ${TIME} gmt`,
  `(?:mon|tues|wednes|thurs|fri|satur|sun)day, (?<day>\\d\\d)-(?<month>[a-z]{3})-(?<year>\\d\\d) ${TIME} gmt`,
  `(?:mon|tue|wed|thu|fri|sat|sun) (?<month>[a-z]{3}) (?<day>[ \\d]\\d) ${TIME} (?<year>\\d{4})`,
].map((form) => new RegExp(`^${form}$`))

/** Milliseconds of an HTTP date in one of its three forms (RFC 9110 §5.6.7), whatever their case; undefined for all else. */
export function parseHttpDate(field: string | readonly string[] | undefined, now: EpochMs): number | undefined {
  if (typeof field !== 'string') return undefined
  const text = field.trim().toLowerCase()
  for (const form of FORMS) {
    const parts = form.exec(text)?.groups
    if (parts === undefined) continue
    const month = MONTHS.indexOf(parts['month']!)
    if (month < 0) return undefined
    const [day, hours, minutes, seconds] = ['day', 'hours', 'minutes', 'seconds'].map((name) => Number(parts[name]))
    return Date.UTC(fullYear(parts['year']!, now), month, day, hours, minutes, seconds)
  }
  return undefined
}

/** Two digits that seem to be more than 50 years ahead are of the century before (RFC 9110 §5.6.7). */
function fullYear(digits: string, now: EpochMs): number {
  if (digits.length === 4) return Number(digits)
  const thisYear = new Date(now).getUTCFullYear()
  const year = thisYear - (thisYear % 100) + Number(digits)
  return year > thisYear + 50 ? year - 100 : year
}

/** A field that came several times is one list (RFC 9110 §5.3). */
export function joined(field: string | readonly string[] | undefined): string {
  return typeof field === 'string' ? field : (field ?? []).join(', ')
}

function unquoted(value: string): string {
  return value.startsWith('"') ? value.slice(1, -1).replace(/\\(.)/g, '$1') : value
}
