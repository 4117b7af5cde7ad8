import { type Calendar, type CalendarSpec, calendarOf } from '../time/calendar.ts'
import { LONGEST_GROWTH_MS } from './adaptive-limit.ts'

/** What a limit counts, as a configuration or a preset states it. */
export interface LimitSpec {
  /**
   * Identifies the limit within its partition, such as `read.60000`. Two limits of a partition never have the same, and buckets of one
   * id always have the same length.
   */
  readonly id: string
  readonly class: string
  /** Units allowed in a window; for `concurrent`, at once. */
  readonly requests: number
  /** Units that the vendor allows, if headroom leaves fewer in `requests`. */
  readonly published?: number
  /** Length of the window in milliseconds, of a `calendar` with one of its own the usual one; not for `concurrent`. */
  readonly windowMs?: number
  /**
   * `rolling`: in any window. `calendar`: in each window of the `calendar`, or in each that begins at a multiple of its length since
   * 1970, UTC.
   * `concurrent`: in flight at once, from dispatch to the end of the response. `smoothing`: in any window, but only the gateway
   * itself wants that, so calls count when they are sent, and never again.
   */
  readonly kind?: 'rolling' | 'calendar' | 'concurrent' | 'smoothing'
  /** Whose windows count, such as the months of a time zone. */
  readonly calendar?: Calendar | undefined
  /** How long after a call was given up (timeout, broken connection, dead gateway) the upstream may still count it. */
  readonly countingToleranceMs?: number
  /** False: counted and shown, but nothing is refused because of it. */
  readonly isEnforced?: boolean
  /**
   * When it is known what a call costs in the end: as it is charged, at the head of its response, or at the end of it. Until then the
   * charge is a reservation.
   */
  readonly settles?: 'at-once' | 'at-head' | 'at-end'
  /** What the vendor's answers call the units, if they are no requests: `tokens`. */
  readonly name?: string | undefined
  /** Whether calls are charged different amounts: what others were granted is then not known by the number of their calls. */
  readonly isVaried?: boolean
  /** How people tell it from other limits of its class, such as `60s`. */
  readonly label?: string
  /** The currency, such as `usd`, of a limit that counts money: its units are billionths of it. Otherwise undefined. */
  readonly unit?: string | undefined
  /** If two limits have one id, the one with the greater order holds. Default: greater than those of all limits that were made before. */
  readonly order?: number
}

/** A limit, and how it is counted. */
export interface Limit extends Required<Omit<LimitSpec, 'calendar' | 'name'>> {
  readonly calendar: Calendar | undefined
  readonly name?: string | undefined
  /** Charges are counted by buckets of this length. */
  readonly bucketMs: number
  /** How many buckets before the current one still count. */
  readonly kept: number
  /** How often the charge of a call that is in flight is renewed. */
  readonly renewMs: number
  /** The length of a step by which a limit grows back that the upstream made smaller; see `AdaptiveLimit`. */
  readonly growthMs: number
  /** A call in flight is charged as if it came this much later. So its charge outlives a gateway that dies. */
  readonly inFlightLeaseMs: number
}

/** Each name is made once, because the stories of all calls have it. */
const NAMES = new WeakMap<Limit, string>()

/** The name of a limit for people, as logs and metrics have it: `read 1m`. */
export function limitName(limit: Limit): string {
  let name = NAMES.get(limit)
  // Joined, so that V8 has it as one text: see `flatCopy` in src/schema.
  if (name === undefined) NAMES.set(limit, (name = [limit.class, limit.label].join(' ')))
  return name
}

/**
 * How many buckets a window is cut into. A charge leaves the count when its bucket is wholly out of the window. So one bucket more
 * than these is kept; with just these, more than the limit would be granted. A saturated account loses at most 1/BUCKETS of its
 * quota to that, and half of it on average.
 */
export const BUCKETS = 100
/** Slots for buckets: those of the window, and those ahead, to which calls in flight are charged. */
export const SLOTS = 256
/** A limit without a window charges a call in flight so many buckets ahead at most. The slots are enough for some more. */
const MOST_AHEAD = 200
const LEAST_CONCURRENT_BUCKET_MS = 150
const LONGEST_RENEWAL_MS = 5_000
const CONCURRENT_RENEWAL_MS = 1_000
const DEFAULT_COUNTING_TOLERANCE_MS = 1_000

/** The windows that a configuration states, by their length or by a calendar. */
export function windowOf(
  window: number | CalendarSpec['unit'],
  { timezone, anchor }: Omit<CalendarSpec, 'unit'>,
): Pick<LimitSpec, 'windowMs' | 'kind' | 'calendar'> {
  if (typeof window === 'number') return { windowMs: window }
  const calendar = calendarOf({ unit: window, timezone, anchor })
  return { kind: 'calendar', windowMs: calendar.windowMs, calendar }
}

/** No window of the limit is longer. */
export function longestWindowMs({ windowMs, calendar }: Limit): number {
  return calendar === undefined ? windowMs : calendar.longestMs
}

/** The true length of the window that ends about then, in milliseconds since 1970. */
export function windowLengthMs({ windowMs, calendar }: Limit, end: number): number {
  return calendar === undefined ? windowMs : calendar.lengthBefore(end)
}

/**
 * The length of a bucket of a `concurrent` limit. It is the same for every tolerance up to 28 s: buckets are numbered since 1970 by
 * their length, so with another length the same counter would forget the calls in flight, or stand still for years.
 */
export function concurrentBucketMs(countingToleranceMs: number): number {
  return Math.max(LEAST_CONCURRENT_BUCKET_MS, (2 * CONCURRENT_RENEWAL_MS + countingToleranceMs) / MOST_AHEAD)
}

/** What the id of a `concurrent` limit must end with, so that one id never has buckets of two lengths. */
export function concurrentSuffix(countingToleranceMs: number): string {
  const bucketMs = concurrentBucketMs(countingToleranceMs)
  return bucketMs === LEAST_CONCURRENT_BUCKET_MS ? '' : `:slots.${bucketMs}`
}

let made = 0

/** The order of what is made now, for limits that may be made later. */
export function nextOrder(): number {
  return made++
}

/** More orders than a process makes in one generation. */
const GENERATION = 2 ** 32

/** The orders of limits are greater from now on than those of every earlier generation, in whichever process. */
export function beginGeneration(generation: number): void {
  made = Math.max(made, generation * GENERATION)
}

/**
 * The order of a limit of another process. Within one generation, the limit that was heard of last holds: each process counts its orders by
 * itself, and they do not tell which of two hears first that a budget was changed.
 */
export function orderHeard(order: number): number {
  return order - (order % GENERATION) + nextOrder()
}

export function limitOf(spec: LimitSpec): Limit {
  const { kind = 'rolling', windowMs = 0, isEnforced = true, published = spec.requests, settles = 'at-once' } = spec
  const order = spec.order ?? nextOrder()
  if (kind === 'smoothing') return smoothingOf({ ...spec, published, isEnforced, windowMs, order })
  const renewMs = kind === 'concurrent' ? CONCURRENT_RENEWAL_MS : Math.min(windowMs / 4, LONGEST_RENEWAL_MS)
  const wanted = spec.countingToleranceMs ?? DEFAULT_COUNTING_TOLERANCE_MS
  // Calls in flight must fit into the buckets ahead. So the tolerance is at most one window.
  const countingToleranceMs = kind === 'concurrent' ? wanted : Math.min(wanted, windowMs)
  // Twice, because one renewal may be late.
  const inFlightLeaseMs = 2 * renewMs + countingToleranceMs
  const label = spec.label ?? (kind === 'concurrent' ? 'at once' : `${windowMs}ms`)
  const growthMs = Math.min(windowMs, LONGEST_GROWTH_MS)
  const counted = { isEnforced, countingToleranceMs, renewMs, inFlightLeaseMs, order }
  const common = {
    ...spec,
    calendar: spec.calendar,
    unit: spec.unit,
    published,
    growthMs,
    kind,
    windowMs,
    label,
    settles,
    isVaried: spec.isVaried ?? false,
    ...counted,
  }
  switch (kind) {
    case 'rolling':
      return { ...common, bucketMs: windowMs / BUCKETS, kept: BUCKETS }
    case 'calendar':
      // The window before the current one is still needed: a call near the border may be counted in either.
      return { ...common, bucketMs: windowMs, kept: 1 }
    case 'concurrent':
      return { ...common, bucketMs: concurrentBucketMs(countingToleranceMs), kept: 0 }
  }
}

/** The upstream does not count by this limit. So its charges need not outlast calls in flight, and are not renewed. */
function smoothingOf(spec: LimitSpec & Pick<Limit, 'published' | 'isEnforced' | 'windowMs' | 'order'>): Limit {
  const counted = {
    growthMs: spec.windowMs,
    countingToleranceMs: 0,
    renewMs: Infinity,
    inFlightLeaseMs: 0,
    bucketMs: spec.windowMs / BUCKETS,
    kept: BUCKETS,
  }
  return {
    ...spec,
    calendar: undefined,
    unit: undefined,
    kind: 'smoothing',
    label: 'pace',
    settles: 'at-once',
    isVaried: false,
    ...counted,
  }
}
