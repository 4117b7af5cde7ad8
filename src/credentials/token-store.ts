import type { Clock } from '../time/clock.ts'
import type { RedisPlace } from '../redis/connection.ts'
import { OwnConnection } from '../redis/own-connection.ts'

/** Keeps encrypted tokens until they expire, for all instances that share them. Each promise may reject. */
export interface TokenStore {
  get(name: string): Promise<{ readonly sealed: string; readonly leftMs: number } | undefined>
  set(name: string, sealed: string, forMs: number): Promise<void>
  /** Takes the lock if nobody has it, not even this owner. Returns whether it did. The lock ends by itself after `forMs`. */
  lock(name: string, owner: string, forMs: number): Promise<boolean>
  /** Ends the lock if it is still that owner's. */
  unlock(name: string, owner: string): Promise<void>
  close(): void
}

/** Removes a lock if it is still ours. */
const UNLOCK = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`

/** Keeps tokens in Redis, for all instances. Connects when the first token is wanted. */
export class RedisTokens implements TokenStore {
  readonly #redis: OwnConnection

  constructor(place: RedisPlace, clock: Clock) {
    this.#redis = new OwnConnection(place, clock)
  }

  /** Redis says how long the token is still valid, because the clocks of gateways may differ. */
  async get(name: string): Promise<{ sealed: string; leftMs: number } | undefined> {
    const redis = await this.#redis.made()
    const [sealed, leftMs] = await Promise.all([redis.get(name), redis.pttl(name)])
    return sealed === null || leftMs <= 0 ? undefined : { sealed, leftMs }
  }

  async set(name: string, sealed: string, forMs: number): Promise<void> {
    const redis = await this.#redis.made()
    await redis.set(name, sealed, 'PX', forMs)
  }

  async lock(name: string, owner: string, forMs: number): Promise<boolean> {
    const redis = await this.#redis.made()
    return (await redis.set(`${name}:lock`, owner, 'PX', forMs, 'NX')) === 'OK'
  }

  async unlock(name: string, owner: string): Promise<void> {
    const redis = await this.#redis.made()
    await redis.eval(UNLOCK, 1, `${name}:lock`, owner)
  }

  close(): void {
    this.#redis.close()
  }
}

interface Kept {
  readonly text: string
  readonly until: number
}

/** Keeps tokens in the memory of the first process, for all its workers. It needs no bound: each credential has one token. */
export class MemoryTokens implements TokenStore {
  readonly #clock: Clock
  readonly #kept = new Map<string, Kept>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  async get(name: string): Promise<{ sealed: string; leftMs: number } | undefined> {
    const kept = this.#valid(name)
    return kept && { sealed: kept.text, leftMs: kept.until - this.#clock.now() }
  }

  async set(name: string, sealed: string, forMs: number): Promise<void> {
    this.#kept.set(name, { text: sealed, until: this.#clock.now() + forMs })
  }

  async lock(name: string, owner: string, forMs: number): Promise<boolean> {
    if (this.#valid(`${name}:lock`) !== undefined) return false
    await this.set(`${name}:lock`, owner, forMs)
    return true
  }

  async unlock(name: string, owner: string): Promise<void> {
    if (this.#valid(`${name}:lock`)?.text === owner) this.#kept.delete(`${name}:lock`)
  }

  close(): void {}

  #valid(name: string): Kept | undefined {
    const now = this.#clock.now()
    for (const [key, { until }] of this.#kept) if (until <= now) this.#kept.delete(key)
    return this.#kept.get(name)
  }
}
