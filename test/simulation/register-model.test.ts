import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { RedisScript } from '../../src/ledger/redis/script.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { RegisterModel } from './register-model.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

it('the model of the register gives the same answers as the script in Redis, whatever is noted, reported or lost', async () => {
  const script = new RedisScript(redis)
  for (let seed = 1; seed <= 10; seed++) {
    const random = seededRandom(seed)
    const some = (): string[] => ['a', 'b/c', '+', '-'].filter(() => random() < 0.2)
    const model = new RegisterModel()
    const key = `register-${process.pid}-${seed}`
    let micros = 1_700_000_000_000_000
    for (let step = 0; step < 200; step++) {
      micros += Math.floor(random() ** 3 * 3_000_000)
      if (random() < 0.02) {
        await redis.del(key)
        model.lose(() => true)
      }
      const used = some()
      const since = random() < 0.5 ? '' : Math.floor(micros / 1_000) - Math.floor(random() * 2_000)
      const asked = ['', 'a', 'b/c', '+'][Math.floor(random() * 4)]!
      const args = [`g.${step}`, micros, 3_000, 2_000, since, asked, used.length, ...used, ...some()]
      const expected = model.run([key], args)
      expect(await script.runRegister([key], args), `seed ${seed}, step ${step}`).toEqual(expected)
    }
    await redis.del(key)
  }
})
