import type { LimitConfig } from './schema.ts'
import { formatDuration } from './units.ts'

/** The class to whose limits every call is charged; no route is of this class. */
export const EVERY_CALL = 'all'

/** Whose calls are counted together: all of an account, of a credential, or of the upstream. */
export type Base = 'account' | 'credential' | 'upstream'
/** What is counted apart within that; `{name}` is a segment of the path. */
export type Split = 'route' | 'client' | `{${string}}`

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
 * Units, or calls at once, that the headroom leaves of a limit. The upstream's leaves at least one; a limit's own can leave
 * nothing, which is an error of the configuration.
 */
export function allowedBy({ requests, concurrent, headroom }: LimitConfig, upstreamHeadroom: number): number {
  const share = 1 - (headroom ?? upstreamHeadroom)
  // Not a unit less for 0.9 × 1000 being 899.9…
  const left = Math.floor((concurrent ?? requests ?? 0) * share + 1e-6)
  return headroom === undefined ? Math.max(1, left) : left
}

/** So much faster than even, because a call is never sent at the very moment at which it may be. */
const PACE_AHEAD = 0.03
/** What a limit has in so long may go at once: timers do not count less than milliseconds. */
const SHORTEST_PACE_MS = 100

/** The limit that paces another: so many of its units in so long a window. Undefined where it is not paced. */
export function paceOf(limit: LimitConfig, allowed: number): { requests: number; windowMs: number } | undefined {
  const { pace, burst, window = 0, enforce = true } = limit
  if (pace === undefined || !enforce) return undefined
  const usual = Math.max(Math.ceil(allowed / 100), Math.ceil((SHORTEST_PACE_MS * allowed) / window))
  const requests = Math.min(burst ?? usual, allowed)
  return { requests, windowMs: ((requests * window) / allowed) * (1 - PACE_AHEAD) }
}

/** How people tell a limit from others of its class, such as `1m`; two of one label would be one limit. */
export function labelOf(limit: LimitConfig): string {
  const { base, splits } = scopeOf(limit)
  const scopes = base === 'account' ? splits : [base, ...splits]
  return [lengthOf(limit), ...qualifiersOf(limit), ...scopes.map((name) => `per ${name}`)].join(' ')
}

/** The first part of its identity in the ledger; for a plain limit of an account, all of it. */
export function idOf(className: string, limit: LimitConfig): string {
  return [`${className}.${limit.window ?? 'concurrent'}`, ...qualifiersOf(limit)].join(':').replaceAll(' ', '-')
}

function lengthOf({ window }: LimitConfig): string {
  return window === undefined ? 'at once' : formatDuration(window)
}

function qualifiersOf({ name, kind, cost, when }: LimitConfig): string[] {
  const qualifiers: string[] = name === undefined ? [] : [name]
  if (kind === 'calendar') qualifiers.push('calendar')
  if (typeof cost === 'object') qualifiers.push('bytes' in cost ? `by ${cost.bytes} bytes` : 'by method')
  else if (cost !== undefined && cost !== 1) qualifiers.push(cost === 'route' ? 'by route' : `by ${cost}`)
  if (when !== undefined) qualifiers.push(`over ${when.bodyOver} bytes`)
  return qualifiers
}
