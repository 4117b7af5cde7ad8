import type { Cluster, Redis } from 'ioredis'
import type { Clock } from '../time/clock.ts'
import { connectedInTime, connectedOrLate, connectRedis, type RedisPlace } from './connection.ts'

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

  /** The connection, once commands can be sent. Rejects if that takes longer than two seconds. */
  async ready(): Promise<Redis | Cluster> {
    const redis = this.open()
    await connectedInTime(redis, this.#clock)
    return redis
  }

  /** The same, but only whoever makes the connection waits, and it is no error if it takes longer. */
  async made(): Promise<Redis | Cluster> {
    if (this.#redis === undefined) await connectedOrLate(this.open(), this.#clock)
    return this.open()
  }

  close(): void {
    this.#redis?.disconnect()
  }
}
