import type { Clock, Timer } from '../../time/clock.ts'
import { inTime } from '../../time/in-time.ts'
import type { Argument, ScriptRunner } from './protocol.ts'

/** How often a gateway looks for what others have noticed. This also keeps its connection from being idle. */
export const LOOK_EVERY_MS = 250
/** A used partition is noted for USED_MS, and again every NOTE_EVERY_MS. A partition's own keys last longer than that after its last call. */
const USED_MS = 30_000
const NOTE_EVERY_MS = 10_000
/** A loss is told for so long that each gateway hears of it. */
const TOLD_MS = 2_000
/**
 * At most so many partitions are noted in one call. The script tells at most MOST_TOLD losses. If it tells as many, all
 * partitions are taken for lost.
 */
const MOST_AT_ONCE = 500
const MOST_TOLD = 1_000

export interface PartitionRegisterOptions {
  readonly runner: ScriptRunner
  readonly clock: Clock
  readonly key: string
  readonly gateway: string
  readonly answerWithinMs: number
  readonly stepTime: (() => number) | undefined
  /** Redis has lost what it knew of one partition, or of all. */
  readonly onLoss: (partition: string | undefined) => void
  /** Told whenever Redis has answered, or not. */
  readonly onAsked: (isAnswered: boolean) => void
}

/**
 * Where the gateways of one Redis note which partitions they use, in a key of its own. The keys of a partition may be lost while the
 * connection stays: Redis is flushed, or evicts them. A gateway that has used the partition notices that with its next call, by the
 * call's number. A gateway that has not would take the missing partition for a new one, if it were not noted here. Whoever notices
 * a loss reports it here. All others hear of it within LOOK_EVERY_MS, however many accounts they have, and however rarely they renew
 * the leases of each.
 */
export class PartitionRegister {
  readonly #options: PartitionRegisterOptions
  /** When each partition that is used was noted last. */
  readonly #notedAt = new Map<string, number>()
  #id: string | undefined
  #proposed = 0
  /** Losses since then are new, by Redis's clock. */
  #since: Argument = ''
  #timer: Timer | undefined
  #isClosed = false

  constructor(options: PartitionRegisterOptions) {
    this.#options = options
  }

  /** For how many milliseconds Redis has kept the register: if it loses everything, this begins at 0. Rejects if it can't be asked. */
  async age(): Promise<number> {
    const [, ageMs] = await this.#run({})
    this.#lookLater()
    return Number(ageMs)
  }

  /** Whether other gateways use the partition, or have noticed that Redis lost it. Rejects if there is no answer. */
  async ask(partition: string): Promise<'unknown' | 'used' | 'lost'> {
    this.#lookLater()
    const asked = (await this.#run({ asked: partition }))[3]
    return asked === 'used' || asked === 'lost' ? asked : 'unknown'
  }

  /** This gateway uses the partition from now on. */
  note(partition: string): void {
    if (this.#notedAt.has(partition)) return
    this.#lookLater()
    this.#tell([partition], [])
  }

  /** Redis has nothing of a partition that was used. */
  report(partition: string): void {
    this.#tell([], [partition])
  }

  forget(partition: string): void {
    this.#notedAt.delete(partition)
  }

  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
  }

  #lookLater(): void {
    if (this.#isClosed) return
    this.#timer ??= this.#options.clock.schedule(LOOK_EVERY_MS, () => {
      this.#timer = undefined
      this.#lookLater()
      void this.#look()
    })
  }

  async #look(): Promise<void> {
    this.#options.runner.keepAlive?.()
    const now = this.#options.clock.now()
    const due: string[] = []
    for (const [partition, at] of this.#notedAt) if (now - at >= NOTE_EVERY_MS) due.push(partition)
    for (let i = MOST_AT_ONCE; i < due.length; i += MOST_AT_ONCE) this.#tell(due.slice(i, i + MOST_AT_ONCE), [])
    try {
      const reply = await this.#run({ used: due.slice(0, MOST_AT_ONCE), since: this.#since })
      this.#since = reply[2]!
      const lost = reply.slice(4)
      if (lost.length >= MOST_TOLD) this.#options.onLoss(undefined)
      else for (const partition of lost) this.#options.onLoss(String(partition))
    } catch {
      // Charges find out what is wrong, and say so. The next look comes soon.
    }
  }

  /** If this does not arrive, used partitions are noted again with the next look, and other gateways find out losses themselves. */
  #tell(used: readonly string[], lost: readonly string[]): void {
    this.#run({ used, lost }).catch(() => undefined)
  }

  async #run({ used = [], lost = [], asked = '', since = '' }: Request): Promise<readonly Argument[]> {
    const { runner, clock, key, gateway, answerWithinMs, stepTime } = this.#options
    const now = clock.now()
    for (const partition of used) this.#notedAt.set(partition, now)
    const id = `${gateway}.${++this.#proposed}`
    const args = [id, stepTime?.() ?? '', USED_MS, TOLD_MS, since, asked, used.length, ...used, ...lost]
    let reply: readonly Argument[]
    try {
      reply = await inTime(runner.runRegister([key], args), answerWithinMs, clock)
      if (!Array.isArray(reply) || reply.length < 4) throw new Error('the answer of Redis is garbled')
    } catch (error) {
      for (const partition of used) if (this.#notedAt.has(partition)) this.#notedAt.set(partition, -Infinity)
      this.#options.onAsked(false)
      throw error
    }
    this.#options.onAsked(true)
    this.#checkId(String(reply[0]))
    return reply
  }

  /** If the id is another one, the register was lost, and so was everything noted. */
  #checkId(id: string): void {
    if (this.#id === id) return
    const isLoss = this.#id !== undefined
    this.#id = id
    if (!isLoss) return
    for (const partition of this.#notedAt.keys()) this.#notedAt.set(partition, -Infinity)
    this.#options.onLoss(undefined)
  }
}

interface Request {
  readonly used?: readonly string[]
  readonly lost?: readonly string[]
  readonly asked?: string
  readonly since?: Argument
}
