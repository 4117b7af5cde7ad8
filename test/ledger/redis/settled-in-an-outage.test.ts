import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { chargeSetOf, type Grant, type Ledger } from '../../../src/ledger/ledger.ts'
import { limitOf, windowOf } from '../../../src/ledger/limit.ts'
import { RedisScript } from '../../../src/ledger/redis/script.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { steppedLedger } from '../../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

const ANSWER_WITHIN_MS = 50
const USD = 1e9
const CALLS = 20
const month = windowOf('month', { timezone: 'UTC' })
const budget = (units: number) =>
  chargeSetOf('client:bot', [
    {
      limit: limitOf({
        id: 'budget',
        class: 'budget',
        requests: 1_000 * USD,
        unit: 'usd',
        settles: 'at-end',
        ...month,
      }),
      units,
    },
    { limit: limitOf({ id: 'calls', class: 'budget', requests: 1_000, ...month }) },
  ])
const two = budget(2 * USD)
const least = budget(1)

/** A connection that is closed, or behind which Redis stands still, with or without running what it was sent. */
class Connection extends RedisScript {
  isStill = false
  /** Redis runs what it was sent while it stood still, and its answers are lost. */
  runsLate = false
  isClosed = false
  #onLost: (isConcerned: (key: string) => boolean) => void = () => undefined
  #onFound: (isSame: boolean) => void = () => undefined
  #open = 0

  override get isConnected(): boolean {
    return !this.isClosed
  }

  override onLost(listener: (isConcerned: (key: string) => boolean) => void): void {
    this.#onLost = listener
  }

  override onFound(listener: (isSame: boolean) => void): void {
    this.#onFound = listener
  }

  override async run(...call: Parameters<RedisScript['run']>): ReturnType<RedisScript['run']> {
    return this.#answered(() => super.run(...call))
  }

  override async runRegister(...call: Parameters<RedisScript['runRegister']>): ReturnType<RedisScript['runRegister']> {
    return this.#answered(() => super.runRegister(...call))
  }

  async #answered<T>(run: () => Promise<T>): Promise<T> {
    if (this.isClosed) throw new Error('it is closed')
    if (this.isStill && !this.runsLate) return new Promise<T>(() => undefined)
    this.#open++
    const reply = await run().finally(() => this.#open--)
    return this.isStill ? new Promise<T>(() => undefined) : reply
  }

  drop(): void {
    this.isClosed = true
    this.#onLost(() => true)
  }

  /** It is made again, to the same Redis. */
  connect(): void {
    this.isClosed = false
    this.#onFound(true)
  }

  /** What goes to Redis one after the other is answered before more time passes. */
  async pass(clock: SimulatedClock, ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 5) {
      await clock.advance(5)
      while (this.#open > 0) await clock.advance(0)
    }
  }
}

async function setUp() {
  const clock = new SimulatedClock(Date.UTC(2026, 10, 10, 12))
  const connection = new Connection(redis.duplicate())
  const modes: string[] = []
  const ledger = steppedLedger(redis, {
    clock,
    runner: connection,
    answerWithinMs: ANSWER_WITHIN_MS,
    onChange: (_, mode) => modes.push(mode),
  })
  const pass = (ms: number): Promise<void> => connection.pass(clock, ms)
  const answered = async <T>(answer: T | Promise<T>): Promise<T> => {
    let isThere = false
    const settled = Promise.resolve(answer).finally(() => (isThere = true))
    settled.catch(() => undefined)
    while (!isThere) await pass(5)
    return settled
  }
  const sent = async (calls = CALLS): Promise<Grant[]> => {
    const grants = await answered(Promise.all(Array.from({ length: calls }, async () => ledger.charge(two, 1))))
    expect(grants.map(({ granted }) => granted)).toEqual(grants.map(() => 1))
    return grants
  }
  const used = async (): Promise<number[]> => {
    const [money, calls] = await answered(ledger.usage(least))
    return [money!.used / USD, calls!.used]
  }
  return { clock, connection, ledger, modes, pass, answered, sent, used }
}

/** The calls end, and each has cost a hundredth of a dollar. */
function end(ledger: Ledger, grants: readonly Grant[]): void {
  for (const grant of grants) {
    ledger.commit(grant)
    ledger.commit(grant.rest!, [0.01 * USD])
  }
}

it('counts calls as what they cost that ended while a connection was made again', async () => {
  const { ledger, connection, pass, sent, used, modes } = await setUp()
  const grants = await sent()
  await pass(300)
  connection.drop()
  end(ledger, grants)
  await pass(5)
  connection.connect()
  await pass(3_000)
  expect(modes).toEqual(['leased', 'shared'])
  expect(await used()).toEqual([0.2, CALLS])
})

it.each([false, true])('and while an answer was late, if Redis ran what it was sent: %s', async (runsLate) => {
  const { ledger, connection, pass, answered, sent, used, modes } = await setUp()
  const grants = await sent()
  await pass(300)
  connection.runsLate = runsLate
  connection.isStill = true
  // Redis is told of some with a charge that it does not answer in time.
  end(ledger, grants.slice(0, 5))
  const late = answered(ledger.charge(least, 0)).catch(() => undefined)
  await pass(100)
  await late
  end(ledger, grants.slice(5))
  connection.isStill = false
  await pass(3_000)
  expect(modes).toEqual(['leased', 'shared'])
  expect(await used()).toEqual([0.2, CALLS])
})

it('and whose charges were renewed meanwhile', async () => {
  const { ledger, connection, pass, sent, used } = await setUp()
  const grants = await sent()
  connection.isStill = true
  await pass(17_000)
  end(ledger, grants.slice(0, 10))
  connection.isStill = false
  await pass(3_000)
  expect(await used()).toEqual([20.1, CALLS])
  end(ledger, grants.slice(10))
  await pass(1_000)
  expect(await used()).toEqual([0.2, CALLS])
})

it('and of which Redis was not told yet when it went away', async () => {
  const { ledger, connection, pass, sent, used } = await setUp()
  const grants = await sent()
  end(ledger, grants.slice(0, 19))
  ledger.refund(grants[19]!)
  connection.isStill = true
  await pass(2_000)
  connection.isStill = false
  await pass(3_000)
  expect(await used()).toEqual([0.19, 19])
})

it('and that were charged to a lease, whenever they end', async () => {
  const { ledger, connection, pass, sent, used, modes } = await setUp()
  await sent(1)
  await pass(300)
  connection.isStill = true
  await pass(300)
  const grants = await sent(12)
  expect(grants.every(({ isLocal }) => isLocal)).toBe(true)
  await pass(1_000)
  end(ledger, grants.slice(0, 4))
  connection.isStill = false
  await pass(500)
  expect(modes).toEqual(['leased'])
  end(ledger, grants.slice(4, 8))
  await pass(2_000)
  expect(modes).toEqual(['leased', 'shared'])
  end(ledger, grants.slice(8))
  await pass(1_000)
  expect(await used()).toEqual([2.12, 13])
})
