import type { LimitConfig } from '../schema/schema.ts'
import { CALENDAR_UNITS, type CalendarUnit, isTimeZone, WEEKDAYS } from '../time/calendar.ts'
import { didYouMean, type Path, type Report } from './problem.ts'

type Windowed = Pick<LimitConfig, 'window' | 'timezone' | 'anchor' | 'kind'>

/** Finds a time zone, an anchor or a kind that the window of a limit or a budget can't have. */
export function checkWindow(at: Path, { window, timezone, anchor, kind }: Windowed, report: Report): void {
  if (typeof window === 'number') {
    const remedy = `belongs to a window of the calendar: write window: ${unitFor(window)}`
    if (timezone !== undefined) report([...at, 'timezone'], remedy)
    if (anchor !== undefined) report([...at, 'anchor'], remedy)
    return
  }
  if (window === undefined) return
  if (kind === 'rolling') {
    report(
      [...at, 'kind'],
      `a ${window} has no length of its own, so it can not be rolling: write a duration such as 24h`,
    )
  }
  if (timezone !== undefined && !isTimeZone(timezone)) {
    const hint = didYouMean(timezone, Intl.supportedValuesOf('timeZone')) || ', such as Europe/Berlin or UTC'
    report([...at, 'timezone'], `is no time zone of the IANA database${hint}`)
  }
  const expected = anchor === undefined ? undefined : expectedAnchor(window, anchor)
  if (expected !== undefined) report([...at, 'anchor'], expected)
}

/** The unit of the calendar that is as long as a duration; all units if none is. */
function unitFor(ms: number): string {
  return ms === 3_600_000 ? 'hour' : ms === 86_400_000 ? 'day' : CALENDAR_UNITS.join(', ')
}

/** A message that says what the anchor has to be; undefined if the anchor is right. */
function expectedAnchor(window: CalendarUnit, anchor: number | string): string | undefined {
  const isFrom = (least: number, most: number): boolean =>
    typeof anchor === 'number' && anchor >= least && anchor <= most
  switch (window) {
    case 'month':
      return isFrom(1, 31) ? undefined : 'with window: month it is the day of the month: a number from 1 to 31'
    case 'week':
      return typeof anchor === 'string'
        ? undefined
        : `with window: week it is the first day: one of ${WEEKDAYS.join(', ')}`
    case 'day':
      return isFrom(0, 23) ? undefined : 'with window: day it is the hour: a number from 0 to 23'
    case 'hour':
      return 'with window: hour there is none, because it begins when the clock shows a full hour: leave it out'
  }
}
