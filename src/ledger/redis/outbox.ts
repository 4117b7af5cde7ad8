import type { Clock } from '../../time/clock.ts'
import type { ChargeSet, Grant, LimitUsage, StoreUnavailableError, QueueTurn, UpstreamFeedback } from '../ledger.ts'
import type { Limit } from '../limit.ts'
import { Due, type Postponed } from './postponed.ts'

/** An argument of a script. */
export type Argument = string | number

/**
 * Commits ride on the next charge of their charge set, but wait no longer than this, or than a twentieth of a window. Until Redis is
 * told, their calls count as if they were in flight. A commit says when it was made, so nothing else is lost by waiting.
 */
const COMMIT_WITHIN_MS = 5_000
/** Redis is told after so long what other calls wait for, together with all that has ended by then. */
export const LEAST_WAIT_MS = 10
/**
 * While less than LITTLE of a limit is used, the commits of a few calls may be deferred, if these calls take less than DEFERRED
 * of the limit. Until Redis is told its commit, a call counts `inFlightLeaseMs` longer than a window. Nobody needs so few units
 * meanwhile. The commit of a call that took longer than `inFlightLeaseMs` is not deferred: without it the call would leave the
 * count too soon.
 */
export const LITTLE = 0.25
const DEFERRED = 0.01
/** At most so many commits of a charge set, and so many charge sets of a partition, are deferred, so that they need little memory. */
const MOST_DEFERRED = 8

/** What becomes of calls that were charged at `at`, in the words of the script. */
export interface Change {
  readonly what: 'commit' | 'abandon' | 'refund' | 'leave'
  readonly at: number
  readonly calls: number
}

/** Calls that were charged in the same buckets, and ended in the same buckets. `at` and `latest` are the times of one of them. */
export interface Ended extends Change {
  readonly latest: number
  calls: number
}

/** What Redis has still to be told of one charge set. */
interface Unsent {
  batch: Batch | undefined
  ended: EndedCalls | undefined
}

/**
 * What one gateway has still to tell Redis of one partition, by charge set. Commits ride on charges where they can; what no charge
 * takes along in time is sent alone. Batches come and go with every turn of the event loop, so they are in no Map: see `Roster`.
 */
export class Outbox {
  readonly #clock: Clock
  readonly #postponed: Postponed
  readonly #send: (batch: Batch) => void
  readonly #unsent = new WeakMap<ChargeSet, Unsent>()
  /** All that are in `#unsent`, the oldest first. */
  #batches: Batch[] = []
  #ended: EndedCalls[] = []
  /** Batches that are sent at the end of this turn of the event loop. */
  #charging: Batch[] = []

  constructor(clock: Clock, postponed: Postponed, send: (batch: Batch) => void) {
    this.#clock = clock
    this.#postponed = postponed
    this.#send = send
  }

  /** Whether nothing is left that has to be told. Deferred commits may be left: without them their calls only count longer. */
  get isEmpty(): boolean {
    return this.#batches.length === 0 && !this.#ended.some(({ dueAt }) => dueAt < Infinity)
  }

  #unsentOf(chargeSet: ChargeSet): Unsent {
    return this.#unsent.getOrInsertComputed(chargeSet, () => ({ batch: undefined, ended: undefined }))
  }

  /** The batch of a charge set that was not sent yet. Begins one if there is none. */
  batchOf(chargeSet: ChargeSet): Batch {
    const unsent = this.#unsentOf(chargeSet)
    if (unsent.batch === undefined) this.#batches.push((unsent.batch = new Batch(chargeSet)))
    return unsent.batch
  }

  /** Whether Redis has still to be told that calls of this charge set were renewed. */
  hasRenewed(chargeSet: ChargeSet): boolean {
    return (this.#unsent.get(chargeSet)?.batch?.renewed.length ?? 0) > 0
  }

  /** Whether the batch was not sent yet. */
  has(batch: Batch): boolean {
    return this.#unsent.get(batch.chargeSet)?.batch === batch
  }

  /** Every batch that was not sent yet. Begins one for each charge set of which calls have ended. */
  all(): Batch[] {
    for (const { chargeSet } of this.#ended) this.batchOf(chargeSet)
    return [...this.#batches]
  }

  /** Sends a batch with everything else that is asked for its charge set in this turn of the event loop. */
  sendSoon(batch: Batch): void {
    if (batch.isSentSoon) return
    batch.isSentSoon = true
    if (this.#charging.length === 0) this.#clock.soon(this.#onTurnEnd)
    this.#charging.push(batch)
  }

  /** Sends a batch with the next charge, or after LEAST_WAIT_MS. */
  sendLater(batch: Batch): void {
    this.#postponed.add(batch, LEAST_WAIT_MS)
  }

  /**
   * Notes calls that ended by `time`, by Redis's clock. Without `usage`, Redis is told after LEAST_WAIT_MS, because others wait
   * for what these calls take or bring.
   */
  addEnded(chargeSet: ChargeSet, ended: Change, time: number, usage: readonly LimitUsage[] = []): void {
    const unsent = this.#unsentOf(chargeSet)
    if (unsent.ended === undefined) this.#ended.push((unsent.ended = new EndedCalls(chargeSet)))
    const all = unsent.ended
    const isWanted = all.add(ended, { now: this.#clock.now(), time, usage })
    if (isWanted) this.#postponed.add(all, usage.length === 0 ? LEAST_WAIT_MS : commitWithinMs(chargeSet))
  }

  /**
   * Takes out `batch`, which is sent now, and what goes with it: all batches without a charge, and the commits that are
   * eligible or due. With `isAll`, all commits go with it.
   */
  take(batch: Batch, isAll: boolean): Batch[] {
    const now = this.#clock.now()
    let surplus = this.#ended.length - MOST_DEFERRED
    const deferred: EndedCalls[] = []
    for (const one of this.#ended) {
      const isDue = isAll || one.eligibleAt <= now || one.dueAt <= now
      if (!isDue) {
        // Where too many are deferred, the oldest go: the calls of their charge sets may not come again.
        if (one.dueAt < Infinity || surplus <= 0) {
          deferred.push(one)
          continue
        }
        surplus--
      }
      this.#unsentOf(one.chargeSet).ended = undefined
      this.#postponed.remove(one)
      this.batchOf(one.chargeSet).ended.push(...one.ended)
    }
    this.#ended = deferred
    const taken: Batch[] = []
    const left: Batch[] = []
    for (const one of this.#batches) {
      if (one !== batch && one.waiting.length > 0) {
        left.push(one)
        continue
      }
      this.#unsentOf(one.chargeSet).batch = undefined
      this.#postponed.remove(one)
      taken.push(one)
    }
    this.#batches = left
    return taken
  }

  readonly #onTurnEnd = (): void => {
    const batches = this.#charging
    this.#charging = []
    for (const batch of batches) {
      batch.isSentSoon = false
      this.#send(batch)
    }
  }
}

/**
 * Calls of one charge set that have ended, and of which Redis was not told yet. Until it is told, they count as if they were in
 * flight. Calls that ended together are told as one.
 */
class EndedCalls extends Due {
  readonly ended: Ended[] = []
  /** When these commits become eligible, by the gateway's clock; Infinity while they are deferred. */
  eligibleAt = Infinity
  readonly #alike = new Map<string, Ended>()
  readonly #bucketMs: number
  #calls = 0

  constructor(chargeSet: ChargeSet) {
    super(chargeSet)
    this.#bucketMs = Math.min(...chargeSet.limits.map(({ bucketMs }) => bucketMs))
  }

  /**
   * Notes calls that ended by `time` at the latest, by Redis's clock. `usage` is that of their grant. Returns whether Redis has
   * to be told. If not, they are deferred, and told together with the first call of which Redis has to be told.
   */
  add(
    { what, at, calls }: Change,
    { now, time, usage }: { now: number; time: number; usage: readonly LimitUsage[] },
  ): boolean {
    const isOver = what === 'commit' || what === 'abandon'
    const latest = isOver ? time : 0
    const key = `${what} ${chargedFrom(this.chargeSet, at)} ${endedFrom(this.chargeSet, latest, what === 'abandon')}`
    let ended = this.#alike.get(key)
    if (ended !== undefined) ended.calls += calls
    else {
      ended = { what, at, calls, latest }
      this.ended.push(ended)
      this.#alike.set(key, ended)
    }
    this.#calls += calls
    // Others may use at once what was refunded or is in flight no longer. They must know at once what calls have cost beyond
    // their charge.
    if (!isOver || usage.length === 0) this.eligibleAt = now
    else if (this.eligibleAt === Infinity && this.#isMissed(ended, usage)) this.eligibleAt = now + this.#bucketMs
    return this.eligibleAt < Infinity
  }

  #isMissed(ended: Ended, usage: readonly LimitUsage[]): boolean {
    if (this.ended.length > MOST_DEFERRED) return true
    return usage.some(({ limit, used }, i) => {
      const { kind, requests } = limit
      if (kind === 'smoothing') return false
      if (outlastsCharge(ended, limit)) return true
      return (
        kind !== 'rolling' || used >= LITTLE * requests || this.#calls * this.chargeSet.units[i]! >= DEFERRED * requests
      )
    })
  }
}

/** Whether the upstream may have counted these calls later than their charge allows for. */
export function outlastsCharge({ at, latest }: Ended, { inFlightLeaseMs, countingToleranceMs }: Limit): boolean {
  return latest + countingToleranceMs > at + inFlightLeaseMs
}

/** The earliest time at which a call in flight is charged to the same buckets of every limit as at `at`, in microseconds. */
function chargedFrom({ limits }: ChargeSet, at: number): number {
  let from = 0
  for (const limit of limits) {
    const { kind, inFlightLeaseMs, countingToleranceMs } = limit
    from = Math.max(from, bucketFrom(at, limit, inFlightLeaseMs))
    if (kind === 'calendar') from = Math.max(from, bucketFrom(at, limit, -countingToleranceMs))
  }
  return from
}

/** The earliest time at which a call that is over counts in the same buckets of every limit as at `latest`, in microseconds. */
function endedFrom({ limits }: ChargeSet, latest: number, isAbandoned: boolean): number {
  let from = 0
  for (const limit of limits) {
    const slacks = Number(isAbandoned) + Number(limit.kind === 'calendar')
    from = Math.max(from, bucketFrom(latest, limit, slacks * limit.countingToleranceMs))
  }
  return from
}

/** Where the bucket begins, as the script computes it. */
function bucketFrom(time: number, { bucketMs, calendar }: Limit, aheadMs: number): number {
  if (calendar !== undefined) return micros(calendar.startOf(calendar.indexOf(time + aheadMs)) - aheadMs)
  const bucket = bucketMs * 1_000
  const ahead = aheadMs * 1_000
  return Math.floor((micros(time) + ahead) / bucket) * bucket - ahead
}

function commitWithinMs({ limits }: ChargeSet): number {
  // A slot for a call in flight is wanted back soon.
  const waits = limits.map(({ kind, windowMs }) =>
    kind === 'concurrent' ? 0 : kind === 'smoothing' ? Infinity : windowMs / 20,
  )
  return Math.max(LEAST_WAIT_MS, Math.min(COMMIT_WITHIN_MS, ...waits))
}

export function micros(ms: number): number {
  return Math.round(ms * 1_000)
}

export interface Waiting {
  readonly wanted: number
  readonly turn: QueueTurn | undefined
  /** Until when the charge waits for Redis. */
  readonly until: number
  resolve(grant: Grant): void
  reject(error: StoreUnavailableError): void
}

/** What is to be done for one charge set in one call of the script. */
export class Batch extends Due {
  readonly ended: Ended[] = []
  /**
   * The turn of those calls in `waiting` that have waited in a queue. Only one queue charges a charge set, and it makes one
   * charge at a time.
   */
  turn: QueueTurn | undefined
  readonly waiting: Waiting[] = []
  readonly renewed: { at: number; calls: number; to: number; open: number }[] = []
  /** What upstream answers say. Counts without a refusal are in `counted` instead, by limit: only the latest of each. */
  readonly feedback: Argument[][] = []
  readonly counted = new Map<string, Argument[]>()
  /** Whether it is sent at the end of this turn of the event loop. */
  isSentSoon = false

  addFeedback(chargedAt: number, feedback: UpstreamFeedback, pauseField: string): void {
    const at = micros(chargedAt)
    switch (feedback.kind) {
      case 'pause':
        this.feedback.push(['pause', pauseField, Math.ceil(feedback.ms)])
        return
      case 'refused':
        this.feedback.push(['refused', this.chargeSet.limits[feedback.limit]!.id, at])
        return
      case 'counted': {
        const { units, tolerance, resetMs, isRefused } = feedback
        const { id } = this.chargeSet.limits[feedback.limit]!
        const change = ['counted', id, at, units, tolerance, micros(resetMs), isRefused ? 1 : 0]
        if (isRefused) this.feedback.push(change)
        else if (Number(this.counted.get(id)?.[2] ?? 0) <= at) this.counted.set(id, change)
      }
    }
  }

  /** The changes as the script wants them. */
  changes(): Argument[][] {
    const changes: Argument[][] = []
    for (const { at, calls, to, open } of this.renewed) changes.push(['renew', micros(at), calls, micros(to), open])
    for (const { what, at, calls, latest } of this.ended) changes.push([what, micros(at), calls, micros(latest)])
    changes.push(...this.feedback, ...this.counted.values())
    return changes
  }
}
