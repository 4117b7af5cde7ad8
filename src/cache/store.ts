/*
 * src/cache: what RFC 9111 allows to keep and to answer, and the two stores of answers.
 * It imports only http, schema, observe, redis and time; the calls are in gateway.
 * A change here must prove that no answer reaches whom it is not for (test/cache, npm run cache-suite).
 */

import { type Entry, fieldOf, type Stored } from './entry.ts'

/** What a store knows of a place. */
export interface Found {
  /**
   * Of the resource: an answer may only be stored under the generation that was found before its request was sent. A write
   * ends it, and with it everything that was stored, or will be. Undefined where nothing can be stored now.
   */
  readonly generation: string | undefined
  readonly stored: Stored | undefined
  /** The store could not be asked, or not in time. */
  readonly isFailed?: boolean
}

/**
 * Keeps answers. Nothing here throws or rejects: a store that can't be reached finds nothing and keeps nothing, and says so
 * to `onError`.
 */
export interface CacheStore {
  find(resource: string, selector: string): Found | Promise<Found>
  /** Keeps an answer for `keepMs` at most. */
  keep(resource: string, selector: string, generation: string, stored: Stored, keepMs: number): void
  drop(resource: string, selector: string): void
  /** Everything of a resource, and everything that was asked for before now, is as if it had never been kept. */
  invalidate(resource: string): void
  close(): void
}

/** Longest time that anything is kept: what is older is more likely to be changed than to be asked for. */
export const KEPT_MS = 24 * 3_600_000

/** How long an answer is of use to anyone; 0 if of none. */
export function keepMsOf(entry: Omit<Entry, 'body' | 'kind'>, now: number): number {
  const leftMs = entry.lifetimeMs - (now - entry.bornAt)
  // An error is only kept where the upstream wants it to be.
  if (leftMs <= 0 && entry.status >= 400) return 0
  const hasValidator = fieldOf(entry, 'etag') !== undefined || fieldOf(entry, 'last-modified') !== undefined
  const afterMs = hasValidator ? KEPT_MS : Math.max(entry.ifErrorMs, entry.whileRevalidateMs)
  return Math.max(0, Math.min(KEPT_MS, leftMs + afterMs))
}
