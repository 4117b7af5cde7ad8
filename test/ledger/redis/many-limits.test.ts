import { Redis } from 'ioredis'
import { afterAll, expect, inject, it } from 'vitest'
import { chargeSetOf, type Grant, type Ledger } from '../../../src/ledger/ledger.ts'
import { limitOf } from '../../../src/ledger/limit.ts'
import { AnsweredScript } from '../../support/answered-script.ts'
import { SimulatedClock } from '../../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
afterAll(() => redis.quit())

/** More than Lua can pass on at once, were all of them renewed in one call of the script. */
const LIMITS = 5_000
const REQUESTS = 100
/** All that one call of the script may do in a Redis that has other calls to answer. */
const MOST_ARGUMENTS = 5_000
/** Where in the arguments of a call it says for how long leases are taken. */
const TERM = 5
/** So many of them one gateway uses, of which others use all. */
const OWN = 1_000

const chargeSets = Array.from({ length: LIMITS }, (_, i) =>
  chargeSetOf('organisation:acme', [
    { limit: limitOf({ id: `budget.client=${i}`, class: 'budget', requests: REQUESTS, windowMs: 3_600_000 }) },
  ]),
)

/** A connection that can be lost. */
class Connection extends AnsweredScript {
  isLost = false
  mostArguments = 0
  renewals = 0

  override async run(...call: Parameters<AnsweredScript['run']>): ReturnType<AnsweredScript['run']> {
    this.mostArguments = Math.max(this.mostArguments, call[1].length)
    if (Number(call[1][TERM]) > 0) this.renewals++
    if (this.isLost) throw new Error('it is lost')
    return super.run(...call)
  }
}

async function chargeAll(ledger: Ledger, wanted: number, of = chargeSets): Promise<number> {
  const grants = await Promise.all(of.map(async (chargeSet): Promise<Grant> => ledger.charge(chargeSet, wanted)))
  return grants.reduce((sum, { granted }) => sum + granted, 0)
}

function opened(clock: SimulatedClock, prefix = newPrefix()) {
  const connection = new Connection(redis.duplicate())
  const changes: string[] = []
  const onChange = (_: string, mode: string): void => void changes.push(mode)
  return { ledger: steppedLedger(redis, { clock, runner: connection, prefix, onChange }), connection, changes }
}

it('renews the leases of thousands of limits, and tells Redis after an outage what was spent of them', async () => {
  const clock = new SimulatedClock()
  const prefix = newPrefix()
  const { ledger, connection, changes } = opened(clock, prefix)
  expect(await chargeAll(ledger, 1)).toBe(LIMITS)
  await connection.pass(clock, 300)
  expect(changes).toEqual([])

  connection.isLost = true
  await connection.pass(clock, 250)
  expect(changes).toEqual(['leased'])
  expect(await chargeAll(ledger, 2)).toBe(2 * LIMITS)
  connection.isLost = false
  await connection.pass(clock, 1_500)
  expect(changes).toEqual(['leased', 'shared'])

  const other = opened(clock, prefix)
  await ledger.close()
  await other.connection.pass(clock, 300)
  expect(await chargeAll(other.ledger, REQUESTS)).toBe((REQUESTS - 3) * LIMITS)
  expect(connection.mostArguments).toBeLessThan(MOST_ARGUMENTS)
  await other.ledger.close()
})

it('tells Redis little by little of hundreds of calls of different charge sets that are renewed at once', async () => {
  const clock = new SimulatedClock()
  const { ledger, connection, changes } = opened(clock)
  const some = chargeSets.slice(0, 500)
  expect(await chargeAll(ledger, 1, some)).toBe(some.length)
  await connection.pass(clock, 6_000)
  expect(changes).toEqual([])
  expect(connection.mostArguments).toBeLessThan(MOST_ARGUMENTS)
  await ledger.close()
})

it('shares thousands of limits, of which other gateways have leases, and forgets the leases of gateways that have gone', async () => {
  const clock = new SimulatedClock()
  const prefix = newPrefix()
  const { ledger, connection, changes } = opened(clock, prefix)
  const own = chargeSets.slice(0, OWN)
  expect(await chargeAll(ledger, 1, own)).toBe(OWN)
  const [partition] = await redis.keys(`${prefix}:*:limits`)
  const leases = partition!.replace(/limits$/, 'leases')
  const hold = async (gateway: string, units: number, ends: number): Promise<void> => {
    await redis.hset(partition!, gateway, 7)
    for (const some of Array.from({ length: 10 }, (_, i) => chargeSets.slice(i * 500, (i + 1) * 500))) {
      const texts = some.flatMap(({ limits }) => [`${limits[0]!.id}|${gateway}`, `${units} ${ends} 3000`])
      await redis.hset(leases, ...texts)
    }
  }
  await hold('@here', 30, clock.now() + 600_000)
  await hold('@there', 20, clock.now() + 600_000)
  // Nobody counts to this limit any more: its lease is found by turns.
  await redis.hset(leases, 'forgotten|with a bar|@gone', '5 1 3000', 'forgotten|@here', `5 1 3000`)
  await hold('@gone', 5, 1)

  connection.renewals = 0
  await connection.pass(clock, 1_000)
  // Four ticks. Each call reads what leases there are, so there must not be many.
  expect(connection.renewals).toBeGreaterThan(0)
  expect(connection.renewals).toBeLessThanOrEqual(15)
  expect(changes).toEqual([])
  // What others have leases of is not granted: it is left to them.
  expect(await chargeAll(ledger, REQUESTS, own.slice(0, 100))).toBe(100 * (REQUESTS - 1 - 50))
  // Each has its turn, some sooner than others.
  for (let s = 0; s < 60 && (await redis.hexists(partition!, '@gone')) === 1; s++) await connection.pass(clock, 1_000)
  expect(await redis.hmget(partition!, '@gone', '@here', '@there')).toEqual([null, '7', '7'])
  const names = await redis.hkeys(leases)
  expect(names.filter((name) => name.endsWith('|@gone') || name.startsWith('forgotten'))).toEqual([])
  expect(names.filter((name) => name.endsWith('|@here'))).toHaveLength(LIMITS)
  await ledger.close()
})

it('answers what is used of thousands of limits little by little, and goes on to share them', async () => {
  const clock = new SimulatedClock()
  const { ledger, connection, changes } = opened(clock)
  await chargeAll(ledger, 1, chargeSets.slice(0, 4_000))
  const all = chargeSetOf(
    'organisation:acme',
    chargeSets.slice(0, 4_000).map(({ limits }) => ({ limit: limits[0]! })),
  )
  connection.mostArguments = 0
  for (let n = 0; n < 2; n++) {
    const used = (await ledger.usage(all)).map((usage) => usage.used)
    expect(used).toEqual(Array.from({ length: 4_000 }, () => 1))
    expect(connection.mostArguments).toBeLessThan(MOST_ARGUMENTS)
    await connection.pass(clock, 300)
  }
  expect(changes).toEqual([])
  await ledger.close()
})
