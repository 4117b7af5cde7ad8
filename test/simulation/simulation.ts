import type { Random } from '../../src/time/clock.ts'
import { ClassCapacity, QueueCapacity } from '../../src/queue/capacity.ts'
import { type Ledger, type ChargeSet, chargeSetOf } from '../../src/ledger/ledger.ts'
import type { LedgerFiles, StoredPartition } from '../../src/ledger/embedded/ledger-files.ts'
import { type Limit, limitOf } from '../../src/ledger/limit.ts'
import { MemoryLedger } from '../../src/ledger/embedded/memory-ledger.ts'
import { RESUME_AFTER_MS } from '../../src/ledger/redis/partition-calls.ts'
import { RedisLedger } from '../../src/ledger/redis/redis-ledger.ts'
import type { Permit } from '../../src/queue/permit.ts'
import type { Admission } from '../../src/queue/admission.ts'
import { AdmissionQueue } from '../../src/queue/admission-queue.ts'
import { ANYONE } from '../support/anyone.ts'
import { seededRandom } from '../support/seeded-random.ts'
import { type Case, type Fault, type Latency, type LOSSES, pick } from './case.ts'
import { ScriptModel } from './script-model.ts'
import { COMMAND_TIMEOUT_MS, Connection, type ScriptHost, Store } from './store.ts'
import { type Arrival, Upstream } from './upstream.ts'
import { type Machine, Process, World } from './world.ts'
import { Leaving } from '../support/leaving.ts'

export interface Outcome {
  readonly limits: readonly { readonly limit: Limit; readonly worst: number; readonly atMs: number }[]
  readonly sent: number
  readonly meanLatencyMs: number
  /** How many more than a limit the ledger's assumptions that were not kept may add, as it states it. */
  readonly excess: number
  /** Units of calls that were sent while their gateway was without Redis. */
  readonly sentWithout: number
  /** For how long the calls took a place of the first limit, in sum: from dispatch until a window after the response. */
  readonly busyMs: number
  /** Instants, since the beginning, at which calls were sent, in order. */
  readonly sentAt: readonly number[]
}

/** Runs a case to its end. */
export async function simulate(
  of: Case,
  { host = modelHost(), onEvent }: { host?: ScriptHost; onEvent?: (line: string) => void } = {},
): Promise<Outcome> {
  return new Simulation(of, host, onEvent).run()
}

/** The model of the script as Redis, in which keys end when their time has come, or never. */
export function modelHost(expires = true): ScriptHost {
  let model = new ScriptModel(expires)
  let kept: ScriptModel | undefined
  return {
    run: (keys, args) => model.run(keys, args),
    runExchange: (keys, args) => model.runExchange(keys, args),
    runRegister: (keys, args) => model.runRegister(keys, args),
    lose: (isLost) => model.lose(isLost),
    keep: () => void (kept = model.copy()),
    restore: (what) => void (model = what === 'kept' ? kept! : new ScriptModel(expires)),
  }
}

/** A tick and a timeout: after that a gateway knows that it gets no answer. */
const NOTICED_MS = 350

class Simulation {
  readonly of: Case
  readonly random: Random
  readonly world = new World()
  readonly upstream: Upstream
  readonly store: Store
  readonly chargeSets: readonly ChargeSet[]
  /** What the embedded ledger's folder holds. */
  readonly files = new Map<string, StoredPartition>()
  readonly sentAt: number[] = []
  excess = 0
  sentWithout = 0
  busyMs = 0
  latencySum = 0
  committed = 0
  readonly #limits: readonly Limit[]
  readonly #machines: Machine[]
  readonly #gateways: Gateway[]
  readonly #onEvent: ((line: string) => void) | undefined
  readonly #beginning: number

  constructor(of: Case, host: ScriptHost, onEvent: ((line: string) => void) | undefined) {
    this.of = of
    this.#onEvent = onEvent
    this.#beginning = this.world.now
    this.random = seededRandom(of.seed + 0x5eed)
    this.upstream = new Upstream(of.upstreamOffsetMs)
    this.store = new Store(this.world, this.random, host, of.network)
    const partitions = Array.from({ length: of.partitions }, (_, i) => ({
      name: `any/${i}`,
      limits: of.limits.map(limitOf),
    }))
    this.#limits = partitions.flatMap(({ limits }) => limits)
    this.chargeSets = partitions.flatMap(({ name, limits: own }) =>
      of.chargeSets.map(({ limits, units }) =>
        chargeSetOf(
          name,
          limits.map((limit, i) => ({ limit: own[limit]!, units: units[i]! })),
        ),
      ),
    )
    this.#machines = of.skewsMs.map(() => ({ wallAheadMs: 0 }))
    this.#gateways = of.skewsMs.map((skewMs, i) => new Gateway(this, `${i}`, skewMs, this.#machines[i]))
    const { idleUntilMs } = of
    for (const gateway of this.#gateways) {
      if (idleUntilMs === undefined || gateway !== this.#gateways.at(-1)) gateway.open()
      else this.world.at(this.#beginning + idleUntilMs, () => gateway.open())
    }
  }

  async run(): Promise<Outcome> {
    const { world, of } = this
    const beginning = this.#beginning
    for (const fault of of.faults) this.#plan(fault, beginning + fault.atMs)
    await world.runUntil(beginning + of.durationMs)
    return {
      limits: this.#limits.map((limit) => {
        const { units, at } = this.upstream.worst(limit)
        return { limit, worst: units, atMs: Math.max(0, at - beginning) }
      }),
      sent: this.sentAt.length,
      excess: this.excess + (of.onOutage === 'open' ? this.sentWithout : 0),
      sentWithout: this.sentWithout,
      busyMs: this.busyMs,
      meanLatencyMs: this.latencySum / this.committed,
      sentAt: this.sentAt.map((at) => at - beginning),
    }
  }

  /** A call is sent that takes so long. */
  occupy(latencyMs: number): void {
    const { limits, durationMs } = this.of
    const leftMs = this.#beginning + durationMs - this.world.now
    this.busyMs += Math.min(leftMs, latencyMs + (limits[0]!.windowMs ?? 0))
  }

  /** For whoever wants to see what happens when. */
  tell(what: () => string): void {
    this.#onEvent?.(`${(this.world.now - this.#beginning).toFixed(3)} ${what()}`)
  }

  #plan(fault: Fault, at: number): void {
    const { world, store } = this
    if (fault.kind === 'fail-over') world.at(at - fault.lostMs, () => store.host.keep())
    world.at(at, () => {
      this.tell(() => JSON.stringify(fault))
      switch (fault.kind) {
        case 'pause': {
          const gateway = this.#gateways[fault.gateway]!
          if (this.of.kind === 'standing still') this.#allowForPause(gateway, fault.ms)
          return gateway.process.pause(fault.ms, fault.areTimersFirst)
        }
        case 'crash':
          return this.#crash(fault.gateway, fault.ms)
        case 'newcomer':
          return this.#start()
        case 'set clock':
          return void (this.#machines[fault.gateway]!.wallAheadMs += fault.ms)
        case 'disconnect':
          return this.#gateways[fault.gateway]!.connection?.drop()
        case 'cut': {
          const gateway = this.#gateways[fault.gateway]!
          const { connection } = gateway
          if (this.of.kind !== 'random') this.#allowForCut(gateway)
          connection?.hold(fault.ms)
          if (fault.isReset) world.at(at + fault.ms, () => connection?.drop())
          return undefined
        }
        case 'stall':
          return void (store.stalledUntil = at + fault.ms)
        case 'fail-over':
          if (fault.clockMs! > 0) this.#allowForClock(fault.ms)
          return store.fail({ ...fault, downMs: fault.ms, contents: 'kept' })
        case 'lose':
          return store.host.lose(isLostBy(fault.what))
        case 'restart':
          return store.fail({ downMs: fault.ms, isSilent: fault.isSilent, contents: 'nothing' })
      }
    })
  }

  /** A process waits at its start when Redis has begun just before. */
  #start(): void {
    const waitMs = this.world.now - this.store.upSince < 2_000 ? RESUME_AFTER_MS : 0
    this.world.at(this.world.now + waitMs, () => {
      const gateway = new Gateway(this, `${this.#gateways.length}`, 0)
      this.#gateways.push(gateway)
      void gateway.begun.then(() => gateway.open())
    })
  }

  /** What is in flight, or granted and not sent yet. */
  #allowForPause(gateway: Gateway, ms: number): void {
    this.excess += gateway.inFlight
    this.world.at(this.world.now + ms, () => {
      const before = gateway.sent
      this.world.at(this.world.now + 0.001, () => void (this.excess += gateway.sent - before))
    })
  }

  /** All that counts when the clock is set ahead leaves at once, and so does what gateways send before they notice. */
  #allowForClock(afterMs: number): void {
    const { windowMs } = this.#limits[0]!
    this.world.at(this.world.now + afterMs, () => {
      const recent = this.sentAt.filter((at) => at > this.world.now - windowMs).length
      this.excess += recent + this.#gateways.reduce((sum, { inFlight }) => sum + inFlight, 0)
      // Of leases, until all are back.
      const before = this.sentWithout
      this.world.at(this.world.now + 3 * RESUME_AFTER_MS, () => void (this.excess += this.sentWithout - before))
    })
  }

  /** What it charged in the window before it notices, and its lease. */
  #allowForCut(gateway: Gateway): void {
    const { requests, windowMs } = this.#limits[0]!
    const earlier = gateway.sentAt.filter((at) => at > this.world.now - 1.3 * windowMs).length
    // As much as a gateway gets that is the first one.
    const lease = Math.max(1, Math.floor(requests / 4))
    const before = gateway.sent
    this.world.at(this.world.now + NOTICED_MS, () => {
      this.excess = Math.min(requests, earlier + gateway.sent - before + lease)
    })
  }

  #crash(i: number, forMs: number): void {
    const crashed = this.#gateways[i]!
    crashed.die()
    this.world.at(this.world.now + forMs, () => {
      const gateway = new Gateway(this, `${crashed.name}'`, this.of.skewsMs[i]!, this.#machines[i])
      this.#gateways[i] = gateway
      void gateway.begun.then(() => gateway.open())
    })
  }
}

function isLostBy(what: (typeof LOSSES)[number]): (key: string) => boolean {
  if (what === 'everything') return () => true
  return (key) => key.includes('{any/0}') && (what === 'partition' || key.endsWith(`:${what}`))
}

/** A gateway process, its clients, and the calls that it has under way. */
class Gateway {
  readonly name: string
  readonly process: Process
  readonly connection: Connection | undefined
  readonly #simulation: Simulation
  readonly #inFlight = new Set<Arrival>()
  readonly #leasedSince = new Map<string, number>()
  readonly sentAt: number[] = []
  readonly #ledger: Ledger
  /** When what Redis knows may be counted on; those that are there from the beginning need not wait for it. */
  readonly begun: Promise<void>

  constructor(simulation: Simulation, name: string, skewMs: number, machine?: Machine) {
    this.#simulation = simulation
    this.name = name
    const { world, of, store, files } = simulation
    this.process = new Process(world, skewMs, machine)
    const { clock } = this.process
    this.begun = Promise.resolve()
    if (of.store === 'memory') this.#ledger = new MemoryLedger(clock, filesIn(files))
    else {
      this.connection = new Connection(store, this.process, (what) =>
        simulation.tell(() => `gateway ${name} ${what()}`),
      )
      const ledger = new RedisLedger({
        runner: this.connection,
        clock,
        gateway: name,
        prefix: 'simulated',
        answerWithinMs: COMMAND_TIMEOUT_MS,
        onOutage: of.onOutage,
        onChange: (partition, mode) => {
          simulation.tell(() => `gateway ${name} is ${mode}`)
          if (mode === 'leased') this.#leasedSince.set(partition, world.now)
          else this.#leasedSince.delete(partition)
        },
      })
      this.#ledger = ledger
      this.begun = ledger.begin()
    }
  }

  /** Clients come from now on. */
  open(): void {
    const ledger = this.#ledger
    const { clock } = this.process
    for (const chargeSet of this.#simulation.chargeSets) {
      const capacity = new ClassCapacity([new QueueCapacity(10_000, 'calls')])
      this.#attract(
        chargeSet,
        new AdmissionQueue({
          ledger,
          clock,
          name: chargeSet.limits.map(({ id }) => id).join(),
          partition: chargeSet.partition,
          capacity,
        }),
      )
    }
  }

  get inFlight(): number {
    return this.#inFlight.size
  }

  get sent(): number {
    return this.sentAt.length
  }

  /** What is in flight may reach the upstream a little later still. */
  die(): void {
    const { random, world } = this.#simulation
    this.process.die()
    this.connection?.end()
    for (const arrival of this.#inFlight) {
      const latest = world.now + lateness(random) * leastSlack(arrival.chargeSet)
      arrival.at = Math.min(arrival.at, latest)
      arrival.until = Math.min(arrival.until, latest)
    }
  }

  /** Clients that want calls of this charge set. */
  #attract(chargeSet: ChargeSet, queue: AdmissionQueue): void {
    const { random, of } = this.#simulation
    const { load } = of
    const fitting = Math.min(
      ...chargeSet.limits.map(({ requests, isEnforced }, i) =>
        isEnforced ? Math.floor(requests / chargeSet.units[i]!) : 1e9,
      ),
    )
    const paceMs = Math.max(...chargeSet.limits.map(({ windowMs }) => windowMs), load.latency.meanMs) / fitting
    const gateways = of.skewsMs.length
    if (load.kind === 'saturated') {
      for (let n = 0; n < fitting + 2; n++) void this.#loop(chargeSet, queue)
    } else if (load.kind === 'rush') {
      void this.#visit(chargeSet, queue, paceMs)
      this.process.clock.schedule(load.rushAtMs, () => {
        for (let n = 0; n < fitting + 2; n++) void this.#loop(chargeSet, queue)
      })
    } else if (load.kind === 'bursts') {
      this.#repeat(
        () => (0.2 + random()) * paceMs * fitting,
        () => {
          for (let n = pick(random, 2 * fitting); n >= 0; n--) void this.#visit(chargeSet, queue, fitting * paceMs)
        },
      )
    } else {
      this.#repeat(
        () => -Math.log(1 - random()) * paceMs * gateways * 0.8,
        () => void this.#visit(chargeSet, queue, fitting * paceMs),
      )
    }
  }

  #repeat(everyMs: () => number, run: () => void): void {
    this.process.clock.schedule(everyMs(), () => {
      run()
      this.#repeat(everyMs, run)
    })
  }

  async #loop(chargeSet: ChargeSet, queue: AdmissionQueue): Promise<void> {
    for (;;) {
      const wasAdmitted = await this.#visit(chargeSet, queue, 600_000)
      if (!wasAdmitted) await this.#sleep(5 + 20 * this.#simulation.random())
    }
  }

  /** One client: enters the queue, and if admitted makes its call to the end. */
  async #visit(chargeSet: ChargeSet, queue: AdmissionQueue, patienceMs: number): Promise<boolean> {
    const { random, of } = this.#simulation
    const isLeaver = random() < of.load.leavers
    let admission: Admission
    try {
      admission = await queue.enter({
        chargeSet,
        ...ANYONE,
        maxWaitMs: patienceMs * (0.1 + random()),
        cancellation: new Leaving((leave) => {
          if (!isLeaver) return undefined
          const timer = this.process.clock.schedule(random() * patienceMs, leave)
          return () => timer.cancel()
        }),
      })
    } catch {
      return false
    }
    if (admission.kind !== 'admitted') return false
    await this.#call(chargeSet, admission.permit)
    return true
  }

  async #call(chargeSet: ChargeSet, permit: Permit): Promise<void> {
    const { random, of, world, upstream, sentAt } = this.#simulation
    const { load } = of
    if (random() < load.refunds) {
      await this.#sleep(random() * 50)
      permit.refund()
      permit.leave()
      return
    }
    const beganAt = world.now
    sentAt.push(beganAt)
    this.sentAt.push(beganAt)
    const since = this.#leasedSince.get(chargeSet.partition)
    // With "open", what waits when an outage is noticed passes at once; with "closed", what Redis granted may still be on its way.
    const withoutMs = beganAt - (since ?? Infinity)
    if (withoutMs >= (of.onOutage === 'open' ? 0 : COMMAND_TIMEOUT_MS)) {
      this.#simulation.sentWithout += Math.max(...chargeSet.units)
    }
    const latencyMs = latencyOf(random, load.latency)
    this.#simulation.occupy(latencyMs)
    const patienceMs = random() < load.aborts ? random() * latencyMs : load.timeoutMs
    const isGivenUp = latencyMs > patienceMs
    const bodyMs = random() < 0.5 ? 0 : (random() * latencyMs) / 2
    const inFlightMs = isGivenUp ? patienceMs + lateness(random) * leastSlack(chargeSet) : latencyMs
    const arrival: Arrival = {
      chargeSet,
      at: isGivenUp && random() < 0.2 ? Infinity : beganAt + inFlightMs * placeOf(random, load.counts),
      until: beganAt + (isGivenUp ? patienceMs : latencyMs + bodyMs),
    }
    upstream.expect(arrival)
    this.#simulation.tell(() => {
      const counted = arrival.at === Infinity ? 'never' : `at ${(arrival.at - beganAt).toFixed(3)}`
      return `gateway ${this.name} sends ${chargeSet.limits.map(({ id }) => id).join('+')}, counted ${counted}`
    })
    this.#inFlight.add(arrival)
    await this.#sleepAsInput(isGivenUp ? patienceMs : latencyMs)
    if (isGivenUp) permit.abandon()
    else {
      permit.commit()
      arrival.at = Math.min(arrival.at, world.now)
      this.#simulation.latencySum += latencyMs
      this.#simulation.committed++
      if (bodyMs > 0) await this.#sleepAsInput(bodyMs)
    }
    this.#inFlight.delete(arrival)
    permit.leave()
    arrival.until = Math.min(arrival.until, world.now)
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.process.clock.schedule(ms, resolve))
  }

  #sleepAsInput(ms: number): Promise<void> {
    return new Promise((resolve) => this.process.receive(this.#simulation.world.now + ms, resolve))
  }
}

/** How long after a call was given up it may still be counted: what every limit of it allows for. */
function leastSlack(chargeSet: ChargeSet): number {
  return Math.min(...chargeSet.limits.map(({ countingToleranceMs }) => countingToleranceMs))
}

/** How much of that is used. */
function lateness(random: Random): number {
  return random() < 0.5 ? 0.999 : random()
}

function latencyOf(random: Random, { kind, meanMs, longShare, windowMs }: Latency): number {
  if (random() < longShare) return windowMs * (1 + 2 * random())
  const u = 1 - random()
  switch (kind) {
    case 'uniform':
      return 2 * meanMs * u
    case 'exponential':
      return -Math.log(u) * meanMs
    case 'pareto':
      // Of shape 1.5: its mean is three times its least value.
      return (meanMs / 3) * u ** (-1 / 1.5)
  }
}

/** Where between dispatch (0) and response headers (1) the upstream counts a call. */
function placeOf(random: Random, counts: Case['load']['counts']): number {
  switch (counts) {
    case 'first':
      return 0
    case 'last':
      return 1
    case 'between':
      return random()
    case 'any':
      return pick(random, 2)
  }
}

/** A folder for the embedded ledger that is kept in memory: it outlives the process that writes it. */
export function filesIn(folder: Map<string, StoredPartition>): LedgerFiles {
  return {
    load: () => new Map(structuredClone([...folder])),
    loadUsedUp: () => undefined,
    save: (partition: string, limits: StoredPartition) => void folder.set(partition, structuredClone(limits)),
    unlock: () => undefined,
    unmark: () => undefined,
    isBehind: false,
  } satisfies Pick<
    LedgerFiles,
    'load' | 'loadUsedUp' | 'save' | 'unlock' | 'unmark' | 'isBehind'
  > as unknown as LedgerFiles
}
