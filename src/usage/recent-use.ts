import type { ClassLabels } from '../observe/series.ts'
import type { QueuedClient } from '../queue/admission.ts'
import type { Calendar } from '../time/calendar.ts'
import type { Clock } from '../time/clock.ts'

/** A limit whose units are shown by client. `window` is its label. Limits that differ only in what they are split by count as one. */
export interface CountedLimit extends ClassLabels {
  readonly window: string
  readonly windowMs: number
  readonly isCalendar: boolean
  /** Set if the windows do not begin at multiples of their length. */
  readonly calendar?: Calendar | undefined
}

/** What one client has used of one limit: in its window, the last hour and the last day. Sent to other processes as JSON. */
export interface ClientUse extends ClassLabels {
  readonly window: string
  readonly client: string
  /** The part of the limit that the client is due depends on its weight and share. */
  readonly weight: number
  readonly share: number
  /** Units, in the current window, and in at least the last hour and day. */
  readonly used: number
  readonly hour: number
  readonly day: number
  /** Since when the process counts, in milliseconds since 1970. */
  readonly since: number
}

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

/** Counts what one client uses of one limit. */
export class RecentUse {
  readonly #limit: CountedLimit
  readonly #client: string
  readonly #clock: Clock
  readonly #window: Span
  readonly #hour = new Span(HOUR_MS, 12)
  readonly #day = new Span(DAY_MS, 24)
  #weight = 1
  #share = 0

  constructor(limit: CountedLimit, client: string, clock: Clock) {
    this.#limit = limit
    this.#client = client
    this.#clock = clock
    this.#window = limit.isCalendar ? new Span(limit.windowMs, 1, 0, limit.calendar) : new Span(limit.windowMs, 10)
  }

  add(units: number, { weight, share }: QueuedClient): void {
    const now = this.#clock.now()
    this.#window.add(units, this.#limit.isCalendar ? this.#clock.wall() : now)
    this.#hour.add(units, now)
    this.#day.add(units, now)
    this.#weight = weight
    this.#share = share
  }

  /** Whether it was not used for a day, nor in its window. Only a window with a calendar can be longer than a day. */
  get isIdle(): boolean {
    return this.#day.sum(this.#clock.now()) === 0 && (this.#limit.calendar === undefined || this.#used === 0)
  }

  get #used(): number {
    return this.#window.sum(this.#limit.isCalendar ? this.#clock.wall() : this.#clock.now())
  }

  row(since: number): ClientUse {
    const { upstream, account, class: name, window } = this.#limit
    const now = this.#clock.now()
    return {
      upstream,
      account,
      class: name,
      window,
      client: this.#client,
      weight: this.#weight,
      share: this.#share,
      used: this.#used,
      hour: this.#hour.sum(now),
      day: this.#day.sum(now),
      since,
    }
  }
}

/** A sum over the last `ms`, kept in buckets. It covers at least that time, and at most one bucket more. */
class Span {
  readonly #bucketMs: number
  readonly #buckets: number[]
  /** The number of the newest bucket that was used. */
  #newest = 0

  readonly #calendar: Calendar | undefined

  /** `kept` is how many buckets before the current one count. With a calendar, each of its windows is one bucket. */
  constructor(ms: number, buckets: number, kept = buckets, calendar?: Calendar) {
    this.#bucketMs = ms / buckets
    this.#calendar = calendar
    this.#buckets = Array.from({ length: kept + 1 }, () => 0)
  }

  add(units: number, at: number): void {
    this.#goOn(at)
    this.#buckets[this.#newest % this.#buckets.length]! += units
  }

  sum(at: number): number {
    this.#goOn(at)
    let sum = 0
    for (const units of this.#buckets) sum += units
    return sum
  }

  /** Empties the buckets that are too old at `at`. If the clock was set back, the newest bucket stays the current one. */
  #goOn(at: number): void {
    const bucket = this.#calendar?.indexOf(at) ?? Math.floor(at / this.#bucketMs)
    if (bucket <= this.#newest) return
    const { length } = this.#buckets
    for (let i = Math.max(this.#newest + 1, bucket - length + 1); i <= bucket; i++) this.#buckets[i % length] = 0
    this.#newest = bucket
  }
}
