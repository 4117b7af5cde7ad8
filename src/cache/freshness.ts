import CacheSemantics from 'http-cache-semantics'
import type { EpochMs } from '../time/clock.ts'
import { dateOf, parseHttpDate } from '../http/date.ts'
import { type Fields, membersOf } from '../http/fields.ts'
import { ageOf, type Directives, parseDirectives, secondsOf } from './fields.ts'
import type { CachePolicy } from '../schema/cache-policy.ts'

/** How long a stored answer may be used, in milliseconds of a clock that nobody sets. */
export interface Freshness {
  /** When it was made, as far as its Age and Date tell (RFC 9111 §4.2.3). */
  readonly bornAt: number
  readonly lifetimeMs: number
  /** How long behind its lifetime it may be used: while it is asked for anew, and in place of an error. */
  readonly whileRevalidateMs: number
  readonly ifErrorMs: number
  /** Whether the upstream forbids that a client allows more (RFC 9111 §4.2.4). */
  readonly isStrict: boolean
}

/** Why an answer is not kept. */
export type NotKept =
  /** Its Cache-Control, or Vary: *, forbids it. */
  | 'no-store'
  | 'private'
  | 'vary'
  /** The credential travels in Authorization, and the answer does not say that it may be kept all the same (RFC 9111 §3.5). */
  | 'authorization'
  /** It is for one client, but the place is for all of an account. */
  | 'set-cookie'
  /** Its status is none that is kept, or only with a lifetime that it does not say. */
  | 'status'
  /** It does not say how long it is fresh, and has nothing by which it can be asked about. */
  | 'no-lifetime'
  | 'too-large'
  /** Its end can not be told from a connection that broke. */
  | 'no-length'
  /** The store of the cache can not be asked. */
  | 'unavailable'

/** What has to be known of an exchange to judge its answer. */
export interface Exchanged {
  /** Directives of the client's Cache-Control. */
  readonly wanted: Directives
  /** Whether the request carried an Authorization that says who asks (RFC 9111 §3.5). */
  readonly isAuthorized: boolean
  readonly status: number
  readonly fields: Fields
  readonly sentAt: number
  readonly now: number
  /** The same moment as the wall clock has it: for the dates of the answer. */
  readonly wall: EpochMs
}

// Of these, RFC 6585 says that they must not be stored, and a 206 is only a part.
const NEVER_STORED = new Set([206, 304, 401, 407, 428, 429, 431, 511])
/** Final statuses of RFC 9110 whose meaning for a cache is known, as `must-understand` asks (RFC 9111 §5.2.2.3). */
const UNDERSTOOD = new Set([200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 500, 501])

/**
 * How long an answer may be stored and used, or why it must not be stored. Fields are read strictly here; what
 * follows from them is for `http-cache-semantics` to say.
 */
export function freshnessOf(exchanged: Exchanged, policy: CachePolicy): Freshness | NotKept {
  const { fields, status, isAuthorized, now, wall, sentAt } = exchanged
  const directives = parseDirectives(fields['cache-control'])
  if (NEVER_STORED.has(status)) return 'status'
  if (exchanged.wanted.has('no-store')) return 'no-store'
  if (isVaryingByAll(fields)) return 'vary'
  if (policy.scope === 'account' && fields['set-cookie'] !== undefined && !directives.has('public')) return 'set-cookie'
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

/** Why it can not be stored, as RFC 9111 §3 goes through the reasons. */
function reasonOf(exchanged: Exchanged, directives: Directives, isShared: boolean): NotKept {
  if (isForbidden(exchanged.status, directives)) return 'no-store'
  if (isShared && directives.has('private')) return 'private'
  const isAllowed = ['public', 's-maxage', 'must-revalidate'].some((name) => directives.has(name))
  return isShared && exchanged.isAuthorized && !isAllowed ? 'authorization' : 'status'
}

/** Who understands the status may leave out of account the no-store that is beside it for those who do not. */
function isForbidden(status: number, directives: Directives): boolean {
  return directives.has('must-understand') ? !UNDERSTOOD.has(status) : directives.has('no-store')
}

/** Whether the upstream itself says how long: then an answer of any final status may be stored (RFC 9111 §3). */
function hasLifetime(directives: Directives, fields: Fields, isShared: boolean): boolean {
  return directives.has('max-age') || (isShared && directives.has('s-maxage')) || fields['expires'] !== undefined
}

/** Whether the configuration says it, because the answer, which is no error, does not (RFC 9111 §4.2.2). */
function isGivenLifetime({ status, fields }: Exchanged, directives: Directives, policy: CachePolicy): boolean {
  return policy.freshForMs > 0 && status < 400 && !hasLifetime(directives, fields, !policy.isPrivate)
}

/** What the library looks at, in the one form of writing that it reads right. */
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
  // What is no date lies in the past (RFC 9111 §5.3).
  if (fields['expires'] !== undefined)
    headers['expires'] = new Date(parseHttpDate(fields['expires'], wall) ?? 0).toUTCString()
  return headers
}

/** How long an answer may be used that is not fresh any more (RFC 5861; RFC 9111 §4.2.4 says who may forbid it). */
function staleness(
  directives: Directives,
  isShared: boolean,
  isAlwaysChecked: boolean,
  policy: CachePolicy,
): Pick<Freshness, 'whileRevalidateMs' | 'ifErrorMs' | 'isStrict'> {
  const isStrict =
    isAlwaysChecked || directives.has('must-revalidate') || (isShared && directives.has('proxy-revalidate'))
  if (isStrict) return { whileRevalidateMs: 0, ifErrorMs: 0, isStrict: true }
  // It forbids as well (RFC 9111 §5.2.2.10), but not what the same answer allows in so many words.
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

function isVaryingByAll({ vary }: Fields): boolean {
  return membersOf(vary).includes('*')
}
