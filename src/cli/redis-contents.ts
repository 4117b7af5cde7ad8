import type { Cluster, Redis } from 'ioredis'
import type { AuditEntry } from '../audit/audit.ts'
import { auditEntryOf } from '../audit/redis-audit.ts'
import type { StoredClient } from '../clients/managed.ts'
import type { StoreConfig } from '../schema/schema.ts'
import { isRemoved, mustBeRecord } from '../records/redis-records.ts'
import { connectedInTime, connectRedis, type RedisPlace } from '../redis/connection.ts'
import { OwnConnection } from '../redis/own-connection.ts'
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

/** Asks a Redis for its contents. Rejects with a `StoreError` if it can't be reached, refuses, or has something else there. */
export async function redisContents(store: StoreConfig): Promise<RedisContents> {
  const keyOf = (sort: 'clients' | 'secrets' | 'audit'): string => `${store.prefix}:${sort}`
  const connection = new OwnConnection(store, systemClock)
  try {
    const [persistence, clients, secrets, [first]] = await connection.ask((redis) =>
      Promise.all([
        persistenceOf(redis),
        redis.hgetall(keyOf('clients')),
        redis.hgetall(keyOf('secrets')),
        redis.xrange(keyOf('audit'), '-', '+', 'COUNT', 1),
      ]),
    )
    return {
      persistence,
      clients: recordsIn(keyOf('clients'), clients).filter(isClient).length,
      secrets: recordsIn(keyOf('secrets'), secrets).length,
      firstAudit: first && auditEntryOf(keyOf('audit'), first),
    }
  } finally {
    connection.close()
  }
}

/** The records in a hash, without removed ones. */
function recordsIn(key: string, fields: Readonly<Record<string, string>>): string[] {
  for (const [name, text] of Object.entries(fields)) mustBeRecord(key, name, text)
  return Object.values(fields).filter((json) => !isRemoved(json))
}

function isClient(json: string): boolean {
  return (JSON.parse(json) as StoredClient).deletedAt === undefined
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
