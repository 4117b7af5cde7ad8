import { type CalendarSpec, calendarOf } from '../../time/calendar.ts'
import type { Demand } from '../demand.ts'
import type { ChargeSet, Grant, LimitUsage, QueueTurn, UpstreamFeedback } from '../ledger.ts'
import { type Limit, limitOf, type LimitSpec, orderHeard } from '../limit.ts'
import { Schedule } from '../schedule.ts'
import type { Heard } from './demand-exchange.ts'

/**
 * What a worker tells the first process. All of one turn of its event loop is one message. Limits, charge sets and charges have
 * numbers that the worker chooses, and uses again when it has said that the earlier one is over.
 */
export type Told =
  | readonly ['begin']
  | readonly ['limit', number: number, limit: ToldLimit]
  | readonly ['set', number: number, ...set: ToldChargeSet]
  | readonly ['forget', what: 'limit' | 'set', number: number]
  | readonly ['charge', slot: number, set: number, wanted: number, turn?: QueueTurn]
  | readonly ['commit' | 'abandon', slot: number, isRest: boolean, units?: readonly number[]]
  | readonly ['refund' | 'leave', slot: number, isRest: boolean]
  | readonly ['feedback', set: number, chargedAt: number, feedback: UpstreamFeedback]
  | readonly ['exchange', slot: number, partition: string, queue: string, demands: readonly Demand[]]

/** What the first process tells a worker. */
export type Answer =
  | readonly ['granted', slot: number, grant: ToldGrant]
  | readonly ['unavailable', slot: number, why: string]
  | readonly ['heard', slot: number, heard: Heard]
  | readonly ['paused', account: string, ms: number]
  | readonly ['state', state: State]

/** Whether the store can be used. */
export interface State {
  readonly isReady: boolean
  readonly isDegraded: boolean
  readonly problem: string | null
}

type ToldLimit = Omit<LimitSpec, 'calendar'> & Pick<Limit, 'order'> & { readonly calendar?: CalendarSpec }
type ToldChargeSet = [partition: string, account: string, limits: readonly number[], units: readonly number[]]

/** What is not told is computed anew; some of it is infinite, which JSON can not say. */
export function toldLimit(limit: Limit): ToldLimit {
  const { bucketMs: _, kept: _1, renewMs: _2, growthMs: _3, inFlightLeaseMs: _4, calendar, ...told } = limit
  if (calendar === undefined) return told
  const { unit, timezone, anchor } = calendar
  return { ...told, calendar: { unit, timezone, anchor } }
}

export function limitOfTold({ calendar, order, ...spec }: ToldLimit): Limit {
  return limitOf({ ...spec, calendar: calendar && calendarOf(calendar), order: orderHeard(order) })
}

/** The limits of a grant's charge set are told by their places in it. */
export interface ToldGrant {
  readonly granted: number
  readonly at: number
  /** For each limit: units used, milliseconds until the oldest leaves, units that may be used, or null. */
  readonly usage: readonly (number | null)[]
  readonly turns?: number
  readonly schedule?: ToldSchedule
}

interface ToldSchedule {
  readonly pauseMs: number
  /** For each that is enforced: its place, what is free, and for each release when, how much, and whether it is in flight. */
  readonly limits: readonly (readonly [place: number, free: number, releases: readonly (number | null)[]])[]
}

export function toldGrant({ chargeSet, granted, at, usage, schedule }: Grant, turns?: number): ToldGrant {
  return {
    granted,
    at,
    usage: usage.flatMap(({ used, resetMs, effective }) => [used, resetMs, effective ?? null]),
    ...(turns === undefined ? {} : { turns }),
    ...(schedule === undefined ? {} : { schedule: toldSchedule(schedule, chargeSet) }),
  }
}

function toldSchedule({ limits, notBefore, takenAt }: Schedule, chargeSet: ChargeSet): ToldSchedule {
  return {
    pauseMs: Math.max(0, notBefore - takenAt),
    limits: limits.map(({ limit, free, releases }) => [
      chargeSet.limits.findIndex(({ id }) => id === limit.id),
      free,
      // Microseconds suffice. One that is late by less than one makes no call ask too soon.
      releases.flatMap(({ inMs, units, isInFlight }) => [Math.ceil(inMs * 1_000) / 1_000, units, isInFlight ? 1 : 0]),
    ]),
  }
}

export function usageOfTold({ usage }: ToldGrant, { limits }: ChargeSet): LimitUsage[] {
  return limits.map((limit, i) => ({
    limit,
    used: usage[3 * i]!,
    resetMs: usage[3 * i + 1]!,
    effective: usage[3 * i + 2] ?? undefined,
  }))
}

/** `now` is by the clock of the worker, to which the schedule relates. */
export function scheduleOfTold(told: ToldSchedule, { limits, units }: ChargeSet, now: number): Schedule {
  const all = told.limits.map(([place, free, numbers]) => {
    const releases = []
    for (let i = 0; i < numbers.length; i += 3) {
      // JSON has no infinity.
      releases.push({ inMs: numbers[i] ?? Infinity, units: numbers[i + 1]!, isInFlight: numbers[i + 2] === 1 })
    }
    return { limit: limits[place]!, units: units[place]!, free, releases }
  })
  return new Schedule(now, all, told.pauseMs > 0 ? now + told.pauseMs : 0)
}
