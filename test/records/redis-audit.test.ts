import { Redis } from 'ioredis'
import pino from 'pino'
import { expect, inject, it, onTestFinished } from 'vitest'
import { auditTrail } from '../../src/audit/audit.ts'
import { RedisAudit } from '../../src/audit/redis-audit.ts'
import { StoreError } from '../../src/redis/own-connection.ts'
import { checkConfig } from '../../src/config/load.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { stores } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const SOMEBODY = { actor: 'me', address: 'here' }

const upstreams = { x: { url: 'http://x', accounts: { main: { id: 'm' } } } }

function setUp() {
  const { store } = checkConfig({ store: stores.Redis(), upstreams }, 'test')
  const redis = new Redis(inject('redisUrl'))
  onTestFinished(() => redis.disconnect())
  const clock = new SimulatedClock()
  const open = (config = store) => {
    const trail = auditTrail(new RedisAudit(config, clock), clock, pino({ level: 'silent' }))
    onTestFinished(() => trail.close())
    const heard = { losses: 0 }
    trail.watch(() => heard.losses++)
    const note = (action: string) =>
      trail.record(SOMEBODY, { action, target: 't', name: 't', before: null, after: null })
    const actions = async () => (await trail.read({}, { limit: 9, offset: 0 })).map(({ action }) => action)
    return { heard, note, actions }
  }
  return { open, redis, key: `${store.prefix}:audit`, clock, store }
}

it('an audit trail that is lost while the connection stays is noticed within ten seconds, and begins with that', async () => {
  const { open, redis, key, clock } = setUp()
  const [one, other] = [open(), open()]
  await one.note('a')
  await other.note('b')
  await clock.advance(10_000)
  expect([one.heard.losses, other.heard.losses]).toEqual([0, 0])
  await redis.del(key)
  // The next look is planned when the answer to the one before is here, in real time.
  const losses = async () => {
    await clock.advance(10_000)
    return [one.heard.losses, other.heard.losses]
  }
  await expect.poll(losses).toEqual([1, 1])
  await expect.poll(one.actions).toEqual(['audit.lost'])
  await one.note('c')
  expect(await other.actions()).toEqual(['c', 'audit.lost'])
  await clock.advance(20_000)
  expect([one.heard.losses, other.heard.losses]).toEqual([1, 1])
})

it('an audit trail that is lost is noticed, too, by who writes to it first', async () => {
  const { open, redis, key } = setUp()
  const { heard, note, actions } = open()
  await note('a')
  await redis.del(key)
  await note('b')
  expect(heard.losses).toBe(1)
  expect(await actions()).toEqual(['b', 'audit.lost'])
})

it.each(['{', '5', 'null', '[]'])('an entry of somebody else (%s) is told of, with what to do', async (text) => {
  const { open, redis, key } = setUp()
  const { note, actions } = open()
  await note('a')
  const id = await redis.xadd(key, '*', 'foreign', text)
  const error: unknown = await actions().catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(StoreError)
  expect((error as Error).message).toBe(`Redis has what is no entry: remove ${id} of the stream ${key} (XDEL)`)
  await redis.xdel(key, id!)
  expect(await actions()).toEqual(['a'])
})

it.each([
  ['is noted once, though its answer was lost', { kind: 'reset', at: 'before-headers' } as const, ['b', 'a']],
  ['that did not arrive is refused', { kind: 'refuse' } as const, ['a']],
])('an entry %s', async (_, fault, expected) => {
  const { open, store } = setUp()
  const proxy = await FaultProxy.start({ target: inject('redisUrl') })
  onTestFinished(() => proxy.stop())
  const byProxy = { ...stores.Redis(), prefix: store.prefix, url: proxy.url }
  const { note, actions } = open(checkConfig({ store: byProxy, upstreams }, 'test').store)
  await note('a')
  // It looks for a loss, and adds the entry.
  let exchanges = 0
  proxy.choose(() => (++exchanges === 2 ? fault : undefined))
  const isNoted = await note('b').then(
    () => true,
    () => false,
  )
  expect([isNoted, await actions()]).toEqual([expected.includes('b'), expected])
})
