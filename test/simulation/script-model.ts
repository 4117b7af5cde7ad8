import { ExchangeModel } from './exchange-model.ts'
import { RegisterModel } from './register-model.ts'
import { Counter } from '../../src/ledger/counter.ts'
import { LONGEST_GROWTH_MS } from '../../src/ledger/adaptive-limit.ts'
import { BUCKETS, type Limit } from '../../src/ledger/limit.ts'
import { ANY, type Argument, type Reply } from '../../src/ledger/redis/protocol.ts'
import { type Calendar, calendarOf } from '../../src/time/calendar.ts'

interface StoredCounter {
  readonly counter: Counter
  /** The latest time it was used. */
  seen: number
  reserved: number
  pressure: number
}

interface Lease {
  units: number
  until: number
  /** From when the gateway was heard of. */
  lasts: number
}

interface StoredPartition {
  readonly numbers: Map<string, number>
  readonly counters: Map<string, StoredCounter>
  /** In milliseconds, by the field. */
  readonly pauses: Map<string, number>
  expiresAt: number
}

interface StoredLeases {
  /** By counter, then by gateway. */
  readonly of: Map<string, Map<string, Lease>>
  expiresAt: number
}

/** A counter as one run of the script sees it. */
interface Used {
  readonly name: string
  readonly stored: StoredCounter
  readonly counter: Counter
  readonly isConcurrent: boolean
  isAdapted: boolean
  readonly countingTolerance: number
  units: number
  lease: number | undefined
  /** What the gateway is told of it, where that is less. */
  told: number | undefined
  leasedUntil: number
  lasts: number
  isRenewed: boolean
  left: number
  others: number
}

const KINDS = ['rolling', 'calendar', 'concurrent', 'smoothing'] as const
/** The windows of every limit that tells dates, in microseconds: some last 30 or 90 minutes. */
export const DATED = calendarOf({ unit: 'hour', timezone: 'Australia/Lord_Howe' })
export const DATED_KIND = 4
const IN_MICROS = {
  indexOf: (time: number) => DATED.indexOf(time / 1_000),
  startOf: (index: number) => DATED.startOf(index) * 1_000,
} as Calendar
const KEPT = { rolling: BUCKETS, calendar: 1, concurrent: 0, smoothing: BUCKETS }
const SCALARS = 10
const LONGEST_GROWTH = 1_000 * LONGEST_GROWTH_MS
/** Of what was taught, so many windows. */
const ADAPTED_FOR = 4
const FIELDS = 5
const PRESSURE_MS = 2_000
const SCARCE = 0.1
const FIRST_TERM_MS = 3_000
const UNHEARD_MS = 12_000
const LEAST_LIFE_MS = 60_000

/**
 * What the script in src/ledger/redis/charge does, in TypeScript, so that thousands of cases can be simulated without a Redis; the test beside
 * it shows that both give the same replies. The time must be given. With `expires`, keys end by that time as well.
 */
export class ScriptModel {
  readonly #partitions = new Map<string, StoredPartition>()
  readonly #leases = new Map<string, StoredLeases>()
  #exchanges = new ExchangeModel()
  #registers = new RegisterModel()
  readonly #expires: boolean

  constructor(expires: boolean) {
    this.#expires = expires
  }

  run(keys: readonly string[], args: readonly Argument[]): Reply {
    const isUsed = Number(args[0]) === 0
    const [expected, now] = [isUsed ? 1 : Number(args[0]), Number(args[1])]
    const wanted = expected < 0 ? 0 : Number(args[2])
    const [kinds, additions, term] = [Number(args[3]), Number(args[4]), Number(args[5])]
    const [isClaim, hasWaited] = [String(args[6]) === '1', String(args[6]) === '2']
    const [pauseField, gateway] = [String(args[SCALARS - 2]), String(args[SCALARS - 1])]
    const names = args.slice(SCALARS, SCALARS + Number(args[7])).map(String)
    const nowMs = Math.floor(now / 1_000)

    const partition = this.#partitionOf(keys[0]!, nowMs)
    const leases = this.#leasesOf(keys[1]!, nowMs)
    const counted = partition.numbers.get(gateway)
    const number = expected >= 0 && counted === 0 ? 2 : (counted ?? 0) + 1
    const isLost = partition.expiresAt === 0
    if (expected >= 0 && number !== expected) {
      if (!isLost) partition.numbers.set(gateway, number)
      return [now, number, -1, Number(isLost)]
    }
    const areLeasesLost = leases.of.values().every(({ size }) => size === 0)
    if ((isUsed && isLost) || ((isUsed || (expected > 1 && term > 0 && !isClaim)) && areLeasesLost)) {
      return [now, number, -1, 1]
    }
    if (expected === 1 && isAnySilent(leases, nowMs)) return [now, number, -1, 0]
    partition.numbers.set(gateway, expected < 0 ? number - 1 : number)

    let a = SCALARS + names.length
    let live = Math.max(LEAST_LIFE_MS, term)
    const all = names.map((name) => {
      const used = use(
        partition,
        name,
        args.slice(a, a + FIELDS).map((field) => Number.parseFloat(String(field))),
      )
      if (number === 1 || expected < 0) {
        readLease(leases, gateway, used)
        if (used.leasedUntil < nowMs) used.lease = 0
        used.leasedUntil = nowMs + FIRST_TERM_MS
        used.lasts = expected < 0 ? UNHEARD_MS : FIRST_TERM_MS
        used.isRenewed = true
      }
      const { counter, stored } = used
      const { kept, bucketMs, inFlightLeaseMs } = counter.limit
      if (counter.bucketOf(now) > counter.bucketOf(stored.seen)) {
        live = Math.max(live, ((kept + 3) * bucketMs + inFlightLeaseMs) / 1_000)
      }
      a += FIELDS
      return used
    })
    for (let n = 0; n < kinds; n++) {
      for (const used of all) used.units = Number(args[a++])
      for (let changes = Number(args[a++]); changes > 0; changes--) {
        if (args[a] === 'pause') {
          const [field, until] = [String(args[a + 1]), nowMs + Number(args[a + 2])]
          partition.pauses.set(field, Math.max(partition.pauses.get(field) ?? 0, until))
          live = Math.max(live, partition.pauses.get(field)! - nowMs)
          a += 3
        } else if (args[a] === 'refused' || args[a] === 'counted') a = applyFeedback(all, args, a, now)
        else a = change(all, args, a, now)
      }
    }
    for (let n = 0; n < additions; n++, a += 3) {
      all[Number(args[a]) - 1]!.counter.restore(now, Number(args[a + 1]), Number(args[a + 2]))
    }
    if (term > 0) {
      renewLeases({ partition, leases }, gateway, all, now, { term, isClaim, known: args.slice(a).map(Number) })
    }
    const pauseMs = Math.max(0, (partition.pauses.get(pauseField) ?? 0) - nowMs)
    const granted = grantable(leases, gateway, all, now, pauseMs > 0 ? 0 : wanted)

    const reply: number[] = [now, expected < 0 && isLost && number === 1 ? 0 : number, granted, all.length]
    for (const used of all) {
      const { counter, stored, units } = used
      if (granted > 0) {
        counter.charge(now, now, granted * units)
        const room = Math.max(0, used.left - stored.reserved)
        const taken = used.lease === undefined ? 0 : Math.min(used.lease, granted * units - room)
        if (taken > 0) {
          used.lease! -= taken
          stored.reserved -= taken
          used.isRenewed = true
        }
      }
      const isRefused = granted < wanted && used.others > 0 && used.left - used.others < (granted + 1) * units
      const isScarce = hasWaited && used.left < counter.limit.requests * SCARCE
      if (units > 0 && (isRefused || isScarce)) stored.pressure = nowMs + PRESSURE_MS
      if (used.isRenewed) {
        const lease = { units: used.lease!, until: used.leasedUntil, lasts: used.lasts }
        leases.of.getOrInsertComputed(used.name, () => new Map<string, Lease>()).set(gateway, lease)
      }
      reply.push(
        counter.used(now),
        Math.trunc(counter.resetMs(now)),
        counter.free(now),
        Math.min(used.told ?? Infinity, used.lease ?? -1),
        used.others,
      )
      if (used.isAdapted) live = Math.max(live, (ADAPTED_FOR * counter.limit.growthMs) / 1_000)
      stored.seen = Math.max(stored.seen, now)
    }
    const longer = Math.floor(1.25 * live)
    if (nowMs + live > partition.expiresAt) partition.expiresAt = nowMs + longer
    if (all.some(({ isRenewed }) => isRenewed)) leases.expiresAt = nowMs + longer
    if (granted < wanted || hasWaited) {
      for (const { counter, units } of all) {
        const charges = counter.limit.kept > 1 && units > 0 ? counter.charges(now) : []
        reply.push(2 * charges.length, ...charges.flatMap(({ bucket, units }) => [bucket, units]))
      }
    }
    if (hasWaited) reply.push(this.#exchanges.serve(keys[2]!, turnsOf(args, a).slice(0, granted), granted))
    if (pauseMs > 0) reply.push(0, pauseMs, 0, 0, 0)
    for (const [i, { counter }] of all.entries()) {
      const [effective, { adaptiveLimit }] = [counter.effective(now), counter]
      if (effective === undefined || adaptiveLimit === undefined) continue
      const [units, whole] = [counter.others(now)?.units ?? 0, adaptiveLimit.wholeAt(counter.limit.growthMs)]
      reply.push(i + 1, effective, units, adaptiveLimit.lookAt - now, whole - now)
    }
    return reply
  }

  runExchange(keys: readonly string[], args: readonly Argument[]): string {
    return this.#exchanges.run(keys, args)
  }

  runRegister(keys: readonly string[], args: readonly Argument[]): Argument[] {
    return this.#registers.run(keys, args)
  }

  /** Keys are evicted, or flushed: those of which that is said. */
  lose(isLost: (key: string) => boolean): void {
    for (const keyed of [this.#partitions, this.#leases])
      for (const key of keyed.keys()) if (isLost(key)) keyed.delete(key)
    this.#registers.lose(isLost)
  }

  /** A Redis that holds the same, for a replica that takes over. */
  copy(): ScriptModel {
    const copy = new ScriptModel(this.#expires)
    copy.#exchanges = this.#exchanges.copy()
    copy.#registers = this.#registers.copy()
    for (const [key, { numbers, counters, pauses, expiresAt }] of this.#partitions) {
      const copied = new Map<string, StoredCounter>()
      for (const [name, { counter: from, ...rest }] of counters) {
        const counter = new Counter(from.limit)
        counter.used(rest.seen)
        for (const { bucket, units } of from.charges(rest.seen)) counter.restore(rest.seen, bucket, units)
        counter.copyAdaptiveLimit(from)
        copied.set(name, { ...rest, counter })
      }
      copy.#partitions.set(key, { numbers: new Map(numbers), counters: copied, pauses: new Map(pauses), expiresAt })
    }
    for (const [key, { of, expiresAt }] of this.#leases) {
      const copied = new Map([...of].map(([limit, by]) => [limit, new Map(structuredClone([...by]))]))
      copy.#leases.set(key, { of: copied, expiresAt })
    }
    return copy
  }

  #partitionOf(key: string, nowMs: number): StoredPartition {
    let partition = this.#partitions.get(key)
    if (partition === undefined || (this.#expires && partition.expiresAt <= nowMs)) {
      partition = { numbers: new Map(), counters: new Map(), pauses: new Map(), expiresAt: 0 }
      this.#partitions.set(key, partition)
    }
    return partition
  }

  #leasesOf(key: string, nowMs: number): StoredLeases {
    let leases = this.#leases.get(key)
    if (leases === undefined || (this.#expires && leases.expiresAt <= nowMs)) {
      leases = { of: new Map(), expiresAt: Infinity }
      this.#leases.set(key, leases)
    }
    return leases
  }
}

function use(partition: StoredPartition, name: string, fields: readonly number[]): Used {
  const [kind, requests, length, inFlightLeaseMs, countingToleranceMs] = fields as [...Tuple5]
  const isDated = kind === DATED_KIND
  const kindName = isDated ? 'calendar' : KINDS[kind as 0 | 1 | 2 | 3]
  const bucketMs = isDated ? DATED.windowMs * 1_000 : length
  const kept = KEPT[kindName]
  const growthMs = Math.min(bucketMs * kept, LONGEST_GROWTH)
  // In microseconds, whatever their names say.
  const counted = { kind: kindName, requests, bucketMs, inFlightLeaseMs, countingToleranceMs, kept, growthMs }
  const limit = { ...counted, calendar: isDated ? IN_MICROS : undefined } as Limit
  const stored = partition.counters.getOrInsertComputed(name, () => {
    return { counter: new Counter(limit), seen: 0, reserved: 0, pressure: 0 }
  })
  stored.counter.limit = limit
  return {
    name,
    stored,
    counter: stored.counter,
    isConcurrent: kindName === 'concurrent',
    isAdapted: false,
    countingTolerance: countingToleranceMs,
    units: 0,
    lease: undefined,
    told: undefined,
    leasedUntil: 0,
    lasts: 0,
    isRenewed: false,
    left: 0,
    others: 0,
  }
}

type Tuple5 = [number, number, number, number, number]

/** Of each call that has waited, its client and what it costs that; told from `a` on. */
function turnsOf(args: readonly Argument[], a: number): [client: string, cost: number][] {
  const numbers = String(args[a])
    .trim()
    .split(' ')
    .filter((number) => number !== '')
    .map(Number)
  return numbers.map((number) => [String(args[a + 2 * number - 1]), Number(args[a + 2 * number])])
}

/** One change to all counters that it concerns; returns where the next one begins. */
function change(all: readonly Used[], args: readonly Argument[], a: number, now: number): number {
  const [what, at, calls, to] = [String(args[a]), Number(args[a + 1]), Number(args[a + 2]), Number(args[a + 3])]
  if (what === 'renew') {
    const open = Number(args[a + 4])
    for (const { counter, isConcurrent, units } of all) {
      counter.renew(now, at, to, (isConcurrent ? open : calls) * units)
    }
    return a + 5
  }
  const later = Math.min(to, now) - now
  for (const { counter, isConcurrent, countingTolerance, units } of all) {
    if (isConcurrent !== (what === 'leave')) continue
    if (what === 'commit') counter.commit(now, at, calls * units, later)
    else if (what === 'abandon') counter.commit(now, at, calls * units, later + countingTolerance)
    else counter.refund(now, at, calls * units)
  }
  return a + 4
}

/** One counter is adapted; returns where the next change begins. */
function applyFeedback(all: readonly Used[], args: readonly Argument[], a: number, now: number): number {
  const [at, counted, tolerance, resetMs] = args.slice(a + 2, a + 6).map(Number) as [number, number, number, number]
  const used = all.find(({ name }) => name === args[a + 1])!
  used.isAdapted = true
  const isRefused = Number(args[a + 6]) === 1
  if (args[a] === 'counted') used.counter.observeCount(now, at, used.units, { counted, tolerance, resetMs, isRefused })
  else used.counter.refuse(now, at, used.units)
  return a + (args[a] === 'refused' ? 3 : 7)
}

function renewLeases(
  { partition, leases: stored }: { partition: StoredPartition; leases: StoredLeases },
  gateway: string,
  all: readonly Used[],
  now: number,
  { term, isClaim, known }: { term: number; isClaim: boolean; known: readonly number[] },
): void {
  const nowMs = Math.floor(now / 1_000)
  const alive = new Set([gateway])
  const leased = new Map<string, number>()
  const own = new Map<string, number>()
  const gone = new Set<string>()
  for (const [limit, leases] of stored.of) {
    for (const [holder, { units, until }] of leases) {
      if (holder === gateway) own.set(limit, units)
      else if (until < nowMs) {
        if (isClaim) continue
        leases.delete(holder)
        gone.add(holder)
      } else {
        leased.set(limit, (leased.get(limit) ?? 0) + units)
        alive.add(holder)
      }
    }
  }
  for (const holder of gone) if (!alive.has(holder)) partition.numbers.delete(holder)
  for (const [i, used] of all.entries()) {
    const others = leased.get(used.name) ?? 0
    const left = used.counter.free(now)
    let share = 0
    const { kind, requests } = used.counter.limit
    if (nowMs >= used.stored.pressure && kind !== 'smoothing' && requests < ANY) {
      share = Math.floor(left / (4 * alive.size))
      if (share < 1 && others + 1 <= left / 2) share = 1
    }
    used.told = isClaim ? known[i]! : Math.max(0, Math.min(share, left - others))
    used.lease = Math.max(used.told, Math.min(known[i]!, own.get(used.name) ?? 0))
    used.leasedUntil = nowMs + term
    used.lasts = term
    used.stored.reserved = others + used.lease
    used.isRenewed = true
  }
}

/** How many of the wanted calls fit into all limits, less what is leased to others. */
function grantable(leases: StoredLeases, gateway: string, all: readonly Used[], now: number, wanted: number): number {
  let granted = wanted
  for (const used of all) {
    const { reserved } = used.stored
    used.left = used.counter.free(now, used.units)
    if (reserved > 0 && used.left - reserved < wanted * used.units) {
      if (used.lease === undefined) readLease(leases, gateway, used)
      used.others = Math.max(0, reserved - used.lease!)
    }
    if (used.units > 0) granted = Math.min(granted, Math.floor((used.left - used.others) / used.units))
  }
  return Math.max(0, granted)
}

function readLease(leases: StoredLeases, gateway: string, used: Used): void {
  const noted = leases.of.get(used.name)?.get(gateway)
  used.lease = noted?.units ?? 0
  used.leasedUntil = noted?.until ?? 0
  used.lasts = noted?.lasts ?? 0
}

/** Whether a gateway that should have been heard of was not. */
function isAnySilent({ of }: StoredLeases, nowMs: number): boolean {
  for (const leases of of.values()) {
    for (const { until, lasts } of leases.values()) {
      if (lasts > 1 && nowMs - (until - lasts) > lasts / 4) return true
    }
  }
  return false
}
