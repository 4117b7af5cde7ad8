import type { Cluster, Redis } from 'ioredis'
import type { Clock, Timer } from '../clock.ts'
import type { StoreConfig } from '../config/schema.ts'
import { connectRedis, whenConnected } from '../quota/redis.ts'
import type { Records } from './records.ts'

/** How long to wait for a connection. */
const CONNECT_MS = 2_000
/** A notice can be lost with its connection. */
const LOOK_EVERY_MS = 10_000

/** Sets a field of a hash, or removes it, if it is still what it was, and tells everyone. */
const CHANGE = `
  if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
  if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
  redis.call('PUBLISH', KEYS[1], ARGV[1])
  return 1`

/** All records in one hash of Redis, for every instance; each change is announced at once. */
export class RedisRecords<Item> implements Records<Item> {
  readonly #store: StoreConfig
  readonly #clock: Clock
  readonly #key: string
  #redis: Redis | Cluster | undefined
  #subscriber: Redis | Cluster | undefined
  #timer: Timer | undefined
  #isClosed = false

  constructor(store: StoreConfig, sort: string, clock: Clock) {
    this.#store = store
    this.#clock = clock
    this.#key = `${store.prefix}:${sort}`
  }

  async read(): Promise<ReadonlyMap<string, Item>> {
    const redis = await this.#connected()
    const fields = Object.entries(await redis.hgetall(this.#key))
    return new Map(fields.map(([name, json]) => [name, JSON.parse(json) as Item]))
  }

  async change(name: string, change: (record: Item | undefined) => Item | undefined): Promise<void> {
    const redis = await this.#connected()
    for (;;) {
      const before = (await redis.hget(this.#key, name)) ?? ''
      const changed = change(before === '' ? undefined : (JSON.parse(before) as Item))
      const after = changed === undefined ? '' : JSON.stringify(changed)
      if ((await redis.eval(CHANGE, 1, this.#key, name, before, after)) === 1) return
    }
  }

  watch(onChange: () => void): void {
    const subscriber = this.#open()
    this.#subscriber = subscriber
    subscriber.on('message', onChange)
    // With every connection anew, and then what was announced meanwhile is looked for.
    const subscribe = (): void => void subscriber.subscribe(this.#key).then(onChange, () => undefined)
    subscriber.on('ready', subscribe)
    const look = (): void => {
      onChange()
      if (!this.#isClosed) this.#timer = this.#clock.schedule(LOOK_EVERY_MS, look)
    }
    this.#timer = this.#clock.schedule(LOOK_EVERY_MS, look)
  }

  close(): Promise<void> {
    this.#isClosed = true
    this.#timer?.cancel()
    this.#redis?.disconnect()
    this.#subscriber?.disconnect()
    return Promise.resolve()
  }

  async #connected(): Promise<Redis | Cluster> {
    const redis = (this.#redis ??= this.#open())
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('Redis can not be reached')), CONNECT_MS)
    })
    await Promise.race([whenConnected(redis), late]).finally(() => clearTimeout(timer))
    return redis
  }

  #open(): Redis | Cluster {
    const redis = connectRedis(this.#store)
    // Each command fails with it, and says so.
    redis.on('error', () => undefined)
    return redis
  }
}
