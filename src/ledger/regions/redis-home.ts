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

  constructor(redis: Redis | Cluster) {
    this.#redis = redis
    redis.defineCommand('sluiceRegions', { lua: homeScript() })
  }

  exchange(keys: readonly string[], args: readonly (string | number)[]): Promise<string> {
    return this.#redis.sluiceRegions(keys.length, ...keys, ...args)
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
