/** The windows that follow the calendar of a time zone. They end when the local clock says so, however long they are then. */
export const CALENDAR_UNITS = ['month', 'week', 'day', 'hour'] as const
export type CalendarUnit = (typeof CALENDAR_UNITS)[number]

export const WEEKDAYS = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'] as const

export interface CalendarSpec {
  readonly unit: CalendarUnit
  /** A name of the IANA database. Default: UTC. */
  readonly timezone?: string | undefined
  /** Where a window begins. Month: a day of it (default 1). Week: one of `WEEKDAYS` (default monday). Day: an hour (default 0). */
  readonly anchor?: number | string | undefined
}

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const USUAL_MS = { month: 31 * DAY_MS, week: 7 * DAY_MS, day: DAY_MS, hour: HOUR_MS } as const
/** The first Monday of 1970, in days since the year began. It began on a Thursday. */
const FIRST_MONDAY = 4
/** How many starts of windows are cached. */
const STARTS_KEPT = 64

/**
 * Windows that follow each other without a gap, numbered in the order of time. Times are milliseconds since 1970.
 *
 * A day begins at the first instant whose local time is the anchor's hour or later. So it may have 23 or 25 hours, or another
 * number, where the clock is changed. A day that a zone leaves out is a window of no length. A month without the anchor's day begins
 * on its last day. An hour begins whenever the local clock passes a full hour, but at most once within an hour of UTC. So the hour
 * that is repeated in autumn is a window of its own. The rules of zones are those of the runtime (`process.versions.tz`).
 *
 * Each start is computed once and cached: within a window, and near its ends, no call computes a date.
 */
export class Calendar {
  readonly unit: CalendarUnit
  readonly timezone: string
  /** The usual length of a window, in milliseconds. For a month it is that of the longest. */
  readonly windowMs: number
  /** No window is longer than this. Zones change their clocks by three hours at most. */
  readonly longestMs: number
  readonly anchor: number
  readonly #starts = new Map<number, number>()
  /** The window that was asked for last. */
  #index = 0
  #start = Infinity
  #end = -Infinity

  /** Throws a RangeError for an unknown time zone. */
  constructor({ unit, timezone = 'UTC', anchor }: CalendarSpec) {
    this.unit = unit
    this.timezone = zoneOf(timezone)
    this.windowMs = USUAL_MS[unit]
    this.longestMs = this.windowMs + (unit === 'hour' ? HOUR_MS : 4 * HOUR_MS)
    this.anchor = typeof anchor === 'string' ? WEEKDAYS.indexOf(anchor as never) : (anchor ?? Number(unit === 'month'))
  }

  /** The number of the window in which an instant lies. Infinity and NaN are returned as they are. */
  indexOf(time: number): number {
    if (time >= this.#start && time < this.#end) return this.#index
    if (!Number.isFinite(time)) return time
    const isNear = Math.abs(time - this.#start) < 3 * this.windowMs
    let index = isNear ? this.#index : this.#guess(time)
    while (time >= this.startOf(index + 1)) index++
    while (time < this.startOf(index)) index--
    this.#index = index
    this.#start = this.startOf(index)
    this.#end = this.startOf(index + 1)
    return index
  }

  /** When a window begins, which is when the one before it ends. */
  startOf(index: number): number {
    let start = this.#starts.get(index)
    if (start === undefined) {
      if (this.#starts.size >= STARTS_KEPT) this.#starts.clear()
      this.#starts.set(index, (start = this.#compute(index)))
    }
    return start
  }

  /**
   * The number of the window that begins about `start`. A start that was noted earlier, or by another clock, may be a little off:
   * the rules of the zone may have changed since, or the clocks may differ.
   */
  nearest(start: number): number {
    return this.indexOf(start + this.windowMs / 2)
  }

  /** The true length, in milliseconds, of the window that ends about `end`. */
  lengthBefore(end: number): number {
    const next = this.nearest(end)
    return this.startOf(next) - this.startOf(next - 1)
  }

  /** The end of the window in which an instant lies, as text for people: `2026-12-01T00:00+01:00`. */
  endText(time: number): string {
    const end = Temporal.Instant.fromEpochMilliseconds(this.startOf(this.indexOf(time) + 1))
    return end.toString({ timeZone: this.timezone, smallestUnit: 'minute' })
  }

  /** The number of the window in which an instant lies, or that of a window next to it. */
  #guess(time: number): number {
    if (this.unit === 'hour') return Math.floor(time / HOUR_MS)
    const { year, month, day } = Temporal.Instant.fromEpochMilliseconds(Math.floor(time)).toZonedDateTimeISO(
      this.timezone,
    )
    if (this.unit === 'month') return 12 * year + month - 1
    const days = Math.floor(Date.UTC(year, month - 1, day) / DAY_MS)
    return this.unit === 'day' ? days : Math.floor((days - FIRST_MONDAY - this.anchor) / 7)
  }

  #compute(index: number): number {
    switch (this.unit) {
      case 'month': {
        const year = Math.floor(index / 12)
        const date = { year, month: index - 12 * year + 1, day: this.anchor }
        return this.#instantOf(Temporal.PlainDate.from(date, { overflow: 'constrain' }), 0)
      }
      case 'week':
        return this.#instantOf(dateOf(FIRST_MONDAY + this.anchor + 7 * index), 0)
      case 'day':
        return this.#instantOf(dateOf(index), this.anchor)
      case 'hour':
        return this.#hourWithin(index)
    }
  }

  /** The first instant at which the local clock shows that hour of a day, or a later time. */
  #instantOf(date: Temporal.PlainDate, hour: number): number {
    if (hour === 0) return date.toZonedDateTime(this.timezone).epochMilliseconds
    const time = date.toPlainDateTime({ hour })
    const before = time.toZonedDateTime(this.timezone, { disambiguation: 'earlier' })
    // If the clock is put forward over that hour, the day begins at that change.
    const isLeftOut = !before.toPlainDateTime().equals(time)
    return ((isLeftOut ? before.getTimeZoneTransition('next') : undefined) ?? before).epochMilliseconds
  }

  /** When the local clock first passes a full hour in this hour of UTC, or after it. The two differ by minutes in some zones. */
  #hourWithin(index: number): number {
    for (let hour = index; ; hour++) {
      const last = Temporal.Instant.fromEpochMilliseconds((hour + 1) * HOUR_MS - 1).toZonedDateTimeISO(this.timezone)
      for (const time of [last.getTimeZoneTransition('previous')?.subtract({ milliseconds: 1 }), last]) {
        const full = time?.round({ smallestUnit: 'hour', roundingMode: 'floor' }).epochMilliseconds ?? -Infinity
        if (full >= hour * HOUR_MS) return full
      }
    }
  }
}

function dateOf(days: number): Temporal.PlainDate {
  return Temporal.PlainDate.from('1970-01-01').add({ days })
}

/**
 * The name of a time zone in its usual spelling. Throws a RangeError for an unknown name, and for a bare offset such as `+01:00`,
 * which has no rules.
 */
function zoneOf(name: string): string {
  if (!/^[A-Za-z]/.test(name)) throw new RangeError(`not a name of a time zone: ${name}`)
  return new Temporal.ZonedDateTime(0n, name).timeZoneId
}

/** Whether a text is the name of a time zone in its usual spelling. `europe/berlin` would be another limit than `Europe/Berlin`. */
export function isTimeZone(name: string): boolean {
  try {
    return zoneOf(name) === name
  } catch {
    return false
  }
}

const CALENDARS = new Map<string, Calendar>()

/** The calendar of these windows. Limits with the same windows share it and its cache. Throws a RangeError for an unknown time zone. */
export function calendarOf(spec: CalendarSpec): Calendar {
  const { unit, timezone = 'UTC', anchor = '' } = spec
  return CALENDARS.getOrInsertComputed(`${unit} ${timezone} ${anchor}`, () => new Calendar(spec))
}
