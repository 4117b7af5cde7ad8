import { Redis } from 'ioredis'
import { expect, inject, it, onTestFinished } from 'vitest'
import { homeScript } from '../../../src/ledger/regions/redis-home.ts'
import { newPrefix } from '../../support/stepped-ledger.ts'

/* home.lua by itself: what it makes of questions that come in an order, or as late, as gateways of one program would not send them. */

const [REQUESTS, RESERVE] = [100, 15]
const POOL = REQUESTS - 2 * RESERVE
const SETTLE_MS = 2_000

/** What a region asks of the limit, at a time of home. */
interface Question {
  readonly at: number
  readonly region: 'eu' | 'us'
  readonly leaseMs: number
  readonly terms: string
  readonly want: number
  /** What it has measured after the answer of that time. */
  readonly measured?: { readonly since: number; readonly over: number }
}

/** Home in a real Redis, in given time. It has been there for long, so it knows everything. */
async function startHome() {
  const redis = new Redis(inject('redisUrl'))
  onTestFinished(() => redis.disconnect())
  const prefix = newPrefix()
  const keys = [`${prefix}:{x}`, `${prefix}:memory`]
  await redis.hset(keys[1]!, 'identity', 'home', 'since', 0)
  onTestFinished(async () => void (await redis.del(keys)))
  /** Resolves with what each region may use beyond its reserve, and with its bound; undefined while gateways with other terms are alive. */
  return async ({ at, region, leaseMs, terms, want, measured }: Question) => {
    const args = [region, at * 1_000, 'home', leaseMs, 1, measured?.since ?? '', measured === undefined ? '' : 'home']
    const limit = ['limit', terms, POOL, `${RESERVE} ${RESERVE}`, SETTLE_MS, want, measured?.over ?? '', '', '']
    const reply = (await redis.eval(homeScript(), 2, ...keys, ...args, 'eu us', ...limit)) as string
    const [isAgreed, , , euExtra, euHold, , , usExtra, usHold] = reply.split('\n')[1]!.split(' ').map(Number)
    return isAgreed === 1 ? { eu: [euExtra, euHold], us: [usExtra, usHold] } : undefined
  }
}

it('believes no measurement of before the shares of gateways with other terms ended', async () => {
  const ask = await startHome()
  const [leaseMs, begin] = [10_000, 1_000_000]
  const [before, after] = [
    { leaseMs, terms: 'before' },
    { leaseMs, terms: 'after' },
  ]
  await ask({ ...before, at: begin, region: 'eu', want: POOL })
  const answeredAt = begin + 3_000
  expect(await ask({ ...after, at: answeredAt, region: 'eu', want: 0 })).toBeUndefined()
  // The gateway with the new terms has measured at once. Then the other used its share, and home stood still meanwhile.
  const late = { since: answeredAt, over: 0 }
  const adoptedAt = begin + leaseMs + 2_500
  expect(await ask({ ...after, at: adoptedAt, region: 'eu', want: 0, measured: late })).toMatchObject({ eu: [0, POOL] })
  expect(await ask({ ...after, at: adoptedAt, region: 'us', want: POOL })).toMatchObject({ us: [0, 0] })
  // What is measured from then on counts.
  const measured = { since: adoptedAt, over: 40 }
  expect(await ask({ ...after, at: adoptedAt + 100, region: 'eu', want: 0, measured })).toMatchObject({ eu: [0, 40] })
  expect(await ask({ ...after, at: adoptedAt + 200, region: 'us', want: POOL })).toMatchObject({ us: [30, 30] })
})

it('waits for the shares of gateways with a longer lease', async () => {
  const ask = await startHome()
  const [longMs, shortMs, begin] = [300_000, 10_000, 1_000_000]
  await ask({ leaseMs: longMs, terms: 'long', at: begin, region: 'eu', want: POOL })
  const short = { leaseMs: shortMs, terms: 'short' }
  expect(await ask({ ...short, at: begin + 100_000, region: 'us', want: POOL })).toBeUndefined()
  expect(await ask({ ...short, at: begin + longMs + 1_000, region: 'us', want: POOL })).toBeUndefined()
  expect(await ask({ ...short, at: begin + longMs + 3_000, region: 'us', want: 0 })).toMatchObject({ eu: [0, POOL] })
})
