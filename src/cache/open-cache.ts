import type { Clock } from '../time/clock.ts'
import type { CacheConfig } from '../schema/cache-schema.ts'
import type { Config } from '../schema/schema.ts'
import type { Metrics } from '../observe/metrics.ts'
import { connectedOrLate, connectRedis } from '../redis/connection.ts'
import { Flights } from './flights.ts'
import { MemoryStore } from './memory-store.ts'
import { RedisStore } from './redis-store.ts'
import type { CacheStore } from './store.ts'

const DEFAULT_MAX_BYTES = 64 * 1_048_576

/** The caches in memory of the other processes of this gateway. */
export interface CachePeers {
  /** Tells them that a write has ended the generation of a resource. */
  tell(resource: string): void
  /** Calls `forget` for each resource of which they tell. */
  onTold(forget: (resource: string) => void): void
}

export interface CacheParts {
  readonly clock: Clock
  readonly metrics: Metrics
  readonly peers?: CachePeers | undefined
}

/** The parts that the caches of all upstreams share. The store is opened for the first upstream with a cached route. */
export class SharedCache {
  readonly flights = new Flights()
  readonly #config: Pick<Config, 'cache' | 'store'>
  readonly #parts: CacheParts
  /** The names of the upstreams that are cached, or were before a reload. */
  readonly #everCached = new Set<string>()
  #store: CacheStore | undefined
  #opened: Promise<void> = Promise.resolve()

  constructor(config: Pick<Config, 'cache' | 'store'>, parts: CacheParts) {
    this.#config = config
    this.#parts = parts
  }

  /** The store. The first read opens it, which may begin a connection to Redis. */
  get store(): CacheStore {
    return (this.#store ??= this.#open())
  }

  /**
   * The cache as an upstream uses it: for a cached one the store is open. One that a reload made uncached still has the cache, because
   * its writes must end what was kept before: another reload may bring that back. Undefined for one that was never cached.
   */
  of(upstream: string, isCached: boolean): this | undefined {
    if (isCached) {
      void this.store
      this.#everCached.add(upstream)
    }
    return this.#everCached.has(upstream) ? this : undefined
  }

  /**
   * Resolves when Redis is ready, or after two seconds; never rejects. Before the store is opened it is already resolved, and
   * with the store in memory it always is.
   */
  get opened(): Promise<void> {
    return this.#opened
  }

  get maxEntryBytes(): CacheConfig['maxEntryBytes'] {
    return this.#config.cache.maxEntryBytes
  }

  close(): void {
    this.#store?.close()
  }

  #open(): CacheStore {
    const { cache, store } = this.#config
    const { clock, metrics, peers } = this.#parts
    if (cache.store === 'memory') {
      const memory = new MemoryStore(clock, cache.maxBytes ?? DEFAULT_MAX_BYTES, peers?.tell)
      peers?.onTold((resource) => memory.forget(resource))
      return memory
    }
    const redis = connectRedis(store)
    this.#opened = connectedOrLate(redis, clock)
    return new RedisStore({
      redis,
      clock,
      prefix: store.prefix,
      answerWithinMs: store.commandTimeout,
      onError: () => metrics.cacheErrors.of({}).increment(),
    })
  }
}
