import type { Limit } from '../limit.ts'
import { Counter } from '../counter.ts'
import { type Demand, type PeerDemand, PRIORITIES } from '../demand.ts'
import type { ChargeSet, LimitUsage } from '../ledger.ts'
import { type Others, type Release, withOthers } from '../release.ts'
import { Schedule } from '../schedule.ts'
import type { PartitionShares } from '../shares.ts'
import { FIELDS, type Reply } from './protocol.ts'

/* What the scripts reply, as protocol.ts asks it. */

/** How many numbers of a reply come before those of the first limit. */
const FIRST = 4
/** How soon a waiting call asks again because its region may have got a larger share. */
const SHARE_POLL_MS = 500

/**
 * Reads the numbers of a reply. Throws if the reply is malformed: otherwise garbled bytes would be taken for a quota, or for
 * the length of a list that never ends.
 */
export function readReply(bytes: Buffer): Reply {
  const numbers: number[] = []
  for (let offset = 0; offset + 8 <= bytes.length; offset += 8) numbers.push(bytes.readDoubleBE(offset))
  const limits = numbers[2] === -1 ? 0 : numbers[3]!
  const isWhole =
    bytes.length % 8 === 0 && Number.isInteger(limits) && FIRST + FIELDS * limits <= Math.max(FIRST, numbers.length)
  if (!isWhole || !numbers.every((number) => Math.abs(number) <= Number.MAX_SAFE_INTEGER)) {
    throw new Error('the answer of Redis is garbled')
  }
  return numbers
}

export function usageOf(
  chargeSet: ChargeSet,
  reply: Reply,
  adaptive: AdaptiveLimits | undefined,
  shares: PartitionShares | undefined,
): LimitUsage[] {
  return chargeSet.limits.map((limit, i) => {
    const usage = {
      limit,
      used: reply[FIRST + i * FIELDS]!,
      resetMs: reply[FIRST + i * FIELDS + 1]! / 1_000,
      effective: adaptive?.limits.get(i)?.effective,
    }
    const share = shares?.unitsOf(limit)
    return share === undefined ? usage : { ...usage, share, stranded: shares!.strandedOf(limit) }
  })
}

/**
 * Adds `committed`, the units used and leased, by the reply to a charge of nothing. The reply tells leases of others only where
 * they do not fit beside what is used. Where they fit, `committed` lacks them, but used and leased units are no more than the
 * share. The script tells what is free of the share that it was `given`. The share may have ended since: with what is left of
 * it, less would seem to be used, and home would give the difference to another region.
 */
export function withCommitted(
  usage: readonly LimitUsage[],
  reply: Reply,
  given: readonly (number | undefined)[],
): LimitUsage[] {
  return usage.map((one, i) => {
    const at = FIRST + i * FIELDS
    const [free, lease, others] = [reply[at + 2]!, reply[at + 3]!, reply[at + 4]!]
    const share = given[i]
    return share === undefined ? one : { ...one, committed: share - free + Math.max(0, lease) + others }
  })
}

/** What the upstream's answers have changed. */
export interface AdaptiveLimits {
  /** The upstream wants no calls of the account for so many milliseconds. */
  readonly pauseMs: number | undefined
  /** By the number of the limit: units that may be used, and units of which it is not known whether others use them. */
  readonly limits: ReadonlyMap<number, { readonly effective: number; readonly others: Others | undefined }>
}

/** Where the last part of a reply begins: after the limits and, with `hasSchedule`, their charges. */
export function tailOf(reply: Reply, hasSchedule: boolean): number {
  let at = FIRST + FIELDS * reply[3]!
  if (hasSchedule) for (let i = 0; i < reply[3]!; i++) at += 1 + reply[at]!
  return at
}

/** Reads the adaptive limits of a reply, which begin at `at`; undefined if there are none. */
export function adaptiveLimitsOf(reply: Reply, at: number): AdaptiveLimits | undefined {
  if (at >= reply.length) return undefined
  let pauseMs: number | undefined
  const limits = new Map<number, { effective: number; others: Others | undefined }>()
  for (; at < reply.length; at += 5) {
    const [number, effective, units, lookIn, untilIn] = [0, 1, 2, 3, 4].map((n) => reply[at + n]!) as [...Five]
    const others = { units, lookInMs: lookIn / 1_000, untilInMs: untilIn / 1_000 }
    if (number === 0) pauseMs = effective
    else limits.set(number - 1, { effective, others: units > 0 ? others : undefined })
  }
  return { pauseMs, limits }
}

type Five = [number, number, number, number, number]

/** The gateway's lease of a limit; negative if it is as it was. */
export function leaseOf(reply: Reply, i: number): number {
  return reply[FIRST + i * FIELDS + 3]!
}

interface ScheduleOptions {
  readonly now: number
  readonly leasedMs: number
  readonly adaptive: AdaptiveLimits | undefined
  readonly shares: PartitionShares | undefined
}

/** When more will be free, by a reply that granted less than was wanted. Leases come back `leasedMs` from now. */
export function scheduleOf(
  chargeSet: ChargeSet,
  reply: Reply,
  { now, leasedMs, adaptive, shares }: ScheduleOptions,
): Schedule {
  let list = FIRST + FIELDS * reply[3]!
  return new Schedule(
    now,
    chargeSet.limits.map((limit, i) => {
      const others = reply[FIRST + i * FIELDS + 4]!
      const free = reply[FIRST + i * FIELDS + 2]! - others
      const leased = others > 0 ? [{ inMs: leasedMs, units: others }] : []
      const own = releasesOf(limit, reply, i, list)
      const elsewhere = limit.requests - (shares?.unitsOf(limit) ?? limit.requests)
      const later = withOthers(own, adaptive?.limits.get(i)?.others, chargeSet.units[i]! - free)
      if (elsewhere > 0) {
        later.push({ inMs: SHARE_POLL_MS, units: elsewhere })
        later.sort((a, b) => a.inMs - b.inMs)
      }
      const releases = [...leased, ...later]
      list += 1 + reply[list]!
      return { limit, units: chargeSet.units[i]!, free, releases }
    }),
    adaptive?.pauseMs === undefined ? 0 : now + adaptive.pauseMs,
  )
}

/** When more of a limit will be free, by a counter with the charges of the reply. The limit's list of charges begins at `list`. */
function releasesOf(limit: Limit, reply: Reply, i: number, list: number): Release[] {
  const time = reply[0]! / 1_000
  const counter = new Counter(limit)
  const [used, , free] = [0, 1, 2].map((n) => reply[FIRST + i * FIELDS + n]!) as [number, number, number]
  if (limit.kind === 'calendar' || limit.kind === 'concurrent') counter.restore(time, counter.bucketOf(time), used)
  // What the window before still holds back.
  if (limit.kind === 'calendar') counter.restore(time, counter.bucketOf(time) - 1, limit.requests - free)
  for (let n = list + 1; n < list + 1 + reply[list]!; n += 2) counter.restore(time, reply[n]!, reply[n + 1]!)
  return counter.releases(time)
}

/** The answer of demand-exchange.lua. */
interface ExchangeReply {
  readonly virtualService: Readonly<Record<string, number>>
  readonly turns: number
  /** An empty list comes as an empty object. */
  readonly others: readonly { readonly agoMs: number; readonly demands: readonly Demand[] }[]
}

/** No gateway has as many calls of one client waiting. */
const MOST_CALLS = 1e6

/**
 * Reads the answer of demand-exchange.lua. `at` is when it was asked for. Throws if the answer is malformed: whose turn it is
 * must never be computed from that.
 */
export function peerDemandOf(reply: string, at: number): PeerDemand {
  const { virtualService, turns, others } = JSON.parse(reply) as ExchangeReply
  const reports = Object.values(others)
  const sums = Object.entries(virtualService)
  const areDemands = reports.every(({ agoMs, demands }) => Number.isFinite(agoMs) && demands.every(isDemand))
  if (!areDemands || !isAmount(turns) || !sums.every(([, sum]) => isAmount(sum)))
    throw new TypeError('what gateways told is garbled')
  return {
    at,
    virtualService: new Map(sums),
    turns,
    others: reports.flatMap(({ agoMs, demands }) =>
      demands.map((demand) => ({ ...demand, waitedMs: demand.waitedMs + agoMs })),
    ),
  }
}

function isDemand({ client, weight, share, priority, calls, waitedMs, perSecond, isBlocked }: Demand): boolean {
  return (
    typeof client === 'string' &&
    isAmount(weight) &&
    weight > 0 &&
    isAmount(share) &&
    share <= 1 &&
    PRIORITIES.includes(priority) &&
    isAmount(calls) &&
    calls <= MOST_CALLS &&
    isAmount(waitedMs) &&
    isAmount(perSecond) &&
    (isBlocked === undefined || typeof isBlocked === 'boolean')
  )
}

function isAmount(value: number): boolean {
  return Number.isFinite(value) && value >= 0
}
