import { randomBytes } from 'node:crypto'
import type { Cluster, Redis, Result } from 'ioredis'
import type { Clock } from '../time/clock.ts'
import { inTime } from '../time/in-time.ts'
import type { Stored } from './entry.ts'
import { decode, encode, FORMAT } from './entry-format.ts'
import { type CacheStore, type Found, KEPT_MS } from './store.ts'

/** Long enough for any request that is under way; a generation under which something is kept lasts as long as that. */
const GENERATION_MS = 10 * 60_000

declare module 'ioredis' {
  interface RedisCommander<Context> {
    sluiceKeep(
      generationKey: string,
      key: string,
      generation: string,
      bytes: Buffer,
      keepMs: number,
      generationMs: number,
    ): Result<unknown, Context>
  }
}

/** An answer of an earlier generation must not take the place of one of this. */
const KEEP = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1`

export interface RedisStoreOptions {
  /** A connection of its own: a long body must not stand in the way of a charge. */
  readonly redis: Redis | Cluster
  readonly clock: Clock
  readonly prefix: string
  /** Longest wait for an answer; then nothing was found. */
  readonly answerWithinMs: number
  onError(error: unknown): void
}

/** Keeps answers in Redis, for all gateways together. */
export class RedisStore implements CacheStore {
  readonly #options: RedisStoreOptions
  /** Resources that were written to while Redis could not be told: until it is, nothing of them is found. */
  readonly #owed = new Set<string>()

  constructor(options: RedisStoreOptions) {
    this.#options = options
    options.redis.defineCommand('sluiceKeep', { lua: KEEP, numberOfKeys: 2 })
    options.redis.on('ready', () => {
      for (const resource of this.#owed) this.invalidate(resource)
    })
  }

  async find(resource: string, selector: string): Promise<Found> {
    const { redis } = this.#options
    const generationKey = this.#keyOf(resource)
    if (this.#owed.has(resource)) return NOTHING
    try {
      // Both keys have the resource as hash tag, so they are in one slot of a cluster.
      const key = this.#keyOf(resource, selector)
      const [[known, bytes], leftMs] = await this.#inTime(
        Promise.all([redis.mgetBuffer(generationKey, key), redis.pttl(key)]),
      )
      if (known == null) return { generation: await this.#begin(generationKey), stored: undefined }
      const generation = known.toString()
      const found = bytes == null ? undefined : decode(bytes, leftMs, this.#options.clock)
      return { generation, stored: found?.generation === generation ? found.stored : undefined }
    } catch (error) {
      this.#options.onError(error)
      return NOTHING
    }
  }

  keep(resource: string, selector: string, generation: string, stored: Stored, keepMs: number): void {
    const keys = [this.#keyOf(resource), this.#keyOf(resource, selector)] as const
    const forMs = Math.ceil(keepMs)
    const bytes = encode(generation, stored, forMs, this.#options.clock)
    this.#send(this.#options.redis.sluiceKeep(...keys, generation, bytes, forMs, KEPT_MS))
  }

  drop(resource: string, selector: string): void {
    this.#send(this.#options.redis.del(this.#keyOf(resource, selector)))
  }

  /** What is kept under a generation that is gone is never found again, and runs out by itself. */
  invalidate(resource: string): void {
    // What is asked of Redis from now on is answered after this.
    this.#options.redis.del(this.#keyOf(resource)).then(
      () => this.#owed.delete(resource),
      (error: unknown) => {
        this.#owed.add(resource)
        this.#options.onError(error)
      },
    )
  }

  close(): void {
    this.#options.redis.disconnect()
  }

  /** Undefined if another gateway was first: what is stored now might be older than a write in between. */
  async #begin(key: string): Promise<string | undefined> {
    const generation = randomBytes(9).toString('base64url')
    const set = await this.#inTime(this.#options.redis.set(key, generation, 'PX', GENERATION_MS, 'NX'))
    return set === 'OK' ? generation : undefined
  }

  #keyOf(resource: string, selector = 'generation'): string {
    return `${this.#options.prefix}:cache:${FORMAT}:{${resource}}:${selector}`
  }

  #send(sent: Promise<unknown>): void {
    sent.catch((error: unknown) => this.#options.onError(error))
  }

  #inTime<T>(answer: Promise<T>): Promise<T> {
    const { clock, answerWithinMs } = this.#options
    return inTime(answer, answerWithinMs, clock)
  }
}

const NOTHING: Found = { generation: undefined, stored: undefined, isFailed: true }
