import type { LimitConfig } from './schema.ts'
import type { CalendarUnit } from '../time/calendar.ts'
import { formatDuration } from './units.ts'

/** The class whose limits every call is charged to. No route is of this class. */
export const EVERY_CALL = 'all'

/** The scope of a limit: its calls are counted together for an account, a credential or the upstream. */
export type Base = 'account' | 'credential' | 'upstream'
/** What is counted separately within that scope; `{name}` is a segment of the path, `/name` a text in the JSON of the request's body. */
export type Split = 'route' | 'client' | `{${string}}` | `/${string}`

export interface Scope {
  readonly base: Base
  readonly splits: readonly Split[]
}

/** The classes that an upstream's calls can be of. */
export function classesOf({ limits }: { limits: Readonly<Record<string, unknown>> }): string[] {
  return Object.keys(limits).filter((name) => name !== EVERY_CALL)
}

const BASES: readonly string[] = ['account', 'credential', 'upstream'] satisfies Base[]

export function isBase(name: string): name is Base {
  return BASES.includes(name)
}

export function scopeOf({ scope = [] }: LimitConfig): Scope {
  const names = [scope].flat()
  return {
    base: names.find(isBase) ?? 'account',
    splits: names.filter((name): name is Split => !isBase(name)).toSorted(),
  }
}

/**
 * The units, or calls in flight, that remain of a limit after the headroom. The headroom of the upstream leaves at
 * least one. That of the limit itself may leave none, which is an error of the configuration.
 */
export function allowedBy({ requests, amount, concurrent, headroom }: LimitConfig, upstreamHeadroom: number): number {
  const share = 1 - (headroom ?? upstreamHeadroom)
  // The addend prevents that 0.9 × 1000 = 899.9… loses a unit.
  const left = Math.floor((concurrent ?? requests ?? amount ?? 0) * share + 1e-6)
  return headroom === undefined ? Math.max(1, left) : left
}

/**
 * A paced limit lets calls go this much faster than evenly, because no call is sent at the very moment at which it may
 * be.
 */
const PACE_AHEAD = 0.03
/** The units of this long may go at once, because timers do not count less than milliseconds. */
const SHORTEST_PACE_MS = 100

/** Its window is no shorter, whatever the burst is: the ledger in Redis numbers the hundredths of it since 1970 by six bytes. */
const SHORTEST_PACE_WINDOW_MS = 1

/** The additional limit that spreads the calls of a paced limit; undefined if it is not paced. */
export function paceOf(limit: LimitConfig, allowed: number): { requests: number; windowMs: number } | undefined {
  const { pace, burst, window, enforce = true } = limit
  if (pace === undefined || !enforce || typeof window !== 'number') return undefined
  const usual = Math.max(Math.ceil(allowed / 100), Math.ceil((SHORTEST_PACE_MS * allowed) / window))
  const least = Math.ceil((SHORTEST_PACE_WINDOW_MS * allowed) / window)
  const requests = Math.min(Math.max(burst ?? usual, least), allowed)
  return { requests, windowMs: ((requests * window) / allowed) * (1 - PACE_AHEAD) }
}

type Cost = LimitConfig['cost']

/** A cost that only the call itself tells: its answer or, without `response`, what its request says. */
export type CostByCall = Extract<Cost, { reserve: unknown }>

export function isByCall(cost: Cost): cost is CostByCall {
  return typeof cost === 'object' && 'reserve' in cost
}

/** The name of a limit within its class, such as `1m`. Two limits with one label would be the same limit. */
export function labelOf(limit: LimitConfig): string {
  const { base, splits } = scopeOf(limit)
  const scopes = base === 'account' ? splits : [base, ...splits]
  return [lengthOf(limit), ...qualifiersOf(limit), ...scopes.map((name) => `per ${name}`)].join(' ')
}

/** The first part of a limit's identity in the ledger. For a plain limit of an account it is all of it. */
export function idOf(className: string, limit: LimitConfig): string {
  const { window } = limit
  const length = window === undefined ? 'concurrent' : typeof window === 'number' ? window : windowLabel(limit, window)
  return [`${className}.${length}`, ...qualifiersOf(limit)].join(':').replaceAll(' ', '-')
}

function lengthOf(limit: LimitConfig): string {
  return limit.window === undefined ? 'at once' : windowLabel(limit, limit.window)
}

/** How people tell a window, such as `1m`, `month` or `day from 6:00 Europe/Berlin`. */
export function windowLabel(
  { timezone = 'UTC', anchor }: Pick<LimitConfig, 'timezone' | 'anchor'>,
  window: number | CalendarUnit,
): string {
  if (typeof window === 'number') return formatDuration(window)
  const isUsual = anchor === undefined || anchor === (window === 'month' ? 1 : window === 'week' ? 'monday' : 0)
  const from = isUsual ? '' : window === 'day' ? ` from ${anchor}:00` : ` from ${anchor}`
  return window + from + (timezone === 'UTC' ? '' : ` ${timezone}`)
}

function qualifiersOf({ name, unit, window, kind, cost, when }: LimitConfig): string[] {
  const qualifiers: string[] = name === undefined ? [] : [name]
  if (unit !== undefined) qualifiers.push(unit)
  if (kind === 'calendar' && typeof window === 'number') qualifiers.push('calendar')
  if (isByCall(cost)) qualifiers.push(cost.response === undefined ? 'by request' : 'by answer')
  else if (typeof cost === 'object') qualifiers.push('bytes' in cost ? `by ${cost.bytes} bytes` : 'by method')
  else if (cost !== undefined && cost !== 1) qualifiers.push(cost === 'route' ? 'by route' : `by ${cost}`)
  if (when !== undefined) qualifiers.push(`over ${when.bodyOver} bytes`)
  return qualifiers
}
