import type { Cluster, Redis } from 'ioredis'
import type { StoreConfig } from '../config/schema.ts'
import { connectRedis, whenConnected } from '../quota/redis.ts'
import type { AuditEntry, AuditStore } from './audit.ts'

/** About so many entries are kept. */
const MOST = '100000'
const AT_ONCE = 500
/** How long to wait for a connection. */
const CONNECT_MS = 2_000

/** A stream in Redis, which all instances write to and read from. */
export class RedisAudit implements AuditStore {
  readonly #store: StoreConfig
  readonly #key: string
  #redis: Redis | Cluster | undefined

  constructor(store: StoreConfig) {
    this.#store = store
    this.#key = `${store.prefix}:audit`
  }

  async append(entry: AuditEntry): Promise<void> {
    const redis = await this.#connected()
    await redis.xadd(this.#key, 'MAXLEN', '~', MOST, '*', 'entry', JSON.stringify(entry))
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
    this.#redis?.disconnect()
    return Promise.resolve()
  }

  /** Only from the first change on. */
  async #connected(): Promise<Redis | Cluster> {
    if (this.#redis === undefined) {
      this.#redis = connectRedis(this.#store)
      // Each command fails with it, and says so.
      this.#redis.on('error', () => undefined)
    }
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('Redis can not be reached')), CONNECT_MS)
    })
    await Promise.race([whenConnected(this.#redis), late]).finally(() => clearTimeout(timer))
    return this.#redis
  }
}
