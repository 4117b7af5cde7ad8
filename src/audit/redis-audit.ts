import type { Cluster, Redis } from 'ioredis'
import type { StoreConfig } from '../schema/schema.ts'
import type { Clock, Timer } from '../time/clock.ts'
import { connectedInTime, connectRedis } from '../redis/connection.ts'
import type { AuditEntry, AuditStore } from './audit.ts'

/** About so many entries are kept. */
const MOST = '100000'
const AT_ONCE = 500
/** Redis may lose what it has while the connection stays. */
const LOOK_EVERY_MS = 10_000
/** No other entry of a stream can have it once there is one. */
const FIRST_ID = '0-1'

type Entry = [id: string, fields: string[]]

/** A stream in Redis, which all instances write to and read from. The newest of its entries is never taken away on purpose. */
export class RedisAudit implements AuditStore {
  readonly #store: StoreConfig
  readonly #key: string
  readonly #clock: Clock
  #redis: Redis | Cluster | undefined
  /** Id of the newest entry that was seen. */
  #newest: string | undefined
  #onLost: (() => Promise<void>) | undefined
  #timer: Timer | undefined
  #isClosed = false

  constructor(store: StoreConfig, clock: Clock) {
    this.#store = store
    this.#clock = clock
    this.#key = `${store.prefix}:audit`
  }

  async append(entry: AuditEntry): Promise<void> {
    const redis = await this.#connected()
    // First, because behind the new entry nobody would know that older ones were there.
    await this.#look(redis)
    const id = await redis.xadd(this.#key, 'MAXLEN', '~', MOST, '*', 'entry', JSON.stringify(entry))
    this.#newest = id ?? undefined
  }

  async begin(entry: AuditEntry): Promise<void> {
    const redis = await this.#connected()
    // Refused unless the stream is empty: one of all gateways says it.
    await redis.xadd(this.#key, FIRST_ID, 'entry', JSON.stringify(entry)).catch(() => undefined)
  }

  watch(onLost: () => Promise<void>): void {
    this.#onLost = onLost
    const look = (): void => {
      if (this.#redis?.status === 'ready') this.#look(this.#redis).catch(() => undefined)
    }
    this.#open().on('ready', look)
    const lookAgain = (): void => {
      look()
      if (!this.#isClosed) this.#timer = this.#clock.schedule(LOOK_EVERY_MS, lookAgain)
    }
    this.#timer = this.#clock.schedule(LOOK_EVERY_MS, lookAgain)
  }

  async *read(): AsyncIterable<AuditEntry> {
    const redis = await this.#connected()
    for (let end = '+'; ;) {
      const entries = await redis.xrevrange(this.#key, end, '-', 'COUNT', AT_ONCE)
      for (const [, fields] of entries) yield JSON.parse(fields[1]!) as AuditEntry
      const last = entries.at(-1)
      if (last === undefined || entries.length < AT_ONCE) return
      end = `(${last[0]}`
    }
  }

  close(): Promise<void> {
    this.#isClosed = true
    this.#timer?.cancel()
    this.#redis?.disconnect()
    return Promise.resolve()
  }

  /** Whether the newest entry that was seen is still there; then another may be the newest. */
  async #look(redis: Redis | Cluster): Promise<void> {
    const known = this.#newest
    // At once: of a trail that is lost between the two answers the loss would never be noticed.
    const looks = redis.multi().xrevrange(this.#key, '+', '-', 'COUNT', 1)
    if (known !== undefined) looks.xrange(this.#key, known, known)
    const answers = ((await looks.exec()) ?? []) as [Error | null, Entry[]][]
    for (const [error] of answers) if (error !== null) throw error
    if (answers.length === 0) throw new Error('Redis did not answer')
    const newest = answers[0]![1][0]
    const found = answers[1]?.[1] ?? []
    // Meanwhile another look, or an entry of our own, may have come to an end.
    if (this.#newest !== known) return
    this.#newest = newest?.[0]
    if (known !== undefined && found.length === 0) await this.#onLost?.()
  }

  #open(): Redis | Cluster {
    if (this.#redis === undefined) {
      this.#redis = connectRedis(this.#store)
      // Each command fails with it, and says so.
      this.#redis.on('error', () => undefined)
    }
    return this.#redis
  }

  async #connected(): Promise<Redis | Cluster> {
    const redis = this.#open()
    await connectedInTime(redis, this.#clock)
    return redis
  }
}
