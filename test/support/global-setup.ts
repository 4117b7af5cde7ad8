import type { TestProject } from 'vitest/node'
import { findRedis } from './find-redis.ts'
import { temporaryFolder } from './temporary-folder.ts'

declare module 'vitest' {
  interface ProvidedContext {
    redisUrl: string
    /** Where processes of the program keep what Node has compiled: the next one starts in half the time. */
    compileCache: string
  }
}

/** One Redis and one compile cache for the whole run; tests keep apart by their key prefixes. */
export default async function setUp(project: TestProject): Promise<() => Promise<void>> {
  const redis = await findRedis()
  project.provide('redisUrl', redis.url)
  const compileCache = temporaryFolder('compiled')
  project.provide('compileCache', compileCache.path)
  return async () => {
    compileCache.remove()
    await redis.stop()
  }
}
