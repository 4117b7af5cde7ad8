import type { Clock } from '../clock.ts'
import type { ClientConfig } from '../config/client-schema.ts'
import { type Client, clientOf } from './client.ts'
import { ClientKeys, keyOf } from './keys.ts'
import type { ManagedClients } from './managed.ts'

export interface CallersOptions {
  /** Undefined if the configuration has no clients. */
  readonly configured: Readonly<Record<string, ClientConfig>> | undefined
  readonly managed: ManagedClients | undefined
  readonly clock: Clock
}

/** Everyone who may call: the clients of the configuration, and those of the admin API as they are now. */
export class Callers {
  readonly #options: CallersOptions
  readonly #configured: readonly { keys: ClientConfig['keys']; client: Client }[]
  #keys: ClientKeys<Client>
  #revision: number

  constructor(options: CallersOptions) {
    this.#options = options
    this.#configured = Object.entries(options.configured ?? {}).map(([name, config]) => {
      return { keys: config.keys, client: clientOf(name, config) }
    })
    this.#revision = options.managed?.revision ?? 0
    this.#keys = this.#index()
  }

  /** Whether anyone who can connect may call, because no client was ever described: only on loopback. */
  get isOpen(): boolean {
    const { configured, managed } = this.#options
    return configured === undefined && managed?.isUsed !== true
  }

  /**
   * Whose key it is. `unknown` while it may be one of a client that could not be read yet. A connection that presents the
   * key again that it was let in with is not asked twice.
   */
  find(key: string, connection: object): Client | 'expired' | 'unknown' | undefined {
    const { managed } = this.#options
    return this.#current.find(key, connection) ?? (managed?.isKnown === false ? 'unknown' : undefined)
  }

  /** Whose key it is, if it is the one that the connection was let in with; no other is looked at. */
  recall(key: string, connection: object): Client | 'expired' | undefined {
    return this.#current.recall(key, connection)
  }

  get #current(): ClientKeys<Client> {
    const { managed } = this.#options
    if (managed !== undefined && managed.revision !== this.#revision) {
      this.#revision = managed.revision
      this.#keys = this.#index()
    }
    return this.#keys
  }

  #index(): ClientKeys<Client> {
    const { clock, managed } = this.#options
    const index = new ClientKeys<Client>(clock)
    for (const { keys, client } of this.#configured) for (const key of keys) index.add(keyOf(key), client)
    for (const { name, keys, scope } of managed?.active ?? []) {
      const client = clientOf(name, scope)
      for (const key of keys) index.add(key, client)
    }
    return index
  }
}
