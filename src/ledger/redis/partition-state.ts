import type { Charges } from '../counter.ts'
import type { Grant, LimitUsage, ChargeSet } from '../ledger.ts'
import { LimitTable, Pauses } from '../limit-table.ts'
import { Schedule } from '../schedule.ts'
import type { PartitionShares } from '../shares.ts'
import { CallNumbers, RedisClock } from './answers.ts'
import { LimitState } from './limit-state.ts'
import { type Ended, outlastsCharge } from './outbox.ts'

/** For so long, a gateway without an answer spends only its leases: Redis may still answer all others. */
const PATIENCE_MS = 1_000

/**
 * A gateway that had no answer for longer than this waits for the others when it finds Redis again. They may have noticed the
 * outage sooner, or may find Redis later, by two ticks and two timeouts in all. So they may have lost patience meanwhile. A
 * partition that ticks rarely counts from when the whole gateway got no answer.
 */
const BRIEF_MS = PATIENCE_MS - 650

/** How soon a call that waits asks again when the gateway is about to resume. */
const RESUME_SOON_MS = 25

/**
 * Why a gateway goes offline. `silent`: Redis gave no answer. `disconnected`: the connection was lost, and what answers next may be
 * another Redis. `lacking`: Redis answers, but may lack what gateways have told it.
 */
export type OfflineReason = 'silent' | 'disconnected' | 'lacking'

/**
 * Whether other gateways may have something to tell Redis before charges go there again. `doubt`: they may, unless the same Redis
 * answers again.
 */
type Grace = 'none' | 'doubt' | 'needed'

/** How this gateway counts the calls of the partition. Each offline state begins with `since`, by the gateway's clock. */
type Link =
  /** Charges are made in Redis. */
  | { readonly kind: 'shared' }
  /**
   * Only leases are spent. `isAlone`: the gateway takes all others to be without Redis, too. `isThere`: Redis answers, but may
   * lack something.
   */
  | { readonly kind: 'offline'; readonly since: number; isAlone: boolean; isThere: boolean; grace: Grace }
  /** Redis answers again. Only leases are spent until `at`, so that every gateway can tell Redis what it lacks. */
  | { readonly kind: 'resuming'; readonly since: number; readonly at: number; readonly isAlone: boolean; grace: Grace }

/**
 * What one gateway knows of the limits of one partition: its own calls, by Redis's clock; its leases; and whether Redis knows
 * what it should. Every call of the script is numbered. So if Redis has lost its latest writes, or everything, the next answer
 * shows that. It also shows which of the calls that were never answered Redis has run.
 *
 * While Redis is up, the charges of all gateways and their leases together never exceed a limit. A gateway that gets no answer
 * first spends its leases, which nobody else can be granted. After PATIENCE_MS it takes Redis to be lost for all gateways. From
 * then on its calls may count as much as they did when Redis was lost, plus its leases. In sum over all gateways that is still
 * no more than the limit. When Redis answers, what is left of this amount becomes the gateway's lease.
 *
 * The file is longer than others, because the guarantee holds only over all of these steps together: what is asked, granted,
 * leased, lost and told again is added up here.
 */
export class PartitionState {
  readonly name: string
  readonly numbers = new CallNumbers()
  readonly pauses = new Pauses()
  /** What of each limit the region may use, where quotas are split over regions. */
  readonly shares: PartitionShares | undefined
  readonly #limits = new LimitTable<LimitState>((limit) => new LimitState(limit, () => this.mode === 'leased'))
  readonly #clock = new RedisClock()
  #link: Link = { kind: 'shared' }

  constructor(name: string, shares?: PartitionShares) {
    this.name = name
    this.shares = shares
  }

  /** `shared` while charges are made in Redis, `leased` while only leases are spent. */
  get mode(): 'shared' | 'leased' {
    return this.#link.kind === 'shared' ? 'shared' : 'leased'
  }

  /** When charges may go to Redis again, by our clock; undefined unless Redis answers again. */
  get resumeAt(): number | undefined {
    return this.#link.kind === 'resuming' ? this.#link.at : undefined
  }

  /** Whether the gateway waits for others to tell Redis what it lost. */
  get hasLost(): boolean {
    return this.#link.kind !== 'shared' && this.#link.grace === 'needed'
  }

  limitsOf(chargeSet: ChargeSet): readonly LimitState[] {
    return this.#limits.of(chargeSet)
  }

  get limits(): Iterable<LimitState> {
    return this.#limits.all
  }

  /** Redis's time, or a little earlier. Before Redis's first answer: the gateway's own time. */
  time(now: number): number {
    return this.#clock.earliest(now)
  }

  /** Redis's time, or a little earlier; undefined before Redis's first answer. */
  knownTime(now: number): number | undefined {
    return this.#clock.isKnown ? this.#clock.earliest(now) : undefined
  }

  /** Redis's time, or a little later. */
  latestTime(now: number): number {
    return this.#clock.latest(now)
  }

  /** Notes that a call of the script goes out to Redis, and wants so many calls charged. */
  noteAsked(chargeSet: ChargeSet, wanted: number): void {
    const limits = this.limitsOf(chargeSet)
    for (let i = 0; i < limits.length; i++) limits[i]!.asked += wanted * chargeSet.units[i]!
  }

  /** Notes that the answer to such a call of the script came. */
  noteAnswered(chargeSet: ChargeSet, wanted: number): void {
    this.noteAsked(chargeSet, -wanted)
    const limits = this.limitsOf(chargeSet)
    for (let i = 0; i < limits.length; i++)
      limits[i]!.doubtful = Math.max(0, limits[i]!.doubtful - wanted * chargeSet.units[i]!)
  }

  /**
   * Notes that the answer to such a call of the script will be ignored. Either Redis took nothing of the lease for it, or what Redis took
   * is charged to calls that were not sent. So this part of the lease may be spent after all, if such a charge lasts until this
   * gateway knows whether it is alone.
   */
  noteLost(chargeSet: ChargeSet, wanted: number): void {
    this.noteAsked(chargeSet, -wanted)
    for (const [i, state] of this.limitsOf(chargeSet).entries()) {
      const { windowMs, inFlightLeaseMs } = state.limit
      if (windowMs + inFlightLeaseMs < 2 * PATIENCE_MS) continue
      const units = Math.max(0, Math.min(state.doubtful - state.asked, wanted * chargeSet.units[i]!))
      state.doubtful -= units
      state.lease += units
      state.reserve += units
      state.cap += units
    }
  }

  /** Redis answered at its time `at` to what was sent and received at these times of our clock. */
  setTime(at: number, sentAt: number, receivedAt: number): void {
    const isFirst = this.#clock.set(at, sentAt, receivedAt)
    // Until now charges were counted by our clock. If that is ahead, the counters would stand still until Redis's clock catches up.
    if (isFirst) for (const state of this.limits) state.rebase(at)
  }

  /** Notes the leases that the answer to a call sent at `sentAt` tells. A negative number: the lease is as it was. */
  noteLeases(chargeSet: ChargeSet, unitsOf: (limit: number) => number, sentAt: number, termMs: number): void {
    for (const [i, state] of this.limitsOf(chargeSet).entries()) {
      const units = unitsOf(i)
      // While offline, leases are counted here and not in Redis. Only the answer to a renewal can make a lease larger: any
      // other tells what Redis reserves for this gateway, which may be more than the gateway may spend.
      if (units >= 0 && this.mode === 'shared') state.lease = termMs > 0 ? units : Math.min(state.lease, units)
      if (termMs > 0) state.leasedUntil = sentAt + termMs
    }
  }

  /** `silentSince`: since when Redis has answered the gateway nothing at all; Infinity while it answers. */
  goOffline(now: number, reason: OfflineReason, silentSince = Infinity): void {
    const link = this.#link
    const isThere = reason === 'lacking'
    const grace = laterGrace(link.kind === 'shared' ? 'none' : link.grace, reason)
    if (link.kind === 'offline') {
      link.grace = grace
      link.isThere = isThere
      return
    }
    this.#link = { kind: 'offline', since: Math.min(now, silentSince), isAlone: false, isThere, grace }
    for (const state of this.limits) {
      const lease = now < state.leasedUntil ? state.lease : 0
      state.doubtful = Math.min(lease, state.asked)
      state.lease = lease - state.doubtful
      state.reserve = state.lease
      state.cap = state.limit.requests
    }
    this.#lowerCaps(now)
  }

  /** A connection is there again. `isSame`: to the same Redis, which has lost nothing. */
  recognise(isSame: boolean): void {
    if (this.#link.kind === 'shared' || this.#link.grace !== 'doubt') return
    this.#link.grace = isSame ? 'none' : 'needed'
  }

  /** Milliseconds since the gateway went offline; Infinity while charges are made in Redis. */
  offlineMs(now: number): number {
    return this.#link.kind === 'shared' ? Infinity : now - this.#link.since
  }

  #lowerCaps(now: number): void {
    // This time is rather too late than too early: what has left Redis's count by then, others may have been granted.
    const time = this.#clock.surelyPast(now)
    for (const state of this.limits) {
      const reserved = now < state.leasedUntil ? state.reserved(time) : 0
      state.cap = Math.min(state.cap, Math.max(state.used(time) + state.lease, reserved))
    }
  }

  /**
   * Redis answers again; `number` is that of the probe that it answered. What Redis lacks of this gateway's charges is
   * unreplicated from now on. If other gateways may have something to tell Redis, too, charges wait `graceMs` for them.
   * `isOnly`: no other gateway uses the partition.
   */
  reconnect(number: number, now: number, graceMs: number, isOnly = false): void {
    const lost = this.numbers.reconnect(number)
    const link = this.#link
    if (link.kind === 'shared') return
    if (lost !== undefined) {
      link.grace = 'needed'
      this.#markUnreplicatedSince(lost.since, now)
    }
    const time = this.time(now)
    if (this.becomesAlone(now)) {
      for (const state of this.limits) state.lease = Math.max(0, state.cap - state.used(time))
    } else {
      for (const state of this.limits) if (now >= state.leasedUntil) state.lease = 0
    }
    const { since, isAlone, grace } = link
    const wasBrief = !isAlone && now - since < BRIEF_MS
    const at = (wasBrief || isOnly) && grace === 'none' ? now : now + graceMs
    this.#link = { kind: 'resuming', since, at, isAlone, grace }
  }

  /** Charges are made in Redis again. */
  resume(): void {
    this.#link = { kind: 'shared' }
  }

  /**
   * Whether this gateway takes all others to be without Redis, too. The first call after PATIENCE_MS offline changes that, and
   * the caps.
   */
  becomesAlone(now: number): boolean {
    const link = this.#link
    if (link.kind === 'shared') return false
    if (link.kind === 'offline' && !link.isAlone && now - link.since >= PATIENCE_MS) {
      link.isAlone = true
      link.grace = 'needed'
      // Until now, others may have been granted what left our count.
      this.#lowerCaps(now)
    }
    return link.isAlone
  }

  /** Units that may be charged without Redis now. */
  #left(state: LimitState, now: number): number {
    const left = this.#leftOfLease(state, now)
    const part = this.shares?.leasePartOf(state.limit) ?? 1
    return part === 1 ? left : Math.min(left, Math.floor(state.cap * part) - state.used(this.time(now)))
  }

  #leftOfLease(state: LimitState, now: number): number {
    // Each gateway smooths its own calls: together they send no more than their leases anyway.
    if (state.limit.kind === 'smoothing') return state.own.free(this.time(now))
    if (this.#link.kind === 'resuming') return state.lease
    if (this.becomesAlone(now)) return state.cap - state.used(this.time(now))
    return now >= state.leasedUntil ? 0 : state.lease
  }

  get #isThere(): boolean {
    return this.#link.kind !== 'offline' || this.#link.isThere
  }

  #markUnreplicatedSince(since: number, now: number): void {
    const time = this.time(now)
    for (const state of this.limits) state.markUnreplicatedSince(since, time)
  }

  /** Takes everything that is unreplicated, by limit. If it can't be told to Redis, the caller must restore it. */
  takeUnreplicated(chargeSet: ChargeSet, now: number): Charges[][] {
    const time = this.time(now)
    return this.limitsOf(chargeSet).map((state) => {
      const charges = state.unreplicated?.charges(time) ?? []
      state.unreplicated = undefined
      return charges
    })
  }

  isUnreplicated(chargeSet: ChargeSet): boolean {
    return this.limitsOf(chargeSet).some(({ unreplicated }) => unreplicated !== undefined)
  }

  restoreUnreplicated(chargeSet: ChargeSet, unreplicated: readonly (readonly Charges[])[], now: number): void {
    const time = this.time(now)
    for (const [i, state] of this.limitsOf(chargeSet).entries()) {
      for (const { bucket, units } of unreplicated[i]!) state.unreplicatedCounter().restore(time, bucket, units)
    }
  }

  /**
   * Charges up to `wanted` calls to the leases; with `isOpen`, whatever the leases are. A pause holds either way. Returns
   * undefined if Redis does not answer and one of the limits has no lease for a call.
   */
  spend(chargeSet: ChargeSet, wanted: number, now: number, isOpen: boolean): Spent | undefined {
    const time = this.time(now)
    const limits = this.limitsOf(chargeSet)
    const pausedUntil = this.pauses.until(chargeSet, now)
    let granted = pausedUntil > 0 ? 0 : wanted
    for (const [i, state] of limits.entries()) {
      if (isOpen || !state.limit.isEnforced) continue
      const hasLease = state.limit.kind === 'smoothing' || Math.max(state.cap, state.lease) >= chargeSet.units[i]!
      if (!this.#isThere && !hasLease) return undefined
      granted = Math.min(granted, Math.floor(this.#left(state, now) / chargeSet.units[i]!))
    }
    granted = Math.max(0, granted)
    if (granted > 0) {
      for (const [i, state] of limits.entries()) {
        const units = granted * chargeSet.units[i]!
        state.charge(time, time, units)
        state.unreplicatedCounter().charge(time, time, units)
        state.lease = Math.max(0, state.lease - units)
      }
    }
    const schedule = granted < wanted ? this.#schedule(chargeSet, now, pausedUntil) : undefined
    return { at: time, granted, usage: this.usage(chargeSet, now), schedule }
  }

  /** Usage without Redis: what this gateway may not spend counts as used. */
  usage(chargeSet: ChargeSet, now: number): LimitUsage[] {
    const time = this.time(now)
    return this.limitsOf(chargeSet).map((state) => ({
      limit: state.limit,
      used: Math.max(0, state.limit.requests - Math.max(0, this.#left(state, now))),
      resetMs: state.own.resetMs(time),
      isLocal: true,
    }))
  }

  #schedule(chargeSet: ChargeSet, now: number, pausedUntil: number): Schedule {
    const time = this.time(now)
    const waitMs = this.#changeMs(now)
    return new Schedule(
      now,
      this.limitsOf(chargeSet).map((state, i) => {
        const free = this.#left(state, now)
        // What waiting calls will be granted after `waitMs` is not known; they ask again then.
        const most = this.#isThere ? state.limit.requests : state.cap
        const soon = waitMs > 0 ? [{ inMs: waitMs, units: Math.max(0, most - state.used(time) - free) }] : []
        const own = state.own.releases(time).map(({ inMs, units }) => ({ inMs: Math.max(inMs, waitMs), units }))
        return { limit: state.limit, units: chargeSet.units[i]!, free, releases: [...soon, ...own] }
      }),
      pausedUntil,
    )
  }

  /** Milliseconds until it is known whether Redis is away, or until the tick that resumes. */
  #changeMs(now: number): number {
    const link = this.#link
    if (link.kind === 'resuming') return Math.max(link.at - now, RESUME_SOON_MS)
    return link.kind === 'shared' ? 0 : link.since + PATIENCE_MS - now
  }

  /** Notes calls that Redis granted. */
  noteGranted(chargeSet: ChargeSet, at: number, calls: number, now: number): void {
    const time = this.time(now)
    const limits = this.limitsOf(chargeSet)
    for (let i = 0; i < limits.length; i++) {
      const units = calls * chargeSet.units[i]!
      limits[i]!.charge(time, at, units)
      // Redis granted these calls before it went away, and the answer came after.
      if (this.mode === 'leased') limits[i]!.cap += units
    }
  }

  commit(grant: Grant, isAbandoned: boolean, now: number, units?: readonly number[]): void {
    this.#limits.commit(grant, isAbandoned, this.time(now), this.#clock.driftMs, units)
  }

  refund(grant: Grant, now: number): void {
    this.#limits.refund(grant, this.time(now))
  }

  leave(grant: Grant, now: number): void {
    this.#limits.leave(grant, this.time(now))
  }

  renew(grant: Grant, to: number, now: number): void {
    this.#limits.renew(grant, this.time(now), to)
  }

  /**
   * Redis may not have been told of these commits. Without them, calls that ended later than their charge allows for would
   * leave its count too soon.
   */
  addUnreplicatedCommit(chargeSet: ChargeSet, ended: Ended, now: number): void {
    const { what, at, calls, latest } = ended
    if (what === 'refund' || what === 'leave') return
    const time = this.time(now)
    for (const [i, state] of this.limitsOf(chargeSet).entries()) {
      const { kind, countingToleranceMs } = state.limit
      if (kind === 'concurrent' || !outlastsCharge(ended, state.limit)) continue
      const laterMs = latest - time + (what === 'abandon' ? countingToleranceMs : 0)
      state.unreplicatedCounter().addCommitted(time, at, calls * chargeSet.units[i]!, laterMs)
    }
  }

  /** Redis may not have been told of this renewal. */
  addUnreplicatedRenewal(chargeSet: ChargeSet, to: number, calls: number, open: number, now: number): void {
    const time = this.time(now)
    for (const [i, state] of this.limitsOf(chargeSet).entries()) {
      const { kind } = state.limit
      if (kind === 'smoothing') continue
      state.unreplicatedCounter().charge(time, to, (kind === 'concurrent' ? open : calls) * chargeSet.units[i]!)
    }
  }

  /** Whether nothing of this gateway counts any more. */
  isIdle(now: number): boolean {
    for (const { own } of this.limits) if (own.charges(this.time(now)).length > 0) return false
    return true
  }
}

/** Grace that is needed stays needed until charges go to Redis again. */
function laterGrace(grace: Grace, reason: OfflineReason): Grace {
  if (reason === 'lacking' || grace === 'needed') return 'needed'
  return reason === 'disconnected' ? 'doubt' : grace
}

interface Spent {
  readonly at: number
  readonly granted: number
  readonly usage: readonly LimitUsage[]
  readonly schedule: Schedule | undefined
}
