/*
 * src/audit: the trail of what was changed, when and by whom, in a file or in Redis.
 * It imports records, files, redis, observe, schema and time.
 * A change here must prove that no entry is lost without notice, and that none contains a secret
 * (test/records/redis-audit.test.ts, test/server/admin).
 */

import type { Clock } from '../time/clock.ts'
import type { Logger } from '../observe/log.ts'
import { TimeSlice } from '../observe/time-slice.ts'
import { searchFor } from '../schema/search.ts'
import { newId } from '../records/ids.ts'

/** Who made a change. */
export interface Actor {
  /** The label of the admin token; `anonymous` where none is required. */
  readonly actor: string
  readonly address: string
}

/** An entry of the audit trail. It never contains a secret. */
export interface AuditEntry extends Actor {
  /** `audit_` and 32 hex digits. */
  readonly id: string
  /** ISO 8601, in UTC. */
  readonly at: string
  /** Such as `client.create`. */
  readonly action: string
  /** The id of the changed thing, and its name. */
  readonly target: string
  readonly name: string
  /** The thing before and after the change, as the API shows it; null where there is none. */
  readonly before: object | null
  readonly after: object | null
}

export type Change = Pick<AuditEntry, 'action' | 'target' | 'name' | 'before' | 'after'>

/** Stores entries in the order in which they came, and never changes one. */
export interface AuditStore {
  append(entry: AuditEntry): Promise<void>
  /** Newest first. */
  read(): AsyncIterable<AuditEntry>
  /**
   * Calls `onLost` when entries have disappeared, until it is closed. Appends nothing until its promise has resolved.
   */
  watch?(onLost: () => Promise<void>): void
  /** Appends an entry if there is none yet. */
  begin?(entry: AuditEntry): Promise<void>
  close(): Promise<void> | void
}

export interface AuditFilter {
  readonly actor?: string
  readonly action?: string
  readonly target?: string
  /** A part of any text or number in the entry, in any case. */
  readonly search?: string
  /** ISO 8601: from `since`, and before `until`. */
  readonly since?: string
  readonly until?: string
}

/** The trail of changes: what, when and by whom. It survives restarts, and is also written to the log. */
export type AuditTrail = ReturnType<typeof auditTrail>

export function auditTrail(store: AuditStore, clock: Clock, logger: Logger) {
  const entryOf = ({ actor, address }: Actor, change: Change): AuditEntry => {
    return { id: newId('audit'), at: new Date(clock.wall()).toISOString(), actor, address, ...change }
  }
  return {
    /** Records a change. Rejects if it can't be stored; the log has it in any case. */
    async record(by: Actor, change: Change): Promise<void> {
      const entry = entryOf(by, change)
      logger.info({ audit: entry }, 'audit')
      await store.append(entry)
    },

    /** Calls `onLost` when the store has lost entries. The new trail begins with an entry that says so. */
    watch(onLost: () => void): void {
      store.watch?.(async () => {
        onLost()
        await store.begin?.(entryOf(GATEWAY, LOST))
      })
    },

    /** Newest first. Delays no calls. */
    async read(filter: AuditFilter, { limit, offset }: { limit: number; offset: number }): Promise<AuditEntry[]> {
      const found: AuditEntry[] = []
      const wanted = { ...filter, search: filter.search === undefined ? undefined : searchFor(filter.search) }
      let skipped = 0
      const slice = new TimeSlice()
      for await (const entry of store.read()) {
        await slice.endIfOver()
        if (!matches(entry, wanted)) continue
        if (skipped++ < offset) continue
        if (found.push(entry) >= limit) break
      }
      return found
    },

    close: () => store.close(),
  }
}

/** The first entry of a trail after Redis has lost the one before. */
const LOST: Change = { action: 'audit.lost', target: 'audit', name: 'audit', before: null, after: null }
const GATEWAY: Actor = { actor: 'gateway', address: 'local' }

type Filter = Omit<AuditFilter, 'search'> & { readonly search: ((entry: AuditEntry) => boolean) | undefined }

function matches(entry: AuditEntry, { actor, action, target, search, since, until }: Filter): boolean {
  if (actor !== undefined && entry.actor !== actor) return false
  if (action !== undefined && entry.action !== action && !entry.action.startsWith(`${action}.`)) return false
  if (target !== undefined && entry.target !== target && entry.name !== target) return false
  if (since !== undefined && entry.at < since) return false
  if (until !== undefined && entry.at >= until) return false
  return search?.(entry) !== false
}
