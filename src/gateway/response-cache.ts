import { resourceOf } from '../cache/key.ts'
import type { SharedCache } from '../cache/open-cache.ts'
import type { CacheStore } from '../cache/store.ts'
import type { Fields } from '../http/fields.ts'
import { normalizePath } from '../routing/path.ts'
import { isSafeMethod } from '../routing/route.ts'
import { type CacheAnswer, CachedRead } from './cached-read.ts'
import type { Call, Target } from './call.ts'
import type { FailureKind } from './failure.ts'
import type { Forwarded } from './forwarded.ts'
import type { ResponseObserver } from './response-observer.ts'

/**
 * What the cache of an upstream (RFC 9111) says of a call: it answers reads of cached routes from what is kept, or sees what
 * comes from upstream and keeps what may be kept. A write is a miss, whose observer ends what is kept of its path, also where
 * no route of that path is cached.
 */
export function lookUpInCache(call: Call, target: Target, shared: SharedCache): CacheAnswer | Promise<CacheAnswer> {
  const { method = '' } = call.request
  if (!isSafeMethod(method)) return { kind: 'miss', observer: new Write(call, target, shared.store) }
  const { cache } = target.route
  const isCached = cache !== undefined && cache !== false && (method === 'GET' || method === 'HEAD')
  if (isCached) return new CachedRead(call, target, cache, shared).lookUp()
  return { kind: 'miss', observer: undefined }
}

/** Ends of a call after which nobody knows whether the upstream carried it out. */
const UNCERTAIN: ReadonlySet<string> = new Set<FailureKind>(['interrupted', 'timeout'])
const UNCERTAIN_STATUS = new Set([502, 504])

/** Watches a call that changes something, and invalidates what it may have changed. */
class Write implements ResponseObserver {
  readonly conditions = undefined
  readonly isAwaited = false
  readonly #call: Call
  readonly #target: Target
  readonly #store: CacheStore

  constructor(call: Call, target: Target, store: CacheStore) {
    this.#call = call
    this.#target = target
    this.#store = store
  }

  conclude(end: Forwarded): Forwarded {
    const outcome = end.kind === 'refused' ? end.failure.kind : end.kind
    if (UNCERTAIN.has(outcome) || (outcome === 'client_gone' && this.#call.attempts > 0)) this.#invalidate()
    return end
  }

  replace(): undefined {}

  /** Invalidates before the client sees the response, so that its next read is not older than its write (RFC 9111 §4.4). */
  begin(status: number, _: string, fields: Fields): void {
    if (status >= 400 && !UNCERTAIN_STATUS.has(status)) return
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
    const base = new URL(upstream.basePath + path, upstream.url)
    const url = URL.parse(location, base)
    if (url?.origin !== base.origin || !url.pathname.startsWith(`${upstream.basePath}/`)) return
    this.#store.invalidate(this.#resourceOf(url.pathname.slice(upstream.basePath.length)))
  }

  #resourceOf(path: string): string {
    const { upstream, account } = this.#target
    return resourceOf(upstream.name, upstream.url.href, account.key, normalizePath(path, upstream.aliasPrefix))
  }

  sent(): void {}

  piece(): void {}

  end(): void {}

  slow(): void {}

  lastWaiterGone(): undefined {}

  [Symbol.dispose](): void {}
}
