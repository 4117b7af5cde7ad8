import type { StoreConfig } from '../schema/schema.ts'
import type { Persistence } from '../redis/persistence.ts'
import { type RedisContents, redisContents, whyVolatile, withRedis } from './redis-contents.ts'
import { homeOf } from '../redis/connection.ts'
import { homeTroubleOf } from '../redis/trouble.ts'
import { CommandError } from './command-error.ts'
import { countOf } from '../schema/units.ts'

const AFTER_RESTART = {
  log: 'what it has is there after a restart (append-only file)',
  snapshots: 'after a restart it has what its last snapshot has (no append-only file)',
  nothing: 'after a restart it has nothing (neither an append-only file nor snapshots)',
  unknown: 'it is unknown what it has after a restart, as it does not say',
} satisfies Record<Persistence, string>

interface StoreState {
  /** What it is, and of a Redis whether what it has survives a restart. */
  readonly kind: string
  /** Whether nothing that it has survives a restart. */
  readonly isVolatile: boolean
  /** What it holds that must not be lost. */
  readonly holds: readonly string[]
  readonly warnings: readonly string[]
}

/** Says what the store holds, and whether that survives a restart. Throws a `CommandError` if the store can't be asked. */
export async function checkStore(store: StoreConfig): Promise<StoreState> {
  if (store.kind !== 'redis') {
    const kind = `the folder ${store.dir ?? '.sluice'} of one gateway`
    return { kind, isVolatile: false, holds: [], warnings: [] }
  }
  const contents = await redisContents(store).catch((error: Error) => {
    throw new CommandError(`the store can't be asked: ${error.message}`)
  })
  const { persistence, clients, secrets } = contents
  return {
    kind: `Redis answers; ${AFTER_RESTART[persistence]}`,
    isVolatile: persistence === 'nothing',
    holds: [`${countOf(clients, 'client')} of the admin API, ${countOf(secrets, 'secret')}`],
    warnings: [whyVolatile(contents), lossOf(contents)].filter((warning) => warning !== undefined),
  }
}

/** Says whether the Redis of all regions can be home. Throws a `CommandError` if it can't, or can't be asked. */
export async function checkHome(regions: NonNullable<StoreConfig['regions']>, prefix: string): Promise<string> {
  const info = await withRedis(homeOf(regions), async (redis) => {
    await redis.eval(AS_HOME_DOES, 1, `${prefix}:regions:memory`)
    return redis.info()
  }).catch((error: Error) => {
    throw new CommandError(`home ${homeTroubleOf(error)}`)
  })
  if (/^cluster_enabled:1/m.test(info)) throw new CommandError('home is a node of a cluster, which can not be home')
  if (/^role:slave/m.test(info)) throw new CommandError('home is a replica, and must be the master')
  return 'Redis answers'
}

/** Reads what the script that moves shares reads, so that a right that is missing is found. */
const AS_HOME_DOES = `redis.call('TIME') redis.call('INFO', 'server') return redis.call('HMGET', KEYS[1], 'identity')`

function lossOf({ firstAudit }: RedisContents): string | undefined {
  if (firstAudit?.action !== 'audit.lost') return undefined
  return `at ${firstAudit.at} Redis had lost what it had: the audit trail begins then`
}
