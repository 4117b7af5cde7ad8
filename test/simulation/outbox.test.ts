import { expect, it } from 'vitest'
import { type ChargeSet, chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { modelHost } from './simulation.ts'
import { COMMAND_TIMEOUT_MS, Connection, type ScriptHost, Store } from './store.ts'
import { Process, World } from './world.ts'

/** Where an argument of the script says how many kinds of calls it is told of. */
const KINDS = 3

/** Gateways of one simulated Redis. */
class Gateways {
  readonly world = new World()
  /** Of how many charge sets each call of the script told something. */
  readonly told: number[] = []
  readonly #store: Store

  constructor() {
    const model = modelHost()
    const host: ScriptHost = {
      ...model,
      run: (keys, args) => {
        this.told.push(Number(args[KINDS]))
        return model.run(keys, args)
      },
    }
    this.#store = new Store(this.world, seededRandom(5), host, { leastMs: 1, meanMs: 0.3 })
  }

  start(gateway: string): { ledger: RedisLedger; process: Process } {
    const process = new Process(this.world, 0)
    const runner = new Connection(this.#store, process, () => undefined)
    const { clock } = process
    const options = { runner, clock, gateway, prefix: 'any', answerWithinMs: COMMAND_TIMEOUT_MS }
    return { ledger: new RedisLedger(options), process }
  }

  async charge(ledger: RedisLedger, chargeSet: ChargeSet, calls: number) {
    const charged = Promise.resolve(ledger.charge(chargeSet, calls))
    await this.pass(100)
    return charged
  }

  pass(ms: number): Promise<void> {
    return this.world.runUntil(this.world.now + ms)
  }
}

function chargeSetOfWindow(windowMs: number): ChargeSet {
  return chargeSetOf('any/main', [
    { limit: limitOf({ id: 'only', class: 'any', requests: 400, windowMs, countingToleranceMs: 0 }) },
  ])
}

it.each([
  [2_000, 1_800, 1_600],
  [60_000, 40_000, 35_000],
])(
  'of a window of %i ms, a call whose answer came while its gateway stood still for %i ms counts for a window more',
  async (windowMs, pauseMs, laterMs) => {
    const gateways = new Gateways()
    const { ledger, process } = gateways.start('a')
    const chargeSet = chargeSetOfWindow(windowMs)
    const grant = await gateways.charge(ledger, chargeSet, 1)
    expect(grant.granted).toBe(1)
    process.pause(pauseMs, false)
    // What came meanwhile is read before any timer is run.
    gateways.world.at(gateways.world.now + pauseMs - 1, () => ledger.commit(grant))
    await gateways.pass(pauseMs + laterMs)
    expect((await gateways.charge(ledger, chargeSet, 400)).granted).toBe(399)
  },
)

it('keeps of few charge sets what Redis is not told, however many there are', async () => {
  const gateways = new Gateways()
  const { ledger } = gateways.start('a')
  const limit = limitOf({ id: 'only', class: 'any', requests: 1_000_000, windowMs: 60_000 })
  const chargeSets = Array.from({ length: 200 }, (_, i) => chargeSetOf('any/main', [{ limit, units: 1 + i }]))
  for (const chargeSet of chargeSets) ledger.commit(await gateways.charge(ledger, chargeSet, 1))
  // Whoever asks for the usage is to know all.
  await gateways.charge(ledger, chargeSets[0]!, 0)
  expect(Math.max(...gateways.told)).toBeLessThanOrEqual(10)
  expect(gateways.told.reduce((sum, kinds) => sum + kinds - 1, 0)).toBeGreaterThanOrEqual(199)
})

it('a partition that was not used for long is not forgotten before Redis was told that its last call is over', async () => {
  const gateways = new Gateways()
  const { world } = gateways
  const { ledger } = gateways.start('a')
  const limit = limitOf({ id: 'only', class: 'any', kind: 'concurrent', requests: 1 })
  const streams = chargeSetOf('any/main', [{ limit }])
  const began = world.now
  const grant = await gateways.charge(ledger, streams, 1)
  // It ticks every 250 ms, for the first time after ten; the call ends a little before that.
  await world.runUntil(began + 2_500 * 250 + 10 - 5)
  ledger.commit(grant)
  ledger.leave(grant)
  await gateways.pass(50)
  const other = gateways.start('b')
  expect((await gateways.charge(other.ledger, streams, 1)).granted).toBe(1)
})
