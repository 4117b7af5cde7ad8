import { createHmac, hkdfSync, randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { Clock } from '../time/clock.ts'
import { Secret } from '../schema/secret.ts'
import { MasterKeys, type Sealed } from '../secrets/master-keys.ts'
import type { Token } from './token-keeper.ts'
import type { TokenStore } from './token-store.ts'

/** How long an instance may take for a token, which is longer than any endpoint may. The lock of one that died ends after this. */
const LOCK_MS = 15_000
/** How often others look for the token meanwhile. */
const LOOK_EVERY_MS = 50

/** A token as it is stored, encrypted. The store drops it when it expires. */
interface SharedToken {
  readonly text: string
  readonly renewEarlierMs: number
}

/**
 * Tokens that all instances with the same Redis share, or all workers with the same first process. One of them gets a token, and
 * the others take it from the store, where it is encrypted. While the store is away, each gets its own.
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
   * Returns a token that `isWanted`: the one in the store, or one by `issue`, which no other instance runs at the same
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
