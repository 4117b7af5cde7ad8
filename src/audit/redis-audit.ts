import type { Cluster, Redis } from 'ioredis'
import type { StoreConfig } from '../schema/schema.ts'
import type { Clock } from '../time/clock.ts'
import { every } from '../time/every.ts'
import { OwnConnection, StoreError } from '../redis/own-connection.ts'
import { isObject, parsedJson } from '../schema/json.ts'
import type { AuditEntry, AuditStore } from './audit.ts'

/** About how many entries are kept. */
const MOST = '100000'
const AT_ONCE = 500
/** So many entries may have come in the seconds since an answer was lost. */
const MOST_SINCE = 100
/** Redis may lose its data while the connection stays. */
const LOOK_EVERY_MS = 10_000
/** The smallest id. Redis refuses it once the stream has an entry. */
const FIRST_ID = '0-1'

type Entry = [id: string, fields: string[]]

/**
 * Stores entries in a stream in Redis that all instances write and read. Its newest entry is never removed on purpose,
 * so if it is missing, Redis has lost it.
 */
export class RedisAudit implements AuditStore {
  readonly #key: string
  readonly #clock: Clock
  readonly #redis: OwnConnection
  /** The id of the newest entry that was seen. */
  #newest: string | undefined
  #onLost: (() => Promise<void>) | undefined
  #stop: (() => void) | undefined

  constructor(store: StoreConfig, clock: Clock) {
    this.#redis = new OwnConnection(store, clock)
    this.#clock = clock
    this.#key = `${store.prefix}:audit`
  }

  async append(entry: AuditEntry): Promise<void> {
    // First looks for a loss: behind the new entry nobody would know that older ones were there.
    await this.#look()
    const text = JSON.stringify(entry)
    this.#newest = await this.#redis
      .ask((redis) => redis.xadd(this.#key, 'MAXLEN', '~', MOST, '*', 'entry', text))
      .then((id) => id ?? undefined)
      .catch((error: unknown) => this.#idOf(text, error))
  }

  /** The id of an entry that may have been added, though its answer was lost. Rejects with `error` if it was not. */
  async #idOf(text: string, error: unknown): Promise<string> {
    const latest = (redis: Redis | Cluster) => redis.xrevrange(this.#key, '+', '-', 'COUNT', MOST_SINCE)
    const entries = await this.#redis.ask(latest).catch((): Entry[] => [])
    const [id] = entries.find(([, fields]) => fields[1] === text) ?? []
    if (id === undefined) throw error
    return id
  }

  async begin(entry: AuditEntry): Promise<void> {
    // Redis refuses it unless the stream is empty, so only one gateway writes it.
    const begun = this.#redis.ask((redis) => redis.xadd(this.#key, FIRST_ID, 'entry', JSON.stringify(entry)))
    await begun.catch(() => undefined)
  }

  watch(onLost: () => Promise<void>): void {
    this.#onLost = onLost
    const redis = this.#redis.open()
    const look = (): void => {
      if (redis.status === 'ready') this.#look().catch(() => undefined)
    }
    redis.on('ready', look)
    this.#stop = every(LOOK_EVERY_MS, this.#clock, look)
  }

  async *read(): AsyncIterable<AuditEntry> {
    for (let end = '+'; ;) {
      const from = end
      const entries = await this.#redis.ask((redis) => redis.xrevrange(this.#key, from, '-', 'COUNT', AT_ONCE))
      for (const entry of entries) yield auditEntryOf(this.#key, entry)
      const last = entries.at(-1)
      if (last === undefined || entries.length < AT_ONCE) return
      end = `(${last[0]}`
    }
  }

  close(): void {
    this.#stop?.()
    this.#redis.close()
  }

  /** Looks whether the newest entry that was seen still exists, and which one is the newest now. */
  async #look(): Promise<void> {
    let known: string | undefined
    const [[newest], found = []] = await this.#redis.ask(async (redis) => {
      known = this.#newest
      // In one transaction: a trail that is lost between the two answers would never be noticed.
      const looks = redis.multi().xrevrange(this.#key, '+', '-', 'COUNT', 1)
      if (known !== undefined) looks.xrange(this.#key, known, known)
      const answers = ((await looks.exec()) ?? []) as [Error | null, Entry[]][]
      for (const [error] of answers) if (error !== null) throw error
      if (answers.length === 0) throw new Error('it did not answer')
      return answers.map(([, entries]) => entries) as [Entry[], Entry[]?]
    })
    // Another look, or an entry of our own, may have ended meanwhile.
    if (this.#newest !== known) return
    this.#newest = newest?.[0]
    if (known !== undefined && found.length === 0) await this.#onLost?.()
  }
}

/** Somebody else may write to the same Redis. What is no entry is not passed over. */
export function auditEntryOf(key: string, [id, fields]: Entry): AuditEntry {
  const entry = parsedJson(fields[1]!)
  if (!isObject(entry)) throw new StoreError(`has what is no entry: remove ${id} of the stream ${key} (XDEL)`)
  return entry as unknown as AuditEntry
}
