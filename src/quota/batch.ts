import type { Clock, Timer } from '../clock.ts'
import type { Grant, Lesson, Meter, StoreUnavailableError, Turn } from './ledger.ts'
import type { Argument } from './script-call.ts'

export interface Waiting {
  readonly wanted: number
  resolve(grant: Grant): void
  reject(error: StoreUnavailableError): void
}

const CHANGES = ['settle', 'abandon', 'refund', 'leave'] as const
export type Change = (typeof CHANGES)[number]

/** Calls that were charged at the same time, and when they were over at the latest, by Redis's clock. */
export interface Ended {
  calls: number
  readonly first: number
  latest: number
}

/** What is to be done for one meter in one call of the script. */
export class Batch {
  readonly meter: Meter
  /** Of the calls among them that have waited: only one room asks for those of a meter, once at a time. */
  turn: Turn | undefined
  readonly waiting: Waiting[] = []
  /** By the time of their charge. */
  readonly settle = new Map<number, Ended[]>()
  readonly abandon = new Map<number, Ended[]>()
  readonly refund = new Map<number, Ended[]>()
  readonly leave = new Map<number, Ended[]>()
  readonly renewed: { at: number; calls: number; to: number; open: number }[] = []
  /** What answers have taught; of what the upstream had counted only the latest, by limit. */
  readonly lessons: Argument[][] = []
  readonly counted = new Map<string, Argument[]>()
  /** By when it goes even if no charge does. */
  dueAt = Infinity

  /** Calls that ended no further apart than this are told as one: a part of a bucket, so that it costs next to nothing. */
  readonly #togetherMs: number

  constructor(meter: Meter) {
    this.meter = meter
    this.#togetherMs = Math.min(...meter.limits.map(({ bucketMs }) => bucketMs)) / 4
  }

  add(what: Change, at: number, calls: number, latest = 0): void {
    const ended = this[what].getOrInsertComputed(at, () => [])
    const last = ended.at(-1)
    if (last === undefined || latest - last.first > this.#togetherMs) ended.push({ calls, first: latest, latest })
    else {
      last.calls += calls
      last.latest = Math.max(last.latest, latest)
    }
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
    for (const what of CHANGES) {
      for (const [at, all] of this[what]) {
        for (const { calls, latest } of all) changes.push([what, micros(at), calls, micros(latest)])
      }
    }
    changes.push(...this.lessons, ...this.counted.values())
    return changes
  }
}

function micros(ms: number): number {
  return Math.round(ms * 1_000)
}

/** Batches that wait for a charge to ride on, each for one of a few durations; those whose time is up are sent. */
export class Postponed {
  readonly #clock: Clock
  readonly #send: (batch: Batch) => void
  /** By how long is waited, in the order in which they came. */
  readonly #queues = new Map<number, { readonly batches: Set<Batch>; timer: Timer | undefined }>()

  constructor(clock: Clock, send: (batch: Batch) => void) {
    this.#clock = clock
    this.#send = send
  }

  /** Lets a batch wait no longer than that from now, or than it was to wait already. */
  add(batch: Batch, delayMs: number): void {
    const dueAt = this.#clock.now() + delayMs
    if (batch.dueAt <= dueAt) return
    this.remove(batch)
    batch.dueAt = dueAt
    const queue = this.#queues.getOrInsertComputed(delayMs, () => ({ batches: new Set(), timer: undefined }))
    queue.batches.add(batch)
    queue.timer ??= this.#clock.schedule(delayMs, () => this.#onDue(delayMs))
  }

  remove(batch: Batch): void {
    if (batch.dueAt === Infinity) return
    batch.dueAt = Infinity
    for (const { batches } of this.#queues.values()) if (batches.delete(batch)) return
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
    for (const batch of queue.batches) {
      if (batch.dueAt > now) {
        queue.timer = this.#clock.schedule(batch.dueAt - now, () => this.#onDue(delayMs))
        return
      }
      this.#send(batch)
    }
  }
}
