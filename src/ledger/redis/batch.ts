import type { Clock, Timer } from '../../time/clock.ts'
import type { Grant, UpstreamFeedback, ChargeSet, StoreUnavailableError, Turn } from '../ledger.ts'
import { type Ended, micros } from './outbox.ts'

/** An argument of a script. */
export type Argument = string | number

export interface Waiting {
  readonly wanted: number
  readonly turn: Turn | undefined
  /** Until when Redis is waited for. */
  readonly until: number
  resolve(grant: Grant): void
  reject(error: StoreUnavailableError): void
}

/** What is to be done for one charge set in one call of the script. */
export class Batch {
  readonly chargeSet: ChargeSet
  /** Of the calls among them that have waited: only one queue asks for those of a charge set, once at a time. */
  turn: Turn | undefined
  readonly waiting: Waiting[] = []
  readonly ended: Ended[] = []
  readonly renewed: { at: number; calls: number; to: number; open: number }[] = []
  /** What answers have taught; of what the upstream had counted only the latest, by limit. */
  readonly feedback: Argument[][] = []
  readonly counted = new Map<string, Argument[]>()
  /** By when it goes even if no charge does. */
  dueAt = Infinity

  constructor(chargeSet: ChargeSet) {
    this.chargeSet = chargeSet
  }

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

  /** As the script wants them. */
  changes(): Argument[][] {
    const changes: Argument[][] = []
    for (const { at, calls, to, open } of this.renewed) changes.push(['renew', micros(at), calls, micros(to), open])
    for (const { what, at, calls, latest } of this.ended) changes.push([what, micros(at), calls, micros(latest)])
    changes.push(...this.feedback, ...this.counted.values())
    return changes
  }
}

interface Due {
  readonly chargeSet: ChargeSet
  dueAt: number
}

/** What waits for a charge to ride on, each for one of a few durations; when its time is up it is sent. */
export class Postponed {
  readonly #clock: Clock
  readonly #send: (chargeSet: ChargeSet) => void
  /** By how long is waited, in the order in which they came. */
  readonly #queues = new Map<number, { readonly waiting: Set<Due>; timer: Timer | undefined }>()

  constructor(clock: Clock, send: (chargeSet: ChargeSet) => void) {
    this.#clock = clock
    this.#send = send
  }

  /** Lets it wait no longer than that from now, or than it was to wait already. */
  add(due: Due, delayMs: number): void {
    const dueAt = this.#clock.now() + delayMs
    if (due.dueAt <= dueAt) return
    this.remove(due)
    due.dueAt = dueAt
    const queue = this.#queues.getOrInsertComputed(delayMs, () => ({ waiting: new Set(), timer: undefined }))
    queue.waiting.add(due)
    queue.timer ??= this.#clock.schedule(delayMs, () => this.#onDue(delayMs))
  }

  remove(due: Due): void {
    if (due.dueAt === Infinity) return
    due.dueAt = Infinity
    for (const { waiting } of this.#queues.values()) if (waiting.delete(due)) return
  }

  close(): void {
    for (const { timer } of this.#queues.values()) timer?.cancel()
    this.#queues.clear()
  }

  #onDue(delayMs: number): void {
    const queue = this.#queues.get(delayMs)
    if (queue === undefined) return
    queue.timer = undefined
    const now = this.#clock.now()
    for (const due of queue.waiting) {
      if (due.dueAt > now) {
        queue.timer = this.#clock.schedule(due.dueAt - now, () => this.#onDue(delayMs))
        return
      }
      this.#send(due.chargeSet)
    }
  }
}
