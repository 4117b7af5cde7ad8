import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { CLAIM_MS, Claims } from '../../src/webhooks/claims.ts'
import { type Condition, Episodes } from '../../src/webhooks/episodes.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const breaker: Condition = {
  event: 'breaker',
  about: 'harness',
  severity: 'failing',
  level: 0,
  what: 'The breaker of harness is open.',
  todo: 'Wait.',
}
const MINUTE = 60_000

function setUp(repeatMs = 4 * 60 * MINUTE) {
  const clock = new SimulatedClock()
  const episodes = new Episodes({ name: 'oncall', clock, claims: new Claims(clock), repeatMs })
  /** What is told while this is so for so long, looked at every ten seconds. */
  const looking = async (ms: number, conditions: Condition[], isUsageKnown: (about: string) => boolean) => {
    const told: string[] = []
    for (let at = 0; at < ms; at += 10_000) {
      for (const { status, key } of await episodes.look(conditions, isUsageKnown)) told.push(`${status} ${key}`)
      await clock.advance(10_000)
    }
    return told
  }
  const during = (ms: number, ...conditions: Condition[]) => looking(ms, conditions, () => true)
  const duringUnknown = (ms: number, ...conditions: Condition[]) =>
    looking(ms, conditions, (about) => about !== 'harness')
  return { clock, episodes, during, duringUnknown }
}

describe('what a webhook is told', () => {
  it('is once that something begins, and once that it is over', async () => {
    const { during } = setUp()
    expect(await during(5 * MINUTE, breaker)).toEqual(['firing breaker harness'])
    expect(await during(5 * MINUTE)).toEqual(['resolved breaker harness'])
    expect(await during(5 * MINUTE)).toEqual([])
  })

  it('is at the first look, although time passes while it is made', async () => {
    const clock = new SimulatedClock()
    let passed = 0
    clock.now = () => 1_000_000 + passed++
    const episodes = new Episodes({ name: 'oncall', clock, claims: new Claims(clock), repeatMs: 1e9 })
    expect(await episodes.look([breaker])).toHaveLength(1)
    expect(await episodes.look([breaker])).toEqual([])
  })

  it('is nothing more while it comes and goes', async () => {
    const { during } = setUp()
    const told: string[] = []
    for (let i = 0; i < 20; i++) told.push(...(await during(30_000, breaker)), ...(await during(30_000)))
    expect(told).toEqual(['firing breaker harness'])
  })

  it('is that it came back, ten minutes after it was last told at the soonest', async () => {
    const { during } = setUp()
    await during(10_000, breaker)
    expect(await during(2 * MINUTE)).toEqual(['resolved breaker harness'])
    expect(await during(7 * MINUTE, breaker)).toEqual([])
    expect(await during(4 * MINUTE, breaker)).toEqual(['firing breaker harness'])
  })

  it('is again what lasts, and at once what gets worse', async () => {
    const { during } = setUp(60 * MINUTE)
    expect(await during(59 * MINUTE, breaker)).toEqual(['firing breaker harness'])
    expect(await during(2 * MINUTE, breaker)).toEqual(['firing breaker harness'])
    const usage = (level: number): Condition => ({ ...breaker, event: 'usage', level })
    expect(await during(MINUTE, breaker, usage(1))).toEqual(['firing usage harness'])
    expect(await during(MINUTE, breaker, usage(2))).toEqual(['firing usage harness'])
    expect(await during(MINUTE, breaker, usage(1))).toEqual([])
    expect(await during(MINUTE, breaker, usage(2))).toEqual([])
  })

  it('is no forecast that holds for a moment', async () => {
    const { during } = setUp()
    const ahead: Condition = { ...breaker, event: 'exhaustion' }
    expect(await during(MINUTE, ahead)).toEqual([])
    expect(await during(MINUTE)).toEqual([])
    expect(await during(MINUTE, ahead)).toEqual([])
    expect(await during(2 * MINUTE, ahead)).toEqual(['firing exhaustion harness'])
  })
})

describe('what is told of usage, while nobody knows it', () => {
  const used: Condition = { ...breaker, event: 'usage', level: 1 }
  it('is not that it is over, but that of other things is', async () => {
    const { during, duringUnknown } = setUp()
    expect(await during(MINUTE, breaker, used)).toEqual(['firing breaker harness', 'firing usage harness'])
    expect(await duringUnknown(20 * MINUTE)).toEqual(['resolved breaker harness'])
    expect(await during(MINUTE, used)).toEqual([])
    expect(await during(2 * MINUTE)).toEqual(['resolved usage harness'])
  })

  it('is as ever of what is known', async () => {
    const { during, duringUnknown } = setUp()
    const known: Condition = { ...used, about: 'github' }
    await during(MINUTE, used, known)
    expect(await duringUnknown(20 * MINUTE)).toEqual(['resolved usage github'])
    expect(await duringUnknown(MINUTE, known)).toEqual(['firing usage github'])
  })
})

describe('what several gateways see', () => {
  async function startTwo(url: string, repeatMs = 1e9) {
    const clock = new SimulatedClock()
    const prefix = `test-${randomUUID()}`
    const connections: Redis[] = []
    const connect = (): Redis => {
      const connection = new Redis(url, { enableOfflineQueue: false, maxRetriesPerRequest: 0 })
      connections.push(connection)
      return connection
    }
    const claims = [0, 1].map(() => new Claims(clock, { connect, prefix }))
    for (const one of claims) expect([one.open(), one.open()]).toEqual([false, true])
    onTestFinished(() => claims.forEach((one) => one.close()))
    const looks = claims.map((one) => new Episodes({ name: 'oncall', clock, claims: one, repeatMs }))
    const redis = connect()
    redis.on('error', () => undefined)
    return { clock, claims, looks, redis, prefix, connections }
  }

  it('is told by one of them, and by another when that one is gone', async () => {
    const { clock, looks, redis, prefix, connections } = await startTwo(inject('redisUrl'))
    onTestFinished(() => redis.disconnect())
    await expect.poll(() => connections.every(({ status }) => status === 'ready')).toBe(true)
    const told = async (i: number) => (await looks[i]!.look([breaker])).length
    const both = await Promise.all([told(0), told(1)])
    expect(both.toSorted()).toEqual([0, 1])
    const other = both[0] === 1 ? 1 : 0
    expect(await told(other)).toBe(0)
    const [key] = await redis.keys(`${prefix}:webhook:*`)
    expect(await redis.pttl(key!)).toBeGreaterThan(CLAIM_MS / 2)
    await redis.del(key!)
    await clock.advance(CLAIM_MS + 1)
    expect(await told(other)).toBe(1)
  })

  it('is told anew, by either of them, when the one that told it gives it back', async () => {
    const { looks, claims, redis, connections, prefix } = await startTwo(inject('redisUrl'))
    onTestFinished(() => redis.disconnect())
    await expect.poll(() => connections.every(({ status }) => status === 'ready')).toBe(true)
    const told = async (i: number) => (await looks[i]!.look([breaker])).length
    expect([await told(0), await told(1)]).toEqual([1, 0])
    // The one has told nothing, and gives nothing back; that of another webhook stays.
    claims[1]!.release('oncall')
    claims[0]!.release('call')
    expect(await redis.keys(`${prefix}:webhook:*`)).toHaveLength(1)
    claims[0]!.release('oncall')
    await expect.poll(() => redis.keys(`${prefix}:webhook:*`)).toEqual([])
    expect(await told(1)).toBe(1)
  })

  it('is over when none of them sees it any more', async () => {
    const { clock, looks, redis, connections, prefix } = await startTwo(inject('redisUrl'))
    onTestFinished(() => redis.disconnect())
    await expect.poll(() => connections.every(({ status }) => status === 'ready')).toBe(true)
    const told = async (i: number, ...conditions: Condition[]) =>
      (await looks[i]!.look(conditions)).map(({ status }) => status)
    expect(await told(0, breaker)).toEqual(['firing'])
    for (let minute = 0; minute < 15; minute++) {
      expect(await told(1, breaker)).toEqual([])
      await expect.poll(() => redis.keys(`${prefix}:webhook-seen:*`)).toHaveLength(1)
      expect(await told(0)).toEqual([])
      await clock.advance(MINUTE)
    }
    // The other one sees it no longer, and what it has seen is forgotten.
    await redis.del(await redis.keys(`${prefix}:webhook-seen:*`))
    await clock.advance(MINUTE)
    expect([await told(1), await told(0)]).toEqual([[], ['resolved']])
  })

  it('is told again after a while, although only another one still sees it', async () => {
    const { clock, looks, redis, connections, prefix } = await startTwo(inject('redisUrl'), 10 * MINUTE)
    onTestFinished(() => redis.disconnect())
    await expect.poll(() => connections.every(({ status }) => status === 'ready')).toBe(true)
    const told: string[] = []
    for (let minute = 0; minute <= 25; minute++) {
      for (const { status } of await looks[0]!.look(minute === 0 ? [breaker] : [])) told.push(`${minute} ${status}`)
      expect(await looks[1]!.look([breaker])).toEqual([])
      await expect.poll(() => redis.keys(`${prefix}:webhook-seen:*`)).toHaveLength(1)
      await clock.advance(MINUTE)
    }
    expect(told).toEqual(['0 firing', '10 firing', '20 firing'])
  })

  it('is told by each of them while Redis is away', async () => {
    const { looks, redis } = await startTwo('redis://127.0.0.1:1')
    redis.disconnect()
    for (const one of looks) expect(await one.look([breaker])).toHaveLength(1)
  })
})
