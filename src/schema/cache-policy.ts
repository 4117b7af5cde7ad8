import type { CacheRule } from './cache-schema.ts'

/** How answers of a route are cached, with every default filled in. */
export interface CachePolicy {
  /** For whom an answer is stored: the client that asked, or every client that may use the account. */
  readonly scope: 'client' | 'account'
  /** Whether answers for one user only are stored, as a browser's cache does (RFC 9111 §3). */
  readonly isPrivate: boolean
  /** How long an answer without a freshness of its own is fresh; 0 for not at all. */
  readonly freshForMs: number
  /** How long a stale answer may replace an error; the answer's own stale-if-error takes precedence. */
  readonly staleIfErrorMs: number
  /** How long a stale answer may be served while it is revalidated; the answer's own value takes precedence. */
  readonly staleWhileRevalidateMs: number
  /** Whether a stale answer may also replace a refusal because the quota is used up. */
  readonly staleOnThrottled: boolean
}

const STALE_IF_ERROR_MS = 5 * 60_000

/** Merges rules field by field; later rules take precedence. */
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
