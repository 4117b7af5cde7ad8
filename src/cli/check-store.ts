import type { StoreConfig } from '../schema/schema.ts'
import type { Persistence } from '../redis/persistence.ts'
import { type RedisContents, redisContents, whyVolatile } from './redis-contents.ts'
import { CommandError } from './command-error.ts'
import { countOf } from '../schema/units.ts'

const AFTER_RESTART = {
  log: 'what it has is there after a restart (append-only file)',
  snapshots: 'after a restart it has what its last snapshot has (no append-only file)',
  nothing: 'after a restart it has nothing (neither an append-only file nor snapshots)',
  unknown: 'it is unknown what it has after a restart, as it does not say',
} satisfies Record<Persistence, string>

/** Says what the store holds, and whether that survives a restart. Throws a `CommandError` if the store can't be asked. */
export async function checkStore(store: StoreConfig): Promise<{ lines: string[]; warnings: string[] }> {
  if (store.kind !== 'redis')
    return { lines: [`store: the folder ${store.dir ?? '.sluice'} of one gateway`], warnings: [] }
  const contents = await redisContents(store).catch((error: Error) => {
    throw new CommandError(`the store can't be asked: ${error.message}`)
  })
  const { persistence, clients, secrets } = contents
  return {
    lines: [
      `store: Redis answers; ${AFTER_RESTART[persistence]}`,
      `store: ${countOf(clients, 'client')} of the admin API, ${countOf(secrets, 'secret')}`,
    ],
    warnings: [whyVolatile(contents), lossOf(contents)].filter((warning) => warning !== undefined),
  }
}

function lossOf({ firstAudit }: RedisContents): string | undefined {
  if (firstAudit?.action !== 'audit.lost') return undefined
  return `at ${firstAudit.at} Redis had lost what it had: the audit trail begins then`
}
