import type { Cluster, Redis } from 'ioredis'
import { LRUCache } from 'lru-cache'
import { RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible'
import type { Clock } from '../time/clock.ts'
import type { Logger } from '../observe/log.ts'
import { networkOf } from '../net/address.ts'

export interface GuessLimits {
  /** Different wrong keys, or tokens, in `windowMs`: of one address, and of all together. */
  readonly perAddress: number
  readonly overall: number
  readonly windowMs: number
}

export interface GuessGuardOptions {
  readonly limits: GuessLimits
  /** What is guessed, such as `keys`. */
  readonly what: string
  readonly clock: Clock
  readonly logger: Logger
  /** Connects to where all instances count together; only from the first wrong key on. Without it each counts for itself. */
  readonly redis?: { connect(): Redis | Cluster; readonly prefix: string }
}

/** How many wrong keys, and how many blocked addresses, are remembered. Those that nobody came with for longest are forgotten. */
const MOST_KEPT = 10_000
const EVERYONE = 'everyone'

/**
 * Keeps those who try many keys from going on. One wrong key that comes again and again is a mistake and no guess, so only
 * different ones count. Instances count in Redis together, and each for itself while that is away.
 */
export class GuessGuard {
  readonly #options: GuessGuardOptions
  /** Until when nothing more is tried, by address, or for everyone. */
  readonly #blocked = new LRUCache<string, number>({ max: MOST_KEPT })
  /** Until when a wrong key that comes again from the same address does not count again. */
  readonly #known = new LRUCache<string, number>({ max: MOST_KEPT })
  #limiters: Record<'perAddress' | 'overall', RateLimiterMemory | RateLimiterRedis> | undefined
  #redis: Redis | Cluster | undefined

  constructor(options: GuessGuardOptions) {
    this.#options = options
  }

  /** For how long nothing more is tried for that address, in milliseconds; 0 if it may. */
  blockedMs(address: string | undefined): number {
    if (this.#blocked.size === 0) return 0
    const now = this.#options.clock.now()
    const until = Math.max(this.#blocked.get(networkOf(address)) ?? 0, this.#blocked.get(EVERYONE) ?? 0)
    return Math.max(0, until - now)
  }

  /** Counts a wrong key, told by its hash. Resolves with for how long nothing more is tried for that address. */
  async count(address: string | undefined, keyHash: string): Promise<number> {
    const { clock, limits } = this.#options
    const group = networkOf(address)
    const now = clock.now()
    const guess = `${group} ${keyHash}`
    if ((this.#known.get(guess) ?? 0) > now) return 0
    this.#known.set(guess, now + limits.windowMs)
    const { perAddress, overall } = (this.#limiters ??= this.#open())
    await Promise.all([this.#consume(perAddress, group), this.#consume(overall, EVERYONE)])
    return this.blockedMs(address)
  }

  close(): void {
    this.#redis?.disconnect()
  }

  async #consume(limiter: RateLimiterMemory | RateLimiterRedis, group: string): Promise<void> {
    try {
      await limiter.consume(group)
    } catch (refusal) {
      if (!(refusal instanceof RateLimiterRes)) throw refusal
      const { clock, logger, what } = this.#options
      const now = clock.now()
      const forMs = Math.max(1, refusal.msBeforeNext)
      if ((this.#blocked.get(group) ?? 0) <= now) {
        logger.warn({ address: group, forMs }, `too many wrong ${what}: nothing more is tried for a while`)
      }
      this.#blocked.set(group, now + forMs)
    }
  }

  #open(): Record<'perAddress' | 'overall', RateLimiterMemory | RateLimiterRedis> {
    const { limits, what, redis } = this.#options
    this.#redis = redis?.connect()
    // Each command fails with it, and the limiter counts here instead.
    this.#redis?.on('error', () => undefined)
    const limiterFor = (points: number, sort: string): RateLimiterMemory | RateLimiterRedis => {
      const common = { points, duration: limits.windowMs / 1_000, keyPrefix: `guess:${what}:${sort}` }
      const own = new RateLimiterMemory(common)
      if (redis === undefined) return own
      return new RateLimiterRedis({
        ...common,
        keyPrefix: `${redis.prefix}:${common.keyPrefix}`,
        storeClient: this.#redis,
        rejectIfRedisNotReady: true,
        insuranceLimiter: own,
      })
    }
    return { perAddress: limiterFor(limits.perAddress, 'address'), overall: limiterFor(limits.overall, 'all') }
  }
}
