import { Counter } from '../../src/quota/counter.ts'
import { BUCKETS, type Limit } from '../../src/quota/limit.ts'
import type { Argument, Reply } from '../../src/quota/redis-ledger.ts'

interface StoredCounter {
  readonly counter: Counter
  /** The latest time it was used. */
  seen: number
  reserved: number
  pressure: number
  expiresAt: number
}

interface Lease {
  units: number
  until: number
}

interface Gateways {
  readonly numbers: Map<string, number>
  /** By counter, then by gateway. */
  readonly leases: Map<string, Map<string, Lease>>
  expiresAt: number
}

/** A counter as one run of the script sees it. */
interface Used {
  readonly key: string
  readonly stored: StoredCounter
  readonly counter: Counter
  readonly isConcurrent: boolean
  readonly slack: number
  readonly ttl: number
  readonly units: number
  lease: number | undefined
  /** What the gateway is told of it, where that is less. */
  told: number | undefined
  leasedUntil: number
  isRenewed: boolean
  hasAdvanced: boolean
  left: number
  others: number
}

const KINDS = ['rolling', 'calendar', 'concurrent'] as const
const KEPT = { rolling: BUCKETS, calendar: 1, concurrent: 0 }
const FIELDS = 7
const FIRST = 8
const PRESSURE_MS = 2_000
const FIRST_TERM_MS = 3_000

/**
 * What redis-ledger.lua does, in TypeScript, so that thousands of cases can be simulated without a Redis; the test beside
 * it shows that both give the same replies. The time must be given. With `expires`, keys end by that time as well.
 */
export class ScriptModel {
  readonly #counters = new Map<string, StoredCounter>()
  readonly #gateways = new Map<string, Gateways>()
  readonly #expires: boolean

  constructor(expires: boolean) {
    this.#expires = expires
  }

  run(keys: readonly string[], args: readonly Argument[]): Reply {
    const [gateway, expected, now] = [String(args[0]), Number(args[1]), Number(args[2])]
    const wanted = expected < 0 ? 0 : Number(args[3])
    const [changes, additions, term] = [Number(args[4]), Number(args[5]), Number(args[6])]
    const isClaim = String(args[7]) === '1'
    const nowMs = Math.floor(now / 1_000)

    const gateways = this.#gatewaysOf(keys[0]!, nowMs)
    const number = (gateways.numbers.get(gateway) ?? 0) + 1
    gateways.numbers.set(gateway, number)
    if (expected >= 0 && number !== expected) return [now, number, -1]

    const all = keys.slice(1).map((key, i) => {
      const used = this.#use(key, args, FIRST + i * FIELDS, now)
      if (number === 1 || expected < 0) {
        readLease(gateways, gateway, used)
        if (used.leasedUntil < nowMs) used.lease = 0
        used.leasedUntil = nowMs + FIRST_TERM_MS
        used.isRenewed = true
      }
      return used
    })
    let a = FIRST + all.length * FIELDS
    for (let n = 0; n < changes; n++) a = change(all, args, a, now)
    for (let n = 0; n < additions; n++, a += 3) {
      all[Number(args[a]) - 1]!.counter.restore(now, Number(args[a + 1]), Number(args[a + 2]))
    }
    if (term > 0) {
      renewLeases(gateways, gateway, all, now, { term, isClaim, known: args.slice(a).map(Number) })
    }
    const granted = grantable(gateways, gateway, all, now, wanted)

    const reply: (number | number[])[] = [now, number, granted]
    let live = Math.max(60_000, term)
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
      if (granted < wanted && used.others > 0 && used.left - used.others < (granted + 1) * units) {
        stored.pressure = nowMs + PRESSURE_MS
      }
      if (used.isRenewed) {
        const lease = { units: used.lease!, until: used.leasedUntil }
        gateways.leases.getOrInsertComputed(used.key, () => new Map<string, Lease>()).set(gateway, lease)
      }
      reply.push(
        counter.used(now),
        Math.trunc(counter.resetMs(now)),
        counter.free(now),
        Math.min(used.told ?? Infinity, used.lease ?? -1),
        used.others,
      )
      stored.seen = Math.max(stored.seen, now)
      if (used.hasAdvanced || used.isRenewed) stored.expiresAt = nowMs + Math.max(used.ttl, term)
      live = Math.max(live, used.ttl)
    }
    if (term > 0 || number === 1) gateways.expiresAt = nowMs + live
    if (granted < wanted) {
      for (const { counter } of all) {
        const isRolling = counter.limit.kind === 'rolling'
        reply.push(isRolling ? counter.charges(now).flatMap(({ bucket, units }) => [bucket, units]) : [])
      }
    }
    return reply
  }

  /** A Redis that holds the same, for a replica that takes over. */
  copy(): ScriptModel {
    const copy = new ScriptModel(this.#expires)
    for (const [key, { counter, ...rest }] of this.#counters) {
      const copied = new Counter(counter.limit)
      copied.used(rest.seen)
      for (const { bucket, units } of counter.charges(rest.seen)) copied.restore(rest.seen, bucket, units)
      copy.#counters.set(key, { ...rest, counter: copied })
    }
    for (const [key, { numbers, leases, expiresAt }] of this.#gateways) {
      const copied = new Map([...leases].map(([limit, of]) => [limit, new Map(structuredClone([...of]))]))
      copy.#gateways.set(key, { numbers: new Map(numbers), leases: copied, expiresAt })
    }
    return copy
  }

  #gatewaysOf(key: string, nowMs: number): Gateways {
    let gateways = this.#gateways.get(key)
    if (gateways === undefined || (this.#expires && gateways.expiresAt <= nowMs)) {
      gateways = { numbers: new Map(), leases: new Map(), expiresAt: Infinity }
      this.#gateways.set(key, gateways)
    }
    return gateways
  }

  #use(key: string, args: readonly Argument[], a: number, now: number): Used {
    const [kind, requests, bucketMs, holdMs, slackMs, ttl, units] = args.slice(a, a + FIELDS).map(Number) as [...Tuple7]
    const name = KINDS[kind as 0 | 1 | 2]
    // In microseconds, whatever their names say.
    const limit = { kind: name, requests, bucketMs, holdMs, slackMs, kept: KEPT[name] } as Limit
    let stored = this.#counters.get(key)
    if (stored === undefined || (this.#expires && stored.expiresAt <= now / 1_000)) {
      stored = { counter: new Counter(limit), seen: 0, reserved: 0, pressure: 0, expiresAt: Infinity }
      this.#counters.set(key, stored)
    }
    const { counter } = stored
    counter.limit = limit
    return {
      key,
      stored,
      counter,
      isConcurrent: name === 'concurrent',
      slack: slackMs,
      ttl,
      units,
      lease: undefined,
      told: undefined,
      leasedUntil: 0,
      isRenewed: false,
      hasAdvanced: counter.bucketOf(now) > counter.bucketOf(stored.seen),
      left: 0,
      others: 0,
    }
  }
}

type Tuple7 = [number, number, number, number, number, number, number]

/** One change to all counters that it concerns; returns where the next one begins. */
function change(all: readonly Used[], args: readonly Argument[], a: number, now: number): number {
  const [what, at, calls] = [String(args[a]), Number(args[a + 1]), Number(args[a + 2])]
  if (what === 'renew') {
    const [to, open] = [Number(args[a + 3]), Number(args[a + 4])]
    for (const { counter, isConcurrent, units } of all) {
      counter.renew(now, at, to, (isConcurrent ? open : calls) * units)
    }
    return a + 5
  }
  for (const { counter, isConcurrent, slack, units } of all) {
    if (isConcurrent !== (what === 'leave')) continue
    if (what === 'settle') counter.settle(now, at, calls * units, 0)
    else if (what === 'abandon') counter.settle(now, at, calls * units, slack)
    else counter.refund(now, at, calls * units)
  }
  return a + 3
}

function renewLeases(
  gateways: Gateways,
  gateway: string,
  all: readonly Used[],
  now: number,
  { term, isClaim, known }: { term: number; isClaim: boolean; known: readonly number[] },
): void {
  const nowMs = Math.floor(now / 1_000)
  const alive = new Set([gateway])
  const leased = new Map<string, number>()
  const own = new Map<string, number>()
  for (const [limit, leases] of gateways.leases) {
    for (const [holder, { units, until }] of leases) {
      if (holder === gateway) own.set(limit, units)
      else if (until < nowMs) leases.delete(holder)
      else {
        leased.set(limit, (leased.get(limit) ?? 0) + units)
        alive.add(holder)
      }
    }
  }
  for (const name of gateways.numbers.keys()) if (!alive.has(name)) gateways.numbers.delete(name)
  for (const [i, used] of all.entries()) {
    const others = leased.get(used.key) ?? 0
    const left = used.counter.free(now)
    let share = 0
    if (nowMs >= used.stored.pressure) {
      share = Math.floor(left / (4 * alive.size))
      if (share < 1 && others + 1 <= left / 2) share = 1
    }
    used.told = isClaim ? known[i]! : Math.max(0, Math.min(share, left - others))
    used.lease = Math.max(used.told, Math.min(known[i]!, own.get(used.key) ?? 0))
    used.leasedUntil = nowMs + term
    used.stored.reserved = others + used.lease
    used.isRenewed = true
  }
}

/** How many of the wanted calls fit into all limits, less what is leased to others. */
function grantable(gateways: Gateways, gateway: string, all: readonly Used[], now: number, wanted: number): number {
  let granted = wanted
  for (const used of all) {
    const { reserved } = used.stored
    used.left = used.counter.free(now)
    if (reserved > 0 && used.left - reserved < wanted * used.units) {
      if (used.lease === undefined) readLease(gateways, gateway, used)
      used.others = Math.max(0, reserved - used.lease!)
    }
    granted = Math.min(granted, Math.floor((used.left - used.others) / used.units))
  }
  return Math.max(0, granted)
}

function readLease(gateways: Gateways, gateway: string, used: Used): void {
  const noted = gateways.leases.get(used.key)?.get(gateway)
  used.lease = noted?.units ?? 0
  used.leasedUntil = noted?.until ?? 0
}
