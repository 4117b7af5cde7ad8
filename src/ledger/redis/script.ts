import { readFileSync } from 'node:fs'
import type { Cluster, Redis, Result } from 'ioredis'
import { ioredis } from '../../redis/client.ts'
import { isConnected, troubleWith } from '../../redis/connection.ts'
import { type Argument, linkScript, type Reply, type ScriptRunner } from './protocol.ts'
import { readReply } from './reply.ts'

declare module 'ioredis' {
  interface RedisCommander<Context> {
    sluiceChargeBuffer(numberOfKeys: number, ...keysAndArguments: Argument[]): Result<Buffer, Context>
    sluiceExchange(numberOfKeys: number, ...keysAndArguments: Argument[]): Result<string, Context>
    sluiceRegister(numberOfKeys: number, ...keysAndArguments: Argument[]): Result<Argument[], Context>
    sluiceFormat(numberOfKeys: number, ...keysAndArguments: Argument[]): Result<number[], Context>
  }
}

/** Runs the ledger's scripts over a connection that `connectRedis` made. */
export class RedisScript implements ScriptRunner {
  readonly #redis: Redis | Cluster
  readonly #onAnswer: ((tookMs: number) => void) | undefined

  /** `onAnswer` is called with how many milliseconds each answer to a charge, or to a question for usage, took. */
  constructor(redis: Redis | Cluster, onAnswer?: (tookMs: number) => void) {
    this.#redis = redis
    this.#onAnswer = onAnswer
    redis.defineCommand('sluiceCharge', { lua: chargeScript() })
    redis.defineCommand('sluiceExchange', { lua: textOf('time.lua') + textOf('demand-exchange.lua') })
    redis.defineCommand('sluiceRegister', { lua: textOf('time.lua') + textOf('partition-register.lua') })
    redis.defineCommand('sluiceFormat', { lua: textOf('format-lease.lua') })
  }

  get isConnected(): boolean {
    return isConnected(this.#redis)
  }

  get trouble(): Error | undefined {
    return troubleWith(this.#redis)
  }

  onTrouble(listener: () => void): void {
    this.#redis.on('error', listener)
  }

  async run(keys: readonly string[], args: readonly Argument[]): Promise<Reply> {
    const askedAt = performance.now()
    const answer = await this.#redis.sluiceChargeBuffer(keys.length, ...keys, ...args)
    this.#onAnswer?.(performance.now() - askedAt)
    return readReply(answer)
  }

  runExchange(keys: readonly string[], args: readonly Argument[]): Promise<string> {
    return this.#redis.sluiceExchange(keys.length, ...keys, ...args)
  }

  runRegister(keys: readonly string[], args: readonly Argument[]): Promise<readonly Argument[]> {
    return this.#redis.sluiceRegister(keys.length, ...keys, ...args)
  }

  claimFormat(key: string, args: readonly Argument[]): Promise<readonly number[]> {
    return this.#redis.sluiceFormat(1, key, ...args)
  }

  /** Pings the masters of a cluster, since some of them may not be asked anything now. */
  keepAlive(): void {
    if (!(this.#redis instanceof ioredis().Cluster)) return
    for (const node of this.#redis.nodes('master')) if (node.status === 'ready') node.ping().catch(() => undefined)
  }

  onLost(listener: (isConcerned: (key: string) => boolean) => void): void {
    if (this.#redis instanceof ioredis().Cluster) onMasterLost(this.#redis, listener)
    else this.#redis.on('close', () => listener(() => true))
  }

  /** Never calls `listener` for a cluster: each of its masters would have to be the same. */
  onFound(listener: (isSame: boolean) => void): void {
    const redis = this.#redis
    if (redis instanceof ioredis().Cluster) return
    let known: string | undefined
    const look = (): void => {
      void identityOf(redis).then(
        (identity) => {
          listener(identity !== undefined && identity === known)
          known = identity
        },
        () => undefined, // there will be another connection
      )
    }
    if (redis.status === 'ready') look()
    redis.on('ready', look)
  }

  close(): void {
    this.#redis.disconnect()
  }
}

/** The parts of the script that charges, in order: each uses the local names of those before it. */
const CHARGE = ['arguments', 'counters', 'adaptive-limit', 'charge']

/** The script that charges calls, which is described in charge/arguments.lua. */
export function chargeScript(): string {
  return linkScript(CHARGE.map((part) => textOf(`charge/${part}.lua`)).join(''))
}

function textOf(script: string): string {
  return readFileSync(new URL(script, import.meta.url), 'utf8')
}

/**
 * Identifies the process that answers, and what it holds. A replica that is promoted gets another `master_replid`, and so does a
 * master that was its replica meanwhile (https://redis.io/docs/latest/operate/oss_and_stack/management/replication/).
 * Undefined where Redis does not tell. Rejects when the connection is lost.
 */
async function identityOf(redis: Redis): Promise<string | undefined> {
  try {
    const told = await Promise.all([redis.info('server'), redis.info('replication')])
    const [run] = /^run_id:.+$/m.exec(told[0]) ?? []
    const [replication] = /^master_replid:.+$/m.exec(told[1]) ?? []
    return run && replication && `${run} ${replication}`
  } catch (error) {
    if (error instanceof ioredis().ReplyError) return undefined
    throw error
  }
}

/**
 * Calls `listener` when a master of a cluster is lost. `isConcerned` says whether a key was on that master; the keys of other
 * masters are as they were. A slot that was moved to another master on purpose is not lost.
 */
function onMasterLost(cluster: Cluster, listener: (isConcerned: (key: string) => boolean) => void): void {
  /** By slot: its master, then its replicas, as `host:port`. */
  const slots = (): (readonly string[])[] => cluster.slots.map((names) => [...names])
  // The cluster is mostly connected already. Its slots are told again only when one has moved.
  let known = slots()
  const watch = (node: Redis): void => {
    const name = `${node.options.host}:${node.options.port}`
    let wasReady = node.status === 'ready'
    node.on('ready', () => (wasReady = true))
    node.on('close', () => {
      if (!wasReady) return
      wasReady = false
      listener((key) => (known[slotOf(key)] ?? [name])[0] === name)
    })
  }
  for (const node of cluster.nodes()) watch(node)
  cluster.on('+node', watch)
  cluster.on('refresh', () => {
    const before = known
    known = slots()
    // A master that stood still may come back as a replica without having closed a connection.
    const promoted = new Set<number>()
    for (const [slot, [master]] of known.entries()) {
      const was = before[slot]
      if (master !== undefined && was !== undefined && was[0] !== master && was.includes(master)) promoted.add(slot)
    }
    if (promoted.size > 0) listener((key) => promoted.has(slotOf(key)))
  })
}

function slotOf(key: string): number {
  return new (ioredis().Command)('get', [key]).getSlot()
}
