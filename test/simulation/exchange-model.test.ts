import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import type { Demand } from '../../src/ledger/demand.ts'
import { RedisScript } from '../../src/ledger/redis/script.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { ExchangeModel } from './exchange-model.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

interface Answer {
  readonly virtualService: Record<string, number>
  readonly turns: number
  readonly others: { readonly agoMs: number; readonly demands: readonly Demand[] }[]
}

it('the model of the demand exchange gives the same answers as the script in Redis, whoever comes, leaves or dies', async () => {
  const script = new RedisScript(redis)
  for (let seed = 1; seed <= 10; seed++) {
    const random = seededRandom(seed)
    const model = new ExchangeModel()
    const keys = [`exchange-${process.pid}-${seed}:{x}:waiting`, `exchange-${process.pid}-${seed}:{x}:served`]
    let micros = 1_700_000_000_000_000
    for (let step = 0; step < 120; step++) {
      micros += Math.floor(random() * 1_500_000)
      const demands = ['a', 'b', 'c']
        .filter(() => random() < 0.5)
        .map((client) => ({ client, weight: 1, share: 0, priority: 'normal', calls: 3, waitedMs: 10, perSecond: 1 }))
      const args = [`gateway ${Math.floor(random() * 3)}`, micros, 3_500, JSON.stringify(demands)]
      if (random() < 0.5) {
        const client = 'abc'[Math.floor(random() * 3)]!
        model.serve(keys[1]!, [[client, 0.25]])
        await redis.hincrbyfloat(keys[1]!, client, 0.25)
        await redis.hincrby(keys[1]!, '', 1)
      }
      const expected = answerOf(model.run(keys, args))
      expect(answerOf(await script.runExchange(keys, args)), `seed ${seed}, step ${step}`).toEqual(expected)
    }
    await redis.del(keys)
  }
})

/** What was told in no particular order, and Redis writes an empty list as an empty object. */
function answerOf(text: string): Answer {
  const { virtualService, turns, others } = JSON.parse(text) as Answer
  const inOrder = Object.values(others).sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)))
  return { virtualService, turns, others: inOrder }
}

it('forgets what is nothing that a gateway tells, and goes on with the rest', async () => {
  const script = new RedisScript(redis)
  const keys = [`exchange-${process.pid}-garbled:{x}:waiting`, `exchange-${process.pid}-garbled:{x}:served`]
  const demand = { client: 'a', weight: 1, share: 0, priority: 'normal', calls: 3, waitedMs: 10, perSecond: 1 }
  const garbled = ['', 'x', 'null', '7', '[]', '{"at":1}', '{"at":1,"ends":9e99,"demands":[{}]}', '{"at":{},"ends":{}}']
  for (const [i, text] of garbled.entries()) await redis.hset(keys[0]!, `garbled ${i}`, text)
  await script.runExchange(keys, ['one', 1e15, 3_500, JSON.stringify([demand])])
  const { others } = answerOf(await script.runExchange(keys, ['two', 1e15, 3_500, '[]']))
  expect(others).toEqual([{ agoMs: 0, demands: [demand] }])
  expect(await redis.hkeys(keys[0]!)).toEqual(['one'])
  await redis.del(keys)
})
