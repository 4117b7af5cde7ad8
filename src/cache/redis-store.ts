import { randomBytes } from 'node:crypto'
import type { Cluster, Redis, Result } from 'ioredis'
import type { Clock, EpochMs } from '../time/clock.ts'
import { inTime } from '../time/in-time.ts'
import type { Stored } from './entry.ts'
import { type CacheStore, type Found, KEPT_MS } from './store.ts'

/** How long a generation lasts while nothing is stored under it: longer than any request takes. */
const GENERATION_MS = 10 * 60_000
/** The most resources whose invalidation is remembered. It bounds the memory that they take. */
export const MOST_PENDING = 10_000

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

/** Stores an answer only if its generation is still in force. */
const KEEP = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1`

export interface RedisStoreOptions {
  /** A connection of its own: on a shared one a long body would delay charges. */
  readonly redis: Redis | Cluster
  readonly clock: Clock
  readonly prefix: string
  /** The longest wait for Redis, in milliseconds. After it a look-up finds nothing. */
  readonly answerWithinMs: number
  onError(error: unknown): void
}

/** Stores answers in Redis, for all gateways together. */
export class RedisStore implements CacheStore {
  readonly #options: RedisStoreOptions
  /**
   * Resources whose invalidation Redis has not taken. Until it has, this gateway finds nothing of them, but other gateways still find
   * the old answers.
   */
  readonly #pending = new Set<string>()
  /**
   * An answer that was stored before this time, by the wall clock, is not found: it may be out of date. The time is set when a failed
   * invalidation could not be remembered.
   */
  #trustedFrom = 0

  constructor(options: RedisStoreOptions) {
    this.#options = options
    options.redis.defineCommand('sluiceKeep', { lua: KEEP, numberOfKeys: 2 })
    options.redis.on('ready', () => {
      for (const resource of this.#pending) this.invalidate(resource)
    })
  }

  async find(resource: string, selector: string): Promise<Found> {
    const { redis } = this.#options
    const generationKey = this.#keyOf(resource)
    if (this.#pending.has(resource)) {
      this.invalidate(resource)
      return NOTHING
    }
    try {
      // The resource is the hash tag of both keys, so they are in one slot of a cluster.
      const key = this.#keyOf(resource, selector)
      const [[known, bytes], leftMs] = await this.#inTime(
        Promise.all([redis.mgetBuffer(generationKey, key), redis.pttl(key)]),
      )
      if (known == null) return { generation: await this.#begin(generationKey), stored: undefined }
      const generation = known.toString()
      const found = bytes == null ? undefined : decode(bytes, leftMs, this.#options.clock)
      if (found !== undefined && found.keptAt < this.#trustedFrom) {
        this.invalidate(resource)
        return NOTHING
      }
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

  /** Answers of an ended generation are never found again, and expire by themselves. */
  invalidate(resource: string): void {
    // Redis answers in order: every look-up from now on sees the end of the generation.
    this.#options.redis.del(this.#keyOf(resource)).then(
      () => this.#pending.delete(resource),
      (error: unknown) => {
        this.#remember(resource)
        this.#options.onError(error)
      },
    )
  }

  /**
   * Remembers a failed invalidation. Beyond `MOST_PENDING` no answer is trusted that is stored up to `GENERATION_MS` from now: the
   * answer to a read that began before the write may still be stored until then.
   */
  #remember(resource: string): void {
    if (this.#pending.size < MOST_PENDING) this.#pending.add(resource)
    else if (!this.#pending.has(resource)) this.#trustedFrom = this.#options.clock.wall() + GENERATION_MS
  }

  /** How many resources are remembered because Redis has not taken their invalidation. */
  get pendingInvalidations(): number {
    return this.#pending.size
  }

  close(): void {
    this.#options.redis.disconnect()
  }

  /** Begins a generation, or finds the one that another read began meanwhile; undefined if a write has already ended that one. */
  async #begin(key: string): Promise<string | undefined> {
    const { redis } = this.#options
    const generation = randomBytes(9).toString('base64url')
    // Sent together, so that the second one is answered no later.
    const [set, now] = await this.#inTime(
      Promise.all([redis.set(key, generation, 'PX', GENERATION_MS, 'NX'), redis.get(key)]),
    )
    return set === 'OK' ? generation : (now ?? undefined)
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

/** The version of the format. Entries of another version are not read. */
export const FORMAT = '3'

/** The longest time, in milliseconds, that an answer of the store may take. The age by the store is inexact by that much. */
const AWAY_MS = 1_000

interface Kept {
  readonly generation: string
  readonly keepMs: number
  readonly keptAt: EpochMs
}

type Decoded = Pick<Kept, 'generation' | 'keptAt'> & { readonly stored: Stored }

/**
 * Encodes what is stored for `keepMs` milliseconds: the length of the head, the head as JSON, the body. The head holds the age
 * of the entry and not its time of birth, because `Clock.now` of two processes cannot be compared.
 */
function encode(generation: string, stored: Stored, keepMs: number, clock: Clock): Buffer {
  const { body, ...rest } =
    stored.kind === 'entry' ? { ...stored, bornAt: stored.bornAt - clock.now() } : { ...stored, body: EMPTY }
  const head = Buffer.from(JSON.stringify({ generation, keepMs, keptAt: clock.wall(), ...rest }))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(head.length)
  return Buffer.concat([length, head, body])
}

/**
 * Decodes what `encode` made; undefined for anything else. `leftMs` is the time for which the store will keep it. Two clocks say
 * how long ago it was stored: the wall clock, and the time that the store has left. The longer time counts. If the wall clock
 * was set back, it alone would make the entry younger than it is, and fresh for too long.
 */
function decode(bytes: Buffer, leftMs: number, clock: Clock): Decoded | undefined {
  if (bytes.length < 4) return undefined
  const end = 4 + bytes.readUInt32BE()
  try {
    const { generation, keepMs, keptAt, ...head } = JSON.parse(bytes.toString('utf8', 4, end)) as Kept & Stored
    if (head.kind !== 'entry') return { generation, keptAt, stored: head }
    const agoMs = Math.max(0, clock.wall() - keptAt, keepMs - Math.max(0, leftMs) - AWAY_MS)
    const bornAt = clock.now() + head.bornAt - agoMs
    return { generation, keptAt, stored: { ...head, bornAt, body: bytes.subarray(end) } }
  } catch {
    return undefined
  }
}

const EMPTY = Buffer.alloc(0)
