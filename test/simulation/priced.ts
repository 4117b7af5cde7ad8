/**
 * Calls that are priced by their answers, on a limit that is always wanted whole. Prices have a heavy tail, clients leave, streams break
 * off, answers are late, gateways crash, Redis is lost. `npm run simulate:priced` prints what each way to reserve comes to, of 50 seeds;
 * `-- --seeds 1000 --only learned --workers 2` that of one way, of more of them.
 * The file is longer than others: what is simulated, what is counted of it and what is printed are understood only together.
 */
import { execFile } from 'node:child_process'
import { parseArgs, promisify } from 'node:util'
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
import { bar } from '../bench/bar.ts'
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
/** As `cost.finish` is by default. */
const FINISH_MS = 30_000
const DURATION_MS = 5 * WINDOW_MS
/** Calls that want to be sent at any time, at all gateways together. */
const LOOPS = 36
export const MISS_RATE = 0.02

/** `most`: what any call can cost at most; `asked`: what this one can; `learned`: by the calls before; `fixed`: 5,000, as others do. */
export type Reserving = 'most' | 'asked' | 'learned' | 'fixed'

export interface PricedOptions {
  readonly seed: number
  readonly store: 'memory' | 'redis'
  readonly reserving: Reserving
  readonly isFaulty: boolean
  readonly durationMs?: number
  /** How long answers are read on that their clients left. */
  readonly finishMs?: number
}

export interface PricedOutcome {
  readonly seeds: number
  readonly calls: number
  /** Of the windows that end with a call, the share that has more than the limit; and the most units that one has. */
  readonly over: number
  readonly worst: number
  /** What a window had that the vendor counted, on average over the time after the first: the part of `window / (window + mean latency)`. */
  readonly used: number
  /**
   * The part of the limit that nobody can use who wants to exceed it never: what was reserved for calls in flight beyond their price, and,
   * for a window, for those of which the price stayed unknown, beyond what the vendor counted.
   */
  readonly held: number
  /** The part that was used of the part that was not held. */
  readonly usedOfRest: number
  /**
   * Of the calls, the share that cost more than was reserved, where it was less than the most; and the units that they cost more, in the
   * worst window.
   */
  readonly misses: number
  readonly worstExcess: number
}

interface Arrival {
  at: number
  readonly units: number
  readonly reserved: number
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
  readonly #limit = limitOf({
    id: 'tokens',
    class: 'chat',
    requests: UNITS,
    windowMs: WINDOW_MS,
    settles: 'at-end',
    isVaried: true,
  })
  readonly #chargeSets = new Map<number, ChargeSet>()
  readonly #beginning: number
  busyMs = 0
  units = 0
  /** Units times milliseconds. */
  #held = 0

  constructor(options: PricedOptions) {
    this.options = options
    this.random = seededRandom(options.seed + 0x9e37)
    this.store = new Store(this.world, this.random, modelHost(), { leastMs: 0.2, meanMs: 0.5 })
    this.#beginning = this.world.now
  }

  async run(): Promise<PricedOutcome> {
    const { world, options, random, store } = this
    const { durationMs = DURATION_MS, isFaulty } = options
    const gateways = Array.from({ length: options.store === 'redis' ? 3 : 1 }, (_, i) => new Gateway(this, `${i}`))
    const loops = LOOPS / gateways.length
    for (const gateway of gateways) gateway.open(loops)
    const later = (): number => this.#beginning + random() * durationMs
    const lostAt = isFaulty && options.store === 'redis' ? later() : Infinity
    let crashAt = isFaulty ? later() : Infinity
    // What a gateway has charged that dies in the window before Redis loses its memory is forgotten: docs/guarantees.md says so.
    while (crashAt > lostAt - 1.1 * WINDOW_MS && crashAt < lostAt + 10_000) crashAt = later()
    world.at(crashAt, () => gateways[0]!.die())
    world.at(crashAt + 3_000, () => new Gateway(this, "0'").open(loops))
    if (isFaulty && options.store === 'redis') {
      world.at(lostAt, () => store.fail({ downMs: 4_000, isSilent: random() < 0.5, contents: 'nothing' }))
      world.at(later(), () => gateways[1]!.connection!.drop())
      world.at(later(), () => void (store.stalledUntil = world.now + 2_000))
    }
    await world.runUntil(this.#beginning + durationMs)
    return this.#outcome(durationMs)
  }

  chargeSetOf(units: number): ChargeSet {
    return this.#chargeSets.getOrInsertComputed(units, () => chargeSetOf('any/0', [{ limit: this.#limit, units }]))
  }

  /** Nobody else could have the units in that time. */
  hold(units: number, from: number, to: number): void {
    this.#held += this.#unitTime(Math.max(0, units), from, to)
  }

  /** Units times milliseconds, of those after the first window. */
  #unitTime(units: number, from: number, to: number): number {
    const since = this.#beginning + WINDOW_MS
    const until = this.#beginning + (this.options.durationMs ?? DURATION_MS)
    return units * Math.max(0, Math.min(to, until) - Math.max(from, since))
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
    const spent = counted.reduce((total, { at, units }) => total + this.#unitTime(units, at, at + WINDOW_MS), 0)
    const most = UNITS * (durationMs - WINDOW_MS)
    const latencyMs = this.busyMs / this.units
    const used = spent / (most * (WINDOW_MS / (WINDOW_MS + latencyMs)))
    const held = this.#held / most
    const learned = counted.filter(({ reserved }) => reserved < MOST)
    return {
      seeds: 1,
      calls: counted.length,
      over: over / counted.length,
      worst,
      used,
      held,
      usedOfRest: used / (1 - held),
      misses: counted.filter((one) => one.excess > 0).length / Math.max(1, learned.length),
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

  open(loops: number): void {
    for (let n = 0; n < loops; n++) void this.#loop()
  }

  /** What is in flight may be counted a little later still. */
  die(): void {
    const { world, random } = this.#of
    this.#process.die()
    this.connection?.end()
    for (const arrival of this.#inFlight) {
      arrival.at = Math.min(arrival.at, world.now + random() * 999)
      this.#of.hold(arrival.reserved - arrival.units, world.now, world.now + WINDOW_MS)
    }
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
    const { random, world, arrivals } = this.#of
    permit.sent()
    const beganAt = world.now
    const latencyMs = random() < 0.002 ? WINDOW_MS * (1 + random()) : -Math.log(1 - random()) * MEAN_LATENCY_MS
    const lastsMs = Math.min(latencyMs, this.#brokenOffAfter(latencyMs))
    const isWhole = lastsMs === latencyMs
    // Of what was broken off the vendor may count all, and may notice it late.
    const units = isWhole || random() < 0.5 ? price : Math.ceil(price * random())
    const countedMs = (lastsMs + (isWhole ? 0 : 999)) * (random() < 0.5 ? 1 : random())
    const arrival = { at: beganAt + countedMs, units, reserved, excess: Math.max(0, units - reserved) }
    arrivals.push(arrival)
    this.#of.busyMs += price * latencyMs
    this.#of.units += price
    this.#inFlight.add(arrival)
    await this.#sleep(lastsMs * random())
    permit.commit()
    await this.#sleep(Math.max(0, beganAt + lastsMs - world.now))
    this.#inFlight.delete(arrival)
    this.#of.hold(reserved - units, beganAt, world.now + (isWhole ? 0 : WINDOW_MS))
    if (isWhole) {
      arrival.at = Math.min(arrival.at, world.now)
      this.#learned.observe(ROUTE, 'anyone', price)
      permit.settle([price])
    }
    permit[Symbol.dispose]()
  }

  /** Of a hundred answers the vendor breaks off one, and five lose their clients. These are read on for a while. */
  #brokenOffAfter(latencyMs: number): number {
    const { random, options } = this.#of
    const [cause, at] = [random(), latencyMs * random()]
    if (!options.isFaulty) return Infinity
    if (cause < 0.01) return at
    return cause < 0.06 ? at + (options.finishMs ?? FINISH_MS) : Infinity
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
export async function simulateMany(
  seeds: number,
  options: Omit<PricedOptions, 'seed'>,
  first = 1,
): Promise<PricedOutcome> {
  const outcomes: PricedOutcome[] = []
  for (let seed = first; seed < first + seeds; seed++) {
    outcomes.push(await simulatePriced({ ...options, seed }))
    await new Promise((resolve) => void setImmediate(resolve))
  }
  return merged(outcomes)
}

function merged(outcomes: readonly PricedOutcome[]): PricedOutcome {
  const sum = (of: (one: PricedOutcome) => number): number => outcomes.reduce((total, one) => total + of(one), 0)
  const [seeds, calls] = [sum((one) => one.seeds), sum((one) => one.calls)]
  const used = sum((one) => one.used * one.seeds) / seeds
  const held = sum((one) => one.held * one.seeds) / seeds
  return {
    seeds,
    calls,
    over: sum((one) => one.over * one.calls) / calls,
    worst: Math.max(...outcomes.map(({ worst }) => worst)),
    used,
    held,
    usedOfRest: used / (1 - held),
    misses: sum((one) => one.misses * one.calls) / calls,
    worstExcess: Math.max(...outcomes.map(({ worstExcess }) => worstExcess)),
  }
}

/** What is wrong with an outcome, in words; empty if nothing is. */
export function faultsOf({ reserving }: Omit<PricedOptions, 'seed'>, outcome: PricedOutcome): string[] {
  const { over, used, usedOfRest, held, misses, worst, worstExcess } = outcome
  const isTrueMost = reserving === 'most' || reserving === 'asked'
  const wrong: string[] = []
  if (isTrueMost && over > 0) wrong.push(`${worst} of ${UNITS} in a window`)
  if (worst > UNITS + worstExcess)
    wrong.push(`${worst} in a window, more than its calls cost beyond their reservations`)
  if (!isTrueMost && over > MISS_RATE) wrong.push(`${over} of the windows are over`)
  // What was learned of a few thousand calls may be off by a tenth.
  if (reserving === 'learned' && misses > MISS_RATE * 1.1) wrong.push(`${misses} of the calls cost more than reserved`)
  // Where every call reserves the most, room for less than that is of no use: a thirtieth of the limit, and as much of what ends.
  if (usedOfRest < (reserving === 'most' ? 0.85 : 0.95)) wrong.push(`used to ${usedOfRest} only of what was not held`)
  if (isTrueMost && reserving !== 'most' && used < 0.95) wrong.push(`used to ${used} only, and ${held} held`)
  return wrong
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string', default: '50' },
      minutes: { type: 'string', default: '5' },
      workers: { type: 'string', default: '1' },
      only: { type: 'string' },
      part: { type: 'string' },
      check: { type: 'boolean', default: false },
    },
  })
  if (values.check) await check()
  else if (values.part !== undefined) {
    const { first, seeds, options } = JSON.parse(values.part) as Part
    console.log(JSON.stringify(await simulateMany(seeds, options, first)))
  } else await print(Number(values.seeds), Number(values.workers), Number(values.minutes), values.only)
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

interface Part {
  readonly first: number
  readonly seeds: number
  readonly options: Omit<PricedOptions, 'seed'>
}

/** One line for each store and each way to reserve; with true maxima, faults come as well, with and without reading on. */
async function print(seeds: number, workers: number, minutes: number, only: string | undefined): Promise<void> {
  const durationMs = minutes * 60_000
  for (const store of ['memory', 'redis'] as const) {
    for (const reserving of ['most', 'asked', 'learned', 'fixed'] as const) {
      if (only !== undefined && only !== reserving) continue
      const ways = [{ isFaulty: false }, { isFaulty: true }, { isFaulty: true, finishMs: 0 }]
      for (const way of reserving === 'most' || reserving === 'asked' ? ways : ways.slice(0, 1)) {
        const outcome = await inProcesses(workers, seeds, { store, reserving, durationMs, ...way })
        const faults = !way.isFaulty ? '' : way.finishMs === 0 ? ', faults, finish: 0s' : ', faults'
        const name = `${store}, ${reserving}${faults}`
        console.log(`${name}: ${inWords(outcome)}`)
        bars(name, reserving, way.isFaulty, outcome)
      }
    }
  }
}

/** What is asked of true maxima, and of learned prices. A fixed reservation is for comparison only. */
function bars(name: string, reserving: Reserving, isFaulty: boolean, { over, used, misses }: PricedOutcome): void {
  if (reserving === 'most' || reserving === 'asked') bar(`windows over, ${name}`, over * 100, { atMost: 0 }, '%')
  if (reserving === 'asked' && !isFaulty) bar(`used, ${name}`, used * 100, { atLeast: 95 }, '%')
  if (reserving === 'learned')
    bar(`calls that cost more than reserved, ${name}`, misses * 100, { atMost: MISS_RATE * 100 }, '%')
}

function inWords({ seeds, calls, misses, over, worst, used, held, usedOfRest }: PricedOutcome): string {
  const percent = (share: number): string => `${(share * 100).toFixed(2)} %`
  return [
    `${seeds} seeds, ${calls} calls`,
    `${percent(misses)} cost more than reserved`,
    `${percent(over)} of the windows over, at worst ${percent(worst / UNITS)}`,
    `${percent(used)} used, ${percent(held)} held, of the rest ${percent(usedOfRest)} used`,
  ].join('; ')
}

async function inProcesses(
  workers: number,
  seeds: number,
  options: Omit<PricedOptions, 'seed'>,
): Promise<PricedOutcome> {
  if (workers <= 1) return simulateMany(seeds, options)
  const run = promisify(execFile)
  const parts = Array.from({ length: workers }, async (_, i): Promise<PricedOutcome> => {
    const [from, to] = [Math.floor((seeds * i) / workers), Math.floor((seeds * (i + 1)) / workers)]
    const part: Part = { first: 1 + from, seeds: to - from, options }
    const { stdout } = await run(process.execPath, [import.meta.filename, '--part', JSON.stringify(part)])
    return JSON.parse(stdout) as PricedOutcome
  })
  return merged(await Promise.all(parts))
}
