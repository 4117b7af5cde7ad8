import type { Cluster, Redis } from 'ioredis'
import type { AuditEntry } from '../audit/audit.ts'
import type { StoredClient } from '../clients/managed.ts'
import type { StoreConfig } from '../schema/schema.ts'
import { isRemoved } from '../records/redis-records.ts'
import { connectedInTime, connectRedis, type RedisPlace } from '../redis/connection.ts'
import { systemClock } from '../time/clock.ts'
import { type Persistence, persistenceOf } from '../redis/persistence.ts'
import { countOf } from '../schema/units.ts'

/** What a Redis holds that must not be lost, and how it keeps its data. */
export interface RedisContents {
  readonly persistence: Persistence
  /** How many clients of the admin API it holds, without deleted ones. */
  readonly clients: number
  readonly secrets: number
  /** Undefined if there is none. */
  readonly firstAudit: AuditEntry | undefined
}

/** Asks a Redis for its contents. Rejects if it can't be reached or refuses. */
export function redisContents(store: StoreConfig): Promise<RedisContents> {
  return withRedis(store, (redis) => contentsOf(redis, store.prefix))
}

/** Connects, asks and disconnects. If Redis can't be reached in time, this rejects with the cause. */
export async function withRedis<Answer>(
  store: RedisPlace,
  ask: (redis: Redis | Cluster) => Promise<Answer>,
): Promise<Answer> {
  const redis = connectRedis(store)
  try {
    await connectedInTime(redis, systemClock)
    return await ask(redis)
  } finally {
    redis.disconnect()
  }
}

async function contentsOf(redis: Redis | Cluster, prefix: string): Promise<RedisContents> {
  const [persistence, clients, secrets, trail] = await Promise.all([
    persistenceOf(redis),
    redis.hvals(`${prefix}:clients`),
    redis.hvals(`${prefix}:secrets`),
    redis.xrange(`${prefix}:audit`, '-', '+', 'COUNT', 1),
  ])
  const first = trail[0]?.[1][1]
  return {
    persistence,
    clients: clients.filter(isClient).length,
    secrets: secrets.filter((json) => !isRemoved(json)).length,
    firstAudit: first === undefined ? undefined : (JSON.parse(first) as AuditEntry),
  }
}

function isClient(json: string): boolean {
  return !isRemoved(json) && (JSON.parse(json) as StoredClient).deletedAt === undefined
}

/**
 * Says what would be lost at a restart of Redis, and how to keep it. Undefined if nothing would be lost, or if nobody knows
 * whether it would.
 */
export function whyVolatile({ persistence, clients, secrets }: RedisContents): string | undefined {
  if (persistence !== 'nothing' || clients + secrets === 0) return undefined
  return (
    'Redis has neither an append-only file nor snapshots: ' +
    `${countOf(clients, 'client')} of the admin API, ${countOf(secrets, 'secret')} and the audit trail are gone if it ` +
    'restarts while no gateway runs that knows them; set its appendonly to yes'
  )
}
