/**
 * Calls that are priced by their answers, on a limit that is always wanted whole. Prices have a heavy tail, streams break off, answers
 * are late, gateways crash, Redis is lost. `npm run simulate:priced -- --seeds 1000` prints what each way to reserve comes to.
 */
import { parseArgs } from 'node:util'
import { Reserve, LearnedPrices } from '../../src/gateway/reserve.ts'
import type { StoredPartition } from '../../src/ledger/embedded/ledger-files.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { type ChargeSet, chargeSetOf, type Ledger } from '../../src/ledger/ledger.ts'
import { limitOf } from '../../src/ledger/limit.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import type { Permit } from '../../src/queue/permit.ts'
import type { Route } from '../../src/routing/route.ts'
import type { Random } from '../../src/time/clock.ts'
import { ANYONE } from '../support/anyone.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { modelHost, filesIn } from './simulation.ts'
import { COMMAND_TIMEOUT_MS, Connection, Store } from './store.ts'
import { Process, World } from './world.ts'

const WINDOW_MS = 60_000
const UNITS = 1_200_000
/** The most that a call costs. */
const MOST = 40_000
const MEAN_LATENCY_MS = 500
export const MISS_RATE = 0.02

/** `most`: what any call can cost at most; `asked`: what this one can; `learned`: by the calls before; `fixed`: 5,000, as others do. */
export type Reserving = 'most' | 'asked' | 'learned' | 'fixed'

export interface PricedOptions {
  readonly seed: number
  readonly store: 'memory' | 'redis'
  readonly reserving: Reserving
  readonly isFaulty: boolean
  readonly durationMs?: number
}

export interface PricedOutcome {
  readonly calls: number
  /** Of the windows that end with a call, the share that has more than the limit; and the most units that one has. */
  readonly over: number
  readonly worst: number
  /** The part of `window / (window + mean latency)` that was used, of the time after the first window. */
  readonly used: number
  /** Of the calls, the share that cost more than was reserved; and the units that they cost more, in the worst window. */
  readonly misses: number
  readonly worstExcess: number
}

interface Arrival {
  at: number
  readonly units: number
  readonly excess: number
}

export async function simulatePriced(options: PricedOptions): Promise<PricedOutcome> {
  return new Priced(options).run()
}

class Priced {
  readonly options: PricedOptions
  readonly world = new World()
  readonly random: Random
  readonly arrivals: Arrival[] = []
  readonly store: Store
  readonly folder = new Map<string, StoredPartition>()
  readonly #limit = limitOf({ id: 'tokens', class: 'chat', requests: UNITS, windowMs: WINDOW_MS, settles: 'at-end' })
  readonly #chargeSets = new Map<number, ChargeSet>()
  readonly #beginning: number
  busyMs = 0
  units = 0

  constructor(options: PricedOptions) {
    this.options = options
    this.random = seededRandom(options.seed + 0x9e37)
    this.store = new Store(this.world, this.random, modelHost(), { leastMs: 0.2, meanMs: 0.5 })
    this.#beginning = this.world.now
  }

  async run(): Promise<PricedOutcome> {
    const { world, options, random, store } = this
    const { durationMs = 5 * WINDOW_MS, isFaulty } = options
    const gateways = Array.from({ length: options.store === 'redis' ? 3 : 1 }, (_, i) => new Gateway(this, `${i}`))
    for (const gateway of gateways) gateway.open()
    const later = (): number => this.#beginning + random() * durationMs
    if (isFaulty) {
      const crashAt = later()
      world.at(crashAt, () => gateways[0]!.die())
      world.at(crashAt + 3_000, () => new Gateway(this, "0'").open())
    }
    if (isFaulty && options.store === 'redis') {
      world.at(later(), () => store.fail({ downMs: 4_000, isSilent: random() < 0.5, contents: 'nothing' }))
      world.at(later(), () => gateways[1]!.connection!.drop())
      world.at(later(), () => void (store.stalledUntil = world.now + 2_000))
    }
    await world.runUntil(this.#beginning + durationMs)
    return this.#outcome(durationMs)
  }

  chargeSetOf(units: number): ChargeSet {
    return this.#chargeSets.getOrInsertComputed(units, () => chargeSetOf('any/0', [{ limit: this.#limit, units }]))
  }

  #outcome(durationMs: number): PricedOutcome {
    const counted = this.arrivals.filter(({ at }) => at <= this.world.now).sort((a, b) => a.at - b.at)
    let [sum, excess, first, over, worst, worstExcess] = [0, 0, 0, 0, 0, 0]
    for (const { at, units, excess: more } of counted) {
      sum += units
      excess += more
      for (; counted[first]!.at <= at - WINDOW_MS; first++) {
        sum -= counted[first]!.units
        excess -= counted[first]!.excess
      }
      if (sum > UNITS) over++
      worst = Math.max(worst, sum)
      worstExcess = Math.max(worstExcess, excess)
    }
    const since = this.#beginning + WINDOW_MS
    const spent = counted.reduce((total, { at, units }) => total + (at > since ? units : 0), 0)
    const most = (UNITS * (durationMs - WINDOW_MS)) / WINDOW_MS
    const latencyMs = this.busyMs / this.units
    return {
      calls: counted.length,
      over: over / counted.length,
      worst,
      used: spent / (most * (WINDOW_MS / (WINDOW_MS + latencyMs))),
      misses: counted.filter((one) => one.excess > 0).length / counted.length,
      worstExcess,
    }
  }
}

class Gateway {
  readonly connection: Connection | undefined
  readonly #of: Priced
  readonly #process: Process
  readonly #queue: AdmissionQueue
  readonly #inFlight = new Set<Arrival>()
  readonly #learned: Reserve

  constructor(of: Priced, name: string) {
    const { world, store, folder, options } = of
    this.#of = of
    this.#process = new Process(world, 0)
    const { clock } = this.#process
    this.#learned = new Reserve({ missRate: MISS_RATE, most: MOST }, 'tokens', new LearnedPrices())
    let ledger: Ledger
    if (options.store === 'memory') ledger = new MemoryLedger(clock, filesIn(folder))
    else {
      this.connection = new Connection(store, this.#process, () => undefined)
      const runner = this.connection
      ledger = new RedisLedger({ runner, clock, gateway: name, prefix: 'priced', answerWithinMs: COMMAND_TIMEOUT_MS })
    }
    const capacity = new ClassCapacity([new QueueCapacity(10_000, 'calls')])
    this.#queue = new AdmissionQueue({ ledger, clock, name: 'chat', partition: 'any/0', capacity })
  }

  open(): void {
    for (let n = 0; n < 40; n++) void this.#loop()
  }

  /** What is in flight may be counted a little later still. */
  die(): void {
    const { world, random } = this.#of
    this.#process.die()
    this.connection?.end()
    for (const arrival of this.#inFlight) arrival.at = Math.min(arrival.at, world.now + random() * 999)
  }

  async #loop(): Promise<void> {
    while (!this.#process.isDead) {
      const price = priceOf(this.#of.random)
      const reserved = this.#reserveFor(price)
      const chargeSet = this.#of.chargeSetOf(reserved)
      const admission = await Promise.resolve()
        .then(() => this.#queue.enter({ chargeSet, ...ANYONE, maxWaitMs: WINDOW_MS }))
        .catch(() => undefined)
      if (admission?.kind === 'admitted') await this.#call(admission.permit, price, reserved)
      else await this.#sleep(50)
    }
  }

  #reserveFor(price: number): number {
    const { random, options } = this.#of
    switch (options.reserving) {
      case 'most':
        return MOST
      case 'asked':
        return Math.min(MOST, Math.ceil(price * (1 + random())))
      case 'learned':
        return this.#learned.unitsOf(ROUTE, { client: 'anyone' })
      case 'fixed':
        return 5_000
    }
  }

  async #call(permit: Permit, price: number, reserved: number): Promise<void> {
    const { random, world, arrivals, options } = this.#of
    permit.sent()
    const beganAt = world.now
    const latencyMs = random() < 0.002 ? WINDOW_MS * (1 + random()) : -Math.log(1 - random()) * MEAN_LATENCY_MS
    const isBroken = options.isFaulty && random() < 0.05
    const lastsMs = isBroken ? latencyMs * random() : latencyMs
    // Of what was broken off, the vendor may count all, and may notice it late.
    const countedMs = (lastsMs + (isBroken ? 999 : 0)) * (random() < 0.5 ? 1 : random())
    const arrival = { at: beganAt + countedMs, units: price, excess: Math.max(0, price - reserved) }
    arrivals.push(arrival)
    this.#of.busyMs += price * latencyMs
    this.#of.units += price
    this.#inFlight.add(arrival)
    await this.#sleep(lastsMs * random())
    permit.commit()
    await this.#sleep(Math.max(0, beganAt + lastsMs - world.now))
    this.#inFlight.delete(arrival)
    if (!isBroken) {
      arrival.at = Math.min(arrival.at, world.now)
      this.#learned.observe(ROUTE, 'anyone', price)
      permit.settle([price])
    }
    permit[Symbol.dispose]()
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#process.clock.schedule(ms, resolve))
  }
}

const ROUTE = { countedAs: 'POST /chat' } as Route

/** Of shape 1.2, cut off at the most. */
function priceOf(random: Random): number {
  return Math.min(MOST, Math.ceil(400 / (1 - random()) ** (1 / 1.2)))
}

/** The same over many seeds: means, and what was worst. */
export async function simulateMany(seeds: number, options: Omit<PricedOptions, 'seed'>): Promise<PricedOutcome> {
  let [calls, over, worst, used, misses, worstExcess] = [0, 0, 0, 0, 0, 0]
  for (let seed = 1; seed <= seeds; seed++) {
    const one = await simulatePriced({ ...options, seed })
    calls += one.calls
    over += one.over * one.calls
    misses += one.misses * one.calls
    used += one.used / seeds
    worst = Math.max(worst, one.worst)
    worstExcess = Math.max(worstExcess, one.worstExcess)
    await new Promise((resolve) => void setImmediate(resolve))
  }
  return { calls, over: over / calls, worst, used, misses: misses / calls, worstExcess }
}

/** What is wrong with an outcome, in words; empty if nothing is. */
export function faultsOf({ reserving, isFaulty }: Omit<PricedOptions, 'seed'>, outcome: PricedOutcome): string[] {
  const { over, used, misses, worst, worstExcess } = outcome
  const isTrueMost = reserving === 'most' || reserving === 'asked'
  const wrong: string[] = []
  if (isTrueMost && over > 0) wrong.push(`${worst} of ${UNITS} in a window`)
  if (worst > UNITS + worstExcess)
    wrong.push(`${worst} in a window, more than its calls cost beyond their reservations`)
  if (!isTrueMost && over > MISS_RATE) wrong.push(`${over} of the windows are over`)
  // What was learned of a few thousand calls may be off by a tenth.
  if (reserving === 'learned' && misses > MISS_RATE * 1.1) wrong.push(`${misses} of the calls cost more than reserved`)
  if (reserving !== 'most' && !isFaulty && used < 0.95) wrong.push(`used to ${used} only`)
  return wrong
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { seeds: { type: 'string', default: '1000' }, check: { type: 'boolean', default: false } },
  })
  if (values.check) await check()
  else await print(Number(values.seeds))
}

/** Ends with 1 if something is wrong. */
async function check(): Promise<void> {
  for (const reserving of ['asked', 'fixed'] as const) {
    const options = { store: 'memory', reserving, isFaulty: false, durationMs: 3 * WINDOW_MS } as const
    for (const fault of faultsOf(options, await simulatePriced({ ...options, seed: 1 }))) {
      console.error(`BROKEN ${reserving}: ${fault}`)
      process.exitCode = 1
    }
  }
}

async function print(seeds: number): Promise<void> {
  const percent = (share: number): string => `${(share * 100).toFixed(2)} %`
  for (const store of ['memory', 'redis'] as const) {
    for (const reserving of ['most', 'asked', 'learned', 'fixed'] as const) {
      const { calls, over, worst, used, misses } = await simulateMany(seeds, {
        store,
        reserving,
        isFaulty: false,
      })
      console.log(
        `${store}, ${reserving}: ${calls} calls; ${percent(misses)} cost more than reserved; ${percent(over)} of the windows over, at worst ${percent(worst / UNITS)}; used to ${percent(used)}`,
      )
    }
  }
}
