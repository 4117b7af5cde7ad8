import { symlinkSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { TestProject } from 'vitest/node'
import { bundle } from '../../deploy/bundle.ts'
import { findRedis } from './find-redis.ts'
import { temporaryFolder } from './temporary-folder.ts'

declare module 'vitest' {
  interface ProvidedContext {
    redisUrl: string
    /** Where processes of the program keep what Node has compiled: the next one starts in half the time. */
    compileCache: string
    /** The program as a package has it, which starts with half the processor time that its source takes. */
    program: string
  }
}

const ROOT = resolve(import.meta.dirname, '../..')

/** One Redis, one build and one compile cache for the whole run; tests keep apart by their key prefixes. */
export default async function setUp(project: TestProject): Promise<() => Promise<void>> {
  const redis = await findRedis()
  project.provide('redisUrl', redis.url)
  const compileCache = temporaryFolder('compiled')
  project.provide('compileCache', compileCache.path)
  const built = temporaryFolder('built')
  symlinkSync(join(ROOT, 'node_modules'), join(built.path, 'node_modules'))
  await bundle(built.path, JSON.stringify(pathToFileURL(join(ROOT, 'src/main.ts'))))
  project.provide('program', join(built.path, 'main.js'))
  return async () => {
    built.remove()
    compileCache.remove()
    await redis.stop()
  }
}
