import type { Logger } from '../observe/log.ts'
import type { StoreConfig } from '../schema/schema.ts'
import type { Clock } from '../time/clock.ts'
import type { UsageDays } from './days.ts'
import { FileDays } from './file-days.ts'
import { RedisDays } from './redis-days.ts'

/** Keeps them where the store is: beside the quotas in its folder, or in the same Redis, where all instances add to them. */
export function openUsageDays(store: StoreConfig, { clock, logger }: { clock: Clock; logger: Logger }): UsageDays {
  return store.kind === 'redis' ? new RedisDays(store, clock) : new FileDays(store.dir ?? '.sluice', clock, logger)
}
