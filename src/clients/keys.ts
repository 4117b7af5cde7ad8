import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../time/clock.ts'
import type { KeyConfig } from '../schema/client-schema.ts'
import { ConnectionNotes } from './connection-notes.ts'

const ACCEPTED_KEY = Symbol('accepted key')

/** What is stored of a key: never the key itself. */
export interface Key {
  /** `sha256:` and 64 hex digits. */
  readonly hash: string
  readonly label?: string
  /** Milliseconds since 1970 from which it is refused. */
  readonly expires?: number
}

export function keyOf(key: KeyConfig): Key {
  return typeof key === 'string' ? { hash: key } : key
}

interface Entry<Client> {
  readonly digest: Buffer
  readonly client: Client
  readonly expires: number
}

/**
 * Finds the client of a key by the key's SHA-256, which is all that is stored. A key that was accepted also stays in
 * memory for as long as its connection, so that it is not hashed again.
 */
export class ClientKeys<Client> {
  readonly #clock: Clock
  readonly #byPrefix = new Map<number, Entry<Client>[]>()
  readonly #byConnection = new ConnectionNotes<{ key: string; entry: Entry<Client> }>(ACCEPTED_KEY)

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add({ hash, expires = Infinity }: Key, client: Client): void {
    const digest = Buffer.from(hash.slice('sha256:'.length), 'hex')
    this.#byPrefix.getOrInsertComputed(digest.readUInt32BE(), () => []).push({ digest, client, expires })
  }

  /** The client that a key belongs to. The key that the connection was last accepted with is not hashed again. */
  find(key: string, connection: object): Client | 'expired' | undefined {
    const known = this.#byConnection.get(connection)
    return this.#judge(key, connection, known?.key === key ? known.entry : this.#look(key))
  }

  /** The client that a key belongs to, if the connection was last accepted with that key. Looks up no other key. */
  recall(key: string, connection: object): Client | 'expired' | undefined {
    const known = this.#byConnection.get(connection)
    return known?.key === key ? this.#judge(key, connection, known.entry) : undefined
  }

  #judge(key: string, connection: object, entry: Entry<Client> | undefined): Client | 'expired' | undefined {
    if (entry === undefined) return undefined
    if (entry.expires !== Infinity && entry.expires <= this.#clock.wall()) return 'expired'
    if (this.#byConnection.get(connection)?.entry !== entry) this.#byConnection.set(connection, { key, entry })
    return entry.client
  }

  /**
   * The time that this takes tells an attacker nothing useful. Only the first four bytes of the hash are looked up, and nobody can
   * choose a hash. The whole hash is compared in constant time.
   */
  #look(key: string): Entry<Client> | undefined {
    const digest = hash('sha256', key, 'buffer')
    let found: Entry<Client> | undefined
    for (const candidate of this.#byPrefix.get(digest.readUInt32BE()) ?? []) {
      if (timingSafeEqual(candidate.digest, digest)) found = candidate
    }
    return found
  }
}

export const KEY_PREFIX = 'slk_'

/** Makes a key of 256 random bits, and its hash for the configuration. */
export function createKey(): { key: string; keyHash: string } {
  const key = `${KEY_PREFIX}${randomBytes(32).toString('base64url')}`
  return { key, keyHash: hashKey(key) }
}

export function hashKey(key: string): string {
  return `sha256:${hash('sha256', key, 'hex')}`
}
