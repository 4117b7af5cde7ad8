import { randomBytes } from 'node:crypto'
import type { Redis } from 'ioredis'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import type { Ledger } from '../../src/ledger/ledger.ts'
import { RedisLedger, type RedisLedgerOptions } from '../../src/ledger/redis/redis-ledger.ts'
import { RedisScript } from '../../src/ledger/redis/script.ts'
import type { SimulatedClock } from './simulated-clock.ts'

/** A prefix of keys that no other test has. */
export function newPrefix(): string {
  return `test-${process.pid}-${newName()}`
}

type Options = Partial<Omit<RedisLedgerOptions, 'clock' | 'stepTime'>> & {
  readonly clock: SimulatedClock
  /** The time that Redis is told instead of its own, in milliseconds; null for its own. Default: that of the clock. */
  readonly time?: (() => number) | null
}

/** A ledger in a real Redis, in the time of a simulated clock. That does not stand still while Redis answers, so no answer is late. */
export function steppedLedger(
  connection: Redis,
  { clock, time = () => clock.now(), ...options }: Options,
): RedisLedger {
  return new RedisLedger({
    runner: new RedisScript(connection),
    clock,
    gateway: newName(),
    prefix: newPrefix(),
    answerWithinMs: 1e12,
    ...(time !== null && { stepTime: () => Math.round(time() * 1_000) }),
    ...options,
  })
}

/** Of each store two gateways; with the embedded store they are one. */
export function twoGateways(connection: Redis): Record<string, (clock: SimulatedClock) => readonly [Ledger, Ledger]> {
  return {
    'in memory': (clock) => {
      const ledger = new MemoryLedger(clock)
      return [ledger, ledger]
    },
    'in Redis': (clock) => {
      const options = { clock, prefix: newPrefix() }
      return [steppedLedger(connection, options), steppedLedger(connection, options)]
    },
  }
}

function newName(): string {
  return randomBytes(4).toString('hex')
}
