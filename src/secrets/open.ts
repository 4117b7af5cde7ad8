import { join } from 'node:path'
import type { Clock } from '../time/clock.ts'
import type { Config } from '../schema/schema.ts'
import { secretsIn } from '../schema/secret.ts'
import type { Logger } from '../observe/log.ts'
import { SecretFollower, type Sources } from './follow.ts'
import { FileRecords } from '../records/file-records.ts'
import type { Losses } from '../records/losses.ts'
import { MasterKeys } from './master-keys.ts'
import { RedisRecords } from '../records/redis-records.ts'
import { type SecretRecord, SecretStore } from './secret-store.ts'
import { FileSource } from './files.ts'
import type { SecretSource } from './source.ts'
import { VaultSource } from './vault.ts'

type SourceConfig = Pick<Config, 'secrets' | 'store'>

/** What follows secrets. They ask it from `serve` on. */
export type Following = Pick<SecretFollower, 'serve' | 'close'>

/**
 * Follows all secrets of a configuration but those of its store. A connection to Redis keeps the password that it was made with. If
 * its secret were followed, a reload would find no difference, and would not say that a restart is needed.
 */
export async function followSecrets(config: Config, services: FollowServices): Promise<Following> {
  const { store: _, ...followed } = config
  return follow(config, followed, services)
}

/**
 * Follows the same for a process whose workers make the calls. What workers use is followed without a word: each of them says what it
 * takes and what it refuses, which only it can judge. A value that is not known here would be a change to a reload.
 */
export async function followBesideWorkers(config: Config, services: FollowServices): Promise<Following> {
  const { store: _, admin, webhooks, secrets, ...ofWorkers } = config
  const silent = { ...services, logger: services.logger.child({}, { level: 'silent' }) }
  await using followers = new AsyncDisposableStack()
  const own = await follow(config, { admin, webhooks, secrets }, services)
  followers.defer(() => own.close())
  const others = await follow(config, ofWorkers, silent)
  followers.defer(() => others.close())
  const both = followers.move()
  return {
    serve() {
      own.serve()
      others.serve()
    },
    close: () => both.disposeAsync(),
  }
}

interface FollowServices {
  readonly clock: Clock
  readonly logger: Logger
  readonly losses: Losses
}

async function follow(
  config: Config,
  followed: object,
  { clock, logger, losses }: FollowServices,
): Promise<SecretFollower> {
  await using opened = new AsyncDisposableStack()
  const follower = new SecretFollower(secretsIn(followed), openSources(config, clock, losses), logger)
  opened.defer(() => follower.close())
  await follower.start()
  opened.move()
  return follower
}

/** Opens the sources whose values can change while the program runs. One that nothing refers to makes no connection. */
export function openSources(config: SourceConfig, clock: Clock, losses?: Losses): Sources {
  const { vault } = config.secrets
  return new Map<string, SecretSource>([
    ['file', new FileSource(clock)],
    ['secret', openStore(config, clock, losses) ?? missing('secrets.key is not configured')],
    ['vault', vault === undefined ? missing('secrets.vault is not configured') : new VaultSource(vault, clock)],
  ])
}

/** Opens the secret store; undefined without a master key. */
export function openStore({ secrets, store }: SourceConfig, clock: Clock, losses?: Losses): SecretStore | undefined {
  const { key, oldKeys = [] } = secrets
  if (key === undefined) return undefined
  const file = fileOfStore({ secrets, store })
  const records =
    file === undefined
      ? new RedisRecords<SecretRecord>(store, 'secrets', clock, losses)
      : new FileRecords<SecretRecord>(file, 'secrets', clock)
  return new SecretStore(records, new MasterKeys([key, ...oldKeys]))
}

/** The file of the secret store, which starts at the working folder; undefined if it is in Redis. */
export function fileOfStore({ secrets: { file }, store }: SourceConfig): string | undefined {
  return file ?? (store.kind === 'redis' ? undefined : join(store.dir ?? '.sluice', 'secrets.json'))
}

function missing(problem: string): SecretSource {
  return {
    read: (names) => Promise.resolve(new Map(names.map((name) => [name, { problem: `${name}: ${problem}` }]))),
    watch: () => undefined,
    close: () => Promise.resolve(),
  }
}
