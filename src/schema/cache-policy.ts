import type { CacheRule } from './cache-schema.ts'

/** How answers of a route are cached, with every default filled in. */
export interface CachePolicy {
  /** For whom an answer is stored: the client that asked, or every client that may use the account. */
  readonly scope: 'client' | 'account'
  /** Whether answers are stored that are for one user only, as the cache of a browser would (RFC 9111 §3). */
  readonly isPrivate: boolean
  /** How long an answer is fresh that does not say so itself; 0 for not at all. */
  readonly freshForMs: number
  /** How long behind its freshness it may stand in for an error; the answer's own stale-if-error wins. */
  readonly staleIfErrorMs: number
  /** How long behind its freshness it may be given while it is asked for anew; the answer's own word wins. */
  readonly staleWhileRevalidateMs: number
  /** Whether it may also stand in where the quota is used up. */
  readonly staleOnThrottled: boolean
}

const STALE_IF_ERROR_MS = 5 * 60_000

/** The later of the rules win, field by field. */
export function cachePolicy(...rules: readonly (CacheRule | undefined)[]): CachePolicy {
  const rule: CacheRule = Object.assign({}, ...rules)
  return {
    scope: rule.scope ?? 'client',
    isPrivate: rule.private ?? false,
    freshForMs: rule.freshFor ?? 0,
    staleIfErrorMs: rule.staleIfError ?? STALE_IF_ERROR_MS,
    staleWhileRevalidateMs: rule.staleWhileRevalidate ?? 0,
    staleOnThrottled: rule.staleOn?.includes('throttled') ?? false,
  }
}
