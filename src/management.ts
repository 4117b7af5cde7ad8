import { join } from 'node:path'
import { AuditTrail } from './audit/audit.ts'
import { FileAudit } from './audit/file-audit.ts'
import { RedisAudit } from './audit/redis-audit.ts'
import type { Clock } from './clock.ts'
import { ManagedClients, type StoredClient } from './clients/managed.ts'
import type { StoreConfig } from './config/schema.ts'
import type { Logger } from './observe/log.ts'
import { FileRecords } from './records/file-records.ts'
import type { Records } from './records/records.ts'
import { RedisRecords } from './records/redis-records.ts'
import type { Management, StoredPreset } from './server/admin/management.ts'

/** What the admin API changes, and the gateway goes by. */
export type Managed = Omit<Management, 'config'> & { close(): Promise<void> }

/** Opens it where the store is: beside the quotas in its folder, or in the same Redis. Starts without one that is away. */
export async function openManaged(
  store: StoreConfig,
  { clock, logger }: { clock: Clock; logger: Logger },
): Promise<Managed> {
  const clients = new ManagedClients(recordsOf<StoredClient>(store, 'clients', clock), logger)
  const presets = recordsOf<StoredPreset>(store, 'presets', clock)
  const place = store.kind === 'redis' ? new RedisAudit(store) : new FileAudit(fileOf(store, 'audit.jsonl'))
  const audit = new AuditTrail(place, clock, logger)
  await clients.start()
  const close = async (): Promise<void> => {
    await Promise.all([clients.close(), presets.close(), audit.close()])
  }
  return { clients, presets, audit, clock, logger, close }
}

function recordsOf<Item>(store: StoreConfig, sort: string, clock: Clock): Records<Item> {
  if (store.kind === 'redis') return new RedisRecords<Item>(store, sort, clock)
  return new FileRecords<Item>(fileOf(store, `${sort}.json`), sort, clock)
}

function fileOf({ dir = '.sluice' }: StoreConfig, name: string): string {
  return join(dir, name)
}
