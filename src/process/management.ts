import { join } from 'node:path'
import { type AuditTrail, auditTrail } from '../audit/audit.ts'
import { FileAudit } from '../audit/file-audit.ts'
import { RedisAudit } from '../audit/redis-audit.ts'
import type { Clock } from '../time/clock.ts'
import { GuessGuard, type GuessGuardOptions } from '../clients/guess-guard.ts'
import { ManagedClients, type StoredClient } from '../clients/managed.ts'
import type { StoreConfig } from '../schema/schema.ts'
import type { Logger } from '../observe/log.ts'
import { connectRedis } from '../redis/connection.ts'
import { troubleOf } from '../redis/trouble.ts'
import { FileRecords } from '../records/file-records.ts'
import { Losses } from '../records/losses.ts'
import type { Records } from '../records/records.ts'
import { RedisRecords } from '../records/redis-records.ts'
import type { UsageDays } from '../usage/days.ts'
import { readDays } from '../usage/keeper.ts'
import { FileDays } from '../usage/file-days.ts'
import { RedisDays } from '../usage/redis-days.ts'
import type { Management, StoredPreset } from '../server/admin/management.ts'

/** What the admin API changes and the gateway uses, with the usage of past days. */
export type Managed = Omit<Management, 'config'> & {
  readonly losses: Losses
  readonly usageDays: UsageDays
  close(): Promise<void>
}

/** A person does not mistype a token this often, so more wrong tokens are an attack. */
const LOG_INS = { perAddress: 10, overall: 100, window: 60_000 }

/** Opens `Managed` where the quotas are: in the folder of the store, or in the same Redis. Starts even if Redis can't be reached. */
export async function openManaged(
  store: StoreConfig,
  { clock, logger, isWorker = false }: { clock: Clock; logger: Logger; isWorker?: boolean },
): Promise<Managed> {
  const losses = new Losses(clock, logger)
  const clients = new ManagedClients(recordsOf<StoredClient>(store, 'clients', clock, losses), logger)
  const presets = recordsOf<StoredPreset>(store, 'presets', clock, losses)
  const audit = openAudit(store, { clock, logger })
  const usageDays =
    store.kind === 'redis' ? new RedisDays(store, clock) : new FileDays(store.dir ?? '.sluice', clock, logger)
  const usage = { read: (since: number, until: number) => readDays(usageDays, since, until, clock) }
  const guard = new GuessGuard({ what: 'tokens', limits: LOG_INS, clock, logger, ...sharedBy(store) })
  // In the folder of the embedded store only the first process changes anything.
  await clients.start({ isShared: store.kind === 'redis' || isWorker })
  if (store.kind === 'redis') {
    audit.watch(() => losses.noteTrailLost())
    // Presets are read even if nobody asks for them: after a loss in Redis, only a gateway that has read them can put them back.
    presets.watch(() => void presets.read().catch(() => undefined))
  }
  const close = async (): Promise<void> => {
    guard.close()
    await usageDays.close()
    await Promise.all([clients.close(), presets.close(), audit.close()])
  }
  return { clients, presets, audit, guard, clock, logger, losses, usage, usageDays, close }
}

/** The audit trail, which is kept where the store is. */
export function openAudit(store: StoreConfig, { clock, logger }: { clock: Clock; logger: Logger }): AuditTrail {
  const place = store.kind === 'redis' ? new RedisAudit(store, clock) : new FileAudit(fileOf(store, 'audit.jsonl'))
  return auditTrail(place, clock, logger)
}

/** The Redis in which instances count wrong keys together; nothing for an embedded store. */
export function sharedBy(store: StoreConfig): Pick<GuessGuardOptions, 'redis'> {
  return store.kind === 'redis'
    ? { redis: { connect: () => connectRedis(store), prefix: store.prefix, troubleOf } }
    : {}
}

function recordsOf<Item>(store: StoreConfig, sort: 'clients' | 'presets', clock: Clock, losses: Losses): Records<Item> {
  if (store.kind === 'redis') return new RedisRecords<Item>(store, sort, clock, losses)
  return new FileRecords<Item>(fileOf(store, `${sort}.json`), sort, clock)
}

function fileOf({ dir = '.sluice' }: StoreConfig, name: string): string {
  return join(dir, name)
}
