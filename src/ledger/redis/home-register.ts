import type { Clock, Timer } from '../../time/clock.ts'
import { inTime } from '../../time/in-time.ts'
import type { Argument, ScriptRunner } from './script-runner.ts'

/** How often a gateway looks for what others have noticed; by that its connection is never idle, either. */
export const LOOK_EVERY_MS = 250
/** A home that is used is noted for so long, and anew so often. A home's own keys last longer than that after its last call. */
const USED_MS = 30_000
const NOTE_EVERY_MS = 10_000
/** For how long a loss is told, so that each gateway hears of it. */
const TOLD_MS = 2_000
/** Of so many homes in one call. The script tells no more losses than MOST_TOLD: then all may be lost. */
const MOST_AT_ONCE = 500
const MOST_TOLD = 1_000

export interface HomeRegisterOptions {
  readonly runner: ScriptRunner
  readonly clock: Clock
  readonly key: string
  readonly gateway: string
  readonly answerWithinMs: number
  readonly stepTime: (() => number) | undefined
  /** Redis has lost what it knew of one home, or of all. */
  readonly onLoss: (home: string | undefined) => void
}

/**
 * Where the gateways of one Redis note which homes they count in, apart from these. The keys of a home may be lost while the
 * connection stays: Redis is flushed, or evicts them. A gateway that has used the home notices with its next call, by that
 * call's number; one that has not takes a home that is not there for a new one, unless it is noted here. Whoever notices a
 * loss reports it here, and all others hear of that within LOOK_EVERY_MS, however many accounts they have and however rarely
 * they renew the leases of each.
 */
export class HomeRegister {
  readonly #options: HomeRegisterOptions
  /** When each home that is used was noted last. */
  readonly #notedAt = new Map<string, number>()
  #id: string | undefined
  #proposed = 0
  /** Losses are told from then on, by Redis's clock. */
  #since: Argument = ''
  #timer: Timer | undefined
  #isClosed = false

  constructor(options: HomeRegisterOptions) {
    this.#options = options
  }

  /** How long it is that Redis knows something, in milliseconds: what lost everything begins anew. Rejects if it can't be asked. */
  async age(): Promise<number> {
    const [, ageMs] = await this.#run({})
    this.#lookLater()
    return Number(ageMs)
  }

  /** Whether other gateways use the home, or have noticed that Redis lost it. Rejects if there is no answer. */
  async ask(home: string): Promise<'unknown' | 'used' | 'lost'> {
    this.#lookLater()
    const asked = (await this.#run({ asked: home }))[3]
    return asked === 'used' || asked === 'lost' ? asked : 'unknown'
  }

  /** This gateway uses the home from now on. */
  note(home: string): void {
    if (this.#notedAt.has(home)) return
    this.#lookLater()
    this.#tell([home], [])
  }

  /** Redis has nothing of a home that was used. */
  report(home: string): void {
    this.#tell([], [home])
  }

  forget(home: string): void {
    this.#notedAt.delete(home)
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
    for (const [home, at] of this.#notedAt) if (now - at >= NOTE_EVERY_MS) due.push(home)
    for (let i = MOST_AT_ONCE; i < due.length; i += MOST_AT_ONCE) this.#tell(due.slice(i, i + MOST_AT_ONCE), [])
    try {
      const reply = await this.#run({ used: due.slice(0, MOST_AT_ONCE), since: this.#since })
      this.#since = reply[2]!
      const lost = reply.slice(4)
      if (lost.length >= MOST_TOLD) this.#options.onLoss(undefined)
      else for (const home of lost) this.#options.onLoss(String(home))
    } catch {
      // Charges find out what is wrong, and say so; here it is tried again soon.
    }
  }

  /** What does not arrive is told again with the next look, or found by the others themselves. */
  #tell(used: readonly string[], lost: readonly string[]): void {
    this.#run({ used, lost }).catch(() => undefined)
  }

  async #run({ used = [], lost = [], asked = '', since = '' }: Request): Promise<readonly Argument[]> {
    const { runner, clock, key, gateway, answerWithinMs, stepTime } = this.#options
    const now = clock.now()
    for (const home of used) this.#notedAt.set(home, now)
    const id = `${gateway}.${++this.#proposed}`
    const args = [id, stepTime?.() ?? '', USED_MS, TOLD_MS, since, asked, used.length, ...used, ...lost]
    let reply: readonly Argument[]
    try {
      reply = await inTime(runner.runRegister([key], args), answerWithinMs, clock)
      if (!Array.isArray(reply) || reply.length < 4) throw new Error('the answer of Redis is garbled')
    } catch (error) {
      for (const home of used) if (this.#notedAt.has(home)) this.#notedAt.set(home, -Infinity)
      throw error
    }
    this.#meet(String(reply[0]))
    return reply
  }

  /** Another register than before: what was noted is lost, too. */
  #meet(id: string): void {
    if (this.#id === id) return
    const isLoss = this.#id !== undefined
    this.#id = id
    if (!isLoss) return
    for (const home of this.#notedAt.keys()) this.#notedAt.set(home, -Infinity)
    this.#options.onLoss(undefined)
  }
}

interface Request {
  readonly used?: readonly string[]
  readonly lost?: readonly string[]
  readonly asked?: string
  readonly since?: Argument
}
