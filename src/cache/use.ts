import type { IncomingHttpHeaders } from 'node:http'
import type { Entry } from './entry.ts'
import { type Directives, secondsOf } from './fields.ts'

/** What may be done with an entry for a request. */
export type Use =
  | 'fresh'
  /** The entry may be given now, while the upstream is asked for a new one (RFC 5861 §3). */
  | 'while-revalidate'
  /** The entry is fresh, but the client demands a newer one. */
  | 'request'
  | 'stale'

const NOT_ANSWERED = ['range', 'if-range', 'if-match', 'if-unmodified-since']

/**
 * Returns the field or directive of a request that rules out the cache; undefined if there is none. With one, the request is
 * not answered from the cache, and its answer is not stored.
 */
export function bypassReasonOf(headers: IncomingHttpHeaders, wanted: Directives): string | undefined {
  if (wanted.has('no-store')) return 'no-store'
  for (const name of NOT_ANSWERED) if (headers[name] !== undefined) return name
  return undefined
}

/** Whether the client takes any answer that is fresh, whatever its age. */
export function isContent(headers: IncomingHttpHeaders, wanted: Directives): boolean {
  return !isDemanding(headers, wanted) && !wanted.has('max-age') && !wanted.has('min-fresh')
}

/** Decides what may be done with an entry, after RFC 9111 §4 (freshness) and §5.2.1 (directives of requests). */
export function useOf(entry: Entry, headers: IncomingHttpHeaders, wanted: Directives, now: number): Use {
  const ageMs = now - entry.bornAt
  const leftMs = entry.lifetimeMs - ageMs
  const maxAge = secondsOf(wanted, 'max-age')
  const minFresh = secondsOf(wanted, 'min-fresh')
  if (leftMs > 0) {
    const isTooOld = maxAge !== undefined && ageMs > maxAge * 1_000
    const isTooShort = minFresh !== undefined && leftMs < minFresh * 1_000
    return isDemanding(headers, wanted) || isTooOld || isTooShort ? 'request' : 'fresh'
  }
  if (!isContent(headers, wanted)) return 'stale'
  const maxStale = wanted.get('max-stale')
  if (maxStale !== undefined && !entry.isStrict) {
    const allowedMs = maxStale === true ? Infinity : secondsOf(wanted, 'max-stale')! * 1_000
    if (-leftMs <= allowedMs) return 'fresh'
  }
  return -leftMs <= entry.whileRevalidateMs && entry.whileRevalidateMs > 0 ? 'while-revalidate' : 'stale'
}

/** Whether the entry may be given in place of an error (stale-if-error, RFC 5861 §4). */
export function mayStandIn(entry: Entry, now: number): boolean {
  const lateMs = now - entry.bornAt - entry.lifetimeMs
  return lateMs < 0 || (entry.ifErrorMs > 0 && lateMs <= entry.ifErrorMs)
}

/** Whether the client demands that the upstream is asked. Pragma counts only without Cache-Control (RFC 9111 §5.4). */
function isDemanding(headers: IncomingHttpHeaders, wanted: Directives): boolean {
  if (wanted.has('no-cache')) return true
  return headers['cache-control'] === undefined && /\bno-cache\b/i.test(headers.pragma ?? '')
}
