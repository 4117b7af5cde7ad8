import type { Clock } from '../time/clock.ts'
import type { Logger } from '../observe/log.ts'
import { newId } from '../records/ids.ts'

/** Who did it. */
export interface Actor {
  /** Label of the token that was shown; `anonymous` where none is wanted. */
  readonly actor: string
  readonly address: string
}

/** One change, as it is kept. It never holds a secret. */
export interface AuditEntry extends Actor {
  /** `audit_` and 32 hex digits. */
  readonly id: string
  /** ISO 8601, in UTC. */
  readonly at: string
  /** Such as `client.create`. */
  readonly action: string
  /** Id of what was changed, and its name. */
  readonly target: string
  readonly name: string
  /** What is shown of it; null where there was or is nothing. */
  readonly before: object | null
  readonly after: object | null
}

export type Change = Pick<AuditEntry, 'action' | 'target' | 'name' | 'before' | 'after'>

/** Where entries are kept, in the order in which they came. Nothing in it is ever changed. */
export interface AuditStore {
  append(entry: AuditEntry): Promise<void>
  /** Newest first. */
  read(): AsyncIterable<AuditEntry>
  /** Calls back when entries that were there are gone, until it is closed, and appends nothing until that has ended. */
  watch?(onLost: () => Promise<void>): void
  /** Appends an entry if there is none. */
  begin?(entry: AuditEntry): Promise<void>
  close(): Promise<void>
}

export interface AuditFilter {
  readonly actor?: string
  readonly action?: string
  readonly target?: string
  /** Substring of anything in the entry, in any case. */
  readonly search?: string
  /** ISO 8601: not before, and before. */
  readonly since?: string
  readonly until?: string
}

/** What was changed, when and by whom. Kept over restarts, and written to the log, for whoever ships that. */
export class AuditTrail {
  readonly #store: AuditStore
  readonly #clock: Clock
  readonly #logger: Logger

  constructor(store: AuditStore, clock: Clock, logger: Logger) {
    this.#store = store
    this.#clock = clock
    this.#logger = logger
  }

  /** Rejects if it can't be kept; the log has it all the same. */
  async record({ actor, address }: Actor, change: Change): Promise<void> {
    const entry = this.#entry({ actor, address }, change)
    this.#logger.info({ audit: entry }, 'audit')
    await this.#store.append(entry)
  }

  /** Calls back when the store has lost entries; the new trail begins with an entry that says so. */
  watch(onLost: () => void): void {
    this.#store.watch?.(async () => {
      onLost()
      await this.#store.begin?.(this.#entry(GATEWAY, LOST))
    })
  }

  /** Newest first. */
  async read(filter: AuditFilter, { limit, offset }: { limit: number; offset: number }): Promise<AuditEntry[]> {
    const found: AuditEntry[] = []
    let skipped = 0
    for await (const entry of this.#store.read()) {
      if (!matches(entry, filter)) continue
      if (skipped++ < offset) continue
      if (found.push(entry) >= limit) break
    }
    return found
  }

  close(): Promise<void> {
    return this.#store.close()
  }

  #entry({ actor, address }: Actor, change: Change): AuditEntry {
    return { id: newId('audit'), at: new Date(this.#clock.wall()).toISOString(), actor, address, ...change }
  }
}

/** What the trail begins with where Redis had lost the one before. */
const LOST: Change = { action: 'audit.lost', target: 'audit', name: 'audit', before: null, after: null }
const GATEWAY: Actor = { actor: 'gateway', address: 'local' }

function matches(entry: AuditEntry, { actor, action, target, search, since, until }: AuditFilter): boolean {
  if (actor !== undefined && entry.actor !== actor) return false
  if (action !== undefined && entry.action !== action && !entry.action.startsWith(`${action}.`)) return false
  if (target !== undefined && entry.target !== target && entry.name !== target) return false
  if (since !== undefined && entry.at < since) return false
  if (until !== undefined && entry.at >= until) return false
  return search === undefined || JSON.stringify(entry).toLowerCase().includes(search.toLowerCase())
}
