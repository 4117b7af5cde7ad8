import { hash, randomBytes, timingSafeEqual } from 'node:crypto'

/**
 * Finds the client that presented a key, by the key's SHA-256: that is all that is stored of it. Of a key that was let in a
 * copy stays in memory for as long as its connection.
 */
export class ClientKeys<Client> {
  readonly #byPrefix = new Map<number, { digest: Buffer; client: Client }[]>()
  readonly #byConnection = new WeakMap<object, { key: string; client: Client }>()

  /** Hashes are `sha256:` and 64 hex digits. */
  add(keyHash: string, client: Client): void {
    const digest = Buffer.from(keyHash.slice('sha256:'.length), 'hex')
    this.#byPrefix.getOrInsertComputed(digest.readUInt32BE(), () => []).push({ digest, client })
  }

  /**
   * Whose key it is. A connection that presents the key again that it was let in with is not asked twice; it is known there
   * only for as long as the connection lasts.
   */
  find(key: string, connection: object): Client | undefined {
    const known = this.#byConnection.get(connection)
    if (known?.key === key) return known.client
    const client = this.#look(key)
    if (client !== undefined) this.#byConnection.set(connection, { key, client })
    return client
  }

  /**
   * The time this takes tells nothing useful: only four bytes of the hash are looked up, and an attacker can't steer a
   * hash; the rest is compared in constant time.
   */
  #look(key: string): Client | undefined {
    const digest = hash('sha256', key, 'buffer')
    let found: Client | undefined
    for (const candidate of this.#byPrefix.get(digest.readUInt32BE()) ?? []) {
      if (timingSafeEqual(candidate.digest, digest)) found = candidate.client
    }
    return found
  }
}

/** A new key of 256 random bits, and its hash for the configuration. */
export function createKey(): { key: string; keyHash: string } {
  const key = `slk_${randomBytes(32).toString('base64url')}`
  return { key, keyHash: hashKey(key) }
}

export function hashKey(key: string): string {
  return `sha256:${hash('sha256', key, 'hex')}`
}
