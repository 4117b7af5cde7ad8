import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { RedisScript } from '../../../src/ledger/redis/script.ts'
import { newPrefix } from '../../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

it('a loss is not told again and again where the clock of Redis was set back since', async () => {
  const script = new RedisScript(redis)
  const key = `${newPrefix()}:{register}:homes`
  const look = async (atMs: number, lost: readonly string[]) => {
    const args = ['id', atMs * 1_000, 30_000, 2_000, atMs - 250, '', 0, ...lost]
    return (await script.runRegister([key], args)).slice(4)
  }
  const now = Date.now()
  expect(await look(now, ['vendor/main'])).toEqual(['vendor/main'])
  expect(await look(now + 200, [])).toEqual(['vendor/main'])
  const before = now - 3_600_000
  expect(await look(before, [])).toEqual([])
  expect(await look(before, ['vendor/main'])).toEqual(['vendor/main'])
})
