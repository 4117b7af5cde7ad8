import type { Cluster, Redis } from 'ioredis'
import type { Clock } from '../time/clock.ts'
import { connectedInTime, connectedOrLate, connectRedis, type RedisPlace } from './connection.ts'
import { troubleOf } from './trouble.ts'

/** Redis refuses what it was asked, does not answer, or has what can not be used. The message says why and what to do, without arguments, which may be secret. */
export class StoreError extends Error {
  /** By this the admin API knows it, which knows nothing of Redis. */
  readonly code = 'STORE_UNAVAILABLE'

  constructor(trouble: string) {
    super(`Redis ${trouble}`)
  }
}

/** What the code of the program throws where it is wrong, and what Redis and its client never reject with. */
const MISTAKES = [TypeError, RangeError, ReferenceError, SyntaxError]

/** A connection that is made when it is first wanted. */
export class OwnConnection {
  readonly #place: RedisPlace
  readonly #clock: Clock
  #redis: Redis | Cluster | undefined

  constructor(place: RedisPlace, clock: Clock) {
    this.#place = place
    this.#clock = clock
  }

  /** Makes the connection, if there is none yet. It may not be ready. */
  open(): Redis | Cluster {
    return (this.#redis ??= connectRedis(this.#place))
  }

  /**
   * What Redis answers, asked once it is connected. Rejects with a `StoreError`, also if connecting takes longer than two seconds; with
   * a mistake of the program as it is.
   */
  async ask<Answer>(question: (redis: Redis | Cluster) => Promise<Answer>): Promise<Answer> {
    const redis = this.open()
    try {
      await connectedInTime(redis, this.#clock)
      return await question(redis)
    } catch (error) {
      throw MISTAKES.some((kind) => error instanceof kind) ? error : new StoreError(troubleOf(error))
    }
  }

  /** The connection, made if there is none yet. Only whoever makes the connection waits, and it is no error if it takes longer. */
  async made(): Promise<Redis | Cluster> {
    if (this.#redis === undefined) await connectedOrLate(this.open(), this.#clock)
    return this.open()
  }

  close(): void {
    this.#redis?.disconnect()
  }
}
