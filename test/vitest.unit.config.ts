import { defaultExclude, defineConfig } from 'vitest/config'
import { BEYOND_UNITS, EVERYTHING } from './tiers.ts'
import everything from './vitest.config.ts'

const { projects: _, ...shared } = everything.test!

/** The tests that need nothing but Node, and end within a minute: several files share a process, which saves half the time. */
export default defineConfig({
  test: {
    ...shared,
    include: EVERYTHING,
    exclude: [...defaultExclude, ...BEYOND_UNITS],
    globalSetup: [],
    provide: { redisUrl: 'redis://unit-tests-have-no-redis.invalid', compileCache: '', program: '' },
    isolate: false,
    maxWorkers: 2,
  },
})
