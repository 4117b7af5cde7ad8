import type { Clock, Timer } from '../clock.ts'
import type { Grant, Lesson, Meter, StoreUnavailableError, Turn } from './ledger.ts'
import type { Argument } from './script-call.ts'

export interface Waiting {
  readonly wanted: number
  resolve(grant: Grant): void
  reject(error: StoreUnavailableError): void
}

/** What becomes of a call that was charged; the same words are the script's. */
export type Change = 'settle' | 'abandon' | 'refund' | 'leave'

/** Calls that were charged in the same buckets and ended in the same ones. */
export interface Ended {
  readonly what: Change
  /** When one of them was charged, and when it was over, by Redis's clock. */
  readonly at: number
  readonly latest: number
  calls: number
}

/**
 * Calls of one meter that have ended and of which Redis was not told yet. Until it is, they count as if they were in flight;
 * as it is told when they ended, nothing is lost by that, and what ended together is told as one.
 */
export class Settlements {
  readonly meter: Meter
  readonly ended: Ended[] = []
  /** From when on they ride on a charge, and by when they go even if none does. */
  ripeAt = Infinity
  dueAt = Infinity
  readonly #alike = new Map<string, Ended>()
  readonly #bucketMs: number

  constructor(meter: Meter) {
    this.meter = meter
    this.#bucketMs = Math.min(...meter.limits.map(({ bucketMs }) => bucketMs))
  }

  /** These ended by `time` at the latest, by Redis's clock. */
  add({ what, at, calls }: { what: Change; at: number; calls: number }, now: number, time: number): void {
    const isOver = what === 'settle' || what === 'abandon'
    // What was not sent, or is no more among the calls at once, others may have now.
    this.ripeAt = Math.min(this.ripeAt, isOver ? now + this.#bucketMs : now)
    const latest = isOver ? time : 0
    const key = `${what} ${bucketsFrom(this.meter, at, true)} ${bucketsFrom(this.meter, latest, false)}`
    const alike = this.#alike.get(key)
    if (alike !== undefined) {
      alike.calls += calls
      return
    }
    const ended = { what, at, calls, latest }
    this.ended.push(ended)
    this.#alike.set(key, ended)
  }
}

/** From when on it is in the same buckets of every limit as `time`, in flight or over, in microseconds. */
function bucketsFrom({ limits }: Meter, time: number, isInFlight: boolean): number {
  let from = 0
  for (const { bucketMs, holdMs, slackMs } of limits) {
    from = Math.max(from, bucketFrom(time, bucketMs, isInFlight ? holdMs : 0))
    // The script counts it in more than one bucket where it may have been a little earlier or later.
    if (slackMs > 0) from = Math.max(from, bucketFrom(time, bucketMs, slackMs), bucketFrom(time, bucketMs, -slackMs))
  }
  return from
}

function bucketFrom(time: number, bucketMs: number, aheadMs: number): number {
  const bucket = bucketMs * 1_000
  const ahead = aheadMs * 1_000
  return Math.floor((micros(time) + ahead) / bucket) * bucket - ahead
}

/** What is to be done for one meter in one call of the script. */
export class Batch {
  readonly meter: Meter
  /** Of the calls among them that have waited: only one room asks for those of a meter, once at a time. */
  turn: Turn | undefined
  readonly waiting: Waiting[] = []
  readonly ended: Ended[] = []
  readonly renewed: { at: number; calls: number; to: number; open: number }[] = []
  /** What answers have taught; of what the upstream had counted only the latest, by limit. */
  readonly lessons: Argument[][] = []
  readonly counted = new Map<string, Argument[]>()
  /** By when it goes even if no charge does. */
  dueAt = Infinity

  constructor(meter: Meter) {
    this.meter = meter
  }

  teach(chargedAt: number, lesson: Lesson, pauseField: string): void {
    const at = micros(chargedAt)
    switch (lesson.kind) {
      case 'pause':
        this.lessons.push(['pause', pauseField, Math.ceil(lesson.ms)])
        return
      case 'refused':
        this.lessons.push(['refused', this.meter.limits[lesson.limit]!.id, at])
        return
      case 'counted': {
        const { units, tolerance, resetMs, isRefused } = lesson
        const { id } = this.meter.limits[lesson.limit]!
        const change = ['counted', id, at, units, tolerance, micros(resetMs), isRefused ? 1 : 0]
        if (isRefused) this.lessons.push(change)
        else if (Number(this.counted.get(id)?.[2] ?? 0) <= at) this.counted.set(id, change)
      }
    }
  }

  /** As the script wants them. */
  changes(): Argument[][] {
    const changes: Argument[][] = []
    for (const { at, calls, to, open } of this.renewed) changes.push(['renew', micros(at), calls, micros(to), open])
    for (const { what, at, calls, latest } of this.ended) changes.push([what, micros(at), calls, micros(latest)])
    changes.push(...this.lessons, ...this.counted.values())
    return changes
  }
}

function micros(ms: number): number {
  return Math.round(ms * 1_000)
}

interface Due {
  readonly meter: Meter
  dueAt: number
}

/** What waits for a charge to ride on, each for one of a few durations; when its time is up it is sent. */
export class Postponed {
  readonly #clock: Clock
  readonly #send: (meter: Meter) => void
  /** By how long is waited, in the order in which they came. */
  readonly #queues = new Map<number, { readonly waiting: Set<Due>; timer: Timer | undefined }>()

  constructor(clock: Clock, send: (meter: Meter) => void) {
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
      this.#send(due.meter)
    }
  }
}
