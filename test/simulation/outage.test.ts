import { expect, it } from 'vitest'
import { chargeSetOf, type LimitUsage } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { RedisLedger, type RedisLedgerOptions } from '../../src/ledger/redis/redis-ledger.ts'
import type { Random } from '../../src/time/clock.ts'
import { seededRandom } from '../support/seeded-random.ts'
import type { Case } from './case.ts'
import { modelHost, simulate } from './simulation.ts'
import { COMMAND_TIMEOUT_MS, Connection, type ScriptHost, Store } from './store.ts'
import { faultsOf } from './verdict.ts'
import { Process, World } from './world.ts'

const OUTAGE = { atMs: 5_000, ms: 10_000 }
/** More calls than fit come at once: a gateway spends its lease on them, and goes on once it knows that Redis is away for all. */
const RUSH_MS = OUTAGE.atMs + 100
const ALONE_MS = OUTAGE.atMs + 1_100

/** A limit of 40 a window, to which one gateway or two keep while Redis is away for ten seconds. */
function caseOfWindow(windowMs: number, gateways: number): Case {
  return {
    kind: 'random',
    seed: 1,
    store: 'redis',
    skewsMs: Array.from({ length: gateways }, () => 0),
    onOutage: 'lease',
    partitions: 1,
    limits: [{ id: 'only', class: 'any', kind: 'rolling', windowMs, requests: 40 }],
    chargeSets: [{ limits: [0], units: [1] }],
    network: { leastMs: 0.1, meanMs: 0.3 },
    load: {
      kind: 'rush',
      rushAtMs: RUSH_MS,
      latency: { kind: 'uniform', meanMs: 20, longShare: 0, windowMs },
      counts: 'any',
      timeoutMs: Infinity,
      refunds: 0,
      aborts: 0,
      leavers: 0,
    },
    faults: [{ kind: 'fail-over', ...OUTAGE, lostMs: 0, isSilent: false }],
    upstreamOffsetMs: 0,
    durationMs: 20_000,
  }
}

interface OneGateway extends Partial<RedisLedgerOptions> {
  readonly random?: Random
  readonly host?: ScriptHost
  readonly network?: ConstructorParameters<typeof Store>[3]
  readonly Kept?: typeof Store
  readonly Connected?: typeof Connection
}

/** One gateway and its Redis, in simulated time. */
function oneGateway({
  random = seededRandom(3),
  host = modelHost(),
  network = { leastMs: 1, meanMs: 0.3 },
  Kept = Store,
  Connected = Connection,
  ...options
}: OneGateway = {}) {
  const world = new World()
  const process = new Process(world, 0)
  const store = new Kept(world, random, host, network)
  const runner = new Connected(store, process, () => undefined)
  const { clock } = process
  const usual = { runner, clock, gateway: 'a', prefix: 'any', answerWithinMs: COMMAND_TIMEOUT_MS }
  return { world, store, runner, ledger: new RedisLedger({ ...usual, ...options }) }
}

it.each([
  [100, 1],
  [500, 1],
  [500, 2],
  [1_000, 2],
])('calls go on in any two windows of %i ms while Redis is away, with gateways: %i', async (windowMs, gateways) => {
  const of = caseOfWindow(windowMs, gateways)
  const outcome = await simulate(of)
  expect(faultsOf(of, outcome)).toEqual([])
  // A quarter of the limit was free for leases.
  for (let from = ALONE_MS; from + 2 * windowMs < OUTAGE.atMs + OUTAGE.ms; from += 2 * windowMs) {
    const sent = outcome.sentAt.filter((at) => at >= from && at < from + 2 * windowMs).length
    expect(sent, `from ${from}`).toBeGreaterThanOrEqual(8)
  }
})

it.each([1_000, 5_000, 20_000])('calls that wait go on when Redis is back, with windows of %i ms', async (windowMs) => {
  for (const seed of [1, 2, 3]) {
    const of = { ...caseOfWindow(windowMs, 1), seed }
    const outcome = await simulate(of)
    expect(faultsOf(of, outcome)).toEqual([])
    // It is looked for every 250 ms, then others may tell it something for a second, and the next tick returns to it.
    const back = OUTAGE.atMs + OUTAGE.ms
    const sent = outcome.sentAt.filter((at) => at >= back && at < back + 2_000)
    expect(sent.length).toBeGreaterThanOrEqual(30)
  }
})

it('some slow answers are no outage that is told, however often there are, but a second without any is', async () => {
  const told: string[] = []
  const { world, store, ledger } = oneGateway({
    onAway: (trouble) => told.push(trouble),
    onBack: () => told.push('back'),
  })
  const limit = limitOf({ id: 'only', class: 'any', requests: 40, windowMs: 10_000 })
  const first = Promise.resolve(ledger.charge(chargeSetOf('any/main', [{ limit }]), 1))
  await world.runUntil(world.now + 1_000)
  expect((await first).granted).toBe(1)
  for (let i = 0; i < 20; i++) {
    store.stalledUntil = world.now + 300
    await world.runUntil(world.now + 2_000)
    expect(ledger.isDegraded).toBe(false)
  }
  expect(told).toEqual([])
  store.stalledUntil = world.now + 1_000
  await world.runUntil(world.now + 5_000)
  expect(told).toEqual(['does not answer (no answer within 50 ms)', 'back'])
})

it('a Redis that lost the last writes is told what it lacks, also if it first answers nothing for a second', async () => {
  const host = modelHost()
  const { world, store, ledger } = oneGateway({ host })
  const limit = limitOf({ id: 'only', class: 'any', requests: 40, windowMs: 10_000 })
  const chargeSet = chargeSetOf('any/main', [{ limit }])
  async function charge(calls: number): Promise<number> {
    const charged = Promise.resolve(ledger.charge(chargeSet, calls))
    await world.runUntil(world.now + 100)
    const grant = await charged
    for (let i = 0; i < grant.granted; i++) ledger.commit(grant)
    return grant.granted
  }
  expect(await charge(20)).toBe(20)
  await world.runUntil(world.now + 1_000)
  await host.keep()
  expect(await charge(20)).toBe(20)
  store.fail({ downMs: 100, isSilent: false, contents: 'kept' })
  store.stalledUntil = world.now + 1_500
  await world.runUntil(world.now + 5_000)
  expect(ledger.isDegraded).toBe(false)
  expect(await charge(20)).toBe(0)
})

it.each([100, 250, 600])('a gateway returns to a Redis whose answers take twice %i ms', async (oneWayMs) => {
  class FarStore extends Store {
    override oneWayMs(): number {
      return oneWayMs
    }
  }
  const { world, runner, ledger } = oneGateway({ Kept: FarStore, answerWithinMs: 2_000 })
  const limit = limitOf({ id: 'only', class: 'any', requests: 40, windowMs: 10_000 })
  const first = Promise.resolve(ledger.charge(chargeSetOf('any/main', [{ limit }]), 1))
  await world.runUntil(world.now + 5_000)
  expect((await first).granted).toBe(1)
  expect(ledger.isDegraded).toBe(false)
  runner.drop()
  await world.runUntil(world.now + 100)
  expect(ledger.isDegraded).toBe(true)
  await world.runUntil(world.now + 8_000)
  expect(ledger.isDegraded).toBe(false)
})

it.each(['rolling', 'concurrent'] as const)(
  'the lease lets through calls that were on their way when Redis went away, of a limit that is %s',
  async (kind) => {
    const { world, store, ledger } = oneGateway()
    const limit = limitOf({ id: 'only', class: 'any', kind, requests: 40, windowMs: 10_000 })
    const chargeSet = chargeSetOf('any/main', [{ limit }])
    const first = Promise.resolve(ledger.charge(chargeSet, 1))
    await world.runUntil(world.now + 1_000)
    expect((await first).granted).toBe(1)
    const asked = Promise.resolve(ledger.charge(chargeSet, 12))
    store.fail({ downMs: 60_000, isSilent: false, contents: 'kept' })
    await world.runUntil(world.now + 100)
    // A quarter of what was free.
    expect((await asked).granted).toBe(9)
    expect(ledger.charge(chargeSet, 1)).toMatchObject({ granted: 0 })
  },
)

it.each(['lease', 'closed'] as const)(
  'a charge that is held is made in Redis once that answers, and waits for nothing else, with onOutage: %s',
  async (onOutage) => {
    const { world, store, ledger } = oneGateway({ network: { leastMs: 20, meanMs: 0.01 }, onOutage })
    const chargeSet = (id: string) =>
      chargeSetOf('any/main', [{ limit: limitOf({ id, class: 'any', requests: 40, windowMs: 10_000 }) }])
    const first = Promise.resolve(ledger.charge(chargeSet('known'), 1))
    await world.runUntil(world.now + 1_000)
    expect((await first).granted).toBe(1)
    // One answer comes too late. Then Redis answers again, each time 40 ms after the question.
    store.stalledUntil = world.now + COMMAND_TIMEOUT_MS + 5
    const late = Promise.resolve(ledger.charge(chargeSet('known'), 1)).catch((error: Error) => error)
    await world.runUntil(world.now + COMMAND_TIMEOUT_MS + 9)
    // Nothing of this limit was leased.
    const held = Promise.resolve(ledger.charge(chargeSet('new'), 1)).catch((error: Error) => error)
    await world.runUntil(world.now + 1_000)
    await late
    expect(await held).toMatchObject({ granted: 1, isLocal: false })
  },
)

it('usage is said to be that of this gateway only where Redis could not be asked, and not of what other shards count', async () => {
  let isLost = false
  class Shards extends Connection {
    override run(...call: Parameters<Connection['run']>): ReturnType<Connection['run']> {
      return isLost && call[0][0]!.includes('any/lost') ? Promise.reject(new Error('no shard')) : super.run(...call)
    }
  }
  const { world, ledger } = oneGateway({ Connected: Shards })
  const limit = limitOf({ id: 'only', class: 'any', requests: 40, windowMs: 60_000 })
  const [lost, other] = ['any/lost', 'any/other'].map((name) => chargeSetOf(name, [{ limit }]))
  const usage = async (): Promise<(readonly LimitUsage[])[]> => {
    const asked = Promise.all([ledger.usage(lost!), ledger.usage(other!)])
    await world.runUntil(world.now + 500)
    return asked
  }
  for (const chargeSet of [lost, other]) void ledger.charge(chargeSet!, 1)
  await world.runUntil(world.now + 500)
  const [known] = await usage()
  expect(known).toMatchObject([{ used: 1 }])
  expect(known![0]!.isLocal).toBeUndefined()
  isLost = true
  const [local, shared] = await usage()
  expect(ledger.isDegraded).toBe(true)
  expect(local).toMatchObject([{ isLocal: true }])
  expect(shared).toMatchObject([{ used: 1 }])
  expect(shared![0]!.isLocal).toBeUndefined()
  isLost = false
  await world.runUntil(world.now + 5_000)
  for (const [one] of await usage()) expect([one!.used, one!.isLocal]).toEqual([1, undefined])
})

it.each(['rolling', 'calendar'] as const)(
  'calls that are in flight while Redis is away are not counted once more for each renewal, of a limit that is %s',
  async (kind) => {
    const { world, store, ledger } = oneGateway()
    const limit = limitOf({ id: 'only', class: 'any', kind, requests: 1_000, windowMs: 86_400_000 })
    const chargeSet = chargeSetOf('any/main', [{ limit }])
    const charged = Promise.resolve(ledger.charge(chargeSet, 10))
    await world.runUntil(world.now + 1_000)
    expect((await charged).granted).toBe(10)
    await store.host.keep()
    store.fail({ downMs: 60_000, isSilent: false, contents: 'kept' })
    await world.runUntil(world.now + 65_000)
    expect(ledger.isDegraded).toBe(false)
    for (let i = 0; i < 10; i++) ledger.commit(await charged)
    await world.runUntil(world.now + 10_000)
    const usage = ledger.usage(chargeSet)
    await world.runUntil(world.now + 100)
    const [{ used }] = (await usage) as [LimitUsage]
    expect(used).toBeGreaterThanOrEqual(10)
    expect(used).toBeLessThanOrEqual(30)
  },
)

it.each([
  { limits: 1, kept: 1, what: 'the question whether it is there' },
  { limits: 401, kept: 2, what: 'the first of two calls that tell of so many limits' },
])(
  'what was charged while Redis was away counts, though a replica takes over that has only $what',
  async ({ limits, kept }) => {
    const model = modelHost()
    let calls = -Infinity
    const host: ScriptHost = {
      ...model,
      run: (keys, args) => {
        const reply = model.run(keys, args)
        if (++calls === kept) void model.keep()
        return reply
      },
    }
    const { world, store, ledger } = oneGateway({ host })
    const chargeSets = Array.from({ length: limits }, (_, i) =>
      chargeSetOf('any/main', [{ limit: limitOf({ id: `${i}`, class: 'any', requests: 40, windowMs: 60_000 }) }]),
    )
    const charged = async (wanted: number): Promise<number[]> => {
      const grants = Promise.all(chargeSets.map(async (chargeSet) => ledger.charge(chargeSet, wanted)))
      await world.runUntil(world.now + 1_000)
      for (const grant of await grants) for (let n = 0; n < grant.granted; n++) ledger.commit(grant)
      return (await grants).map(({ granted }) => granted)
    }
    const fail = (downMs: number): void => store.fail({ downMs, isSilent: false, contents: 'kept' })

    const before = await charged(4)
    await model.keep()
    fail(8_000)
    await world.runUntil(world.now + 1_200)
    const meanwhile = await charged(5)
    calls = 0
    while (calls <= kept) await world.runUntil(world.now + 10)
    await world.runUntil(world.now + 10)
    fail(100)
    await world.runUntil(world.now + 3_000)
    expect(ledger.isDegraded).toBe(false)
    const usage = Promise.all(chargeSets.map((chargeSet) => ledger.usage(chargeSet)))
    await world.runUntil(world.now + 1_000)
    expect([...before, ...meanwhile]).toEqual([...chargeSets.map(() => 4), ...chargeSets.map(() => 5)])
    for (const [one] of await usage) expect(one!.used).toBeGreaterThanOrEqual(9)
  },
)

it('a charge that is held is granted when the same Redis is found again, though a tick asks it at that moment', async () => {
  let find: (isSame: boolean) => void = () => undefined
  class Found extends Connection {
    onFound(listener: (isSame: boolean) => void): void {
      find = listener
    }
  }
  const changes: string[] = []
  // The connection is made again after 239 ms, and Redis is found to be the same 40 ms later. A tick begins between these two.
  const { world, runner, ledger } = oneGateway({
    random: () => 0.95,
    network: { leastMs: 20, meanMs: 0 },
    Connected: Found,
    answerWithinMs: 400,
    onOutage: 'closed',
    onChange: (_, mode) => changes.push(mode),
  })
  const limit = limitOf({ id: 'only', class: 'any', requests: 40, windowMs: 10_000 })
  const chargeSet = chargeSetOf('any/main', [{ limit }])
  const first = Promise.resolve(ledger.charge(chargeSet, 1))
  await world.runUntil(world.now + 3_000)
  expect((await first).granted).toBe(1)
  runner.drop()
  await world.runUntil(world.now + 5)
  const held = Promise.resolve(ledger.charge(chargeSet, 1)).catch((error: Error) => error)
  while (!runner.isConnected) await world.runUntil(world.now + 1)
  await world.runUntil(world.now + 40)
  find(true)
  await world.runUntil(world.now + 2_000)
  expect(await held).toMatchObject({ granted: 1 })
  expect(changes).toEqual(['leased', 'shared'])
})
