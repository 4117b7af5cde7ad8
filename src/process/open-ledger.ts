import { randomBytes } from 'node:crypto'
import type { Cluster, Redis } from 'ioredis'
import type { Clock } from '../time/clock.ts'
import type { StoreConfig } from '../schema/schema.ts'
import type { Logger } from '../observe/log.ts'
import type { Ledger } from '../ledger/ledger.ts'
import { LedgerFiles } from '../ledger/embedded/ledger-files.ts'
import { MemoryLedger } from '../ledger/embedded/memory-ledger.ts'
import { RESUME_AFTER_MS } from '../ledger/redis/partition-calls.ts'
import { RedisHome } from '../ledger/regions/redis-home.ts'
import { RegionShares } from '../ledger/regions/region-shares.ts'
import { RedisLedger } from '../ledger/redis/redis-ledger.ts'
import { connectedOrLate, connectRedis, greetingOf, homeOf, uptimeSeconds } from '../redis/connection.ts'
import { RedisScript } from '../ledger/redis/script.ts'
import { NEEDLESS_PASSWORD } from '../redis/handshake.ts'
import { homeTroubleOf, saidIn, troubleOf } from '../redis/trouble.ts'

/** Opens the ledger that a configuration names. If Redis can't be reached, the ledger is returned all the same, but not ready yet. */
export async function openLedger(
  store: StoreConfig,
  { clock, logger, onAnswer }: { clock: Clock; logger: Logger; onAnswer?: (tookMs: number) => void },
): Promise<Ledger> {
  if (store.kind === 'memory') return openEmbedded(store, { clock, logger })
  const redis = connectRedis(store)
  logConnection(redis, logger)
  await connectedOrLate(redis, clock)
  await untilSettled(redis, clock)
  const shares = openRegions(store, { clock, logger })
  const ledger = new RedisLedger({
    ...(shares === undefined ? {} : { shares }),
    runner: new RedisScript(redis, onAnswer),
    clock,
    gateway: randomBytes(6).toString('hex'),
    prefix: store.prefix,
    answerWithinMs: store.commandTimeout,
    onOutage: store.onOutage,
    onChange: (partition, mode) => logger.debug({ partition, mode }, 'the quota of an account is kept otherwise'),
    // One line for all accounts together: there may be thousands.
    onAway: (trouble) => logger.warn(`Redis ${trouble}: ${ledger.without} until that has passed`),
    onBack: ({ partitions: accounts, hadLost }) =>
      logger.warn({ accounts, hadLost }, 'Redis answers again, and quotas are shared'),
    onOtherFormat: (format) => {
      if (format === undefined) logger.info('the gateways with another ledger format have ended: calls are sent')
      else logger.warn(`${ledger.problem}; see docs/upgrading.md`)
    },
    onLoss: () =>
      logger.warn('Redis has lost quotas that were used: only leases are spent until all have told it again'),
  })
  await ledger.begin()
  shares?.begin((chargeSet) => ledger.usage(chargeSet))
  return ledger
}

/** Opens the ledger in the folder of the store. Throws if another process has the folder, or it can't be read or written. */
export function openEmbedded(
  { dir = '.sluice', onOutage }: StoreConfig,
  { clock, logger, onChange }: { clock: Clock; logger: Logger; onChange?: () => void },
): MemoryLedger {
  const tell = (problem: string | undefined): void => {
    if (problem === undefined) logger.warn({ dir }, 'the quota is written to disk again')
    else logger.error({ dir }, problem)
    onChange?.()
  }
  return new MemoryLedger(clock, new LedgerFiles(dir), { onOutage, onChange: tell })
}

/** The shares of this region. Undefined without regions. While home can't be reached, the region has only its reserve. */
function openRegions(
  { regions, prefix }: StoreConfig,
  { clock, logger }: { clock: Clock; logger: Logger },
): RegionShares | undefined {
  if (regions === undefined) return undefined
  const { name, weights, reserve, lease: leaseMs, longestCall: longestCallMs } = regions
  const redis = connectRedis(homeOf(regions))
  const tellAway = async (error: Error): Promise<void> => {
    const cause = (await greetingOf(redis, error)) ?? error
    logger.error(`home ${homeTroubleOf(cause)}: region ${name} has its reserve of each limit only, until home answers`)
  }
  return new RegionShares({
    clock,
    name,
    weights,
    reserve,
    leaseMs,
    longestCallMs,
    prefix,
    home: new RedisHome(redis),
    onAway: (error) => void tellAway(error as Error),
    onBack: () => logger.warn('home answers again, and shares follow the demand'),
    onOtherTerms: (partition) =>
      logger.warn(
        { partition },
        'gateways with other limits or regions are running: until they have ended this one has its reserve only',
      ),
  })
}

/** Logs one line for each outage, and not for each attempt. A connection that ends and is made again at once is no outage. */
function logConnection(redis: Redis | Cluster, logger: Logger): void {
  let isAway = false
  const tell = async (error: Error): Promise<void> => {
    const cause = (await greetingOf(redis, error)) ?? error
    logger.error({ error: loggable(cause) }, `Redis can not be reached: it ${troubleOf(cause)}`)
  }
  redis.on('error', (error: Error) => {
    if (isAway || redis.status === 'ready') return
    isAway = true
    void tell(error)
  })
  redis.on('ready', () => {
    isAway = false
    logger.info('Redis is ready')
  })
  let isNeedless = false
  const tellNeedless = (): void => {
    if (!isNeedless) logger.warn('Redis wants no password, but store.password, or the url, has one')
    isNeedless = true
  }
  redis.on(NEEDLESS_PASSWORD, tellNeedless)
  redis.on('+node', (node: Redis) => node.on(NEEDLESS_PASSWORD, tellNeedless))
}

/**
 * The parts of a Redis error that may be logged. The error also carries the command that failed: when the password is wrong,
 * that command contains it. Servers that do not know a command repeat its arguments in their message.
 */
function loggable(error: Error & { code?: string; lastNodeError?: Error }): object {
  const { message, code, lastNodeError } = error
  const cause = lastNodeError && loggable(lastNodeError)
  return { message: saidIn(message), code, cause }
}

/** After a Redis has been up for this long, all other gateways have connected to it again. */
const SETTLED_S = 2

/** Waits if Redis has just started: it may have lost its data, and other gateways need a moment to send it again. */
async function untilSettled(redis: Redis | Cluster, clock: Clock): Promise<void> {
  // There is no wait if Redis can't be asked: the ledger takes the same care when Redis comes back.
  const upS = await uptimeSeconds(redis).catch(() => Infinity)
  if (upS < SETTLED_S) await new Promise<void>((resolve) => void clock.schedule(RESUME_AFTER_MS, resolve))
}
