import { retryAfterSeconds } from '../http/retry-after.ts'
import type { Clock, Timer } from '../time/clock.ts'
import type { ChargeSet } from '../ledger/ledger.ts'
import type { Permit } from './permit.ts'
import type { QueuedCall } from './queued-call.ts'

/** Clients come back a little later than they are told. */
const GRACE_MS = 1_000
/** A permit is kept for its client for at most this part of the window after the time that the client was told. */
const GRACE_PART = 0.1
/**
 * The claims in a queue are at most this part of a limit, or the least number below if that is more. One client has at
 * most half of that part, or the same least number.
 */
const PART_OF_LIMIT = 0.2
/** The least number of claims that is always allowed: about as many calls as come at once. */
const LEAST_CLAIMS = 16
/** The same least number where a window is shorter than SHORT_MS. */
const LEAST_OF_SHORT = 4
const SHORT_MS = 5_000

/** A call that was refused while others waited, and told when to come back. */
interface Claim {
  readonly client: string
  readonly chargeSet: ChargeSet
  /** When the client was told to come back. */
  toldAt: number
  /** Its place in the queue, until its turn comes. */
  queuedCall: QueuedCall | undefined
  /** From its turn on, the permit that is held for the client's next call. */
  permit: Permit | undefined
  timer: Timer | undefined
}

/**
 * Keeps the turn of calls that were refused and told when to come back. Without that, they would find the quota taken
 * by calls that waited meanwhile, again and again. A claim stands in the queue of its client like a call that waits, so
 * it takes nothing beyond its client's share. When its turn comes, a permit is kept for the client's next call of the
 * same charge set. An unused permit is given back a second after the told time, or a tenth of the window after it if
 * that is sooner. Claims exist only for rolling windows, because other limits count when a call is sent. Each gateway
 * keeps its own claims.
 */
export class Claims {
  readonly #clock: Clock
  readonly #byClient = new Map<string, Claim[]>()
  #size = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get isEmpty(): boolean {
    return this.#size === 0
  }

  /** Takes the permit that is held for a call of this client and charge set; undefined if there is none. */
  take(client: string, chargeSet: ChargeSet): Permit | undefined {
    const claim = this.#byClient.get(client)?.find((one) => one.permit !== undefined && one.chargeSet === chargeSet)
    if (claim === undefined) return undefined
    const { permit } = claim
    claim.permit = undefined
    this.#remove(claim)
    permit!.startAt(this.#clock.now())
    return permit
  }

  /**
   * The client's claim on this charge set whose told time has come; undefined if there is none. The call that comes now
   * is taken for the one that was told.
   */
  dueNow(client: string, chargeSet: ChargeSet): Claim | undefined {
    const now = this.#clock.now()
    return this.#byClient.get(client)?.find((claim) => claim.toldAt <= now && claim.chargeSet === chargeSet)
  }

  /** Whether the client may have one more claim. Where nothing is limited, there is no turn to keep. */
  mayAdd(client: string, chargeSet: ChargeSet): boolean {
    if (chargeSet.limits.length === 0 || !chargeSet.limits.every(({ kind }) => kind === 'rolling')) return false
    const least = Math.min(...chargeSet.limits.map(({ requests }) => requests))
    const isShort = chargeSet.limits.some(({ windowMs }) => windowMs < SHORT_MS)
    const few = isShort ? LEAST_OF_SHORT : LEAST_CLAIMS
    const most = Math.max(few, least * PART_OF_LIMIT)
    const ofClient = this.#byClient.get(client)?.length ?? 0
    return this.#size < most && ofClient < Math.max(few, most / 2)
  }

  /**
   * Adds a claim, for which `queuedCall` stands in the queue. When its turn comes, `onPermit` is offered the permit. It
   * returns whether another call took the permit at once.
   */
  add(queuedCall: QueuedCall, waitMs: number, onPermit: (permit: Permit) => boolean): void {
    const { client, chargeSet } = queuedCall
    const toldAt = this.#clock.now() + toldMs(waitMs)
    const claim: Claim = { client: client.name, chargeSet, toldAt, queuedCall, permit: undefined, timer: undefined }
    this.#byClient.getOrInsertComputed(client.name, () => []).push(claim)
    this.#size++
    this.#await(claim)
    queuedCall.ended.then(
      (admission) => {
        claim.queuedCall = undefined
        if (admission.kind !== 'admitted') return this.#remove(claim)
        const { permit } = admission
        // Removed meanwhile: its queue was closed, or its time is over.
        const isOver = this.#byClient.get(claim.client)?.includes(claim) !== true
        if (isOver || onPermit(permit)) {
          this.#remove(claim)
          if (isOver) permit[Symbol.dispose]()
        } else claim.permit = permit
      },
      () => this.#remove(claim),
    )
  }

  /** The call came back before its turn, so it is told a new time. */
  tellAgain(claim: Claim, waitMs: number): void {
    claim.toldAt = this.#clock.now() + toldMs(waitMs)
    this.#await(claim)
  }

  /** Ends all claims: gives back their permits, and takes them out of the queue. */
  clear(): void {
    for (const claim of [...this.#byClient.values()].flat()) this.#end(claim)
  }

  #await(claim: Claim): void {
    claim.timer?.cancel()
    const windowMs = Math.min(...claim.chargeSet.limits.map((limit) => limit.windowMs))
    const graceMs = Math.min(GRACE_MS, windowMs * GRACE_PART)
    claim.timer = this.#clock.schedule(claim.toldAt - this.#clock.now() + graceMs, () => this.#end(claim))
  }

  #end(claim: Claim): void {
    const { queuedCall, permit } = claim
    claim.permit = undefined
    this.#remove(claim)
    try {
      queuedCall?.end({ kind: 'gone', because: 'quota', wait: undefined })
    } finally {
      permit?.[Symbol.dispose]()
    }
  }

  #remove(claim: Claim): void {
    claim.timer?.cancel()
    const claims = this.#byClient.get(claim.client)
    const at = claims?.indexOf(claim) ?? -1
    if (claims === undefined || at < 0) return
    claims.splice(at, 1)
    this.#size--
    if (claims.length === 0) this.#byClient.delete(claim.client)
  }
}

/** After how many milliseconds a client that has to wait `waitMs` is told to come back. */
function toldMs(waitMs: number): number {
  return retryAfterSeconds(waitMs) * 1_000
}
