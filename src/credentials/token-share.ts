import { createHmac, hkdfSync, randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { Cluster, Redis } from 'ioredis'
import type { Clock } from '../time/clock.ts'
import { connectedOrLate } from '../redis/connection.ts'
import { Secret } from '../schema/secret.ts'
import { MasterKeys, type Sealed } from '../secrets/master-keys.ts'
import type { Token } from './token-keeper.ts'

/** Longer than any endpoint is waited for: after that, who has the lock has died. */
const LOCK_MS = 15_000
const LOOK_EVERY_MS = 50

/** A token as it is kept in Redis, where it ends by itself when it expires. */
interface SharedToken {
  readonly text: string
  readonly renewEarlierMs: number
}

/** Removes a lock that is still ours. */
const UNLOCK = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`

/**
 * Tokens that all instances with the same Redis share: one of them gets a token, the others take it from Redis, where it is
 * encrypted. While Redis is away each gets its own.
 */
export class TokenShare {
  readonly #connect: () => Redis | Cluster
  #redis: Redis | Cluster | undefined
  readonly #prefix: string
  readonly #clock: Clock

  /** Connects with the first token that is wanted. */
  constructor(connect: () => Redis | Cluster, prefix: string, clock: Clock) {
    this.#connect = connect
    this.#prefix = prefix
    this.#clock = clock
  }

  /**
   * A token that `isWanted`: the one in Redis, else one by `issue`, which no other instance runs at the same time. `identity`
   * says what for, and `key` is what only those know who may have the token: it is encrypted with a key made of that.
   */
  async obtain(
    { identity, key }: { identity: string; key: string },
    isWanted: (token: Token) => boolean,
    issue: () => Promise<Token>,
  ): Promise<Token> {
    const derived = Buffer.from(hkdfSync('sha256', key, '', 'sluice token', 32))
    const name = `${this.#prefix}:token:2:${createHmac('sha256', derived).update(identity).digest('hex').slice(0, 32)}`
    const keys = new MasterKeys([new Secret(derived.toString('base64'))])
    const owner = randomUUID()
    const until = this.#clock.now() + LOCK_MS
    const redis = await this.#connected()
    while (this.#clock.now() < until) {
      let isOurs: boolean
      try {
        const shared = await this.#get(redis, name, keys)
        if (shared !== undefined && isWanted(shared)) return shared
        isOurs = (await redis.set(`${name}:lock`, owner, 'PX', LOCK_MS, 'NX')) === 'OK'
      } catch {
        return issue() // without Redis, for this instance alone
      }
      if (isOurs) return this.#issueLocked(redis, name, keys, owner, isWanted, issue)
      await pause(LOOK_EVERY_MS * (1 + Math.random()))
    }
    return issue()
  }

  close(): void {
    this.#redis?.disconnect()
  }

  async #connected(): Promise<Redis | Cluster> {
    if (this.#redis === undefined) {
      this.#redis = this.#connect()
      // Each command fails with it, and then the instance gets a token of its own.
      this.#redis.on('error', () => undefined)
      // Later, a connection that is lost is not waited for.
      await connectedOrLate(this.#redis, this.#clock)
    }
    return this.#redis
  }

  async #issueLocked(
    redis: Redis | Cluster,
    name: string,
    keys: MasterKeys,
    owner: string,
    isWanted: (token: Token) => boolean,
    issue: () => Promise<Token>,
  ): Promise<Token> {
    try {
      // It may have come between the look and the lock.
      const shared = await this.#get(redis, name, keys).catch(() => undefined)
      if (shared !== undefined && isWanted(shared)) return shared
      const token = await issue()
      const leftMs = Math.max(1, Math.floor(token.expiresAt - this.#clock.now()))
      const kept: SharedToken = { text: token.text, renewEarlierMs: token.expiresAt - token.renewAt }
      const sealed = JSON.stringify(keys.seal(name, JSON.stringify(kept)))
      await redis.set(name, sealed, 'PX', leftMs).catch(() => undefined)
      return token
    } finally {
      await redis.eval(UNLOCK, 1, `${name}:lock`, owner).catch(() => undefined)
    }
  }

  /** How long it lasts yet is for Redis to say: clocks of gateways may differ, or be set. */
  async #get(redis: Redis | Cluster, name: string, keys: MasterKeys): Promise<Token | undefined> {
    const askedAt = this.#clock.now()
    const [stored, leftMs] = await Promise.all([redis.get(name), redis.pttl(name)])
    if (stored === null || leftMs <= 0) return undefined
    try {
      const { text, renewEarlierMs } = JSON.parse(keys.open(name, JSON.parse(stored) as Sealed)) as SharedToken
      const expiresAt = askedAt + leftMs
      return { text, expiresAt, renewAt: expiresAt - renewEarlierMs }
    } catch {
      return undefined // it is replaced
    }
  }
}
