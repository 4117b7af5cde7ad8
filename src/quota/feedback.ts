import type { IncomingHttpHeaders } from 'node:http'
import type { EpochMs } from '../clock.ts'
import type { Limit } from './limit.ts'

/** What an upstream says in a response of one of its limits, in requests and milliseconds. */
export interface Word {
  readonly remaining: number
  readonly limit: number | undefined
  readonly windowMs: number | undefined
  /** Until some of it, or all, comes back. */
  readonly resetMs: number | undefined
}

const NONE: readonly Word[] = []

/** The names under which the three numbers come, in the order in which they are looked for. */
const DIALECTS = ['x-ratelimit-@', 'ratelimit-@', 'x-rate-limit-@', 'x-ratelimit-@-requests'].map((name) => ({
  limit: name.replace('@', 'limit'),
  remaining: name.replace('@', 'remaining'),
  reset: name.replace('@', 'reset'),
}))

/**
 * Reads what a response's headers say of limits: `X-RateLimit-*` and its spellings, the `RateLimit-*` fields of the IETF
 * draft's older versions, and its `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10). What makes no
 * sense is left out. Without such headers it costs five look-ups.
 */
export function readFeedback(fields: IncomingHttpHeaders, now: EpochMs): readonly Word[] {
  const structured = fields['ratelimit']
  if (structured !== undefined) {
    const words = readStructured(textOf(structured), textOf(fields['ratelimit-policy']))
    if (words.length > 0) return words
  }
  for (let i = 0; i < DIALECTS.length; i++) {
    const dialect = DIALECTS[i]!
    if (fields[dialect.remaining] === undefined) continue
    const remaining = countOf(textOf(fields[dialect.remaining]))
    if (remaining === undefined) continue
    const reset = textOf(fields[dialect.reset])
    const { limit, windowMs } = readLimit(textOf(fields[dialect.limit]))
    return [{ remaining, limit, windowMs, resetMs: parseReset(reset, vendorsNow(fields, now)) }]
  }
  return NONE
}

/** Which of a call's limits the upstream speaks of, by its number among them; -1 if that can't be told. */
export function limitSpokenOf(
  { limit, windowMs, resetMs }: Word,
  limits: readonly Limit[],
  isOnlyWord: boolean,
): number {
  let only = -1
  let count = 0
  let covering = -1
  for (let i = 0; i < limits.length; i++) {
    const one = limits[i]!
    if (!isSpokenOf(one)) continue
    const isSameWindow = windowMs === undefined || Math.abs(windowMs - one.windowMs) < 1_000
    if (limit === one.published && isSameWindow) return i
    only = i
    count++
    const isCovering = resetMs !== undefined && one.windowMs >= resetMs
    if (isCovering && (covering === -1 || one.windowMs < limits[covering]!.windowMs)) covering = i
  }
  if (!isOnlyWord) return -1
  return count === 1 ? only : covering
}

/** Whether it is the vendor's and has a window. */
function isSpokenOf({ kind, isEnforced }: Limit): boolean {
  return isEnforced && (kind === 'rolling' || kind === 'calendar')
}

/** Above these a number is no time to wait but a moment: of seconds since 1970 from 2001 on, of milliseconds from 1973 on. */
const EPOCH_SECONDS = 1e9
const EPOCH_MS = 1e11

/**
 * Milliseconds from now until a reset that is written in any of the usual ways: seconds, seconds or milliseconds since 1970,
 * an ISO 8601 or HTTP date, or a duration such as `1m30s` or `6ms`. Undefined for anything else.
 */
export function parseReset(text: string | undefined, now: EpochMs): number | undefined {
  if (text === undefined) return undefined
  const number = countOf(text)
  if (number !== undefined) {
    if (number >= EPOCH_MS) return Math.max(0, number - now)
    return number >= EPOCH_SECONDS ? Math.max(0, number * 1_000 - now) : number * 1_000
  }
  return durationOf(text) ?? untilDate(text, now)
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

/** `Date.parse` takes many a text for a date, so what does not begin like one is none. */
function untilDate(text: string, now: EpochMs): number | undefined {
  if (!/^(?:\d{4}-\d\d-\d\d[T ]|[A-Z][a-z]{2,8},? )/.test(text)) return undefined
  const date = Date.parse(text)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}

/** By the vendor's clock, where it is told and differs by more than the second that it is told in. */
function vendorsNow({ date }: IncomingHttpHeaders, now: EpochMs): EpochMs {
  if (date === undefined) return now
  const told = Date.parse(date)
  return Number.isNaN(told) || Math.abs(told - now) < 2_000 ? now : (told as EpochMs)
}

/** `100`, or with policies behind it: `100, 100;w=60`. */
function readLimit(text: string | undefined): { limit: number | undefined; windowMs: number | undefined } {
  if (text === undefined) return { limit: undefined, windowMs: undefined }
  const [first = '', ...policies] = text.split(',')
  const limit = countOf(first.split(';')[0])
  const policy = [first, ...policies].find((one) => countOf(one.split(';')[0]) === limit && one.includes(';'))
  const seconds = policy === undefined ? undefined : countOf(/;\s*(?:w|window)\s*=\s*(\d+)/.exec(policy)?.[1])
  return { limit, windowMs: msOf(seconds) }
}

/** One entry of a structured list (RFC 9651): its name, and its parameters that are numbers. */
interface Item {
  readonly name: string
  readonly parameters: ReadonlyMap<string, number>
}

function readStructured(values: string | undefined, policies: string | undefined): Word[] {
  const items = itemsOf(values)
  // As in the draft's versions 7 and 8: limit=100, remaining=50, reset=30.
  const numbers = new Map(items.flatMap(({ name }) => pairOf(name)))
  const remaining = numbers.get('remaining')
  if (remaining !== undefined) {
    const [reset, limit] = [numbers.get('reset'), numbers.get('limit')]
    return [{ remaining, limit, windowMs: undefined, resetMs: msOf(reset) }]
  }
  const policyOf = new Map(itemsOf(policies).map(({ name, parameters }) => [name, parameters]))
  return items.flatMap(({ name, parameters }) => {
    const left = parameters.get('r')
    if (left === undefined) return []
    const policy = policyOf.get(name)
    const [t, w] = [parameters.get('t'), policy?.get('w')]
    return [{ remaining: left, limit: policy?.get('q'), windowMs: msOf(w), resetMs: msOf(t) }]
  })
}

/** More of it than any upstream has policies is not read. */
const LONGEST = 2_000

function itemsOf(text = ''): Item[] {
  return [...text.slice(0, LONGEST).matchAll(/(?:"[^"]*"|[^",])+/g)].map(([item]) => {
    const [name = '', ...rest] = [...item.matchAll(/(?:"[^"]*"|[^";])+/g)].map(([part]) => part.trim())
    return { name: name.replaceAll('"', ''), parameters: new Map(rest.flatMap((part) => pairOf(part))) }
  })
}

function pairOf(text: string): [string, number][] {
  const at = text.indexOf('=')
  const value = at === -1 ? undefined : countOf(text.slice(at + 1))
  return value === undefined ? [] : [[text.slice(0, at).trim(), value]]
}

/** A number that is not negative; whatever else is said is no count. */
function countOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\s*\d{1,15}(?:\.\d{1,9})?\s*$/.test(text)) return undefined
  return Number(text)
}

function msOf(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds * 1_000
}

/** Of a field that came several times the first. */
function textOf(value: string | string[] | undefined): string | undefined {
  return (typeof value === 'object' ? value[0] : value)?.trim()
}
