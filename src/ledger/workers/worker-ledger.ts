import type { Clock, Timer } from '../../time/clock.ts'
import type { Demand, PeerDemand } from '../demand.ts'
import {
  type ChargeSet,
  Grant,
  type Ledger,
  type LimitUsage,
  StoreUnavailableError,
  type QueueTurn,
  uncounted,
  type UpstreamFeedback,
} from '../ledger.ts'
import type { Limit } from '../limit.ts'
import { Pauses } from '../limit-table.ts'
import type { Heard } from './demand-exchange.ts'
import { type Lease, Leases } from './lease.ts'
import { Numbers } from './numbers.ts'
import { type Answer, scheduleOfTold, type State, type Told, type ToldGrant, toldLimit, usageOfTold } from './wire.ts'

/** Messages for which nobody waits go with the next charge, but no later than this. */
const TELL_WITHIN_MS = 10
/** Where a limit has a shorter window than this, they go at the end of the turn. */
const LONG_WINDOW_MS = 1_000
/** A first process that answers nothing for so long hangs. */
export const ANSWER_WITHIN_MS = 5_000

/** A question to the first process, and then its grant. The slot is used again when the first process will be told nothing more of the grant. */
interface Slot {
  readonly chargeSet: ChargeSet | undefined
  readonly until: number
  readonly resolve: ((answer: Grant | Heard) => void) | undefined
  readonly reject: ((error: Error) => void) | undefined
  isAnswered: boolean
  /** Nobody waits for the answer any more. */
  isLate: boolean
  /** Calls of the grant whose response headers are not here. */
  uncommitted: number
  /** Calls of the grant that are not over. */
  open: number
  /** The part of the grant that is settled at the end of its calls. */
  rest: Grant | undefined
  /** Set where more than one call may have been asked for. */
  readonly lease: Lease | undefined
}

/**
 * The ledger of a worker: the first process charges for it. All that a worker asks and tells in one turn of the event loop goes in one message, and
 * the answers come in another. The first process takes the time at which it hears of something for the time at which it happened, which is
 * never too early. So a charge counts a little too long, and never too short.
 */
export class WorkerLedger implements Ledger {
  readonly #clock: Clock
  readonly #send: (told: readonly Told[], onSent?: () => void) => void
  #told: Told[] = []
  #isSoon = false
  #laterTimer: Timer | undefined
  #watchTimer: Timer | undefined
  readonly #leases: Leases
  readonly #slots: (Slot | undefined)[] = []
  readonly #freeSlots: number[] = []
  readonly #limits = new Numbers<Limit>((number) => this.#told.push(['forget', 'limit', number]))
  readonly #chargeSets = new Numbers<ChargeSet>((number) => this.#told.push(['forget', 'set', number]))
  readonly #pauses = new Pauses()
  #state: State = { isReady: false, isDegraded: false, problem: null }
  /** Resolves when the first process serves this one. */
  readonly begun: Promise<void>
  #onBegun: () => void = () => undefined

  constructor(clock: Clock, send: (told: readonly Told[], onSent?: () => void) => void) {
    this.#clock = clock
    this.#send = send
    this.#leases = new Leases(clock, (slot, calls) => this.#giveBack(slot, calls))
    this.begun = new Promise((resolve) => (this.#onBegun = resolve))
    this.#tell(['begin'], false)
  }

  get isReady(): boolean {
    return this.#state.isReady
  }

  get isDegraded(): boolean {
    return this.#state.isDegraded
  }

  get problem(): string | undefined {
    return this.#state.problem ?? undefined
  }

  charge(chargeSet: ChargeSet, wanted: number, turn?: QueueTurn): Grant | Promise<Grant> {
    const now = this.#clock.now()
    if (chargeSet.limits.length === 0) return uncounted(chargeSet, wanted, now, this.#pauses.until(chargeSet, now))
    const set = this.#numberOf(chargeSet)
    if (turn !== undefined) return this.#ask<Grant>(chargeSet, (slot) => ['charge', slot, set, wanted, turn])
    if (wanted !== 1) return this.#ask<Grant>(chargeSet, (slot) => ['charge', slot, set, wanted])
    const lease = this.#leases.of(chargeSet)
    lease.count(now)
    if (lease.spare > 0 && this.#pauses.until(chargeSet, now) === 0) {
      lease.spare--
      return inSlot(lease.slot, new Grant(chargeSet, lease.at, 1, lease.usage))
    }
    const more = this.#leases.ask(lease, now)
    return this.#ask<Grant>(chargeSet, (slot) => ['charge', slot, set, 1 + more], lease)
  }

  async exchange(partition: string, queue: string, demands: readonly Demand[]): Promise<PeerDemand | undefined> {
    const at = this.#clock.now()
    try {
      const heard = await this.#ask<Heard>(undefined, (slot) => ['exchange', slot, partition, queue, demands])
      return { ...heard, virtualService: new Map(heard.virtualService), at }
    } catch {
      return undefined // charges find out that the first process hangs, and say so
    }
  }

  commit(grant: Grant, units?: readonly number[]): void {
    const isRest = this.#isRest(grant)
    if (units === undefined) this.#tell(['commit', grant.slot, isRest], hasOnlyLongWindows(grant))
    else this.#tell(['commit', grant.slot, isRest, units], false)
    this.#ends(grant, isRest)
  }

  abandon(grant: Grant): void {
    this.#giveUp('abandon', grant, hasOnlyLongWindows(grant))
  }

  refund(grant: Grant): void {
    this.#giveUp('refund', grant, false)
  }

  leave(grant: Grant): void {
    grant.open--
    if (!grant.chargeSet.hasConcurrent) return
    this.#tell(['leave', grant.slot, false], false)
    this.#slots[grant.slot]!.open--
    this.#free(grant.slot)
  }

  applyFeedback({ chargeSet, chargedAt }: Grant, feedback: UpstreamFeedback): void {
    if (feedback.kind === 'pause') this.#pauses.add(chargeSet, this.#clock.now(), feedback.ms)
    // More answers will tell how much was counted.
    const mayWait = feedback.kind === 'counted' && !feedback.isRefused
    this.#tell(['feedback', this.#numberOf(chargeSet), chargedAt, feedback], mayWait)
  }

  async usage(chargeSet: ChargeSet): Promise<readonly LimitUsage[]> {
    return (await this.charge(chargeSet, 0)).usage
  }

  /** Takes what the first process tells. */
  receive(answers: readonly Answer[]): void {
    for (const answer of answers) {
      switch (answer[0]) {
        case 'granted':
          this.#onGranted(answer[1], answer[2])
          break
        case 'unavailable':
          this.#onUnavailable(answer[1], new Error(answer[2]))
          break
        case 'heard':
          this.#take(answer[1])?.resolve!(answer[2])
          this.#release(answer[1])
          break
        case 'paused':
          this.#pauses.add({ account: answer[1] }, this.#clock.now(), answer[2])
          break
        case 'state':
          this.#state = answer[1]
          this.#onBegun()
      }
    }
  }

  /** Sends what was not sent yet. The first process then takes calls in flight for given up. */
  close(): Promise<void> {
    this.#leases.end()
    this.#laterTimer?.cancel()
    this.#watchTimer?.cancel()
    return new Promise((resolve) => this.#flush(resolve))
  }

  #ask<T extends Grant | Heard>(
    chargeSet: ChargeSet | undefined,
    told: (slot: number) => Told,
    lease?: Lease,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const slot = this.#freeSlots.pop() ?? this.#slots.length
      this.#slots[slot] = {
        chargeSet,
        until: this.#clock.now() + ANSWER_WITHIN_MS,
        resolve: resolve as Slot['resolve'],
        reject,
        isAnswered: false,
        isLate: false,
        uncommitted: 0,
        open: 0,
        rest: undefined,
        lease,
      }
      this.#tell(told(slot), false)
      this.#watchTimer ??= this.#clock.schedule(ANSWER_WITHIN_MS, this.#onTime)
    })
  }

  #tell(told: Told, mayWait: boolean): void {
    this.#told.push(told)
    if (this.#isSoon) return
    if (mayWait) {
      // A charge may send everything before this timer fires. The timer runs on all the same, or every call would make a timer and stop it.
      this.#laterTimer ??= this.#clock.schedule(TELL_WITHIN_MS, this.#onLater)
      return
    }
    this.#isSoon = true
    this.#clock.soon(this.#onTurnEnd)
  }

  readonly #onTurnEnd = (): void => this.#flush()

  readonly #onLater = (): void => {
    this.#laterTimer = undefined
    this.#flush()
  }

  #flush(onSent?: () => void): void {
    this.#isSoon = false
    const told = this.#told
    if (told.length === 0) return onSent?.()
    this.#told = []
    this.#send(told, onSent)
  }

  #onGranted(slot: number, told: ToldGrant): void {
    const asked = this.#take(slot)
    if (asked === undefined) return
    const { lease } = asked
    const chargeSet = asked.chargeSet!
    const { at, turns } = told
    const now = this.#clock.now()
    const schedule = told.schedule && scheduleOfTold(told.schedule, chargeSet, now)
    const usage = usageOfTold(told, chargeSet)
    const calls = lease === undefined ? told.granted : Math.min(1, told.granted)
    const grant = inSlot(slot, new Grant(chargeSet, at, calls, usage, { schedule, turns }))
    asked.uncommitted = asked.open = told.granted
    asked.rest = grant.rest
    if (lease !== undefined) this.#leases.granted(lease, slot, { at, usage, spare: told.granted - calls })
    this.#free(slot)
    if (!asked.isLate) return asked.resolve!(grant)
    for (let i = 0; i < calls; i++) {
      this.refund(grant)
      this.leave(grant)
    }
  }

  /** Tells the first process that these leased calls did not come. */
  #giveBack(slot: number, calls: number): void {
    for (let i = 0; i < calls; i++) this.#tell(['refund', slot, false], true)
    this.#slots[slot]!.uncommitted -= calls
    this.#free(slot)
  }

  #onUnavailable(slot: number, cause: Error): void {
    const asked = this.#take(slot)
    this.#release(slot)
    asked?.reject!(new StoreUnavailableError(cause))
  }

  /** The question in this slot, which is answered now. */
  #take(slot: number): Slot | undefined {
    const asked = this.#slots[slot]
    if (asked !== undefined) asked.isAnswered = true
    return asked
  }

  // If this process itself stood still, answers are there already, and are read first.
  readonly #onTime = (): void => this.#clock.soon(this.#onWatch)

  readonly #onWatch = (): void => {
    this.#watchTimer = undefined
    const now = this.#clock.now()
    let next = Infinity
    for (const asked of this.#slots) {
      if (asked === undefined || asked.isAnswered || asked.isLate) continue
      if (asked.until > now) next = Math.min(next, asked.until)
      else {
        asked.isLate = true
        asked.reject!(new StoreUnavailableError(new Error('the first process did not answer')))
      }
    }
    if (next < Infinity) this.#watchTimer = this.#clock.schedule(next - now, this.#onTime)
  }

  #numberOf(chargeSet: ChargeSet): number {
    return this.#chargeSets.of(chargeSet, (set) => {
      const { partition, account, limits, units } = chargeSet
      const numbers = limits.map((limit) =>
        this.#limits.of(limit, (number) => this.#told.push(['limit', number, toldLimit(limit)])),
      )
      this.#told.push(['set', set, partition, account, numbers, units])
    })
  }

  #isRest(grant: Grant): boolean {
    return this.#slots[grant.slot]?.rest === grant
  }

  #giveUp(what: 'abandon' | 'refund', grant: Grant, mayWait: boolean): void {
    const isRest = this.#isRest(grant)
    this.#tell([what, grant.slot, isRest], mayWait)
    if (grant.rest !== undefined) grant.rest.uncommitted--
    this.#ends(grant, isRest)
  }

  #ends(grant: Grant, isRest: boolean): void {
    grant.uncommitted--
    if (!isRest) this.#slots[grant.slot]!.uncommitted--
    this.#free(grant.slot)
  }

  /** Frees the slot if the first process will be told nothing more of its grant. */
  #free(slot: number): void {
    const { chargeSet, uncommitted, open, rest } = this.#slots[slot]!
    if (uncommitted > 0 || (rest !== undefined && rest.uncommitted > 0) || (chargeSet!.hasConcurrent && open > 0))
      return
    this.#release(slot)
  }

  #release(slot: number): void {
    this.#slots[slot] = undefined
    this.#freeSlots.push(slot)
  }
}

function inSlot(slot: number, grant: Grant): Grant {
  grant.slot = slot
  if (grant.rest !== undefined) grant.rest.slot = slot
  return grant
}

function hasOnlyLongWindows({ chargeSet: { limits } }: Grant): boolean {
  for (const { windowMs } of limits) if (windowMs < LONG_WINDOW_MS) return false
  return true
}
