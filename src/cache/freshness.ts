import CacheSemantics from 'http-cache-semantics'
import type { EpochMs } from '../time/clock.ts'
import { dateOf, parseHttpDate } from '../http/date.ts'
import { type Fields, membersOf } from '../http/fields.ts'
import { ageOf, type Directives, parseDirectives, secondsOf } from './fields.ts'
import type { CachePolicy } from '../schema/cache-policy.ts'

/** How long a stored answer may be used. Times are milliseconds of `Clock.now`. */
export interface Freshness {
  /** When the origin made it, computed from Age and Date (RFC 9111 §4.2.3). */
  readonly bornAt: number
  readonly lifetimeMs: number
  /** How long after its lifetime it may be used: while it is revalidated, and in place of an error (RFC 5861). */
  readonly whileRevalidateMs: number
  readonly ifErrorMs: number
  /** Whether the upstream forbids stale use even if a client allows it with max-stale (RFC 9111 §4.2.4). */
  readonly isStrict: boolean
}

/** Why an answer is not stored. */
export type NotKept =
  /** Its Cache-Control or `Vary: *` forbids it. */
  | 'no-store'
  | 'private'
  | 'vary'
  /** The request had Authorization, and the answer does not allow storing in spite of it (RFC 9111 §3.5). */
  | 'authorization'
  /** It sets a cookie for one client, but all clients of the account would get it. */
  | 'set-cookie'
  /** Answers with its status are never stored, or only with an explicit lifetime, which it lacks. */
  | 'status'
  /** It has neither a lifetime nor a validator. */
  | 'no-lifetime'
  | 'too-large'
  /** The end of its body cannot be told from a broken connection. */
  | 'no-length'
  /** The store does not answer. */
  | 'unavailable'

/** The facts about a request and its response that decide whether the answer is stored. */
export interface Exchanged {
  /** Directives of the client's Cache-Control. */
  readonly wanted: Directives
  /** Whether the request had an Authorization that identifies who asks (RFC 9111 §3.5). */
  readonly isAuthorized: boolean
  readonly status: number
  readonly fields: Fields
  readonly sentAt: number
  readonly now: number
  /** `now` by the wall clock, to compare with the dates of the answer. */
  readonly wall: EpochMs
}

// RFC 6585 forbids to store 428, 429, 431 and 511; a 206 is only a part of an answer.
const NEVER_STORED = new Set([206, 304, 401, 407, 428, 429, 431, 511])
/** Final statuses of RFC 9110 whose meaning for a cache is known, as `must-understand` asks (RFC 9111 §5.2.2.3). */
const UNDERSTOOD = new Set([200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 500, 501])

/**
 * Decides how long an answer may be stored and used, or why it must not be stored (RFC 9111 §3, §4.2). This function parses the
 * fields strictly. `http-cache-semantics` decides what follows from them.
 */
export function freshnessOf(exchanged: Exchanged, policy: CachePolicy): Freshness | NotKept {
  const { fields, status, isAuthorized, now, wall, sentAt } = exchanged
  const directives = parseDirectives(fields['cache-control'])
  if (NEVER_STORED.has(status)) return 'status'
  if (exchanged.wanted.has('no-store')) return 'no-store'
  if (membersOf(fields.vary).includes('*')) return 'vary'
  if (policy.scope === 'account' && fields['set-cookie'] !== undefined) return 'set-cookie'
  const isShared = !policy.isPrivate
  const semantics = new CacheSemantics(
    { method: 'GET', headers: isAuthorized ? { authorization: '-' } : {} },
    { status: hasLifetime(directives, fields, isShared) ? 200 : status, headers: plainFields(exchanged, directives) },
    { shared: isShared, cacheHeuristic: 0 },
  )
  if (!semantics.storable()) return reasonOf(exchanged, directives, isShared)
  const apparentAgeMs = Math.max(0, wall - (dateOf(fields, wall) ?? wall))
  const ageMs = Math.max(apparentAgeMs, ageOf(fields) * 1_000 + (now - sentAt))
  const isAlwaysChecked = directives.has('no-cache')
  return {
    bornAt: now - ageMs,
    lifetimeMs: isAlwaysChecked
      ? 0
      : isGivenLifetime(exchanged, directives, policy)
        ? policy.freshForMs
        : Math.max(0, semantics.maxAge() * 1_000),
    ...staleness(directives, isShared, isAlwaysChecked, policy),
  }
}

/** The reason why an answer must not be stored, in the order of RFC 9111 §3. */
function reasonOf(exchanged: Exchanged, directives: Directives, isShared: boolean): NotKept {
  if (isForbidden(exchanged.status, directives)) return 'no-store'
  if (isShared && directives.has('private')) return 'private'
  const isAllowed = ['public', 's-maxage', 'must-revalidate'].some((name) => directives.has(name))
  return isShared && exchanged.isAuthorized && !isAllowed ? 'authorization' : 'status'
}

/** With must-understand, a cache that knows the status ignores the no-store beside it (RFC 9111 §5.2.2.3). */
function isForbidden(status: number, directives: Directives): boolean {
  return directives.has('must-understand') ? !UNDERSTOOD.has(status) : directives.has('no-store')
}

/** Whether the answer has an explicit lifetime. Then any final status may be stored (RFC 9111 §3). */
function hasLifetime(directives: Directives, fields: Fields, isShared: boolean): boolean {
  return directives.has('max-age') || (isShared && directives.has('s-maxage')) || fields['expires'] !== undefined
}

/** Whether the configured lifetime counts: the answer is no error and has no explicit lifetime (RFC 9111 §4.2.2). */
function isGivenLifetime({ status, fields }: Exchanged, directives: Directives, policy: CachePolicy): boolean {
  return policy.freshForMs > 0 && status < 400 && !hasLifetime(directives, fields, !policy.isPrivate)
}

/** The fields that the library looks at, written in the form that it parses correctly. */
function plainFields({ fields, status, wall }: Exchanged, directives: Directives): Record<string, string> {
  const plain: string[] = []
  for (const name of ['private', 'public', 'must-revalidate']) if (directives.has(name)) plain.push(name)
  for (const name of ['max-age', 's-maxage']) {
    const seconds = secondsOf(directives, name)
    if (seconds !== undefined) plain.push(`${name}=${seconds}`)
  }
  if (isForbidden(status, directives)) plain.push('no-store')
  const headers: Record<string, string> = {
    'cache-control': plain.join(', '),
    date: new Date(dateOf(fields, wall) ?? wall).toUTCString(),
  }
  // An invalid date counts as one in the past (RFC 9111 §5.3).
  if (fields['expires'] !== undefined)
    headers['expires'] = new Date(parseHttpDate(fields['expires'], wall) ?? 0).toUTCString()
  return headers
}

/** How long a stale answer may be used (RFC 5861), unless the upstream forbids it (RFC 9111 §4.2.4). */
function staleness(
  directives: Directives,
  isShared: boolean,
  isAlwaysChecked: boolean,
  policy: CachePolicy,
): Pick<Freshness, 'whileRevalidateMs' | 'ifErrorMs' | 'isStrict'> {
  const isStrict =
    isAlwaysChecked || directives.has('must-revalidate') || (isShared && directives.has('proxy-revalidate'))
  if (isStrict) return { whileRevalidateMs: 0, ifErrorMs: 0, isStrict: true }
  // s-maxage also forbids stale use (RFC 9111 §5.2.2.10), unless the same answer allows it explicitly.
  const isImplied = isShared && directives.has('s-maxage')
  const allowedMs = (name: string, configuredMs: number): number => {
    const seconds = secondsOf(directives, name)
    return seconds === undefined ? (isImplied ? 0 : configuredMs) : seconds * 1_000
  }
  return {
    whileRevalidateMs: allowedMs('stale-while-revalidate', policy.staleWhileRevalidateMs),
    ifErrorMs: allowedMs('stale-if-error', policy.staleIfErrorMs),
    isStrict: isImplied,
  }
}
