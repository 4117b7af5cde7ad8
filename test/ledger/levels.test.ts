import { Redis } from 'ioredis'
import { afterAll, describe, expect, inject, it } from 'vitest'
import { type Budget, Budgets } from '../../src/clients/budget.ts'
import { type ChargeSet, chargeSetOf, type Grant, type Ledger } from '../../src/ledger/ledger.ts'
import { UNITS_OF_MONEY } from '../../src/schema/price-schema.ts'
import type { Random } from '../../src/time/clock.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { newPrefix, steppedLedger, twoGateways } from '../support/stepped-ledger.ts'

const redis = new Redis(inject('redisUrl'))
redis.setMaxListeners(100)
afterAll(() => redis.quit())

const inRedis = (clock: SimulatedClock, prefix: string): Ledger => steppedLedger(redis, { clock, prefix })
const stores = twoGateways(redis)

const HOUR = 3_600_000
const usd = (dollars: number) => ({ amount: dollars * UNITS_OF_MONEY, unit: 'usd', window: HOUR })
const CLIENTS = { ann: 'red', bob: 'red', cem: 'blue', dee: 'blue' } as const
type Name = keyof typeof CLIENTS

/** Amounts need 52 bits: more than the counters of calls have in Redis. */
const budgets = new Budgets({
  organisations: { acme: { budget: [usd(3_000_000)] } },
  teams: {
    red: { organisation: 'acme', budget: [usd(1_500_000), { requests: 60, window: HOUR }] },
    blue: { organisation: 'acme', budget: [usd(2_000_000)] },
  },
})
const ofClient = (name: Name): Budget =>
  budgets.of(name, [usd(1_000_000), { requests: 50, window: HOUR }], CLIENTS[name]) as Budget

/** What one level is done out of, as a mistake would. */
interface Sabotage {
  readonly level: string
  readonly what: 'charge' | 'check' | 'give-back'
}

function sabotaged(chargeSet: ChargeSet, { level, what }: Sabotage): ChargeSet {
  const charges = chargeSet.limits.map((limit, i) => ({ limit, units: chargeSet.units[i]! }))
  const isIt = ({ id }: { readonly id: string }): boolean => id.endsWith(`usd:${level}`)
  if (what === 'charge')
    return chargeSetOf(
      chargeSet.partition,
      charges.filter(({ limit }) => !isIt(limit)),
    )
  if (what === 'give-back') return chargeSet
  const unchecked = charges.map(({ limit, units }) => ({
    units,
    limit: isIt(limit) ? { ...limit, isEnforced: false } : limit,
  }))
  return chargeSetOf(chargeSet.partition, unchecked)
}

interface Sent {
  readonly client: Name
  readonly ledger: Ledger
  readonly grant: Grant
  readonly money: number
}

/**
 * Calls of four clients at two gateways, several at once, each of which costs less or more than was reserved, is refunded, or is given
 * up. Returns what of the levels is wrong afterwards, and after each step.
 */
async function simulate(
  random: Random,
  [first, second]: readonly [Ledger, Ledger],
  clock: SimulatedClock,
  sabotage?: Sabotage,
) {
  const names = Object.keys(CLIENTS) as Name[]
  /** What each level must have, by the id of its limit. */
  const due = new Map<string, number>()
  const limits = new Map(names.flatMap((name) => ofClient(name).limits.map(({ limit }) => [limit.id, limit] as const)))
  const add = (client: Name, money: number, calls: number): void => {
    for (const { limit } of ofClient(client).limits)
      due.set(limit.id, (due.get(limit.id) ?? 0) + (limit.unit === undefined ? calls : money))
  }
  const faults = new Set<string>()
  const inFlight: Sent[] = []
  const charge = async (): Promise<void> => {
    const client = names[Math.floor(random() * names.length)]!
    const ledger = random() < 0.5 ? first : second
    const money = 1 + Math.floor(random() ** 3 * 400_000 * UNITS_OF_MONEY)
    const whole = ofClient(client).chargeSetFor(money)
    const before = new Map(due)
    const grant = await ledger.charge(sabotage === undefined ? whole : sabotaged(whole, sabotage), 1)
    if (grant.granted === 0) return
    for (const [i, { id, requests }] of whole.limits.entries())
      if ((before.get(id) ?? 0) + whole.units[i]! > requests) faults.add(`${id} had no room`)
    add(client, money, 1)
    inFlight.push({ client, ledger, grant, money })
  }
  const end = ({ client, ledger, grant, money }: Sent): void => {
    const fate = random()
    if (fate < 0.15) {
      add(client, -money, -1)
      ledger.refund(grant)
    } else if (fate < 0.3) ledger.abandon(grant)
    else {
      ledger.commit(grant)
      const cost = Math.floor(random() * 1.2 * money)
      const rest = grant.rest!
      add(client, cost - money, 0)
      const isKept = (id: string): boolean => sabotage?.what === 'give-back' && id.endsWith(`usd:${sabotage.level}`)
      ledger.commit(
        rest,
        rest.part.limits.map(({ id }, i) => (isKept(id) ? Math.max(cost, rest.part.units[i]!) : cost)),
      )
    }
    ledger.leave(grant)
  }
  for (let step = 0; step < 60; step++) {
    await Promise.all(Array.from({ length: 1 + Math.floor(random() * 3) }, charge))
    while (inFlight.length > 3) end(inFlight.splice(Math.floor(random() * inFlight.length), 1)[0]!)
    await clock.advance(11)
  }
  for (const sent of inFlight) end(sent)
  await clock.advance(20)
  const all = chargeSetOf(
    'organisation:acme',
    [...limits.values()].map((limit) => ({ limit })),
  )
  for (const { limit, used } of await second.usage(all)) {
    if (used !== (due.get(limit.id) ?? 0)) faults.add(`${limit.id} has ${used} and not ${due.get(limit.id)}`)
  }
  return [...faults]
}

describe.each(Object.entries(stores))('the budgets of clients, teams and organisations %s', (store, create) => {
  const run = (seed: number, sabotage?: Sabotage): Promise<string[]> => {
    const clock = new SimulatedClock(1_700_000_000_000)
    return simulate(seededRandom(seed), create(clock), clock, sabotage)
  }

  it('are charged together or not at all, and have to the last billionth what calls cost', async () => {
    for (let seed = 1; seed <= (store === 'in memory' ? 20 : 4); seed++)
      expect(await run(seed), `seed ${seed}`).toEqual([])
  })

  it.each<Sabotage>(
    ['client=ann', 'team=red', 'organisation=acme'].flatMap((level) =>
      (['charge', 'check', 'give-back'] as const).map((what) => ({ level, what })),
    ),
  )('are found wrong if $level is left out of a $what', async (sabotage) => {
    const faults: string[] = []
    for (let seed = 1; faults.length === 0 && seed <= 10; seed++) faults.push(...(await run(seed, sabotage)))
    expect(faults.join()).toContain(sabotage.level)
  })
})

it('what a killed gateway had leased is granted to others 3 s after it renewed its lease, and what it had in flight is not', async () => {
  const prefix = newPrefix()
  const start = 1_700_000_000_000
  const [dying, clock] = [new SimulatedClock(start), new SimulatedClock(start)]
  const [dead, alive] = [inRedis(dying, prefix), inRedis(clock, prefix)]
  const charge = (ledger: Ledger, dollars: number) =>
    ledger.charge(ofClient('dee').chargeSetFor(dollars * UNITS_OF_MONEY), 1)
  expect((await charge(dead, 400_000)).granted).toBe(1)
  expect((await charge(alive, 1)).granted).toBe(1)
  for (let ms = 0; ms < 600; ms += 10) {
    await dying.advance(10)
    await clock.advance(10)
  }
  // 599,999 are left of the client's 1,000,000.
  let freeAfterMs = 0
  for (; (await charge(alive, 599_999)).granted === 0; freeAfterMs += 10) await clock.advance(10)
  // Both gateways renew every 250 ms: the killed one did so at most that long before, the other one notices at most that long after.
  expect(freeAfterMs).toBeGreaterThanOrEqual(2_750)
  expect(freeAfterMs).toBeLessThanOrEqual(3_260)
  expect((await charge(alive, 1)).granted).toBe(0)
})
