import { describe, expect, it } from 'vitest'
import { Calendar, CALENDAR_UNITS, type CalendarSpec, WEEKDAYS } from '../../src/time/calendar.ts'
import { seededRandom } from '../support/seeded-random.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** The local time of a zone as `Intl.DateTimeFormat` has it, in minutes since 1970 by that clock. */
function localMinutes(timezone: string): (time: number) => number {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: timezone,
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
  })
  return (time) => {
    const parts: Record<string, number> = {}
    for (const { type, value } of format.formatToParts(time)) parts[type] = Number(value)
    return Date.UTC(parts['year']!, parts['month']! - 1, parts['day'], parts['hour'], parts['minute']) / MINUTE
  }
}

/** The local minute at which the window begins in which that local minute lies. */
function localStart({ unit, anchor }: CalendarSpec, local: number): number {
  if (unit === 'hour') return local - (local % 60)
  const hour = unit === 'day' ? Number(anchor ?? 0) : 0
  const date = new Date((local - 60 * hour) * MINUTE)
  const midnight = Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()) / MINUTE
  if (unit === 'day') return midnight + 60 * hour
  if (unit === 'week') {
    const first = 1 + WEEKDAYS.indexOf((anchor ?? 'monday') as never)
    return midnight - ((date.getUTCDay() + 7 - first) % 7) * 24 * 60
  }
  const begin = (month: number): number => {
    const days = new Date(Date.UTC(date.getUTCFullYear(), month + 1, 0)).getUTCDate()
    return Date.UTC(date.getUTCFullYear(), month, Math.min(Number(anchor ?? 1), days)) / MINUTE
  }
  const ofThis = begin(date.getUTCMonth())
  return ofThis <= midnight ? ofThis : begin(date.getUTCMonth() - 1)
}

/** Begins of windows, found by looking at the clock on the wall every minute from `from` on. */
function scannedStarts(spec: CalendarSpec, from: number, locals: readonly number[]): number[] {
  const starts: number[] = []
  let furthest = localStart(spec, locals[0]!)
  for (let minute = 1; minute < locals.length; minute++) {
    const local = locals[minute]!
    const start = localStart(spec, local)
    // A full hour that the clock shows again is one more window. A day that it shows again for a while is not.
    const isFullHour = spec.unit === 'hour' && local % 60 === 0
    if (start > (spec.unit === 'hour' ? localStart(spec, locals[minute - 1]!) : furthest) || isFullHour)
      starts.push(from + minute * MINUTE)
    // Where the clock was put forward a minute after a full hour, that minute belongs to the hour that it showed then.
    const [before = -HOUR, last = 0] = starts.slice(-2)
    if (spec.unit === 'hour' && Math.floor(before / HOUR) === Math.floor(last / HOUR)) starts.pop()
    furthest = Math.max(furthest, start)
  }
  return starts
}

function computedStarts(calendar: Calendar, from: number, to: number): number[] {
  const starts: number[] = []
  for (let index = calendar.indexOf(from) + 1; calendar.startOf(index) < to; index++) {
    const start = calendar.startOf(index)
    if (start !== starts.at(-1)) starts.push(start) // a day that a zone leaves out has no length
  }
  return starts
}

/** A change of the clock in a zone, or some other time where it is never changed. */
function changeOf(timezone: string, after: number): number {
  const at = Temporal.Instant.fromEpochMilliseconds(after).toZonedDateTimeISO(timezone)
  return at.getTimeZoneTransition('next')?.epochMilliseconds ?? after
}

const STRANGE = [
  ['America/Sao_Paulo', '2018-10-20'], // midnight is left out
  ['Africa/Cairo', '2024-04-01'],
  ['Asia/Beirut', '2024-03-01'],
  ['America/Havana', '2026-03-01'],
  ['America/St_Johns', '2006-10-01'], // one minute after midnight, the day before begins again for an hour
  ['Australia/Lord_Howe', '2026-03-01'], // half an hour
  ['Pacific/Apia', '2011-12-01'], // a day is left out
  ['Antarctica/Casey', '2010-03-01'], // three hours
  ['Asia/Kathmandu', '2026-01-01'],
  ['Asia/Pyongyang', '2018-05-01'],
  ['Europe/Berlin', '2026-10-01'],
] as const

describe('windows of a calendar', () => {
  const random = seededRandom(15)
  const pick = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)]!
  const zones = Intl.supportedValuesOf('timeZone')
  const drawn = Array.from({ length: 20 }, () => [pick(zones), `${1975 + Math.floor(random() * 60)}-01-01`] as const)

  it.each([...STRANGE, ...drawn])(
    'of %s begin as the clock on the wall says, about the change after %s',
    (timezone, day) => {
      const change = changeOf(timezone, Date.parse(day))
      const from = Math.floor((change - 1.5 * DAY) / MINUTE) * MINUTE
      const to = from + 3 * DAY
      const localOf = localMinutes(timezone)
      const locals = Array.from({ length: (to - from) / MINUTE }, (_, minute) => localOf(from + minute * MINUTE))
      for (const unit of CALENDAR_UNITS) {
        const about = new Date(change).getUTCDate()
        const anchors = {
          month: [1, about, 31],
          week: [pick(WEEKDAYS), WEEKDAYS[(new Date(change).getUTCDay() + 6) % 7]],
          day: [0, 1, 2, 3, 23, pick([4, 6, 12, 18])],
          hour: [undefined],
        }[unit]
        for (const anchor of anchors) {
          const spec = { unit, timezone, anchor }
          const found = computedStarts(new Calendar(spec), from, to)
          expect({ ...spec, starts: found }).toEqual({ ...spec, starts: scannedStarts(spec, from, locals) })
        }
      }
    },
  )

  it('of the 31st begin on the last day of shorter months, and are as long as these', () => {
    const calendar = new Calendar({ unit: 'month', timezone: 'Europe/Berlin', anchor: 31 })
    const first = calendar.indexOf(Date.parse('2027-12-31T12:00Z'))
    const days = [0, 1, 2, 3, 4].map((n) => new Date(calendar.startOf(first + n) + 3 * HOUR).toISOString().slice(5, 10))
    expect(days).toEqual(['12-31', '01-31', '02-29', '03-31', '04-30'])
  })

  it.each([
    ['2026-03-29', 23],
    ['2026-10-25', 25],
    ['2026-06-01', 24],
  ])('of the day %s in Berlin are %i hours long, which is what clients are told', (day, hours) => {
    const calendar = new Calendar({ unit: 'day', timezone: 'Europe/Berlin' })
    const index = calendar.indexOf(Date.parse(`${day}T12:00+01:00`))
    const end = calendar.startOf(index + 1)
    expect((end - calendar.startOf(index)) / HOUR).toBe(hours)
    // By a clock that is off by a minute, too.
    for (const offMs of [-MINUTE, 0, MINUTE]) expect(calendar.lengthBefore(end + offMs) / HOUR).toBe(hours)
    expect(calendar.nearest(end + HOUR)).toBe(index + 1)
  })

  it('are asked of Temporal once, and not again by every call', () => {
    const calendar = new Calendar({ unit: 'month', timezone: 'Asia/Beirut' })
    const end = calendar.startOf(calendar.indexOf(Date.parse('2026-11-10')) + 1)
    const ask = (): number => calendar.indexOf(end - 1) + calendar.indexOf(end + 1) + calendar.lengthBefore(end)
    const sum = ask()
    const { Temporal: real } = globalThis
    Reflect.deleteProperty(globalThis, 'Temporal')
    try {
      expect(ask()).toBe(sum)
    } finally {
      globalThis.Temporal = real
    }
  })

  it.each(['Mars/Olympus', '+02:00', ''])('can not be those of the zone "%s"', (timezone) => {
    expect(() => new Calendar({ unit: 'day', timezone })).toThrow(RangeError)
  })
})
