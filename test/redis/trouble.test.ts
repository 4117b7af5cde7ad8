import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, it } from 'vitest'
import { troubleOf } from '../../src/redis/trouble.ts'
import { deadPort } from '../support/find-redis.ts'

it('says why a host with several addresses can not be reached', async () => {
  const addresses = ['127.0.0.1', '127.0.0.2'].map((address) => ({ address, family: 4 }))
  const port = await deadPort()
  const socket = connect({ host: 'redis.test', port, lookup: (_, __, found) => found(null, addresses) })
  const [error] = (await once(socket, 'error').catch((thrown: unknown) => [thrown])) as [Error]
  expect(error.message).toBe('')
  expect(troubleOf(error)).toBe(`does not answer (connect ECONNREFUSED 127.0.0.1:${port})`)
})
