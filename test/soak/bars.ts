import { type CallRecord, isAnswered, partOf } from './records.ts'
import type { Sky } from './weather.ts'

/** The least part of calls that must be answered, and the most that may end otherwise, by what they meet. */
interface Bar {
  readonly answered: number
  /** Ends that are not named have `OTHERS`. */
  readonly most: Readonly<Record<string, number>>
}

/** What a fault in the middle of an answer leaves, or one of a call that can't be retried. */
const BROKEN = { 'broken off': 0.15, closed: 0.06, interrupted: 0.12, timeout: 0.15, unreachable: 0.02 }
const BARS: Readonly<Record<Sky, Bar>> = {
  quiet: { answered: 0.99, most: {} },
  upstream: { answered: 0.85, most: BROKEN },
  // Of a window that is longer than the outage, what others could have is missing.
  store: { answered: 0.85, most: { quota_exhausted: 0.15 } },
  both: { answered: 0.75, most: { ...BROKEN, quota_exhausted: 0.25 } },
  // It is not the gateway's fault, whose calls time out together when it goes on.
  still: { answered: 0.75, most: { ...BROKEN, quota_exhausted: 0.25, breaker_open: 0.25 } },
  // Nobody listens for half of that time.
  away: { answered: 0.25, most: { interrupted: 0.4, breaker_open: 0.75 } },
}
const OTHERS = 0.01
/** Of one quiet stretch, or one kind of call. */
const QUIET_PART = 0.95
/** Whatever fails, as long as somebody listens: in any so many milliseconds some are answered. */
const SPAN_MS = 5_000
const SPAN_PART = 0.1
/** Of fewer calls no part is judged: one more or less would decide. */
export const FEW = 20

/** Where calls were not answered as well as they could have been; empty if nowhere. */
export function shortcomingsOf(records: readonly CallRecord[]): string[] {
  const calls = records.filter(({ kind }) => kind !== 'left')
  const found: string[] = []
  const atLeast = (least: number, what: string, some: readonly CallRecord[]): void => {
    const part = partOf(some, isAnswered)
    if (some.length >= FEW && part < least) found.push(`of ${some.length} calls ${what} ${percent(part)} were answered`)
  }
  for (const [sky, some] of Map.groupBy(calls, (record) => record.sky)) {
    const { answered, most } = BARS[sky]
    atLeast(answered, `under ${sky}`, some)
    for (const [end, ended] of Map.groupBy(some, (record) => record.end)) {
      const part = ended.length / some.length
      if (end === 'answered' || some.length < FEW || ended.length === 1 || part <= (most[end] ?? OTHERS)) continue
      found.push(`of ${some.length} calls under ${sky} ${percent(part)} ended as ${end}`)
    }
  }
  const quiet = calls.filter(({ sky }) => sky === 'quiet')
  for (const [stretch, some] of Map.groupBy(quiet, (record) => record.stretch))
    atLeast(QUIET_PART, `in quiet stretch ${stretch}`, some)
  for (const [kind, some] of Map.groupBy(quiet, (record) => record.kind))
    atLeast(QUIET_PART, `of kind ${kind} in quiet`, some)
  const heard = calls.filter(({ sky }) => sky !== 'away')
  for (const [span, some] of Map.groupBy(heard, ({ began }) => Math.floor(began / SPAN_MS)))
    atLeast(SPAN_PART, `begun from second ${(span * SPAN_MS) / 1_000} on`, some)
  return found
}

function percent(part: number): string {
  return `${(100 * part).toFixed(1)} %`
}
