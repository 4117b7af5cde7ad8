import { isObject, parsedJson } from '../schema/json.ts'
import type { Clock } from '../time/clock.ts'
import { every } from '../time/every.ts'
import type { StoreConfig } from '../schema/schema.ts'
import { OwnConnection, StoreError } from '../redis/own-connection.ts'
import type { Losses, LostRecords } from './losses.ts'
import type { Records } from './records.ts'

/** A notice of a change can be lost together with its connection. */
const LOOK_EVERY_MS = 10_000

/** Reads a field of a hash, and the time of Redis in seconds and microseconds. */
const LOOK = `return { redis.call('HGET', KEYS[1], ARGV[1]) or '', redis.call('TIME') }`

/**
 * Sets a field of a hash if it has not changed, and notifies everyone. A missing field equals an empty one. It publishes first: if that
 * is not allowed, nothing has changed. Listeners get the notice after the script.
 */
const CHANGE = `
  if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
  redis.call('PUBLISH', KEYS[1], ARGV[1])
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  return 1`

/**
 * Keeps all records in one hash of Redis, for every instance, and announces each change. A removed record leaves its
 * name behind. So if a name is missing that was there before, Redis has lost it: it was restarted without its data,
 * flushed, or evicted it, or failed over to a replica that did not have it yet. Whoever reads then puts back what it
 * knew.
 *
 * Each state of a name has a revision, which orders it among all states that the name ever had, also after a removal or
 * a loss: it is at least the time of Redis in microseconds. So a gateway that is behind may put back an old state
 * first, and whoever knows a later state, or of the removal, replaces it. If no running gateway knows of the removal,
 * the record comes back.
 */
export class RedisRecords<Item> implements Records<Item> {
  readonly #sort: LostRecords
  readonly #clock: Clock
  readonly #key: string
  readonly #losses: Losses | undefined
  /** The fields as they were last read. They are no more secret here than in Redis, where secrets are encrypted. */
  #known: ReadonlyMap<string, string> = new Map()
  /** Reads run one after the other. Otherwise a read that began earlier could overwrite what a later one has found. */
  #lastRead: Promise<unknown> = Promise.resolve()
  readonly #redis: OwnConnection
  readonly #subscriber: OwnConnection
  #stop: (() => void) | undefined

  /** `losses` hears of what Redis has lost. */
  constructor(store: StoreConfig, sort: LostRecords, clock: Clock, losses?: Losses) {
    this.#redis = new OwnConnection(store, clock)
    this.#subscriber = new OwnConnection(store, clock)
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
    // First puts back what Redis lost. Otherwise the record would seem to be missing, and its name to be free.
    await this.read()
    for (;;) {
      const look = await this.#redis.ask((redis) => redis.eval(LOOK, 1, this.#key, name))
      const [before, [seconds, microseconds]] = look as Look
      mustBeRecord(this.#key, name, before)
      const now = Number(seconds) * 1_000_000 + Number(microseconds)
      const revision = Math.max(now, (parse(before).revision ?? 0) + 1)
      const changed = change(itemOf(before) as Item | undefined)
      const after = JSON.stringify(changed === undefined ? { removed: true, revision } : { ...changed, revision })
      if (await this.#change(name, before, after)) return
    }
  }

  watch(onChange: () => void): void {
    const subscriber = this.#subscriber.open()
    subscriber.on('message', onChange)
    const subscribe = (): Promise<unknown> => subscriber.subscribe(this.#key)
    // Subscribes with every new connection, and then looks for what was announced meanwhile.
    subscriber.on('ready', () => void subscribe().then(onChange, () => undefined))
    this.#stop = every(LOOK_EVERY_MS, this.#clock, () => {
      onChange()
      // Again and again, as it may have failed, or its connection may have died in silence.
      subscribe().catch(() => undefined)
    })
  }

  close(): void {
    this.#stop?.()
    this.#redis.close()
    this.#subscriber.close()
  }

  async #read(): Promise<ReadonlyMap<string, Item>> {
    let fields = await this.#fields()
    let lost = lostFrom(fields, this.#known)
    // Removals are put back, too, but they are no losses to report.
    const missed = [...lost.values()].filter((json) => !isRemoved(json)).length
    try {
      // A gateway that is behind may put back an older state at the same time: then this one is still lost.
      while (lost.size > 0) {
        for (const [name, json] of lost) await this.#change(name, fields.get(name) ?? '', json)
        fields = await this.#fields()
        lost = lostFrom(fields, this.#known)
      }
    } catch (error) {
      if (missed > 0) this.#losses?.noteLost(this.#sort, missed, (error as Error).message)
      throw error // what is known stays in force, and is put back later
    }
    if (missed > 0) this.#losses?.noteLost(this.#sort, missed)
    this.#known = fields
    const records = new Map<string, Item>()
    for (const [name, json] of fields) {
      const item = itemOf(json)
      if (item !== undefined) records.set(name, item as Item)
    }
    return records
  }

  async #fields(): Promise<ReadonlyMap<string, string>> {
    const fields = Object.entries(await this.#redis.ask((redis) => redis.hgetall(this.#key)))
    for (const [name, text] of fields) mustBeRecord(this.#key, name, text)
    return new Map(fields)
  }

  /**
   * Returns whether it was done. If not, the field has changed meanwhile. Bytes that are no UTF-8 never compare equal, because they were
   * changed when read. A retry would never end, so this throws.
   */
  async #change(name: string, before: string, after: string): Promise<boolean> {
    const key = this.#key
    const stored = () => this.#redis.ask((redis) => redis.hget(key, name))
    try {
      if ((await this.#redis.ask((redis) => redis.eval(CHANGE, 1, key, name, before, after))) === 1) return true
    } catch (error) {
      // Perhaps only the answer was lost. No other change has this revision.
      if ((await stored().catch(() => undefined)) === after) return true
      throw error
    }
    const now = await stored()
    if ((now ?? '') !== before) return false
    throw new StoreError(`can not change what is no UTF-8: remove the field ${name} of the hash ${key} (HDEL)`)
  }
}

type Look = [before: string, time: [seconds: string, microseconds: string]]

/** What a field contains besides the record. Earlier versions wrote no revision, and an empty text for a removal. */
interface Stored {
  readonly removed?: true
  readonly revision?: number
  readonly id?: string
  readonly version?: number
}

/** Somebody else may write to the same Redis. What is no record is not passed over, as if there was nothing of that name. */
export function mustBeRecord(key: string, name: string, text: string): void {
  if (text !== '' && !isObject(parsedJson(text)))
    throw new StoreError(`has what is no record: remove the field ${name} of the hash ${key} (HDEL)`)
}

/** Whether a field stands for a removed record. */
export function isRemoved(json: string): boolean {
  return parse(json).removed === true
}

/** The record in a field, without our own fields; undefined if it was removed. */
function itemOf(json: string): object | undefined {
  const { removed, revision: _, ...item } = parse(json)
  return removed === true ? undefined : item
}

function parse(json: string): Stored {
  return json === '' ? { removed: true } : (JSON.parse(json) as Stored)
}

/**
 * The fields that Redis has lost: known ones that are missing, or that are older than known. Removals count, too:
 * otherwise a gateway that has not heard of a removal would put back the client, whose key was revoked.
 */
function lostFrom(
  fields: ReadonlyMap<string, string>,
  known: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  const lost = new Map<string, string>()
  for (const [name, json] of known) {
    const stored = fields.get(name)
    if (stored === undefined || (stored !== json && isOlder(parse(stored), parse(json)))) lost.set(name, json)
  }
  return lost
}

function isOlder(stored: Stored, known: Stored): boolean {
  if (stored.revision !== undefined && known.revision !== undefined && stored.revision !== known.revision) {
    return stored.revision < known.revision
  }
  // A record without a revision is older than a removal with one.
  if (known.removed === true) return known.revision !== undefined && stored.revision === undefined
  if (stored.removed === true) return false
  return known.id !== undefined && stored.id === known.id && (stored.version ?? 0) < (known.version ?? 0)
}
