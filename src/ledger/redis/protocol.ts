import { BUCKETS, type Limit, SLOTS } from '../limit.ts'
import { GROWTH, LONGEST_GROWTH_MS } from '../adaptive-limit.ts'
import { Counter, type Others, type Release, withOthers } from '../counter.ts'
import { type Demand, type PeerDemand, PRIORITIES } from '../demand.ts'
import type { ChargeSet, LimitUsage, Turn } from '../ledger.ts'
import { Schedule } from '../schedule.ts'
import type { Calendar } from '../../time/calendar.ts'
import { type Argument, type Batch, micros } from './outbox.ts'

export type { Argument } from './outbox.ts'
/** The numbers that the script replies, as charge/arguments.lua describes them. */
export type Reply = ArrayLike<number>

/** Runs the ledger's scripts. Redis, and in the simulations a model of it. */
export interface ScriptRunner {
  /** Runs the script that charges. Rejects if no answer can come any more; whether it ran is unknown then. Never sends it twice. */
  run(keys: readonly string[], args: readonly Argument[]): Promise<Reply>
  /** The same for demand-exchange.lua. */
  runExchange(keys: readonly string[], args: readonly Argument[]): Promise<string>
  /** Calls `listener` whenever a connection was lost, and with it perhaps the last writes. Without `isConcerned`: of every key. */
  onLost(listener: (isConcerned?: (key: string) => boolean) => void): void
  /** Calls `listener` whenever there is a connection again, with whether the same server answers, which has lost nothing. */
  onFound?(listener: (isSame: boolean) => void): void
  /** The same for partition-register.lua. */
  runRegister(keys: readonly string[], args: readonly Argument[]): Promise<readonly Argument[]>
  /** The same for format-lease.lua. Without this, all gateways are taken to have one format. */
  claimFormat?(key: string, args: readonly Argument[]): Promise<readonly number[]>
  /** Why there is no connection, as long as there is none, if that is known. */
  readonly trouble?: Error | undefined
  /** Calls `listener` whenever it becomes known. */
  onTrouble?(listener: () => void): void
  /** Sends something on every connection, so that none of them is idle. */
  keepAlive?(): void
  readonly isConnected: boolean
  close(): void
}

/** What a call of the script is to do for one charge set: the arguments that charge/arguments.lua describes, by name. */
export interface ScriptCall {
  readonly gateway: string
  readonly expected: number
  readonly time: Argument
  /** Redis's time in milliseconds, as far as the gateway knows it. */
  readonly about: number
  readonly wanted: number
  /** Changes to calls of the charge set, and of other charge sets of its partition. */
  readonly batches: readonly Batch[]
  /** For each: the number of a limit (from 1), bucket, units. */
  readonly additions: readonly Argument[][]
  readonly termMs: number
  readonly isClaim: boolean
  readonly leases: readonly number[]
  readonly turn?: Turn | undefined
}

/** A limit that is not enforced allows so many units: more than a counter can hold. */
const ANY_NUMBER = 2 ** 40
/** The same of a limit of money. The script computes exactly up to twice that. */
const ANY_AMOUNT = 2 ** 52
const KINDS = { rolling: 0, calendar: 1, concurrent: 2, smoothing: 3 } as const satisfies Record<Limit['kind'], number>
/** A limit whose windows have begins of their own. */
const DATED = 4
/** The lease of a gateway that has ended lasts so long, by which the script tells it from one that is overdue. */
export const FAREWELL_MS = 1

/** The first arguments of the script, in their order. */
type Scalars = Record<(typeof SCALARS)[number], Argument>
const SCALARS = [
  'expected',
  'time',
  'wanted',
  'chargeSets',
  'additions',
  'term',
  'mode',
  'limits',
  'pauseField',
  'gateway',
] as const
/** How many arguments there are for each limit, and numbers of it in a reply. */
const FIELDS = 5

/** What the script and this program must agree on. */
const CONSTANTS: Readonly<Record<string, Argument>> = {
  SLOTS,
  BUCKETS,
  ROLLING: `'${KINDS.rolling}'`,
  CALENDAR: `'${KINDS.calendar}'`,
  DATED: `'${DATED}'`,
  CONCURRENT: `'${KINDS.concurrent}'`,
  SMOOTHING: `'${KINDS.smoothing}'`,
  SCALARS: SCALARS.length,
  FIELDS,
  FAREWELL_MS,
  LONGEST_GROWTH: LONGEST_GROWTH_MS * 1_000,
  ...GROWTH,
}

/**
 * The text of the script for Redis. The first arguments get their names, and the shared constants stand as literals where they are
 * used: as variables they would cost every call of the script a microsecond.
 */
export function linkScript(parts: string): string {
  const names = SCALARS.map((_, i) => `ARGV[${i + 1}]`).join(', ')
  const linked = parts.replaceAll(/\b[A-Z][A-Z_]+\b/g, (name) => `${CONSTANTS[name] ?? name}`)
  return `local ${SCALARS.join(', ')} = ${names}\n${linked}`
}

export function argumentsOf(chargeSet: ChargeSet, call: ScriptCall): Argument[] {
  const { limits, told } = limitsOf(chargeSet, call.batches, call.about)
  const others = call.batches.filter((batch) => batch.chargeSet !== chargeSet)
  const scalars: Scalars = {
    expected: call.expected,
    time: call.time,
    wanted: call.wanted,
    chargeSets: others.length + 1,
    additions: call.additions.length,
    term: call.termMs,
    mode: call.turn === undefined ? Number(call.isClaim) : 2,
    limits: limits.length,
    pauseField: pauseFieldOf(chargeSet),
    gateway: call.gateway,
  }
  const args = SCALARS.map((name) => scalars[name])
  for (const { id } of limits) args.push(id)
  for (const argument of told) args.push(argument)
  for (const batch of others) pushChargeSet(args, limits, batch.chargeSet, batch.changes())
  const own = call.batches.find((batch) => batch.chargeSet === chargeSet)
  pushChargeSet(args, limits, chargeSet, own?.changes() ?? [])
  for (const addition of call.additions) args.push(...addition)
  for (const lease of call.leases) args.push(lease)
  if (call.turn !== undefined) pushTurn(args, call.turn)
  return args
}

/** All calls of one client cost the same, so each client is listed once. */
function pushTurn(args: Argument[], { costs }: Turn): void {
  const numbers = new Map<string, number>()
  const clients: Argument[] = []
  let order = ''
  for (const [client, cost] of costs) {
    let number = numbers.get(client)
    if (number === undefined) {
      numbers.set(client, (number = numbers.size + 1))
      clients.push(client, cost)
    }
    order += `${number} `
  }
  args.push(order, ...clients)
}

/** The field in which the script notes until when the charge set's account is paused. */
export function pauseFieldOf({ account, partition }: ChargeSet): string {
  return account === partition ? '=pause' : `=pause ${account}`
}

function pushChargeSet(
  args: Argument[],
  limits: readonly Limit[],
  chargeSet: ChargeSet,
  changes: readonly Argument[][],
): void {
  for (let i = 0; i < limits.length; i++) {
    const own = limits === chargeSet.limits ? i : chargeSet.limits.findIndex(({ id }) => id === limits[i]!.id)
    args.push(chargeSet.units[own] ?? 0)
  }
  args.push(changes.length)
  for (const change of changes) args.push(...change)
}

interface Limits {
  readonly limits: readonly Limit[]
  readonly told: readonly Argument[]
  /** From and until when that is true: dated windows are told about the current one. */
  readonly from: number
  readonly until: number
}

const ofChargeSets = new WeakMap<ChargeSet, Limits>()

/** The limits of the charge set, then those that only the batches concern. */
function limitsOf(chargeSet: ChargeSet, batches: readonly Batch[], at: number): Limits {
  let own = ofChargeSets.get(chargeSet)
  if (own === undefined || at < own.from || at >= own.until)
    ofChargeSets.set(chargeSet, (own = toldAt(chargeSet.limits, at)))
  const others = new Map<string, Limit>()
  for (const { chargeSet: other } of batches)
    if (other !== chargeSet) for (const limit of other.limits) others.set(limit.id, limit)
  for (const { id } of chargeSet.limits) others.delete(id)
  if (others.size === 0) return own
  const more = [...others.values()]
  return { ...own, limits: [...own.limits, ...more], told: [...own.told, ...toldAt(more, at).told] }
}

function toldAt(limits: readonly Limit[], at: number): Limits {
  let [from, until] = [-Infinity, Infinity]
  for (const { calendar } of limits) {
    if (calendar === undefined) continue
    const current = calendar.indexOf(at)
    from = Math.max(from, calendar.startOf(current))
    until = Math.min(until, calendar.startOf(current + 1))
  }
  return { limits, told: limits.flatMap((limit) => tell(limit, at)), from, until }
}

function tell({ kind, requests, unit, isEnforced, bucketMs, calendar, ...limit }: Limit, at: number): Argument[] {
  const { inFlightLeaseMs, countingToleranceMs } = limit
  const code = calendar === undefined ? KINDS[kind] : DATED
  return [
    unit === undefined ? code : `${code}w`,
    isEnforced ? requests : unit === undefined ? ANY_NUMBER : ANY_AMOUNT,
    calendar === undefined ? bucketMs * 1_000 : datesOf(calendar, calendar.indexOf(at)),
    inFlightLeaseMs * 1_000,
    countingToleranceMs * 1_000,
  ]
}

/** The number of the window before the current one, when it begins, and when the four windows after it begin. */
function datesOf(calendar: Calendar, current: number): string {
  const starts = [-1, 0, 1, 2, 3].map((n) => micros(calendar.startOf(current + n)))
  return [current - 1, ...starts].join(' ')
}

/** How many numbers of a reply come before those of the first limit. */
const FIRST = 4

/**
 * Reads the numbers of a reply. Throws if it is malformed: what a broken line made of it would otherwise be taken for a quota, or for
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

export function usageOf(chargeSet: ChargeSet, reply: Reply, adaptive: AdaptiveLimits | undefined): LimitUsage[] {
  return chargeSet.limits.map((limit, i) => ({
    limit,
    used: reply[FIRST + i * FIELDS]!,
    resetMs: reply[FIRST + i * FIELDS + 1]! / 1_000,
    effective: adaptive?.limits.get(i)?.effective,
  }))
}

/** What the upstream's answers have changed. */
export interface AdaptiveLimits {
  /** The upstream wants no calls of the account for so many milliseconds. */
  readonly pauseMs: number | undefined
  /** By the number of the limit: units that may be used, and units of which it is not known whether others use them. */
  readonly limits: ReadonlyMap<number, { readonly effective: number; readonly others: Others | undefined }>
}

/** Where in a reply the part begins that comes after the limits and, if it has these, their charges. */
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

/** When more will be free, by a reply that granted less than was wanted. Leases come back `leasedMs` from now. */
export function scheduleOf(
  chargeSet: ChargeSet,
  reply: Reply,
  { now, leasedMs, adaptive }: { now: number; leasedMs: number; adaptive: AdaptiveLimits | undefined },
): Schedule {
  let list = FIRST + FIELDS * reply[3]!
  return new Schedule(
    now,
    chargeSet.limits.map((limit, i) => {
      const others = reply[FIRST + i * FIELDS + 4]!
      const free = reply[FIRST + i * FIELDS + 2]! - others
      const leased = others > 0 ? [{ inMs: leasedMs, units: others }] : []
      const own = releasesOf(limit, reply, i, list)
      const releases = [...leased, ...withOthers(own, adaptive?.limits.get(i)?.others, chargeSet.units[i]! - free)]
      list += 1 + reply[list]!
      return { limit, units: chargeSet.units[i]!, free, releases }
    }),
    adaptive?.pauseMs === undefined ? 0 : now + adaptive.pauseMs,
  )
}

/** What a counter would say. The charges of rolling windows begin at `list` in the reply. */
function releasesOf(limit: Limit, reply: Reply, i: number, list: number): Release[] {
  const time = reply[0]! / 1_000
  const counter = new Counter(limit)
  if (limit.kind === 'calendar' || limit.kind === 'concurrent')
    counter.restore(time, counter.bucketOf(time), reply[FIRST + i * FIELDS]!)
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

/** More calls than any gateway has waiting of one client. */
const MOST_CALLS = 1e6

/** Throws if the reply is malformed: whose turn it is must never be computed from that. */
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
