import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { Cluster, Redis } from 'ioredis'
import { systemClock } from '../../src/time/clock.ts'
import type { StoreConfig } from '../../src/schema/schema.ts'
import { checkConfig } from '../../src/config/load.ts'
import { type Grant, type ChargeSet, StoreUnavailableError } from '../../src/ledger/ledger.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { connectRedis } from '../../src/redis/connection.ts'
import { RedisScript } from '../../src/ledger/redis/script.ts'
import { awakeMs } from './awake-clock.ts'
import { seededRandom } from './seeded-random.ts'
import { worstCount } from './worst-count.ts'

/** What a configuration file's `store` section means. */
export function storeOf(store: object): StoreConfig {
  const upstreams = { any: { url: 'http://127.0.0.1:1', accounts: { main: {} } } }
  return checkConfig({ store: { kind: 'redis', ...store }, upstreams }, 'test').store
}

export interface TestLedger {
  readonly ledger: RedisLedger
  readonly redis: Redis | Cluster
}

/** The ledger of a gateway of its own, connected as the program connects. */
export async function openTestLedger(store: object): Promise<TestLedger> {
  const config = storeOf(store)
  const redis = connectRedis(config)
  redis.on('error', () => undefined)
  const ledger = new RedisLedger({
    runner: new RedisScript(redis),
    clock: systemClock,
    gateway: randomBytes(6).toString('hex'),
    prefix: config.prefix,
    answerWithinMs: config.commandTimeout,
    onOutage: config.onOutage,
  })
  while (!ledger.isReady) await pause(5)
  return { ledger, redis }
}

/** Calls that are made as fast as the ledgers allow, and an upstream that counts them exactly. */
export class Load {
  /** When each call arrived upstream. */
  readonly arrivals: number[] = []
  /** How long the slowest charge took of the time that this process was awake. */
  slowestMs = 0
  unavailable = 0
  readonly #random = seededRandom(1)
  readonly #clients: Promise<void>[]
  #isOver = false

  constructor(ledgers: readonly RedisLedger[], chargeSet: ChargeSet, { clients = 8, latencyMs = 80 } = {}) {
    this.#clients = ledgers.flatMap((ledger) =>
      Array.from({ length: clients }, () => this.#call(ledger, chargeSet, latencyMs)),
    )
  }

  /** Lets every call end. */
  async stop(): Promise<void> {
    this.#isOver = true
    await Promise.all(this.#clients)
  }

  /** The most that ever arrived in one window. */
  worst(windowMs: number): number {
    return worstCount(
      this.arrivals.toSorted((a, b) => a - b),
      windowMs,
    )
  }

  arrivedSince(time: number): number {
    return this.arrivals.filter((at) => at >= time).length
  }

  async #call(ledger: RedisLedger, chargeSet: ChargeSet, mostMs: number): Promise<void> {
    while (!this.#isOver) {
      const grant = await this.#charge(ledger, chargeSet)
      if (grant === undefined || grant.granted === 0) {
        await pause(Math.min(50, grant?.schedule?.waitMs(1, systemClock.now()) ?? 20))
        continue
      }
      const latencyMs = this.#random() * mostMs
      // Counted at any instant of its flight.
      const arrivesAfterMs = this.#random() * latencyMs
      await pause(arrivesAfterMs)
      this.arrivals.push(performance.now())
      await pause(latencyMs - arrivesAfterMs)
      ledger.commit(grant)
      ledger.leave(grant)
    }
  }

  async #charge(ledger: RedisLedger, chargeSet: ChargeSet): Promise<Grant | undefined> {
    const before = awakeMs()
    try {
      return await ledger.charge(chargeSet, 1)
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error
      this.unavailable++
      return undefined
    } finally {
      this.slowestMs = Math.max(this.slowestMs, awakeMs() - before)
    }
  }
}
