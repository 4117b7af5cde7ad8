import type { Cluster, Redis } from 'ioredis'
import type { Clock, Timer } from '../time/clock.ts'
import type { StoreConfig } from '../schema/schema.ts'
import { connectedInTime, connectRedis } from '../redis/connection.ts'
import type { Losses } from './losses.ts'
import type { Records } from './records.ts'

/** A notice can be lost with its connection. */
const LOOK_EVERY_MS = 10_000

/** Sets a field of a hash if it is still what it was, and tells everyone. Nothing and the empty text are the same. */
const CHANGE = `
  if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('PUBLISH', KEYS[1], ARGV[1])
  return 1`

/**
 * All records in one hash of Redis, for every instance; each change is announced at once. A record that is removed leaves its
 * name with an empty text. So a name that was there and is not any more was lost by Redis: it was restarted without its data,
 * flushed, evicted it, or failed over to a replica that had it not yet. Whoever reads then puts back what it knew.
 */
export class RedisRecords<Item> implements Records<Item> {
  readonly #store: StoreConfig
  readonly #sort: string
  readonly #clock: Clock
  readonly #key: string
  readonly #losses: Losses | undefined
  /** The fields as they were read last: no more secret than they are in Redis, where secrets are sealed. */
  #known: ReadonlyMap<string, string> = new Map()
  /** One read after the other: else one that began earlier would miss what a later one has seen. */
  #lastRead: Promise<unknown> = Promise.resolve()
  #redis: Redis | Cluster | undefined
  #subscriber: Redis | Cluster | undefined
  #timer: Timer | undefined
  #isClosed = false

  /** `losses` hears of what Redis has lost. */
  constructor(store: StoreConfig, sort: string, clock: Clock, losses?: Losses) {
    this.#store = store
    this.#sort = sort
    this.#clock = clock
    this.#key = `${store.prefix}:${sort}`
    this.#losses = losses
  }

  read(): Promise<ReadonlyMap<string, Item>> {
    const read = this.#lastRead.then(() => this.#read())
    this.#lastRead = read.catch(() => undefined)
    return read
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

  async #read(): Promise<ReadonlyMap<string, Item>> {
    const redis = await this.#connected()
    let fields = await this.#fields(redis)
    const lost = lostFrom(fields, this.#known)
    if (lost.size > 0) {
      // Names of what was removed are put back as well, but nobody misses them.
      const missed = [...lost.values()].filter((json) => json !== '').length
      try {
        for (const [name, json] of lost) await redis.eval(CHANGE, 1, this.#key, name, fields.get(name) ?? '', json)
        fields = await this.#fields(redis)
      } catch (error) {
        if (missed > 0) this.#losses?.noteLost(this.#sort, missed, (error as Error).message)
        throw error // what is known stays in force, and is put back later
      }
      if (missed > 0) this.#losses?.noteLost(this.#sort, missed)
    }
    this.#known = fields
    const records = [...fields].filter(([, json]) => json !== '')
    return new Map(records.map(([name, json]) => [name, JSON.parse(json) as Item]))
  }

  async #fields(redis: Redis | Cluster): Promise<ReadonlyMap<string, string>> {
    return new Map(Object.entries(await redis.hgetall(this.#key)))
  }

  async #connected(): Promise<Redis | Cluster> {
    const redis = (this.#redis ??= this.#open())
    await connectedInTime(redis, this.#clock)
    return redis
  }

  #open(): Redis | Cluster {
    const redis = connectRedis(this.#store)
    // Each command fails with it, and says so.
    redis.on('error', () => undefined)
    return redis
  }
}

/**
 * What is known and not there, or there as it was before a change: Redis has lost it. Also the name of what was removed: else
 * a gateway that has not heard of the removal would put back the client, whose key was revoked.
 */
function lostFrom(
  fields: ReadonlyMap<string, string>,
  known: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  const lost = new Map<string, string>()
  for (const [name, json] of known) {
    const stored = fields.get(name)
    if (stored === undefined || (stored !== json && isOlder(stored, json))) lost.set(name, json)
  }
  return lost
}

/** Of two states of one record that counts its changes. */
function isOlder(stored: string, known: string): boolean {
  if (stored === '' || known === '') return false
  const [a, b] = [stored, known].map((json) => JSON.parse(json) as { id?: string; version?: number })
  return a!.id !== undefined && a!.id === b!.id && (a!.version ?? 0) < (b!.version ?? 0)
}
