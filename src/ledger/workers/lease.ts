import type { Clock, Timer } from '../../time/clock.ts'
import { allowedOf, type ChargeSet, type LimitUsage } from '../ledger.ts'

/** Calls that do not come in this time give back what was leased for them. */
const LEASE_MS = 20
/** A lease has at most this part of a limit. */
const MOST_PART = 0.01
/** Nothing is leased of a limit of which more than this part is used: other workers might need it. */
const PLENTY = 0.5
/** Nothing is leased of limits with shorter windows, since leased calls hold units for LEASE_MS. */
const LEAST_WINDOW_MS = 1_000

/** The most calls that may be leased of a charge set; 0 where each has to be asked for. */
function mostCalls({ limits, units, hasConcurrent, isSettled }: ChargeSet): number {
  if (hasConcurrent || isSettled) return 0
  let most = Infinity
  for (const [i, { kind, windowMs, requests, isEnforced }] of limits.entries()) {
    if (kind !== 'rolling' || windowMs < LEAST_WINDOW_MS) return 0
    if (isEnforced) most = Math.min(most, Math.floor((requests * MOST_PART) / units[i]!))
  }
  return most === Infinity ? 0 : most
}

/**
 * Calls of one charge set that a worker was granted before they come: as many as came in the last moment. When they come, they need no message to
 * the first process. It counts them as in flight, so no window is exceeded.
 */
export class Lease {
  readonly #chargeSet: ChargeSet
  readonly #most: number
  #since = -Infinity
  #calls = 0
  #perPeriod = 0
  /** Slot of the latest grant. */
  slot = -1
  /** When that was charged, by the clock of the first process. */
  at = 0
  /** What was used then. */
  usage: readonly LimitUsage[] = []
  /** How many calls of it may still come. */
  spare = 0
  /** By the clock of the worker. */
  until = 0

  constructor(chargeSet: ChargeSet) {
    this.#chargeSet = chargeSet
    this.#most = mostCalls(chargeSet)
  }

  /** A call comes. */
  count(now: number): void {
    if (now - this.#since >= LEASE_MS) {
      this.#perPeriod = now - this.#since < 2 * LEASE_MS ? this.#calls : 0
      this.#calls = 0
      this.#since = now
    }
    this.#calls++
  }

  /** How many calls to ask for besides one that has come. */
  get wanted(): number {
    const wanted = Math.min(this.#most, this.#perPeriod)
    if (wanted === 0 || this.usage.length === 0) return 0
    const { units } = this.#chargeSet
    for (let i = 0; i < this.usage.length; i++) {
      const usage = this.usage[i]!
      if (usage.limit.isEnforced && usage.used + (wanted + 1) * units[i]! > PLENTY * allowedOf(usage)) return 0
    }
    return wanted
  }
}

/** The leases of a worker: it asks for one with a call, and gives back what it does not need. */
export class Leases {
  readonly #clock: Clock
  readonly #giveBack: (slot: number, calls: number) => void
  readonly #byChargeSet = new WeakMap<ChargeSet, Lease>()
  /** Leases that were asked for and not yet answered, or that have calls to spare. */
  readonly #running = new Set<Lease>()
  #timer: Timer | undefined

  constructor(clock: Clock, giveBack: (slot: number, calls: number) => void) {
    this.#clock = clock
    this.#giveBack = giveBack
  }

  of(chargeSet: ChargeSet): Lease {
    return this.#byChargeSet.getOrInsertComputed(chargeSet, () => new Lease(chargeSet))
  }

  /** How many calls to ask for besides one that has come. While a lease runs no other is asked for. */
  ask(lease: Lease, now: number): number {
    const wanted = lease.spare > 0 || this.#running.has(lease) ? 0 : lease.wanted
    if (wanted > 0) this.#run(lease, now)
    return wanted
  }

  /** Takes the answer to a call of the charge set: a grant in `slot`, of which `spare` calls are left. */
  granted(lease: Lease, slot: number, { spare, ...of }: Pick<Lease, 'at' | 'usage' | 'spare'>): void {
    if (spare > 0) {
      this.#stop(lease)
      Object.assign(lease, of, { slot, spare })
      this.#run(lease, this.#clock.now())
    } else if (lease.spare === 0) lease.usage = of.usage
  }

  /** Gives all back. */
  end(): void {
    for (const lease of this.#running) this.#stop(lease)
    this.#timer?.cancel()
  }

  #run(lease: Lease, now: number): void {
    lease.until = now + LEASE_MS
    this.#running.add(lease)
    this.#timer ??= this.#clock.schedule(LEASE_MS, this.#onTime)
  }

  readonly #onTime = (): void => {
    this.#timer = undefined
    const now = this.#clock.now()
    for (const lease of this.#running) if (lease.until <= now) this.#stop(lease)
    if (this.#running.size > 0) this.#timer = this.#clock.schedule(LEASE_MS, this.#onTime)
  }

  #stop(lease: Lease): void {
    this.#running.delete(lease)
    const { slot, spare } = lease
    lease.spare = 0
    if (spare > 0) this.#giveBack(slot, spare)
  }
}
