import type { TestProject } from 'vitest/node'
import { findRedis } from './find-redis.ts'

declare module 'vitest' {
  interface ProvidedContext {
    redisUrl: string
  }
}

/** One Redis for the whole run; tests keep apart by their key prefixes. */
export default async function setUp(project: TestProject): Promise<() => Promise<void>> {
  const redis = await findRedis()
  project.provide('redisUrl', redis.url)
  return () => redis.stop()
}
