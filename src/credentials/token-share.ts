import { createHmac, hkdfSync, randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { Cluster, Redis } from 'ioredis'
import type { Clock } from '../time/clock.ts'
import { connectedOrLate } from '../redis/connection.ts'
import { Secret } from '../schema/secret.ts'
import { MasterKeys, type Sealed } from '../secrets/master-keys.ts'
import type { Token } from './token-keeper.ts'

/** Longer than any endpoint may take. A lock that lasts longer belonged to an instance that died. */
const LOCK_MS = 15_000
const LOOK_EVERY_MS = 50

/** A token as it is stored, encrypted, in Redis. The key expires together with the token. */
interface SharedToken {
  readonly text: string
  readonly renewEarlierMs: number
}

/** Removes a lock if it is still ours. */
const UNLOCK = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`

/**
 * Tokens that all instances with the same Redis share. One instance gets a token, and the others take it from Redis,
 * where it is encrypted. While Redis is away, each instance gets its own.
 */
export class TokenShare {
  readonly #connect: () => Redis | Cluster
  #redis: Redis | Cluster | undefined
  readonly #prefix: string
  readonly #clock: Clock

  /** Connects when the first token is wanted. */
  constructor(connect: () => Redis | Cluster, prefix: string, clock: Clock) {
    this.#connect = connect
    this.#prefix = prefix
    this.#clock = clock
  }

  /**
   * Returns a token that `isWanted`: the one in Redis, or one by `issue`, which no other instance runs at the same
   * time. `identity` says what the token is for. `key` is known only to those who may have it: the token is encrypted
   * with a key derived from it.
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
        return issue() // without Redis, each instance gets its own
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
      // An error fails each command, and then the instance gets a token of its own.
      this.#redis.on('error', () => undefined)
      // Only the first connection is waited for.
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
      // Another instance may have stored one between our read and our lock.
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

  /** Redis says how long it is still valid: the clocks of gateways may differ. */
  async #get(redis: Redis | Cluster, name: string, keys: MasterKeys): Promise<Token | undefined> {
    const askedAt = this.#clock.now()
    const [stored, leftMs] = await Promise.all([redis.get(name), redis.pttl(name)])
    if (stored === null || leftMs <= 0) return undefined
    try {
      const { text, renewEarlierMs } = JSON.parse(keys.open(name, JSON.parse(stored) as Sealed)) as SharedToken
      const expiresAt = askedAt + leftMs
      return { text, expiresAt, renewAt: expiresAt - renewEarlierMs }
    } catch {
      return undefined // unreadable: it will be replaced
    }
  }
}
