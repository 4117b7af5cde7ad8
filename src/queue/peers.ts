import type { Clock, Timer } from '../time/clock.ts'
import type { PeerDemand, Demand } from '../ledger/demand.ts'
import { type Grant, type Ledger, REPORT_TERM_MS } from '../ledger/ledger.ts'

/** How often other gateways are told who waits here, at least. They would forget it after REPORT_TERM_MS. */
const REPORT_EVERY_MS = 1_000
const EXCHANGE_NO_SOONER_MS = 100
/** The least time between two exchanges if others would otherwise wait for turns that nobody here can take. */
const BLOCKED_NO_SOONER_MS = 25
/** If the number of waiting calls changes by more than this part, that is told as soon as possible. */
const WORTH_TELLING = 0.02

interface PeersOptions {
  readonly ledger: Ledger
  readonly clock: Clock
  readonly partition: string
  readonly queue: string
  /** Who waits here. */
  demands(): Demand[]
  /**
   * Called after each exchange. `peerDemand` is what was heard; undefined if nothing could be heard. `granted` is how
   * many calls the others were granted since a charge or an exchange last told that.
   */
  onHeard(peerDemand: PeerDemand | undefined, granted: number): void
}

/** The queues of the same name at other gateways. Tells them who waits here, and knows what was last heard of them. */
export class Peers {
  readonly #ledger: Ledger
  readonly #clock: Clock
  readonly #options: PeersOptions
  #heard: PeerDemand | undefined
  /** What the others had been told of this gateway at the last exchange. */
  told: readonly Demand[] = []
  /**
   * How many calls that had waited were granted at all gateways together, as last known; undefined if a charge did not
   * tell.
   */
  #turns: number | undefined
  /** How many of them were granted here since the demand exchange was read. */
  #own = 0
  #timer: Timer | undefined
  #exchangedAt = -Infinity
  #waiting = 0
  #toldWaiting = 0
  #isTelling = false

  constructor(options: PeersOptions) {
    this.#options = options
    this.#ledger = options.ledger
    this.#clock = options.clock
  }

  /**
   * What was last heard, until it is REPORT_TERM_MS old. While nobody waits here, no exchange is planned, so it becomes
   * old: a call that comes then must not be refused for calls that waited elsewhere long ago.
   */
  get peerDemand(): PeerDemand | undefined {
    const isOld = this.#heard !== undefined && this.#clock.now() - this.#heard.at >= REPORT_TERM_MS
    return isOld ? undefined : this.#heard
  }

  /** Whether calls wait at other gateways. */
  get haveWaiting(): boolean {
    const { peerDemand } = this
    return peerDemand !== undefined && peerDemand.others.length > 0
  }

  /** Whether that was heard so lately that a call that comes now is surely behind them. */
  get areAhead(): boolean {
    return this.haveWaiting && this.#clock.now() - this.#heard!.at < REPORT_EVERY_MS
  }

  /** How many calls the others were granted since the demand exchange was read. */
  get admitted(): number {
    const { peerDemand } = this
    if (peerDemand === undefined || this.#turns === undefined) return 0
    return Math.max(0, this.#turns - peerDemand.turns - this.#own)
  }

  charged({ granted, turns }: Grant): void {
    this.#turns = turns
    this.#own += granted
  }

  /** Notes how many calls wait here now. The others are told soon, unless the change makes no difference to them. */
  waitingHere(waiting: number): void {
    this.#waiting = waiting
    if (this.#ledger.exchange === undefined || this.#isTelling) return
    const change = Math.abs(waiting - this.#toldWaiting)
    if (waiting > 0 && this.#toldWaiting > 0 && (!this.haveWaiting || change <= WORTH_TELLING * waiting)) return
    this.#tellSoon()
  }

  /** None of the calls that wait here can be sent now, so the others need not wait for their turns. */
  blocked(): void {
    if (!this.haveWaiting || this.#isTelling || this.told.some(({ isBlocked }) => isBlocked)) return
    this.#tellSoon(BLOCKED_NO_SOONER_MS)
  }

  #tellSoon(noSoonerMs = EXCHANGE_NO_SOONER_MS): void {
    this.#isTelling = true
    this.#exchangeIn(Math.max(0, this.#exchangedAt + noSoonerMs - this.#clock.now()))
  }

  /** Tells who waits here, and hears who waits there. Never rejects. */
  async exchange(): Promise<void> {
    const { partition, queue, demands, onHeard } = this.#options
    const { exchange } = this.#ledger
    if (exchange === undefined) return
    this.#exchangedAt = this.#clock.now()
    this.#isTelling = false
    this.#toldWaiting = this.#waiting
    this.#exchangeIn(this.#waiting > 0 ? REPORT_EVERY_MS : undefined)
    const told = demands()
    const peerDemand = await exchange.call(this.#ledger, partition, queue, told)
    this.#heard = peerDemand
    this.told = told
    const turns = this.#turns
    this.#turns = peerDemand?.turns
    this.#own = 0
    onHeard(peerDemand, turns === undefined || peerDemand === undefined ? 0 : Math.max(0, peerDemand.turns - turns))
  }

  #exchangeIn(delayMs: number | undefined): void {
    this.#timer?.cancel()
    this.#timer = undefined
    if (delayMs === undefined) return
    this.#timer = this.#clock.schedule(delayMs, () => {
      this.#timer = undefined
      void this.exchange()
    })
  }
}
