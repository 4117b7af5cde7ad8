/*
 * src/cache: what RFC 9111 allows to keep and to answer, and the two stores of answers.
 * It imports only http, schema, observe, redis and time; the calls are in gateway.
 * A change here must prove that no answer reaches a client that it is not for (test/cache, npm run cache-suite).
 */

import { type Entry, type Stored, valueOf } from './entry.ts'

/** What a store has for a resource and selector. */
export interface Found {
  /**
   * The generation of the resource. An answer is stored under the generation that was found before its request was sent. A
   * write ends the generation: what was stored under it is not found any more, and an answer that is still on its way is not
   * stored. Undefined if nothing can be stored now.
   */
  readonly generation: string | undefined
  readonly stored: Stored | undefined
  /** The store did not answer, or not in time. */
  readonly isFailed?: boolean
}

/**
 * Stores answers. No method throws or rejects: a store that cannot be reached finds nothing, stores nothing, and reports the
 * error to `onError`.
 */
export interface CacheStore {
  find(resource: string, selector: string): Found | Promise<Found>
  /** Stores an answer for at most `keepMs` milliseconds, unless its generation has ended. */
  keep(resource: string, selector: string, generation: string, stored: Stored, keepMs: number): void
  drop(resource: string, selector: string): void
  /** Ends the generation of a resource: all answers to requests that were sent before now are forgotten. */
  invalidate(resource: string): void
  close(): void
}

/** The longest time that an answer is stored. An older answer is more likely to have changed than to be requested again. */
export const KEPT_MS = 24 * 3_600_000

/** How long an answer is of use, in milliseconds: while it is fresh, may be given stale, or can be revalidated. */
export function keepMsOf(entry: Omit<Entry, 'body' | 'kind'>, now: number): number {
  const leftMs = entry.lifetimeMs - (now - entry.bornAt)
  // An error is stored only for the lifetime that the upstream gives it.
  if (leftMs <= 0 && entry.status >= 400) return 0
  const hasValidator = valueOf(entry, 'etag') !== undefined || valueOf(entry, 'last-modified') !== undefined
  const afterMs = hasValidator ? KEPT_MS : Math.max(entry.ifErrorMs, entry.whileRevalidateMs)
  return Math.max(0, Math.min(KEPT_MS, leftMs + afterMs))
}
