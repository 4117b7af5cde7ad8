import { createHmac, hkdfSync, randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { Clock } from '../time/clock.ts'
import { Secret } from '../schema/secret.ts'
import { MasterKeys, type Sealed } from '../secrets/master-keys.ts'
import type { Token } from './token-keeper.ts'
import type { TokenStore } from './token-store.ts'

/**
 * How long an instance holds the lock at most, and how long the others wait for it. It is longer than a token endpoint may take. The
 * lock of an instance that died ends after this.
 */
const LOCK_MS = 15_000
/** How long the others wait before they look for the token again, at least; at most twice this. */
const LOOK_EVERY_MS = 50

/** What the store keeps of a token, encrypted. The store itself knows when the token expires, and drops it then. */
interface SharedToken {
  readonly text: string
  readonly renewEarlierMs: number
}

/**
 * Shares tokens among all instances with the same Redis, or among all workers of one first process. One of them gets a token, and
 * the others take it from the store, where it is encrypted. While the store is away, each gets its own token.
 */
export class TokenShare {
  readonly #store: TokenStore
  readonly #prefix: string
  readonly #clock: Clock

  constructor(store: TokenStore, prefix: string, clock: Clock) {
    this.#store = store
    this.#prefix = prefix
    this.#clock = clock
  }

  /**
   * Returns the stored token if `isWanted` accepts it, else a new one by `issue`. Instances call `issue` one after the
   * other. An instance that has waited `LOCK_MS`, or that can't reach the store, calls it at once. Rejects only as
   * `issue` does. `identity` says what the token is for. Only those who may use the token know `key`: the token is
   * encrypted with a key derived from it.
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
    while (this.#clock.now() < until) {
      let isOurs: boolean
      try {
        const shared = await this.#get(name, keys)
        if (shared !== undefined && isWanted(shared)) return shared
        isOurs = await this.#store.lock(name, owner, LOCK_MS)
      } catch {
        return issue() // without the store, each instance gets its own
      }
      if (isOurs) return this.#issueLocked(name, keys, owner, isWanted, issue)
      await pause(LOOK_EVERY_MS * (1 + Math.random()))
    }
    return issue()
  }

  close(): void {
    this.#store.close()
  }

  async #issueLocked(
    name: string,
    keys: MasterKeys,
    owner: string,
    isWanted: (token: Token) => boolean,
    issue: () => Promise<Token>,
  ): Promise<Token> {
    try {
      // Another instance may have stored one between our read and our lock.
      const shared = await this.#get(name, keys).catch(() => undefined)
      if (shared !== undefined && isWanted(shared)) return shared
      const token = await issue()
      const leftMs = Math.max(1, Math.floor(token.expiresAt - this.#clock.now()))
      const kept: SharedToken = { text: token.text, renewEarlierMs: token.expiresAt - token.renewAt }
      const sealed = JSON.stringify(keys.seal(name, JSON.stringify(kept)))
      await this.#store.set(name, sealed, leftMs).catch(() => undefined)
      return token
    } finally {
      await this.#store.unlock(name, owner).catch(() => undefined)
    }
  }

  async #get(name: string, keys: MasterKeys): Promise<Token | undefined> {
    const askedAt = this.#clock.now()
    const stored = await this.#store.get(name)
    if (stored === undefined) return undefined
    try {
      const { text, renewEarlierMs } = JSON.parse(keys.open(name, JSON.parse(stored.sealed) as Sealed)) as SharedToken
      const expiresAt = askedAt + stored.leftMs
      return { text, expiresAt, renewAt: expiresAt - renewEarlierMs }
    } catch {
      return undefined // unreadable: it will be replaced
    }
  }
}
