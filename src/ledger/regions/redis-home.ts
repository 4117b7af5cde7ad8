import { readFileSync } from 'node:fs'
import type { Cluster, Redis, Result } from 'ioredis'
import type { Home } from './options.ts'

declare module 'ioredis' {
  interface RedisCommander<Context> {
    sluiceRegions(numberOfKeys: number, ...keysAndArguments: (string | number)[]): Result<string, Context>
  }
}

/** Home as a Redis to which `connectRedis` has made a connection. */
export class RedisHome implements Home {
  readonly #redis: Redis | Cluster
  /** Why there is no connection. */
  #trouble: Error | undefined

  constructor(redis: Redis | Cluster) {
    this.#redis = redis
    redis.on('ready', () => (this.#trouble = undefined))
    redis.on('error', (error: Error) => {
      if (redis.status !== 'ready') this.#trouble = error
    })
    redis.defineCommand('sluiceRegions', { lua: homeScript() })
  }

  /** Rejects with why there is no connection, where that is the reason: what a command fails with then does not say. */
  async exchange(keys: readonly string[], args: readonly (string | number)[]): Promise<string> {
    try {
      return await this.#redis.sluiceRegions(keys.length, ...keys, ...args)
    } catch (error) {
      throw this.#trouble ?? error
    }
  }

  close(): void {
    this.#redis.disconnect()
  }
}

/** The script that moves shares; see home.lua. */
export function homeScript(): string {
  return (
    readFileSync(new URL('../redis/time.lua', import.meta.url), 'utf8') +
    readFileSync(new URL('home.lua', import.meta.url), 'utf8')
  )
}
