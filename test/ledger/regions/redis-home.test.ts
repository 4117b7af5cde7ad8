import { expect, inject, it, onTestFinished } from 'vitest'
import { describeTopology, startTlsRedis } from '../../support/redis-topologies.ts'
import { RedisHome } from '../../../src/ledger/regions/redis-home.ts'
import { connectedInTime, connectRedis, homeOf } from '../../../src/redis/connection.ts'
import { homeTroubleOf } from '../../../src/redis/trouble.ts'
import { parseConfig } from '../../../src/config/load.ts'
import { Secret } from '../../../src/schema/secret.ts'
import { systemClock } from '../../../src/time/clock.ts'
import { harnessConfig } from '../../support/gateway.ts'

it('home that lets nobody in is a refusal, with what to set, and no lost connection', async () => {
  const place = { url: new Secret(inject('redisUrl')), username: 'nobody', password: new Secret('topsecret') }
  const redis = connectRedis({ ...place, commandTimeout: 2_000 })
  const home = new RedisHome(redis)
  onTestFinished(() => home.close())
  await new Promise((resolve) => redis.once('error', resolve))
  const error = await home.exchange(['a', 'b'], []).catch((problem: unknown) => problem)
  expect(homeTroubleOf(error)).toMatch(
    /^refuses \(WRONGPASS .*\): it does not accept the username and password of store\.regions\.home$/,
  )
})

describeTopology('home with TLS, and a user who may do no more than docs/regions.md says', () => {
  it('gives shares', async () => {
    const server = await startTlsRedis('sluice')
    onTestFinished(() => server.stop())
    const { username, password, ca } = server
    const admin = server.server.client
    const rights = ['eval', 'evalsha', 'time', 'info', 'hmget', 'hset', 'pexpire', 'ping', 'hello'].map(
      (one) => `+${one}`,
    )
    await admin.call('acl', 'setuser', username, 'reset', 'on', `>${password}`, '~sluice:*', ...rights)
    const home = { url: `rediss://localhost:${server.server.port}`, username, password, tls: { ca } }
    const regions = { name: 'eu', weights: { eu: 1, us: 1 }, home }
    const store = { kind: 'redis', url: inject('redisUrl'), regions }
    const config = parseConfig(JSON.stringify(harnessConfig('http://127.0.0.1:9', {}, { store })))
    const redis = connectRedis(homeOf(config.store.regions!))
    const asked = new RedisHome(redis)
    onTestFinished(() => asked.close())
    await connectedInTime(redis, systemClock)
    const limit = ['limit', 'terms', 70, '15 15', 1_000, 70, '', '', '']
    const told = await asked.exchange(
      ['sluice:regions:{x}', 'sluice:regions:memory'],
      ['eu', '', '', 3_000, 1, '', '', 'eu us', ...limit],
    )
    // It gives nothing away before it can have forgotten nothing.
    expect(told).toMatch(/^\d+ \w+\n1 \d+ 0 0 70 0 0 0 70 0 0$/)
  })
})
