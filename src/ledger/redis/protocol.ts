import { BUCKETS, type Limit, SLOTS } from '../limit.ts'
import { GROWTH, LONGEST_GROWTH_MS } from '../adaptive-limit.ts'
import type { ChargeSet, QueueTurn } from '../ledger.ts'
import type { Calendar } from '../../time/calendar.ts'
import type { PartitionShares } from '../shares.ts'
import { type Argument, type Batch, micros } from './outbox.ts'

export type { Argument } from './outbox.ts'
/** The numbers that the script replies, as charge/arguments.lua describes them. */
export type Reply = ArrayLike<number>

/** Runs the ledger's scripts. Redis, and in the simulations a model of it. */
export interface ScriptRunner {
  /** Runs the script that charges. Rejects if no answer can come any more; whether it ran is unknown then. Never sends it twice. */
  run(keys: readonly string[], args: readonly Argument[]): Promise<Reply>
  /** Runs demand-exchange.lua. Rejects as `run` does. */
  runExchange(keys: readonly string[], args: readonly Argument[]): Promise<string>
  /**
   * Calls `listener` whenever a connection was lost, and with it perhaps the last writes. `isConcerned` says whether that is so
   * of a key; without it, every key is concerned.
   */
  onLost(listener: (isConcerned?: (key: string) => boolean) => void): void
  /** Calls `listener` whenever there is a connection again. `isSame`: the same server answers, and has lost nothing. */
  onFound?(listener: (isSame: boolean) => void): void
  /** Runs partition-register.lua. Rejects as `run` does. */
  runRegister(keys: readonly string[], args: readonly Argument[]): Promise<readonly Argument[]>
  /** Runs format-lease.lua. Rejects as `run` does. Without this method, all gateways are taken to have one format. */
  claimFormat?(key: string, args: readonly Argument[]): Promise<readonly number[]>
  /** Why there is no connection; undefined while there is one, or if the cause is not known. */
  readonly trouble?: Error | undefined
  /** Calls `listener` whenever a cause of `trouble` becomes known. */
  onTrouble?(listener: () => void): void
  /** Sends something on each connection that may be idle otherwise. */
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
  /** Charges to add, each as the number of a limit (from 1), a bucket, and units. */
  readonly additions: readonly Argument[][]
  readonly termMs: number
  readonly isClaim: boolean
  readonly leases: readonly number[]
  readonly turn?: QueueTurn | undefined
  /** What of each limit may be used, where quotas are split over regions. */
  readonly shares?: PartitionShares | undefined
}

/**
 * A shadow limit allows so many units, by which the script knows that it must refuse nothing because of this limit. An enforced
 * limit can't allow as many, not even one of money in billionths. The script computes exactly up to twice this number.
 */
export const ANY = 2 ** 52
const KINDS = { rolling: 0, calendar: 1, concurrent: 2, smoothing: 3 } as const satisfies Record<Limit['kind'], number>
/** The kind of a limit whose windows begin at dates that the gateway tells. */
const DATED = 4
/** The lease of a gateway that has ended lasts so long. By this the script tells it from a lease that is overdue. */
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
/** How many arguments there are for each limit, besides its name, and how many numbers of it in a reply. */
export const FIELDS = 5

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
  ANY,
  MOST_TOLD: Number.MAX_SAFE_INTEGER,
  LONGEST_GROWTH: LONGEST_GROWTH_MS * 1_000,
  ...GROWTH,
}

/**
 * The text of the script for Redis. The first arguments get their names, and the shared constants stand as literals where they
 * are used: as variables they would slow every call of the script.
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
  if (call.shares !== undefined) allowShares(args, limits, call.shares)
  for (const batch of others) pushChargeSet(args, limits, batch.chargeSet, batch.changes())
  const own = call.batches.find((batch) => batch.chargeSet === chargeSet)
  pushChargeSet(args, limits, chargeSet, own?.changes() ?? [])
  for (const addition of call.additions) args.push(...addition)
  for (const lease of call.leases) args.push(lease)
  if (call.turn !== undefined) pushTurn(args, call.turn)
  return args
}

/** Allows no more of each limit that is split over regions than this region's share. `args` must end with the arguments of `limits`. */
function allowShares(args: Argument[], limits: readonly Limit[], shares: PartitionShares): void {
  const first = args.length - FIELDS * limits.length
  for (let i = 0; i < limits.length; i++) {
    const units = shares.unitsOf(limits[i]!)
    if (units !== undefined) args[first + FIELDS * i + 1] = units
  }
}

/** All calls of one client cost the same, so each client is listed once. */
function pushTurn(args: Argument[], { costs }: QueueTurn): void {
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
  /** `told` holds from `from` until `until`, in Redis's time: it tells dated windows around the current one. */
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
    isEnforced ? requests : ANY,
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
