import { expect, it, onTestFinished } from 'vitest'
import { connectedInTime, connectRedis } from '../../src/redis/connection.ts'
import { freePort } from '../support/find-redis.ts'
import { storeOf } from '../support/ledger-load.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('keeps nothing of those who waited in vain for a Redis that is away', async () => {
  const redis = connectRedis(storeOf({ kind: 'redis', url: `redis://127.0.0.1:${await freePort()}` }))
  onTestFinished(() => redis.disconnect())
  const clock = new SimulatedClock()
  const before = redis.listenerCount('ready')
  for (let i = 0; i < 20; i++) {
    const connected = connectedInTime(redis, clock)
    const refused = expect(connected).rejects.toThrow('Redis can not be reached')
    await clock.advance(2_000)
    await refused
  }
  expect(redis.listenerCount('ready')).toBe(before)
})
