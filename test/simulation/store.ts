import type { Random } from '../../src/time/clock.ts'
import type { ScriptRunner } from '../../src/ledger/redis/protocol.ts'
import type { Argument, Reply } from '../../src/ledger/redis/protocol.ts'
import type { Process, World } from './world.ts'

/** What runs the script: the model, or a real Redis. The time of the call is in its arguments. */
export interface ScriptHost {
  run(keys: readonly string[], args: readonly Argument[]): Reply | Promise<Reply>
  runExchange(keys: readonly string[], args: readonly Argument[]): string | Promise<string>
  runRegister(keys: readonly string[], args: readonly Argument[]): readonly Argument[] | Promise<readonly Argument[]>
  /** Loses the keys of which that is said, while connections stay. */
  lose(isLost: (key: string) => boolean): void | Promise<void>
  /** Keeps what is stored now, for `restore`. */
  keep(): void | Promise<void>
  /** Goes back to what was kept, or to nothing. */
  restore(kept: 'kept' | 'nothing'): void | Promise<void>
}

export interface Network {
  /** One way, in milliseconds; what is beyond it is exponentially distributed. */
  readonly leastMs: number
  readonly meanMs: number
}

/** Every latency of the network is below this, so that an answer takes less than the time that a command may take. */
const MOST_MS = 20
export const COMMAND_TIMEOUT_MS = 50
/** After a connection is lost or Redis is back: connecting is tried so often, and takes so long. */
const RECONNECT_MS = 250

interface Failure {
  readonly downMs: number
  readonly isSilent: boolean
  readonly contents: 'kept' | 'nothing'
  /** By how much the clock of what comes back is ahead of that of what was there. */
  readonly clockMs?: number
}

/** Redis on another machine. It may stall, die and come back with other contents; see `Connection` for the way to it. */
export class Store {
  readonly world: World
  readonly random: Random
  readonly host: ScriptHost
  readonly network: Network
  isUp = true
  /** When a server began that knows nothing. */
  upSince = -Infinity
  /** Its clock less the world's. */
  clockMs = 0
  stalledUntil = 0
  readonly connections = new Set<Connection>()

  constructor(world: World, random: Random, host: ScriptHost, network: Network) {
    this.world = world
    this.random = random
    this.host = host
    this.network = network
  }

  /** Dies, and comes back after `downMs` with what was kept, or with nothing. Clients see connections end, or silence. */
  fail({ downMs, isSilent, contents, clockMs = 0 }: Failure): void {
    this.isUp = false
    for (const connection of this.connections) connection.cutOff()
    if (!isSilent) for (const connection of this.connections) connection.drop()
    this.world.at(this.world.now + downMs, async () => {
      await this.host.restore(contents)
      this.isUp = true
      this.clockMs += clockMs
      if (contents === 'nothing') this.upSince = this.world.now
      if (isSilent) for (const connection of this.connections) connection.drop()
    })
  }

  oneWayMs(): number {
    const { leastMs, meanMs } = this.network
    return Math.min(MOST_MS, leastMs - Math.log(1 - this.random()) * meanMs)
  }
}

type Answer = Reply | string | readonly Argument[]

interface Pending {
  readonly script: 'run' | 'runExchange' | 'runRegister'
  resolve(reply: Answer): void
  reject(error: Error): void
}

/** The connection of one gateway to the store: commands are run, and answered, in the order in which they are sent. */
export class Connection implements ScriptRunner {
  isConnected = true
  readonly #store: Store
  readonly #process: Process
  readonly #tell: (what: () => string) => void
  readonly #listeners: (() => void)[] = []
  readonly #pending = new Set<Pending>()
  /** Counts connections made; what was under way in one that ended does not arrive, or only at Redis. */
  #number = 0
  #heldUntil = 0
  #lastArrival = 0
  #lastReply = 0
  /** Commands up to this arrival reached Redis before the connection ended. */
  #endedAt = Infinity

  constructor(store: Store, process: Process, tell: (what: () => string) => void) {
    this.#tell = tell
    this.#store = store
    this.#process = process
    store.connections.add(this)
  }

  run(keys: readonly string[], args: readonly Argument[]): Promise<Reply> {
    return this.#send('run', keys, args) as Promise<Reply>
  }

  runExchange(keys: readonly string[], args: readonly Argument[]): Promise<string> {
    return this.#send('runExchange', keys, args) as Promise<string>
  }

  runRegister(keys: readonly string[], args: readonly Argument[]): Promise<readonly Argument[]> {
    return this.#send('runRegister', keys, args) as Promise<readonly Argument[]>
  }

  #send(script: Pending['script'], keys: readonly string[], args: readonly Argument[]): Promise<Answer> {
    if (!this.isConnected) return Promise.reject(new Error('not connected'))
    const { world } = this.#store
    return new Promise((resolve, reject) => {
      const pending: Pending = { script, resolve, reject }
      this.#pending.add(pending)
      this.#lastArrival = Math.max(this.#lastArrival, this.#afterHold(world.now) + this.#store.oneWayMs())
      const number = this.#number
      world.at(this.#lastArrival, () => this.#arrive(number, pending, keys, [...args]))
    })
  }

  onLost(listener: () => void): void {
    this.#listeners.push(listener)
  }

  close(): void {
    this.isConnected = false
  }

  /** Nothing passes for that long; then all of it does. */
  hold(ms: number): void {
    this.#heldUntil = Math.max(this.#heldUntil, this.#store.world.now + ms)
  }

  /** Nothing that is under way reaches Redis any more. */
  cutOff(): void {
    this.#endedAt = this.#store.world.now
  }

  /** The connection ends; of what is under way to Redis some may still be run. Another one is made soon. */
  drop(): void {
    const { world, random } = this.#store
    if (this.#process.isDead || !this.isConnected) return
    if (this.#endedAt === Infinity) this.#endedAt = world.now + (random() < 0.5 ? 0 : MOST_MS * random())
    this.isConnected = false
    // Before anything else: what arrives on the next connection is another matter.
    this.#process.receive(world.now, () => {
      for (const { reject } of this.#pending) reject(new Error('connection lost'))
      this.#pending.clear()
      for (const listener of this.#listeners) listener()
      this.#reconnect()
    })
  }

  /** The process has died. */
  end(): void {
    this.#store.connections.delete(this)
    this.#endedAt = Math.min(this.#endedAt, this.#store.world.now + MOST_MS * this.#store.random())
  }

  #reconnect(): void {
    const { world, random } = this.#store
    const again = world.now + 25 + random() * (RECONNECT_MS - 25)
    this.#process.receive(again, () => {
      if (!this.#store.isUp || world.now < this.#heldUntil) {
        this.#reconnect()
        return
      }
      this.isConnected = true
      this.#number++
      this.#endedAt = Infinity
      this.#lastArrival = world.now
      this.#lastReply = world.now
    })
  }

  async #arrive(number: number, pending: Pending, keys: readonly string[], args: Argument[]): Promise<void> {
    const { world, host, stalledUntil } = this.#store
    const isOld = number !== this.#number
    if (isOld || !this.#store.isUp || world.now > this.#endedAt) return
    if (world.now < stalledUntil) {
      world.at(stalledUntil, () => this.#arrive(number, pending, keys, args))
      return
    }
    args[1] = Math.round((world.now + this.#store.clockMs) * 1_000)
    const reply = host[pending.script](keys, args)
    const given = reply instanceof Promise ? await reply : reply
    this.#tell(() => `ran ${args.join(' ')}: ${JSON.stringify(given)}`)
    this.#lastReply = Math.max(this.#lastReply, this.#afterHold(world.now) + this.#store.oneWayMs())
    this.#process.receive(this.#lastReply, () => {
      if (number !== this.#number || !this.isConnected || !this.#pending.delete(pending)) return
      pending.resolve(given)
    })
  }

  #afterHold(time: number): number {
    return Math.max(time, this.#heldUntil)
  }
}
