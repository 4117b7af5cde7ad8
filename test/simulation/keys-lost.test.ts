import { expect, it } from 'vitest'
import { chargeSetOf } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { modelHost } from './simulation.ts'
import { COMMAND_TIMEOUT_MS, Connection, Store } from './store.ts'
import { Process, World } from './world.ts'

const LOSSES = {
  'Redis is flushed': () => true,
  'the keys of one account are evicted': (key: string) => key.includes('{any/0}'),
  'its counters are evicted': (key: string) => key.endsWith('{any/0}:limits'),
  'its leases are evicted': (key: string) => key.endsWith('{any/0}:leases'),
} satisfies Record<string, (key: string) => boolean>

const CASES = Object.keys(LOSSES).flatMap((loss) => [1, 1_000].map((accounts) => [loss, accounts] as const))

it.each(CASES)(
  'when %s, a gateway that had not used the account gets what the others left of it, of %i accounts',
  async (loss, accounts) => {
    const world = new World()
    const store = new Store(world, seededRandom(5), modelHost(), { leastMs: 0.2, meanMs: 0.2 })
    const gatewayOf = (gateway: string): RedisLedger => {
      const process = new Process(world, 0)
      const runner = new Connection(store, process, () => undefined)
      const { clock } = process
      const ledger = new RedisLedger({ runner, clock, gateway, prefix: 'lost', answerWithinMs: COMMAND_TIMEOUT_MS })
      void ledger.begin()
      return ledger
    }
    const [a, b, idle] = ['a', 'b', 'idle'].map(gatewayOf) as [RedisLedger, RedisLedger, RedisLedger]
    const chargeSets = Array.from({ length: accounts }, (_, i) => {
      return chargeSetOf(`any/${i}`, [
        { limit: limitOf({ id: 'only', class: 'any', requests: 200, windowMs: 10_000 }) },
      ])
    })
    const granted = async (ledger: RedisLedger): Promise<number> => {
      const grant = Promise.resolve(ledger.charge(chargeSets[0]!, 100))
      await world.runUntil(world.now + 100)
      return (await grant).granted
    }
    for (const chargeSet of chargeSets) for (const ledger of [a, b]) void Promise.resolve(ledger.charge(chargeSet, 1))
    await world.runUntil(world.now + 1_000)
    // What leases of others keep of it is free as soon as somebody is refused because of them.
    let all = 2 + (await granted(a)) + (await granted(b))
    expect(all).toBeGreaterThan(150)
    await store.host.lose(LOSSES[loss as keyof typeof LOSSES])
    // Neither of the others asks meanwhile. With accounts so many, they renew the leases of each once in two seconds.
    for (let i = 0; i < 50; i++) all += await granted(idle)
    expect(all).toBeLessThanOrEqual(200)
    await world.runUntil(world.now + 11_000)
    expect(await granted(idle)).toBeGreaterThan(0)
  },
)
