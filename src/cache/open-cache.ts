import type { Clock } from '../time/clock.ts'
import type { CacheConfig } from '../schema/cache-schema.ts'
import type { Config } from '../schema/schema.ts'
import type { Logger } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import { connectedOrLate, connectRedis } from '../redis/connection.ts'
import { Flights } from './flights.ts'
import { MemoryStore } from './memory-store.ts'
import { RedisStore } from './redis-store.ts'
import type { CacheStore } from './store.ts'

const MAX_BYTES = 64 * 1_048_576

export interface CacheParts {
  readonly clock: Clock
  readonly metrics: Metrics
  readonly logger: Logger
}

/** The parts that the caches of all upstreams share. The first of them that needs the store opens it. */
export class SharedCache {
  readonly flights = new Flights()
  readonly #config: Pick<Config, 'cache' | 'store'>
  readonly #parts: CacheParts
  #store: CacheStore | undefined
  /** Resolves when the store can be used, or after a bounded wait, because the gateway does not depend on it. */
  opened: Promise<void> = Promise.resolve()

  constructor(config: Pick<Config, 'cache' | 'store'>, parts: CacheParts) {
    this.#config = config
    this.#parts = parts
  }

  get store(): CacheStore {
    return (this.#store ??= this.#open())
  }

  /** Opens the store, if it is not open yet. */
  inUse(): this {
    this.#store ??= this.#open()
    return this
  }

  get maxEntryBytes(): CacheConfig['maxEntryBytes'] {
    return this.#config.cache.maxEntryBytes
  }

  /** Takes mistakes made where no call is there to be answered. */
  readonly report = (error: unknown): void => {
    this.#parts.logger.error({ err: error }, 'an answer could not be asked for anew')
  }

  close(): void {
    this.#store?.close()
  }

  #open(): CacheStore {
    const { cache, store } = this.#config
    const { clock, metrics } = this.#parts
    if (cache.store === 'memory') return new MemoryStore(clock, cache.maxBytes ?? MAX_BYTES)
    const redis = connectRedis(store)
    this.opened = connectedOrLate(redis, clock)
    return new RedisStore({
      redis,
      clock,
      prefix: store.prefix,
      answerWithinMs: store.commandTimeout,
      onError: () => metrics.cacheErrors.of({}).increment(),
    })
  }
}
