import { existsSync, globSync, readFileSync } from 'node:fs'
import { join, matchesGlob } from 'node:path'
import { expect, it } from 'vitest'
import { BEYOND_UNITS, SHARED } from './tiers.ts'

const root = join(import.meta.dirname, '..')
/** How a test comes by a Redis. */
const REDIS = /inject\('redisUrl'\)|startRedisServer\(|startStandalone\(/

it('counts no test as a unit test that wants a Redis', () => {
  const units = globSync('test/**/*.test.ts', { cwd: root }).filter(
    (file) => file !== 'test/tiers.test.ts' && !BEYOND_UNITS.some((glob) => matchesGlob(file, glob)),
  )
  expect(units.length).toBeGreaterThan(50)
  expect(units.filter((file) => REDIS.test(readFileSync(join(root, file), 'utf8')))).toEqual([])
})

it('names files that there are', () => {
  const named = [...BEYOND_UNITS, ...SHARED].filter((name) => !name.includes('*'))
  expect(named.filter((file) => !existsSync(join(root, file)))).toEqual([])
})
