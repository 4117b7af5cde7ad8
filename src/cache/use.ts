import type { IncomingHttpHeaders } from 'node:http'
import type { Entry } from './entry.ts'
import { type Directives, secondsOf } from './fields.ts'

/** What may be done with an entry for a request. */
export type Use =
  | 'fresh'
  /** It may be given now if it is asked for anew meanwhile (RFC 5861 §3). */
  | 'while-revalidate'
  /** It would be fresh, but the client wants a newer one. */
  | 'request'
  | 'stale'

const NOT_ANSWERED = ['range', 'if-range', 'if-match', 'if-unmodified-since', 'upgrade']

/**
 * What in a request keeps it from being answered from what is kept: the name of a field or directive. Then nothing of its
 * answer is kept either.
 */
export function bypassReasonOf(headers: IncomingHttpHeaders, wanted: Directives): string | undefined {
  if (wanted.has('no-store')) return 'no-store'
  for (const name of NOT_ANSWERED) if (headers[name] !== undefined) return name
  return undefined
}

/** Whether the client asks for nothing but an answer, however old it may be within its freshness. */
export function isContent(headers: IncomingHttpHeaders, wanted: Directives): boolean {
  return !isDemanding(headers, wanted) && !wanted.has('max-age') && !wanted.has('min-fresh')
}

/** RFC 9111 §4 and §5.2.1. */
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

/** Whether it may stand in for an error (RFC 5861 §4). */
export function mayStandIn(entry: Entry, now: number): boolean {
  const lateMs = now - entry.bornAt - entry.lifetimeMs
  return lateMs < 0 || (entry.ifErrorMs > 0 && lateMs <= entry.ifErrorMs)
}

/** Pragma counts only where there is no Cache-Control (RFC 9111 §5.4). */
function isDemanding(headers: IncomingHttpHeaders, wanted: Directives): boolean {
  if (wanted.has('no-cache')) return true
  return headers['cache-control'] === undefined && /\bno-cache\b/i.test(headers.pragma ?? '')
}
