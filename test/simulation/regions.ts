import type { Redis } from 'ioredis'
import { type ChargeSet, chargeSetOf } from '../../src/ledger/ledger.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { homeScript } from '../../src/ledger/regions/redis-home.ts'
import { RegionShares } from '../../src/ledger/regions/region-shares.ts'
import { type Limit, limitOf } from '../../src/ledger/limit.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import type { Random } from '../../src/time/clock.ts'
import { ANYONE } from '../support/anyone.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { modelHost } from './simulation.ts'
import { COMMAND_TIMEOUT_MS, Connection, type ScriptHost, Store } from './store.ts'
import { type Arrival, Upstream } from './upstream.ts'
import { Process, World } from './world.ts'

/** Regions that split a limit, each with a Redis and gateways of its own, and one home. */
export interface RegionsCase {
  readonly seed: number
  readonly limits: readonly Limit[]
  readonly weights: Readonly<Record<string, number>>
  readonly reserve: number
  readonly leaseMs: number
  readonly gateways: number
  readonly durationMs: number
  readonly latencyMs: number
  /** Calls that are wanted at once in each region, from when to when. */
  readonly phases: readonly {
    readonly region: string
    readonly from: number
    readonly until: number
    readonly calls: number
  }[]
  readonly faults: readonly RegionsFault[]
}

export type RegionsFault = { readonly atMs: number; readonly ms: number } &
  /** Nothing passes between home and a region, or one gateway of it; what was sent arrives later, or never. */
  (
    | { readonly kind: 'cut'; readonly region: string; readonly gateway: number | undefined; readonly isReset: boolean }
    /** Home is gone, and comes back with what it had `lostMs` before, or with nothing, on a server with another clock. */
    | {
        readonly kind: 'home'
        readonly lostMs: number | undefined
        readonly isSilent: boolean
        readonly clockMs: number
      }
    | { readonly kind: 'home flushed' }
    | { readonly kind: 'home stalls' }
    /** The Redis of a region. */
    | {
        readonly kind: 'store'
        readonly region: string
        readonly lostMs: number | undefined
        readonly isSilent: boolean
      }
    | { readonly kind: 'crash'; readonly region: string; readonly gateway: number }
    | { readonly kind: 'pause'; readonly region: string; readonly gateway: number }
    /** Its Redis is gone, and home can't be reached either. */
    | { readonly kind: 'island'; readonly region: string }
    /** The region is lost for good, with all that it knows. */
    | { readonly kind: 'disaster'; readonly region: string }
  )

export interface RegionsOutcome {
  readonly worst: readonly { readonly limit: Limit; readonly units: number; readonly atMs: number }[]
  readonly sent: number
  /** Units of the first limit that were counted, by instant since the beginning and region. */
  readonly counted: readonly { readonly atMs: number; readonly region: string }[]
}

const LONGEST_CALL_MS = 6_000
const TOLERANCE_MS = 300

export function randomRegionsCase(seed: number): RegionsCase {
  const random = seededRandom(seed)
  const upTo = (n: number): number => Math.floor(random() * n)
  const between = (least: number, most: number): number => least + random() * (most - least)
  const one = <T>(of: readonly T[]): T => of[upTo(of.length)]!
  const names = ['ap', 'eu', 'us', 'za'].slice(0, 2 + upTo(3))
  const windowMs = one([1_000, 2_000, 5_000, 10_000, 20_000, 60_000])
  const kind = one(['rolling', 'rolling', 'rolling', 'calendar', 'concurrent'] as const)
  const requests = one([2, 5, 12, 30, 60, 100])
  const countingToleranceMs = TOLERANCE_MS
  const specs = [
    {
      id: 'first',
      class: 'first',
      requests,
      kind,
      countingToleranceMs,
      ...(kind === 'concurrent' ? {} : { windowMs }),
    },
  ]
  if (random() < 0.3)
    specs.push({
      id: 'second',
      class: 'first',
      requests: 2 * requests,
      kind: 'rolling',
      countingToleranceMs,
      windowMs: 3 * windowMs,
    })
  const durationMs = between(60_000, 150_000)
  const gateways = 1 + upTo(2)
  const phases = names.flatMap((region) => {
    const own = []
    for (let at = random() < 0.5 ? 0 : between(0, 30_000); at < durationMs;) {
      const until = at + between(2_000, 50_000)
      own.push({ region, from: at, until, calls: random() < 0.6 ? Math.ceil(requests * between(0.3, 2)) : 1 + upTo(3) })
      at = until + (random() < 0.4 ? 0 : between(0, 40_000))
    }
    return own
  })
  const faults = Array.from({ length: upTo(6) }, (): RegionsFault => {
    const [atMs, region, gateway] = [between(2_000, durationMs), one(names), upTo(gateways)]
    const lostMs = random() < 0.4 ? undefined : between(0, 16_000)
    const isSilent = random() < 0.5
    switch (upTo(12)) {
      case 0:
      case 1:
        return { kind: 'cut', atMs, ms: between(500, 60_000), region, gateway: undefined, isReset: random() < 0.5 }
      case 2:
        return { kind: 'cut', atMs, ms: between(500, 40_000), region, gateway, isReset: random() < 0.5 }
      case 3:
        return { kind: 'home', atMs, ms: between(100, 30_000), lostMs, isSilent, clockMs: between(-30_000, 30_000) }
      case 8:
      case 9:
        return { kind: 'home', atMs, ms: between(50, 1_000), lostMs, isSilent, clockMs: between(-3_000, 3_000) }
      case 10:
        return { kind: 'island', atMs, ms: between(20_000, 90_000), region }
      case 4:
        return { kind: random() < 0.5 ? 'home flushed' : 'home stalls', atMs, ms: between(100, 20_000) }
      case 5:
        return { kind: 'store', atMs, ms: between(100, 30_000), region, lostMs: lostMs && lostMs / 16, isSilent }
      case 6:
        return { kind: 'crash', atMs, ms: between(100, 20_000), region, gateway }
      case 7:
        return { kind: 'pause', atMs, ms: between(50, windowMs / 2), region, gateway }
      default:
        return { kind: 'disaster', atMs, ms: 0, region }
    }
  })
  // A gateway that dies together with what its Redis knows takes its charges along, as the ledger says of itself.
  const isOfStore = ({ kind }: RegionsFault): boolean => kind === 'store' || kind === 'island'
  const isDeath = ({ kind }: RegionsFault): boolean => kind === 'crash' || kind === 'pause'
  return {
    seed,
    limits: specs.map((spec) => limitOf(spec)),
    weights: Object.fromEntries(names.map((name) => [name, 1 + upTo(3)])),
    reserve: one([0, 0.1, 0.3, 0.6]),
    leaseMs: one([3_000, 5_000, 10_000]),
    gateways,
    durationMs,
    latencyMs: Math.min(windowMs, one([20, 100, 500, 3_000])),
    phases,
    faults: faults.some(isOfStore) ? faults.filter((fault) => !isDeath(fault)) : faults,
  }
}

/** Runs a case. `redis` runs home.lua, with the simulated time. */
export function simulateRegions(of: RegionsCase, redis: Redis): Promise<RegionsOutcome> {
  return new Simulation(of, redis).run()
}

class Simulation {
  readonly of: RegionsCase
  readonly random: Random
  readonly world = new World()
  readonly upstream = new Upstream(0)
  readonly chargeSet: ChargeSet
  readonly home: Store
  readonly #stores = new Map<string, Store>()
  readonly #gateways = new Map<string, Gateway[]>()
  readonly #lost = new Set<string>()
  readonly #beginning = this.world.now
  readonly counted: { arrival: Arrival; region: string }[] = []

  constructor(of: RegionsCase, redis: Redis) {
    this.of = of
    this.random = seededRandom(of.seed + 0x5eed)
    this.chargeSet = chargeSetOf(
      'any/0',
      of.limits.map((limit) => ({ limit })),
    )
    this.home = new Store(this.world, this.random, homeHost(redis), { leastMs: 5, meanMs: 10 })
    for (const region of Object.keys(of.weights)) {
      const store = new Store(this.world, this.random, modelHost(), { leastMs: 0.1, meanMs: 0.3 })
      store.clockMs = (this.random() - 0.5) * TOLERANCE_MS
      this.#stores.set(region, store)
      this.#gateways.set(
        region,
        Array.from({ length: of.gateways }, (_, i) => this.#begin(region, `${region}${i}`)),
      )
    }
  }

  #begin(region: string, name: string): Gateway {
    const gateway = new Gateway(this, region, this.#stores.get(region)!, name, (this.random() - 0.5) * 1e6)
    for (const { region: where, from, until, calls } of this.of.phases) {
      if (where !== region) continue
      const [begin, end] = [this.#beginning + from, this.#beginning + until]
      if (end > this.world.now) this.world.at(begin, () => gateway.attract(Math.ceil(calls / this.of.gateways), end))
    }
    return gateway
  }

  async run(): Promise<RegionsOutcome> {
    for (const fault of this.of.faults) this.#plan(fault, this.#beginning + fault.atMs)
    await this.world.runUntil(this.#beginning + this.of.durationMs)
    return {
      worst: this.of.limits.map((limit) => {
        const { units, at } = this.upstream.worst(limit)
        return { limit, units, atMs: at - this.#beginning }
      }),
      sent: this.counted.length,
      counted: this.counted
        .filter(({ arrival }) => arrival.at < Infinity)
        .map(({ arrival, region }) => ({ atMs: arrival.at - this.#beginning, region })),
    }
  }

  #plan(fault: RegionsFault, at: number): void {
    const { world, home } = this
    const lostMs = 'lostMs' in fault ? fault.lostMs : undefined
    const store = fault.kind === 'store' || fault.kind === 'island' ? this.#stores.get(fault.region)! : home
    if (lostMs !== undefined) world.at(at - lostMs, () => store.host.keep())
    world.at(at, () => {
      switch (fault.kind) {
        case 'cut':
          for (const [i, { connection }] of this.#gateways.get(fault.region)!.entries()) {
            if (fault.gateway !== undefined && fault.gateway !== i) continue
            connection.hold(fault.ms)
            if (fault.isReset) world.at(at + fault.ms, () => connection.drop())
          }
          return undefined
        case 'island':
          for (const { connection } of this.#gateways.get(fault.region)!) {
            connection.hold(fault.ms)
            world.at(at + fault.ms, () => connection.drop())
          }
          if (!store.isUp) return undefined
          return store.fail({ downMs: fault.ms, isSilent: false, contents: 'nothing' })
        case 'home':
        case 'store': {
          const clockMs = fault.kind === 'home' ? fault.clockMs : 0
          if (!store.isUp) return undefined
          const contents = lostMs === undefined ? 'nothing' : 'kept'
          return store.fail({ downMs: fault.ms, isSilent: fault.isSilent, contents, clockMs })
        }
        case 'home flushed':
          return home.host.lose(() => true)
        case 'home stalls':
          return void (home.stalledUntil = Math.max(home.stalledUntil, at + fault.ms))
        case 'crash':
          return this.#crash(fault.region, fault.gateway, fault.ms)
        case 'pause':
          return this.#gateways.get(fault.region)![fault.gateway]!.process.pause(fault.ms, this.random() < 0.5)
        case 'disaster':
          this.#lost.add(fault.region)
          for (const gateway of this.#gateways.get(fault.region)!) gateway.die()
          return undefined
      }
    })
  }

  #crash(region: string, i: number, forMs: number): void {
    const gateways = this.#gateways.get(region)!
    const crashed = gateways[i]!
    if (this.#lost.has(region)) return
    crashed.die()
    this.world.at(this.world.now + forMs, () => {
      if (!this.#lost.has(region)) gateways[i] = this.#begin(region, `${crashed.name}'`)
    })
  }
}

class Gateway {
  readonly name: string
  readonly process: Process
  /** To home. */
  readonly connection: Connection
  readonly #simulation: Simulation
  readonly #region: string
  readonly #own: Connection
  readonly #queue: AdmissionQueue
  readonly #inFlight = new Set<Arrival>()

  constructor(simulation: Simulation, region: string, store: Store, name: string, skewMs: number) {
    const { world, of, home, chargeSet } = simulation
    this.#simulation = simulation
    this.#region = region
    this.name = name
    this.process = new Process(world, skewMs)
    this.connection = new Connection(home, this.process, () => undefined)
    this.#own = new Connection(store, this.process, () => undefined)
    const { clock } = this.process
    const shares = new RegionShares({
      clock,
      name: region,
      weights: of.weights,
      reserve: of.reserve,
      leaseMs: of.leaseMs,
      longestCallMs: LONGEST_CALL_MS,
      prefix: 'any',
      home: { exchange: (keys, args) => this.connection.runExchange(keys, args), close: () => undefined },
    })
    const ledger = new RedisLedger({
      runner: this.#own,
      clock,
      gateway: name,
      prefix: 'simulated',
      answerWithinMs: COMMAND_TIMEOUT_MS,
      shares,
    })
    shares.begin((asked) => ledger.usage(asked))
    const capacity = new ClassCapacity([new QueueCapacity(10_000, 'calls')])
    this.#queue = new AdmissionQueue({ ledger, clock, name: 'all', partition: chargeSet.partition, capacity })
    void ledger.begin()
  }

  die(): void {
    this.process.die()
    this.connection.end()
    this.#own.end()
    for (const arrival of this.#inFlight) {
      const latest = this.#simulation.world.now + this.#simulation.random() * TOLERANCE_MS
      arrival.at = Math.min(arrival.at, latest)
      arrival.until = Math.min(arrival.until, latest)
    }
  }

  /** So many clients call one after the other until then. */
  attract(clients: number, until: number): void {
    for (let n = 0; n < clients; n++) void this.#loop(until)
  }

  async #loop(until: number): Promise<void> {
    const { world, random, chargeSet } = this.#simulation
    while (world.now < until && !this.process.isDead) {
      try {
        const admission = await this.#queue.enter({ chargeSet, ...ANYONE, maxWaitMs: until - world.now })
        if (admission.kind === 'admitted') await this.#call(admission.permit)
        else await this.#sleep(20 + 200 * random())
      } catch {
        await this.#sleep(20 + 200 * random()) // the store of the region is away
      }
      await this.#sleep(5 + 10 * random())
    }
  }

  async #call(permit: { commit(): void; abandon(): void; leave(): void }): Promise<void> {
    const { random, world, upstream, of, chargeSet, counted } = this.#simulation
    const latencyMs = Math.min(LONGEST_CALL_MS, -Math.log(1 - random()) * of.latencyMs)
    const isAbandoned = random() < 0.05
    const arrival = { chargeSet, at: world.now + latencyMs * random(), until: world.now + latencyMs }
    upstream.expect(arrival)
    counted.push({ arrival, region: this.#region })
    this.#inFlight.add(arrival)
    await new Promise<void>((resolve) => this.process.receive(world.now + latencyMs, resolve))
    this.#inFlight.delete(arrival)
    if (isAbandoned) permit.abandon()
    else permit.commit()
    permit.leave()
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.process.clock.schedule(ms, resolve))
  }
}

let cases = 0

/** Home's script in a real Redis, which takes the simulated time and the identity of the server that is simulated. */
function homeHost(redis: Redis): ScriptHost {
  const prefix = `regions-${process.pid}-${cases++}:`
  const all = new Set<string>()
  const kept = new Map<string, Buffer>()
  let servers = 1
  const none = (): never => {
    throw new Error('home runs one script only')
  }
  const script = homeScript()
  const lose = async (): Promise<void> => {
    if (all.size > 0) await redis.del([...all])
  }
  return {
    run: none,
    runRegister: none,
    async runExchange(keys, args) {
      const own = keys.map((key) => prefix + key)
      for (const key of own) all.add(key)
      const given = [...args]
      given[2] = `server${servers}`
      return (await redis.eval(script, own.length, ...own, ...given)) as string
    },
    lose,
    async keep() {
      kept.clear()
      for (const key of all) {
        const stored = await redis.dumpBuffer(key)
        if (stored !== null) kept.set(key, stored)
      }
    },
    async restore(what) {
      servers++
      await lose()
      if (what === 'kept') for (const [key, stored] of kept) await redis.restore(key, 0, stored)
    },
  }
}
