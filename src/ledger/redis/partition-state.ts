import { type Charges, Counter } from '../counter.ts'
import type { Grant, LimitUsage, ChargeSet } from '../ledger.ts'
import type { Limit } from '../limit.ts'
import { Schedule } from '../schedule.ts'
import { type Ended, outlastsCharge } from './outbox.ts'

/** What one gateway knows of one limit that it shares with others through Redis. */
class Share {
  limit: Limit
  /** The calls of this gateway alone. */
  own: Counter
  /** Of these, what Redis has not been told, or has forgotten. */
  unreplicated: Counter | undefined
  /** Units set aside for this gateway in Redis, for when it can't be asked. */
  lease = 0
  /** The lease as it was when Redis was lost: it stays set aside there while the lease lasts, whatever is spent of it. */
  reserve = 0
  /** Units that calls without an answer yet may take out of the lease. */
  asked = 0
  /** What they may have taken when Redis was lost; in that case Redis counts as much to this gateway's calls. */
  doubtful = 0
  /** The most that this gateway's own calls may count while all gateways are without Redis. */
  cap = 0

  constructor(limit: Limit) {
    this.limit = limit
    this.own = new Counter(limit)
  }

  /** Units of own calls that count now. */
  used(time: number): number {
    return this.limit.requests - this.own.free(time)
  }

  /** What Redis keeps for own calls: those that it knows of, and the lease, of which what was spent comes back by itself. */
  reserved(time: number): number {
    const known = this.used(time) - (this.unreplicated?.used(time) ?? 0)
    return Math.max(0, known) + this.reserve
  }

  unreplicatedCounter(): Counter {
    return (this.unreplicated ??= new Counter(this.limit))
  }

  /** What is counted was counted by another clock: from now on it is as if all of it was charged at `time`. */
  rebase(time: number): void {
    this.own = movedTo(time, this.own)
    if (this.unreplicated !== undefined) this.unreplicated = movedTo(time, this.unreplicated)
  }
}

function movedTo(time: number, counter: Counter): Counter {
  const moved = new Counter(counter.limit)
  for (const { units } of counter.charges(-Infinity)) moved.charge(time, time, units)
  return moved
}

/** Where the time of an answer and its number are noted, no closer together than this. */
const NOTE_EVERY_MS = 100
const NOTES = 1_000

/** How long a gateway without Redis spends its leases only, as long as Redis may be there for all others. */
const PATIENCE_MS = 1_000

/**
 * A gateway that was longer without an answer waits for the others when it finds Redis again: they may have noticed it
 * sooner, or find it later, by two ticks and two timeouts in all, and so have lost patience meanwhile.
 */
const BRIEF_MS = PATIENCE_MS - 650

/** How soon to ask again for what Redis has, when a gateway is about to return to it. */
const RESUME_SOON_MS = 25

/** By how much the clocks of two machines may go apart; ten times what they do. */
const DRIFT = 1 / 1_000

/**
 * What one gateway knows of the limits of one partition: its own calls, by Redis's clock; its leases; and whether Redis knows
 * what it should. Every call of the script is numbered. So when Redis has lost its latest writes, or everything, the next
 * answer tells, and so it tells which of the calls that were never answered it has run.
 *
 * While Redis is up, the charges of all gateways and their leases together never exceed a limit. A gateway that gets no
 * answer first spends its leases, which nobody else can be granted. After PATIENCE_MS it is taken to be without Redis, as
 * all others are: then its calls may count as much as they did when it went, and its leases more, in sum over all gateways
 * still no more than the limit. When Redis answers, what is left of that becomes its lease.
 */
export class PartitionState {
  readonly name: string
  /** `shared` while charges are made in Redis. */
  mode: 'shared' | 'leased' = 'shared'
  /** While leased: when charges may go to Redis again; undefined until it answers. */
  resumeAt: number | undefined
  #offlineSince = 0
  /** Taken to be without Redis, as all others are. */
  #isAlone = false
  /** Redis answered last. */
  #isThere = true
  /** Others may have something to tell Redis before charges go there again. */
  #needsGrace = false
  /** So may they as long as it is not known that it is the same Redis that answers again. */
  #isInDoubt = false
  /** Leases are set aside until then, by our clock. */
  #leasedUntil = 0
  /** Number of the last call sent, and of the last one answered. */
  sent = 0
  #answered = 0
  /** How many calls Redis remembered when it first answered with a wrong number. */
  #remembered: number | undefined
  /** Times of answers with their numbers, oldest first. */
  #notes: { number: number; at: number }[] = []
  readonly #shares = new Map<string, Share>()
  /** Until when, by our clock, the upstream wants no calls of an account. */
  readonly #pauses = new Map<string, number>()
  readonly #sharesOf = new WeakMap<ChargeSet, readonly Share[]>()
  /** Redis's clock less ours lies between these two. */
  #leastOffset = 0
  #mostOffset = 0
  #timeSetAt = 0
  /** How far apart they have been at most since we met. */
  #uncertainMs = 0
  #isTimeKnown = false

  constructor(name: string) {
    this.name = name
  }

  /** The upstream wants no calls of the charge set's account for so long. */
  pause(chargeSet: ChargeSet, now: number, ms: number): void {
    this.#pauses.set(chargeSet.account, Math.max(this.pausedUntil(chargeSet, now), now + ms))
  }

  /** 0 if it does. */
  pausedUntil({ account }: ChargeSet, now: number): number {
    const until = this.#pauses.get(account) ?? 0
    return until > now ? until : 0
  }

  sharesOf(chargeSet: ChargeSet): readonly Share[] {
    let shares = this.#sharesOf.get(chargeSet)
    if (shares === undefined) {
      shares = chargeSet.limits.map((limit) => {
        const share = this.#shares.getOrInsertComputed(limit.id, () => new Share(limit))
        if (limit.order > share.limit.order) {
          share.limit = limit
          share.own.limit = limit
        }
        return share
      })
      this.#sharesOf.set(chargeSet, shares)
    }
    return shares
  }

  get shares(): Iterable<Share> {
    return this.#shares.values()
  }

  /** Redis's time, as far as we know, or a little earlier. */
  time(now: number): number {
    return now + this.#leastOffset
  }

  /** Redis's time, or a little later. */
  latestTime(now: number): number {
    return now + this.#mostOffset + (now - this.#timeSetAt) * DRIFT
  }

  /** A call with these wishes goes out. */
  asks(chargeSet: ChargeSet, wanted: number): void {
    const shares = this.sharesOf(chargeSet)
    for (let i = 0; i < shares.length; i++) shares[i]!.asked += wanted * chargeSet.units[i]!
  }

  /** Its answer came. */
  isAnswered(chargeSet: ChargeSet, wanted: number): void {
    this.asks(chargeSet, -wanted)
    const shares = this.sharesOf(chargeSet)
    for (let i = 0; i < shares.length; i++)
      shares[i]!.doubtful = Math.max(0, shares[i]!.doubtful - wanted * chargeSet.units[i]!)
  }

  /**
   * Its answer will never be heeded. Either it has taken nothing of the lease, or what it took is charged to calls that were not
   * sent: so the lease may be spent after all, where such a charge lasts until this gateway knows whether it is alone.
   */
  isLost(chargeSet: ChargeSet, wanted: number): void {
    this.asks(chargeSet, -wanted)
    for (const [i, share] of this.sharesOf(chargeSet).entries()) {
      const { windowMs, inFlightLeaseMs } = share.limit
      if (windowMs + inFlightLeaseMs < 2 * PATIENCE_MS) continue
      const units = Math.max(0, Math.min(share.doubtful - share.asked, wanted * chargeSet.units[i]!))
      share.doubtful -= units
      share.lease += units
      share.reserve += units
      share.cap += units
    }
  }

  /** Redis answered at its time `at` to what was sent and received at these times of our clock. */
  setTime(at: number, sentAt: number, receivedAt: number): void {
    this.#timeSetAt = receivedAt
    this.#leastOffset = at - receivedAt
    this.#mostOffset = at - sentAt
    this.#uncertainMs = Math.max(this.#uncertainMs, receivedAt - sentAt)
    if (this.#isTimeKnown) return
    this.#isTimeKnown = true
    // By our clock, which may be ahead: the counters would stand still until Redis's comes after.
    for (const share of this.#shares.values()) share.rebase(at)
  }

  /** Redis answered the call of that number at its time `at`. */
  note(number: number, at: number): void {
    this.#answered = Math.max(this.#answered, number)
    const last = this.#notes.at(-1)
    if (last !== undefined && at - last.at < NOTE_EVERY_MS) return
    this.#notes.push({ number, at })
    if (this.#notes.length > NOTES) this.#notes.splice(0, NOTES / 2)
  }

  /** The answer had a wrong number: before that call, Redis had run `remembered` calls of ours. */
  misses(remembered: number): void {
    this.#remembered ??= remembered
  }

  /** Notes the leases that an answer tells to what was sent at `sentAt`; a negative one is as it was. */
  lease(chargeSet: ChargeSet, unitsOf: (limit: number) => number, sentAt: number, termMs: number): void {
    for (const [i, share] of this.sharesOf(chargeSet).entries()) {
      const units = unitsOf(i)
      // What is spent without Redis is counted here, not there. And only the answer to a renewal can tell of more: until
      // then Redis may know more of it than we may spend.
      if (units >= 0 && this.mode === 'shared') share.lease = termMs > 0 ? units : Math.min(share.lease, units)
    }
    if (termMs > 0) this.#leasedUntil = sentAt + termMs
  }

  /**
   * Redis gave no answer, or the connection to it was lost, and with it perhaps what was written last. Or it `isThere`, but may
   * not know what it should.
   */
  goOffline(now: number, isLossPossible: boolean, isThere: boolean): void {
    this.#needsGrace ||= isLossPossible
    this.#isThere = isThere
    if (this.mode === 'leased' && this.resumeAt === undefined) return
    this.mode = 'leased'
    this.resumeAt = undefined
    this.#isAlone = false
    this.#offlineSince = now
    for (const share of this.#shares.values()) {
      const lease = now < this.#leasedUntil ? share.lease : 0
      share.doubtful = Math.min(lease, share.asked)
      share.lease = lease - share.doubtful
      share.reserve = share.lease
      share.cap = share.limit.requests
    }
    this.#lowerCaps(now)
  }

  /** Whether it waits for others to tell Redis what it lost, or will. */
  get hasLost(): boolean {
    return this.mode === 'leased' && this.#needsGrace
  }

  /** The connection was lost; what answers next may be another Redis. */
  doubt(): void {
    this.#isInDoubt = true
  }

  /** It is the same one, and has lost nothing; or it is not. */
  recognise(isSame: boolean): void {
    if (!isSame) this.#needsGrace ||= this.#isInDoubt
    this.#isInDoubt = false
  }

  /** For how long Redis has not been asked. */
  awayMs(now: number): number {
    return now - this.#offlineSince
  }

  #lowerCaps(now: number): void {
    // Later rather than earlier: what has left Redis's count, others may have been granted.
    const time = now + this.#mostOffset + this.#uncertainMs
    for (const share of this.#shares.values()) {
      const reserved = now < this.#leasedUntil ? share.reserved(time) : 0
      share.cap = Math.min(share.cap, Math.max(share.used(time) + share.lease, reserved))
    }
  }

  /**
   * Redis answers again; `number` is that of the call that it answered. What it lacks of ours is unreplicated from now on.
   * If others may have something to tell it too, charges have to wait until they can have done so; `isOnly`: no other uses it.
   */
  reconnect(number: number, now: number, graceMs: number, isOnly = false): void {
    const remembered = this.#remembered ?? number - 1
    if (remembered < this.#answered) {
      this.#needsGrace = true
      this.#markUnreplicatedSince(this.#timeOf(remembered), now)
    }
    this.#remembered = undefined
    this.#notes = this.#notes.filter((note) => note.number <= remembered)
    this.#answered = number
    this.#isThere = true
    this.sent = number
    const time = this.time(now)
    if (this.becomesAlone(now)) {
      for (const share of this.#shares.values()) share.lease = Math.max(0, share.cap - share.used(time))
    } else if (now >= this.#leasedUntil) {
      for (const share of this.#shares.values()) share.lease = 0
    }
    const wasBrief = !this.#isAlone && now - this.#offlineSince < BRIEF_MS
    this.resumeAt = (wasBrief || isOnly) && !this.#needsGrace && !this.#isInDoubt ? now : now + graceMs
  }

  /** Charges are made in Redis again. */
  resume(): void {
    this.mode = 'shared'
    this.resumeAt = undefined
    this.#isAlone = false
    this.#needsGrace = false
    this.#isInDoubt = false
  }

  /** Whether by now it is to be taken to be without Redis, as all others are. */
  becomesAlone(now: number): boolean {
    if (!this.#isAlone && this.resumeAt === undefined && now - this.#offlineSince >= PATIENCE_MS) {
      this.#isAlone = true
      this.#needsGrace = true
      // Until now, others may have been granted what left our count.
      this.#lowerCaps(now)
    }
    return this.#isAlone
  }

  /** Units that may be charged without Redis now. */
  #left(share: Share, now: number): number {
    // Each gateway paces its own: together they send no more than their leases anyway.
    if (share.limit.kind === 'smoothing') return share.own.free(this.time(now))
    if (this.resumeAt === undefined && this.becomesAlone(now)) return share.cap - share.used(this.time(now))
    return this.resumeAt === undefined && now >= this.#leasedUntil ? 0 : share.lease
  }

  #timeOf(number: number): number {
    return this.#notes.findLast((note) => note.number <= number)?.at ?? -Infinity
  }

  #markUnreplicatedSince(since: number, now: number): void {
    const time = this.time(now)
    for (const share of this.#shares.values()) {
      // A bucket more, because ours begin a rounding error before or after those of Redis.
      const first = share.own.bucketOf(since) - 1
      share.unreplicated = new Counter(share.limit)
      for (const { bucket, units } of share.own.charges(time))
        if (bucket >= first) share.unreplicated.restore(time, bucket, units)
    }
  }

  /** Everything unreplicated, by limit; it is no more, unless the caller restores it. */
  takeUnreplicated(chargeSet: ChargeSet, now: number): Charges[][] {
    const time = this.time(now)
    return this.sharesOf(chargeSet).map((share) => {
      const charges = share.unreplicated?.charges(time) ?? []
      share.unreplicated = undefined
      return charges
    })
  }

  restoreUnreplicated(chargeSet: ChargeSet, unreplicated: readonly (readonly Charges[])[], now: number): void {
    const time = this.time(now)
    for (const [i, share] of this.sharesOf(chargeSet).entries()) {
      for (const { bucket, units } of unreplicated[i]!) share.unreplicatedCounter().restore(time, bucket, units)
    }
  }

  /** Charges up to `wanted` calls to the leases; undefined if Redis is away and one of the limits has no lease at all. */
  spend(chargeSet: ChargeSet, wanted: number, now: number, isOpen: boolean): Spent | undefined {
    const time = this.time(now)
    const shares = this.sharesOf(chargeSet)
    const pausedUntil = this.pausedUntil(chargeSet, now)
    let granted = pausedUntil > 0 ? 0 : wanted
    for (const [i, share] of shares.entries()) {
      if (isOpen || !share.limit.isEnforced) continue
      if (!this.#isThere && share.limit.kind !== 'smoothing' && Math.max(share.cap, share.lease) < chargeSet.units[i]!)
        return undefined
      granted = Math.min(granted, Math.floor(this.#left(share, now) / chargeSet.units[i]!))
    }
    granted = Math.max(0, granted)
    if (granted > 0) {
      for (const [i, share] of shares.entries()) {
        const units = granted * chargeSet.units[i]!
        share.own.charge(time, time, units)
        share.unreplicatedCounter().charge(time, time, units)
        share.lease = Math.max(0, share.lease - units)
      }
    }
    const schedule = granted < wanted ? this.#schedule(chargeSet, now, pausedUntil) : undefined
    return { at: time, granted, usage: this.usage(chargeSet, now), schedule }
  }

  /** As it stands without Redis: what this gateway may not spend counts as used. */
  usage(chargeSet: ChargeSet, now: number): LimitUsage[] {
    const time = this.time(now)
    return this.sharesOf(chargeSet).map((share) => ({
      limit: share.limit,
      used: Math.max(0, share.limit.requests - Math.max(0, this.#left(share, now))),
      resetMs: share.own.resetMs(time),
    }))
  }

  #schedule(chargeSet: ChargeSet, now: number, pausedUntil: number): Schedule {
    const time = this.time(now)
    // Until it is known whether Redis is away, or until all gateways have told it what it lacks, and the next tick returns to it.
    const waitMs =
      this.resumeAt === undefined
        ? this.#offlineSince + PATIENCE_MS - now
        : Math.max(this.resumeAt - now, RESUME_SOON_MS)
    return new Schedule(
      now,
      this.sharesOf(chargeSet).map((share, i) => {
        const free = this.#left(share, now)
        const own = share.own.releases(time)
        // What it will be granted then is not known; it asks again.
        const most = this.#isThere ? share.limit.requests : share.cap
        const soon = waitMs > 0 ? [{ inMs: waitMs, units: Math.max(0, most - share.used(time) - free) }] : []
        const releases = [...soon, ...own.map(({ inMs, units }) => ({ inMs: Math.max(inMs, waitMs), units }))]
        return { limit: share.limit, units: chargeSet.units[i]!, free, releases }
      }),
      pausedUntil,
    )
  }

  /** Notes calls that Redis granted. */
  granted(chargeSet: ChargeSet, at: number, calls: number, now: number): void {
    const time = this.time(now)
    const shares = this.sharesOf(chargeSet)
    for (let i = 0; i < shares.length; i++) {
      const units = calls * chargeSet.units[i]!
      shares[i]!.own.charge(time, at, units)
      // Granted before Redis went away, and answered after.
      if (this.mode === 'leased') shares[i]!.cap += units
    }
  }

  commit({ chargeSet, at, isLocal }: Grant, isAbandoned: boolean, now: number): void {
    const time = this.time(now)
    const shares = this.sharesOf(chargeSet)
    for (let i = 0; i < shares.length; i++) {
      const share = shares[i]!
      if (share.limit.kind === 'concurrent') continue
      const units = chargeSet.units[i]!
      const laterMs = this.#laterMs(share, isAbandoned)
      share.own.commit(time, at, units, laterMs)
      if (this.mode === 'shared') continue
      // Where Redis counts the call already it will count it twice for a while: more than there was, never less.
      if (isLocal) share.unreplicatedCounter().commit(time, at, units, laterMs)
      else share.unreplicatedCounter().addCommitted(time, at, units, laterMs)
    }
  }

  /** Redis may not have been told of these commits: of calls that ended after their charge may leave its count. */
  addUnreplicatedCommit(chargeSet: ChargeSet, ended: Ended, now: number): void {
    const { what, at, calls, latest } = ended
    if (what === 'refund' || what === 'leave') return
    const time = this.time(now)
    for (const [i, share] of this.sharesOf(chargeSet).entries()) {
      const { kind, countingToleranceMs } = share.limit
      if (kind === 'concurrent' || !outlastsCharge(ended, share.limit)) continue
      share
        .unreplicatedCounter()
        .addCommitted(
          time,
          at,
          calls * chargeSet.units[i]!,
          latest - time + (what === 'abandon' ? countingToleranceMs : 0),
        )
    }
  }

  /** How much later than `time` the upstream may have counted a call that is committed now. */
  #laterMs({ limit }: Share, isAbandoned: boolean): number {
    return this.#mostOffset - this.#leastOffset + (isAbandoned ? limit.countingToleranceMs : 0)
  }

  refund(grant: Grant, now: number): void {
    this.#takeBack(grant, 'windowed', now)
  }

  leave(grant: Grant, now: number): void {
    this.#takeBack(grant, 'concurrent', now)
  }

  #takeBack({ chargeSet, at, isLocal }: Grant, which: 'windowed' | 'concurrent', now: number): void {
    const time = this.time(now)
    for (const [i, share] of this.sharesOf(chargeSet).entries()) {
      if ((share.limit.kind === 'concurrent') !== (which === 'concurrent')) continue
      share.own.refund(time, at, chargeSet.units[i]!)
      if (isLocal && this.mode === 'leased') share.unreplicated?.refund(time, at, chargeSet.units[i]!)
    }
  }

  renew({ chargeSet, at, uncommitted, open, isLocal }: Grant, to: number, now: number): void {
    const time = this.time(now)
    for (const [i, share] of this.sharesOf(chargeSet).entries()) {
      if (share.limit.kind === 'smoothing') continue
      const units = (share.limit.kind === 'concurrent' ? open : uncommitted) * chargeSet.units[i]!
      share.own.renew(time, at, to, units)
      if (this.mode === 'shared') continue
      if (isLocal) share.unreplicatedCounter().renew(time, at, to, units)
      else share.unreplicatedCounter().charge(time, to, units)
    }
  }

  /** Redis may not have been told of this renewal. */
  addUnreplicatedRenewal(chargeSet: ChargeSet, to: number, calls: number, open: number, now: number): void {
    const time = this.time(now)
    for (const [i, share] of this.sharesOf(chargeSet).entries()) {
      if (share.limit.kind === 'smoothing') continue
      share
        .unreplicatedCounter()
        .charge(time, to, (share.limit.kind === 'concurrent' ? open : calls) * chargeSet.units[i]!)
    }
  }

  /** Whether nothing of this gateway counts any more. */
  isIdle(now: number): boolean {
    for (const { own } of this.#shares.values()) if (own.charges(this.time(now)).length > 0) return false
    return true
  }
}

interface Spent {
  readonly at: number
  readonly granted: number
  readonly usage: readonly LimitUsage[]
  readonly schedule: Schedule | undefined
}
