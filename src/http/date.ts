import type { EpochMs } from '../time/clock.ts'
import { type Field, type Fields, membersOf } from './fields.ts'

const MONTHS = 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ')
const TIME = '(?<hours>[01]\\d|2[0-3]):(?<minutes>[0-5]\\d):(?<seconds>[0-5]\\d|60)'
const FORMS = [
  `(?:mon|tue|wed|thu|fri|sat|sun), (?<day>\\d\\d) (?<month>[a-z]{3}) (?<year>\\d{4}) ${TIME} gmt`,
  `(?:mon|tues|wednes|thurs|fri|satur|sun)day, (?<day>\\d\\d)-(?<month>[a-z]{3})-(?<year>\\d\\d) ${TIME} gmt`,
  `(?:mon|tue|wed|thu|fri|sat|sun) (?<month>[a-z]{3}) (?<day>[ \\d]\\d) ${TIME} (?<year>\\d{4})`,
].map((form) => new RegExp(`^${form}$`))

/**
 * Parses an HTTP date in any of its three forms (RFC 9110 §5.6.7), in any case, to milliseconds since 1970; undefined
 * for all else. All forms are in GMT, also that of asctime, which does not say so.
 */
export function parseHttpDate(field: Field, now: EpochMs): number | undefined {
  if (typeof field !== 'string') return undefined
  const text = field.trim().toLowerCase()
  for (const form of FORMS) {
    const parts = form.exec(text)?.groups
    if (parts === undefined) continue
    const [day, hours, minutes, seconds] = ['day', 'hours', 'minutes', 'seconds'].map((name) => Number(parts[name]))
    const month = MONTHS.indexOf(parts['month']!)
    const year = fullYear(parts['year']!, now)
    const isDay = month >= 0 && new Date(Date.UTC(year, month, day)).getUTCDate() === day
    return isDay ? Date.UTC(year, month, day, hours, minutes, seconds) : undefined
  }
  return undefined
}

const OTHER_DATE = /^(?:\d{4}-\d\d-\d\d|(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? |\d{1,2} [a-z]{3} \d{4} )/i
const ZONE = /(?:[ \d](?:gmt|utc|ut|z)|[+-]\d\d:?\d\d)$/i
const ISO_WITHOUT_ZONE = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?$/i

/**
 * Parses an HTTP date, and what vendors write in its place: ISO 8601, and forms that end with their zone. A time
 * without a zone is in UTC, where `Date.parse` would take the local zone.
 */
export function parseDate(text: string, now: EpochMs): number | undefined {
  const date = parseHttpDate(text, now)
  if (date !== undefined || text.length > LONGEST || !OTHER_DATE.test(text)) return date
  const isWithoutZone = ISO_WITHOUT_ZONE.test(text)
  if (!isWithoutZone && !ZONE.test(text)) return undefined
  const other = Date.parse(isWithoutZone && text.length > DAY_LENGTH ? `${text.replace(' ', 'T')}Z` : text)
  return Number.isNaN(other) ? undefined : other
}

const LONGEST = 50
const DAY_LENGTH = '2026-11-21'.length

/**
 * When a message was sent, by its `Date`. With several lines, the first that can be read counts. Undefined if there is
 * none.
 */
export function dateOf({ date }: Fields, now: EpochMs): number | undefined {
  if (date === undefined) return undefined
  // Nearly all dates have this form, which the engine parses ten times as fast.
  const usual = typeof date === 'string' && date.length === 29 && date.endsWith(' GMT') ? Date.parse(date) : NaN
  if (!Number.isNaN(usual)) return usual
  for (const one of membersOf(date)) {
    const told = parseHttpDate(one, now)
    if (told !== undefined) return told
  }
  return undefined
}

/**
 * The sender's time of day, by which other dates and moments in its message are read. If its `Date` differs from our own time by no
 * more than the second that it is rounded to, our own time is taken.
 */
export function senderNow(fields: Fields, now: EpochMs): EpochMs {
  const told = dateOf(fields, now)
  return told === undefined || Math.abs(told - now) < 2_000 ? now : (told as EpochMs)
}

/** From these on a number is no time to wait but a moment: in seconds since 1970 from 2001 on, in milliseconds from 1973 on. */
const EPOCH_SECONDS = 1e9
const EPOCH_MS = 1e11

/**
 * Milliseconds from now until what a number says: seconds to wait, or a moment, in seconds or milliseconds since 1970. It is not
 * positive for a moment that is over.
 */
export function msUntil(number: number, now: EpochMs): number {
  if (number >= EPOCH_MS) return number - now
  return number >= EPOCH_SECONDS ? number * 1_000 - now : number * 1_000
}

/** A year of two digits that would be more than 50 years ahead is of the century before (RFC 9110 §5.6.7). */
function fullYear(digits: string, now: EpochMs): number {
  if (digits.length === 4) return Number(digits)
  const thisYear = new Date(now).getUTCFullYear()
  const year = thisYear - (thisYear % 100) + Number(digits)
  return year > thisYear + 50 ? year - 100 : year
}
