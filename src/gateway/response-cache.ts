import { resourceOf } from '../cache/key.ts'
import type { SharedCache } from '../cache/open-cache.ts'
import type { CacheStore } from '../cache/store.ts'
import type { Fields } from '../http/fields.ts'
import { normalizePath } from '../routing/path.ts'
import { isSafeMethod } from '../routing/route.ts'
import { type CacheAnswer, CachedRead } from './cached-read.ts'
import type { Call, Target } from './call.ts'
import type { Forwarded } from './forwarded.ts'
import type { ResponseObserver } from './response-observer.ts'

/**
 * Asks the cache of an upstream (RFC 9111) about a call. A read of a cached route is answered from what is kept; otherwise its
 * observer keeps the answer if that may be kept. A write is a miss. Its observer ends what is kept of its path, even if no route of
 * that path is cached.
 */
export function lookUpInCache(call: Call, target: Target, shared: SharedCache): CacheAnswer | Promise<CacheAnswer> {
  const { method = '' } = call.request
  if (!isSafeMethod(method)) return { kind: 'miss', observer: new Write(call, target, shared.store) }
  const { cache } = target.route
  const isCached = cache !== undefined && cache !== false && (method === 'GET' || method === 'HEAD')
  if (isCached) return new CachedRead(call, target, cache, shared).lookUp()
  return { kind: 'miss', observer: undefined }
}

/** Statuses after which nobody knows whether the upstream carried the call out. */
const UNCERTAIN_STATUS = new Set([502, 504])

/** Watches a call that changes something, and invalidates what it may have changed. */
class Write implements ResponseObserver {
  readonly conditions = undefined
  readonly isAwaited = false
  readonly #call: Call
  readonly #target: Target
  readonly #store: CacheStore
  /** Whether it is known what to invalidate. */
  #isDecided = false

  constructor(call: Call, target: Target, store: CacheStore) {
    this.#call = call
    this.#target = target
    this.#store = store
  }

  conclude(end: Forwarded): Forwarded {
    this.#isDecided = true
    const isUnanswered = end.kind === 'refused' || end.kind === 'client_gone'
    // However the call ended, what was sent before may have been carried out.
    const isUnsent = end.kind === 'refused' && end.failure.kind === 'unreachable' && this.#call.attempts === 1
    if (isUnanswered && this.#call.attempts > 0 && !isUnsent) this.#invalidate()
    return end
  }

  replace(): undefined {}

  /** Invalidates before the client sees the response, so that its next read is not older than its write (RFC 9111 §4.4). */
  begin(status: number, _: string, fields: Fields): void {
    this.#isDecided = true
    // If there were several attempts, an earlier one may have been carried out, although the last one is refused.
    if (status >= 400 && !UNCERTAIN_STATUS.has(status) && this.#call.attempts === 1) return
    this.#invalidate()
    for (const name of ['location', 'content-location']) {
      for (const location of [fields[name] ?? []].flat()) this.#invalidateAt(location)
    }
  }

  #invalidate(): void {
    this.#store.invalidate(this.#resourceOf(this.#target.path))
  }

  /** Only paths of the same upstream: a response must not invalidate answers of another. */
  #invalidateAt(location: string): void {
    const { upstream, path } = this.#target
    // As one text: a path that begins with two slashes would be read as a host.
    const base = new URL(upstream.url.origin + upstream.basePath + path)
    const url = URL.parse(location, base)
    if (url?.origin !== base.origin || !url.pathname.startsWith(`${upstream.basePath}/`)) return
    this.#store.invalidate(this.#resourceOf(url.pathname.slice(upstream.basePath.length)))
  }

  #resourceOf(path: string): string {
    const { upstream, account } = this.#target
    return resourceOf(upstream.name, upstream.url.href, account, normalizePath(path, upstream.aliasPrefix))
  }

  sent(): void {}

  piece(): void {}

  end(): void {}

  slow(): void {}

  lastWaiterGone(): undefined {}

  /** A mistake of the gateway may have ended the call after the write was sent. */
  [Symbol.dispose](): void {
    if (!this.#isDecided && this.#call.attempts > 0) this.#invalidate()
  }
}
