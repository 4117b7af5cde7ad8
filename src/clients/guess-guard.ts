import { createRequire } from 'node:module'
import type { Cluster, Redis } from 'ioredis'
import { LRUCache } from 'lru-cache'
import type * as Limiters from 'rate-limiter-flexible'
import type { Clock } from '../time/clock.ts'
import type { Logger } from '../observe/log.ts'
import { networkOf } from '../net/address.ts'
import type { Config } from '../schema/schema.ts'

export interface GuessGuardOptions {
  /** How many different wrong keys are tolerated within the window, in milliseconds: from one address, and from all together. */
  readonly limits: Config['server']['wrongKeys']
  /** What is guessed, in the plural, such as `keys`; for the log. */
  readonly what: string
  readonly clock: Clock
  readonly logger: Logger
  /**
   * The Redis in which all instances count together. The first wrong key opens the connection. Without Redis each instance counts
   * alone.
   */
  readonly redis?: {
    connect(): Redis | Cluster
    readonly prefix: string
    /** Why Redis can't be used, as one clause. */
    troubleOf(error: unknown): string
  }
  /** Whether this is one of several processes. Without Redis they count in the first one. */
  readonly isWorker?: boolean
}

interface Limiter {
  /** Counts in Redis, over all instances; undefined without Redis. */
  readonly shared: Limiters.RateLimiterRedis | undefined
  readonly own: Limiters.RateLimiterMemory | Limiters.RateLimiterCluster
}

/** How many wrong keys, and how many blocked addresses, are remembered. The least recently used are forgotten first. */
const MOST_KEPT = 10_000
/** Bounds a cache by its size, of which each entry is one. With `max` it would take all its memory at the start. */
const BOUND = { maxSize: MOST_KEPT, sizeCalculation: (): number => 1 }
const EVERYONE = 'everyone'

/**
 * Blocks an address that tries too many wrong keys, or everyone if too many are tried in total. Only different wrong keys count: one
 * that comes again and again is a mistake in some configuration, and no guess. While Redis can't be reached, each instance counts
 * alone.
 */
export class GuessGuard {
  readonly #options: GuessGuardOptions
  /** Until when no key is tried, by the network of an address, or by `EVERYONE`. */
  readonly #blocked = new LRUCache<string, number>(BOUND)
  /** Until when a wrong key that comes again from the same address does not count again. */
  readonly #known = new LRUCache<string, number>(BOUND)
  #limiters: Record<'perAddress' | 'overall', Limiter> | undefined
  #redis: Redis | Cluster | undefined
  /** What Redis refused last, until it counts again. */
  #trouble: string | undefined

  constructor(options: GuessGuardOptions) {
    this.#options = options
  }

  /** How many milliseconds this address is still blocked; 0 if it is not. */
  blockedMs(address: string | undefined): number {
    if (this.#blocked.size === 0) return 0
    const now = this.#options.clock.now()
    const until = Math.max(this.#blocked.get(networkOf(address)) ?? 0, this.#blocked.get(EVERYONE) ?? 0)
    return Math.max(0, until - now)
  }

  /** Counts a wrong key, given by its hash. Resolves with the milliseconds for which this address is blocked then. */
  async count(address: string | undefined, keyHash: string): Promise<number> {
    const { clock, limits } = this.#options
    const group = networkOf(address)
    const now = clock.now()
    const guess = `${group} ${keyHash}`
    if ((this.#known.get(guess) ?? 0) > now) return 0
    this.#known.set(guess, now + limits.window)
    const { perAddress, overall } = (this.#limiters ??= this.#open())
    await Promise.all([this.#consume(perAddress, group), this.#consume(overall, EVERYONE)])
    return this.blockedMs(address)
  }

  close(): void {
    this.#redis?.disconnect()
  }

  async #consume(limiter: Limiter, group: string): Promise<void> {
    try {
      await this.#consumeAt(limiter, group)
    } catch (error) {
      const { clock, logger, what, redis, isWorker = false } = this.#options
      // The first process, in which workers count, hangs: this key is not counted.
      if (error instanceof Error && isWorker && redis === undefined) return
      if (error instanceof Error) throw error
      const refusal = error as Limiters.RateLimiterRes
      const now = clock.now()
      const forMs = Math.max(1, refusal.msBeforeNext)
      if ((this.#blocked.get(group) ?? 0) <= now) {
        logger.warn({ address: group, forMs }, `too many wrong ${what}: nothing more is tried for a while`)
      }
      this.#blocked.set(group, now + forMs)
    }
  }

  /** In Redis; alone while it can't count. */
  async #consumeAt({ shared, own }: Limiter, group: string): Promise<unknown> {
    if (shared === undefined) return own.consume(group)
    const { logger, what, redis } = this.#options
    try {
      const counted = await shared.consume(group)
      this.#trouble = undefined
      return counted
    } catch (error) {
      if (!(error instanceof Error)) throw error
      const trouble = redis!.troubleOf(error)
      // That it is away is told by those who always use it; and the first keys come before this connection is made.
      if (trouble.startsWith('refuses') && trouble !== this.#trouble) {
        this.#trouble = trouble
        logger.warn({ problem: `Redis ${trouble}` }, `wrong ${what} are counted by this gateway alone`)
      }
      return own.consume(group)
    }
  }

  #open(): Record<'perAddress' | 'overall', Limiter> {
    // Loaded with the first wrong key, because most gateways never see one.
    const library = createRequire(import.meta.url)('rate-limiter-flexible') as typeof Limiters
    const { limits, what, redis, isWorker = false } = this.#options
    this.#redis = redis?.connect()
    const limiterFor = (points: number, sort: string): Limiter => {
      const common = { points, duration: limits.window / 1_000, keyPrefix: `guess:${what}:${sort}` }
      if (redis === undefined && isWorker) return { shared: undefined, own: new library.RateLimiterCluster(common) }
      const own = new library.RateLimiterMemory(common)
      const keyPrefix = `${redis?.prefix}:${common.keyPrefix}`
      const shared = { ...common, keyPrefix, storeClient: this.#redis, rejectIfRedisNotReady: true }
      return { shared: redis && new library.RateLimiterRedis(shared), own }
    }
    return { perAddress: limiterFor(limits.perAddress, 'address'), overall: limiterFor(limits.overall, 'all') }
  }
}
