import { Value } from 'typebox/value'
import { type ClientScope, ClientScopeSchema } from '../schema/client-schema.ts'
import type { Records } from '../records/records.ts'
import type { Logger } from '../observe/log.ts'
import type { Key } from './keys.ts'

/** A key of a client of the admin API. Times are in milliseconds since 1970. */
export interface StoredKey extends Key {
  /** `key_` and 32 hex digits. */
  readonly id: string
  readonly createdAt: number
}

/** A client that was made through the admin API. */
export interface StoredClient {
  /** `client_` and 32 hex digits. */
  readonly id: string
  readonly name: string
  readonly keys: readonly StoredKey[]
  /** What it may do, as a configuration file would say it. */
  readonly scope: object
  readonly createdAt: number
  readonly updatedAt: number
  /** Since when its keys are refused. */
  readonly archivedAt?: number
  /** Since when it is not listed any more, and its name is free. */
  readonly deletedAt?: number
  /** Grows with every change. */
  readonly version: number
}

/** A client whose keys are in force. */
export interface ActiveClient {
  readonly name: string
  readonly keys: readonly Key[]
  readonly scope: ClientScope
}

/** A client as it was read. While its text stays the same, it stays this object. */
interface Entry {
  readonly text: string
  readonly client: StoredClient
  /** Made when it is first asked for; null if its keys are not in force. */
  active?: ActiveClient | null
}

/**
 * The clients that were made through the admin API, here or at another instance. It notices what other instances
 * change.
 */
export class ManagedClients {
  readonly #records: Records<StoredClient>
  readonly #logger: Logger
  #entries: ReadonlyMap<string, Entry> | undefined
  #reading: Promise<void> | undefined
  #isStale = false
  #lastChange: Promise<void> = Promise.resolve()
  /** Whether there ever was a client. Then nobody may call without a key, even if the store has lost all clients. */
  isUsed = false
  /** Why the clients could not be read at the latest try. It stays set once they are read: see `isKnown`. */
  problem: string | undefined
  /** Grows whenever something changed. */
  revision = 0

  constructor(records: Records<StoredClient>, logger: Logger) {
    this.#records = records
    this.#logger = logger
  }

  /** Whether the clients have been read since the start. Until then, an unknown key may belong to one of them. */
  get isKnown(): boolean {
    return this.#entries !== undefined
  }

  /**
   * Reads the clients. Watches for changes if other processes share them, or if they can't be read yet. Never rejects.
   */
  async start({ isShared }: { isShared: boolean }): Promise<void> {
    if (isShared) this.#records.watch(() => void this.refresh())
    await this.refresh()
    if (!isShared && !this.isKnown) this.#records.watch(() => void this.refresh())
  }

  /** The clients that were not deleted. */
  get all(): readonly StoredClient[] {
    return this.#notDeleted.map(({ client }) => client)
  }

  /** The clients whose keys are in force. */
  get active(): readonly ActiveClient[] {
    return this.#notDeleted.flatMap((entry) => {
      if (entry.active === undefined) entry.active = this.#activeOf(entry.client)
      return entry.active ?? []
    })
  }

  get #notDeleted(): readonly Entry[] {
    return [...(this.#entries?.values() ?? [])].filter(({ client }) => client.deletedAt === undefined)
  }

  #activeOf({ name, keys, scope, archivedAt }: StoredClient): ActiveClient | null {
    if (archivedAt !== undefined) return null
    // `Decode` would leave out what it does not know.
    if (Value.Check(ClientScopeSchema, scope)) return { name, keys, scope: Value.Decode(ClientScopeSchema, scope) }
    // Another release has written this client. It is refused, because to let it call without its limits would be worse.
    this.#logger.error({ client: name }, 'a client of the admin API is not understood and refused')
    return null
  }

  /**
   * Changes one client, as `Records` do. The change is in force at this instance when the promise resolves. At this instance changes
   * run one after another, so that `change` can compare the client with all others as they are then.
   */
  change(name: string, change: (stored: StoredClient | undefined) => StoredClient): Promise<void> {
    const changing = this.#lastChange.then(async () => {
      await this.#records.change(name, change)
      await this.refresh()
    })
    this.#lastChange = changing.catch(() => undefined)
    return changing
  }

  /** Reads everything that was changed before this call. */
  refresh(): Promise<void> {
    this.#isStale = true
    return (this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined
    }))
  }

  async close(): Promise<void> {
    await this.#records.close()
    await this.#reading
  }

  async #read(): Promise<void> {
    while (this.#isStale) {
      this.#isStale = false
      try {
        const stored = await this.#records.read()
        const entries = new Map<string, Entry>()
        let isSame = stored.size === this.#entries?.size
        for (const [name, client] of stored) {
          const text = JSON.stringify(client)
          const before = this.#entries?.get(name)
          const isUnchanged = before?.text === text
          entries.set(name, isUnchanged ? before : { text, client })
          isSame &&= isUnchanged
        }
        if (isSame) continue
        this.#entries = entries
        this.isUsed ||= entries.size > 0
        this.revision++
      } catch (error) {
        // The clients that were read before stay in force.
        if (this.isKnown) continue
        const isNew = this.problem === undefined
        this.problem = (error as Error).message
        const message = 'the clients of the admin API can not be read yet: it is tried again'
        if (isNew) this.#logger.warn({ error: this.problem }, message)
      }
    }
  }
}
