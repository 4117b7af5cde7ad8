import type { Clock } from '../../time/clock.ts'
import type { InFlight } from '../in-flight.ts'
import type { ChargeSet, OutagePolicy, QueueTurn } from '../ledger.ts'
import type { Shares } from '../shares.ts'
import type { Batch, Outbox } from './outbox.ts'
import type { Postponed } from './postponed.ts'
import type { PartitionRegister } from './partition-register.ts'
import type { PartitionState } from './partition-state.ts'
import { type Argument, argumentsOf, type Reply, type ScriptRunner } from './protocol.ts'
import { leaseOf } from './reply.ts'

/** How often a gateway renews its leases, or tries Redis while offline. */
export const TICK_MS = 250
/**
 * For how long only leases are spent after Redis is back, so that every gateway can tell it what it lacks before any charge is made
 * there. Longer than a tick and than it takes to connect again.
 */
export const RESUME_AFTER_MS = 4 * TICK_MS
export interface PartitionKeys {
  readonly name: string
  /** The field in Redis with the number of this gateway's calls. Never used twice. */
  readonly id: string
  /** The beginning of the partition's keys. */
  readonly key: string
  /** Where the format before this one kept what it charged to the limits of a charge set. */
  readonly olderKeys: (chargeSet: ChargeSet) => readonly string[]
}

/** What the partitions of one ledger share. */
export interface Shared {
  readonly runner: ScriptRunner
  readonly clock: Clock
  readonly answerWithinMs: number
  readonly onOutage: OutagePolicy
  readonly stepTime: (() => number) | undefined
  readonly postponed: Postponed
  readonly inFlight: InFlight
  readonly register: PartitionRegister
  /** What the region may use of each limit; undefined where quotas are not split over regions. */
  readonly shares: Shares | undefined
  /** Whether Redis was connected or answered since the start, if only for a moment: then there are leases to go on with. */
  readonly wasConnected: boolean
  /** Since when nothing was answered, whatever was asked; Infinity while answers come. */
  readonly silentSince: number
  /** Milliseconds between two ticks of a partition. */
  tickEveryMs(isShared: boolean): number
  /** Redis answered at `now`. `isRight`: the call had the right number. */
  onAnswer(now: number, isRight: boolean): void
  /** A call failed, or was not answered in time. `isAgain`: its partition was offline already. */
  onFailure(error: unknown, isAgain: boolean): void
  /** Redis has nothing of a partition that was used. */
  onMissing(): void
  onChange(partition: string, mode: 'shared' | 'leased'): void
  onForgotten(partition: string): void
}

/**
 * Calls the script for one partition. It numbers the calls, gives up an answer that is late, and compares each answer with what
 * the gateway knows: so it notices what Redis has lost.
 */
export class PartitionCalls {
  readonly #shared: Shared
  readonly #state: PartitionState
  readonly #outbox: Outbox
  readonly #names: PartitionKeys
  readonly #keys: readonly string[]
  readonly #onLacking: () => void
  /** Whether this gateway has forgotten the partition. Answers that come afterwards must not note it as used. */
  isForgotten = false
  /** Charge sets for which the script has taken over what an older release charged. */
  readonly #takenOver = new WeakSet<ChargeSet>()
  /** Whether any gateway uses the partition: then Redis has lost it if it is not there. Undefined until that is known. */
  #isUsed: boolean | undefined
  /** Calls that Redis granted too late, which were never sent. */
  #unsent: { chargeSet: ChargeSet; at: number; calls: number }[] = []

  /** `onLacking` is told when Redis answers, but lacks what gateways have told it. */
  constructor(shared: Shared, state: PartitionState, outbox: Outbox, names: PartitionKeys, onLacking: () => void) {
    this.#shared = shared
    this.#state = state
    this.#outbox = outbox
    this.#names = names
    this.#keys = [`${names.key}:limits`, `${names.key}:leases`]
    this.#onLacking = onLacking
  }

  get isUsed(): boolean {
    return this.#isUsed === true
  }

  /** Asks whether other gateways use the partition. Returns whether one of them has noticed that Redis lost it. */
  async ask(): Promise<boolean> {
    const is = await this.#shared.register.ask(this.#state.name)
    this.#isUsed = this.#isUsed === true || is !== 'unknown'
    return is === 'lost'
  }

  /** Redis may have lost what it granted too late. If it were told to take that back, it would take back other calls. */
  forgetUnsent(): void {
    this.#unsent = []
  }

  /**
   * Calls the script. Resolves with undefined if the script refused this call, mostly for a wrong number, and did nothing.
   * Rejects if Redis fails, or does not answer within `answerWithinMs`; whether the script ran is unknown then.
   */
  async call(
    chargeSet: ChargeSet,
    { wanted = 0, batches = [], additions = [], termMs = 0, isClaim = false, turn, isProbe = false }: CallOptions,
  ): Promise<Reply | undefined> {
    const state = this.#state
    const stepped = this.#shared.stepTime?.()
    const sentAt = this.#shared.clock.now()
    const args = argumentsOf(chargeSet, {
      gateway: this.#names.id,
      expected: isProbe ? -1 : this.#nextNumber(),
      time: stepped ?? '',
      about: stepped === undefined ? (state.knownTime(sentAt) ?? this.#shared.clock.wall()) : stepped / 1_000,
      wanted,
      batches,
      additions,
      termMs,
      isClaim,
      turn,
      shares: state.shares,
      leases: termMs > 0 ? state.limitsOf(chargeSet).map(({ lease }) => lease) : [],
    })
    const keys = this.#keysFor(chargeSet, turn)
    const reply = await this.#answer(chargeSet, this.#shared.runner.run(keys, args))
    const isRight = reply[2] !== -1
    const now = this.#shared.clock.now()
    this.#shared.onAnswer(now, isRight)
    const micros = reply[0]!
    const number = Math.max(1, reply[1]!)
    const isMissing = isRight ? reply[1] === 0 : reply[3] === 1
    if (isMissing && this.#isUsed === true && !state.hasLost) {
      this.#shared.register.report(state.name)
      this.#shared.onMissing()
      this.#onLacking()
    }
    state.setTime(micros / 1_000, sentAt, now)
    if (!isRight) {
      state.numbers.misses(number - 1)
      this.#onLacking()
      return undefined
    }
    this.#takenOver.add(chargeSet)
    const isOnly = this.#isUsed === false
    this.#isUsed = true
    if (!this.isForgotten) this.#shared.register.note(state.name)
    // Until Redis has been told all that it lacks, its answer is not noted as one at which it had everything: it may still lose
    // what it is told next.
    const hasAll = state.mode === 'shared' && additions.length === 0
    if (isProbe) state.reconnect(number, now, RESUME_AFTER_MS, isOnly)
    else state.numbers.note(number, micros / 1_000, hasAll)
    state.noteLeases(chargeSet, (i) => leaseOf(reply, i), sentAt, termMs)
    return reply
  }

  #keysFor(chargeSet: ChargeSet, turn: QueueTurn | undefined): readonly string[] {
    const isTakenOver = this.#takenOver.has(chargeSet)
    if (isTakenOver && turn === undefined) return this.#keys
    const keys = [...this.#keys, turn === undefined ? this.#keys[0]! : `${this.#names.key}:served:${turn.queue}`]
    if (!isTakenOver) keys.push(...this.#names.olderKeys(chargeSet))
    return keys
  }

  /**
   * The number of the next call. 0 instead of 1 tells the script that others use the partition: if it is not there, Redis has
   * lost it.
   */
  #nextNumber(): number {
    const number = ++this.#state.numbers.sent
    return number === 1 && this.#isUsed === true ? 0 : number
  }

  /** Rejects if the answer does not come in time. Calls that are granted later are given back, because they were not sent. */
  #answer(chargeSet: ChargeSet, answer: Promise<Reply>): Promise<Reply> {
    return new Promise((resolve, reject) => {
      let isLate = false
      const giveUp = (): void => {
        isLate = true
        reject(new Error(`no answer within ${this.#shared.answerWithinMs} ms`))
      }
      // If this process itself stood still, the answer is there already, and is read before `giveUp` runs.
      const timer = this.#shared.clock.schedule(this.#shared.answerWithinMs, () => this.#shared.clock.soon(giveUp))
      answer.then(
        (reply) => {
          timer.cancel()
          const granted = reply[2]!
          if (!isLate) resolve(reply)
          else if (granted > 0) {
            this.#unsent.push({ chargeSet, at: reply[0]! / 1_000, calls: granted })
            if (this.#state.mode === 'shared') this.giveBackUnsent()
          }
        },
        (error: unknown) => {
          timer.cancel()
          reject(error)
        },
      )
    })
  }

  /** Tells Redis to take back what it granted too late. */
  giveBackUnsent(): void {
    const time = this.#state.latestTime(this.#shared.clock.now())
    for (const { chargeSet, at, calls } of this.#unsent) {
      this.#outbox.addEnded(chargeSet, { what: 'refund', at, calls }, time)
      if (chargeSet.hasConcurrent) this.#outbox.addEnded(chargeSet, { what: 'leave', at, calls }, time)
    }
    this.#unsent = []
  }
}

export interface CallOptions {
  readonly wanted?: number
  readonly batches?: readonly Batch[]
  /** Charges to add, each as the number of a limit (from 1), a bucket, and units. */
  readonly additions?: readonly Argument[][]
  /** If not 0, leases are renewed for so long. */
  readonly termMs?: number
  /** The lease is to be what the gateway has, instead of a share of what is free. */
  readonly isClaim?: boolean
  readonly turn?: QueueTurn | undefined
  readonly isProbe?: boolean
}
