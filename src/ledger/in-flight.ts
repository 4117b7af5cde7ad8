import type { Clock, Timer } from '../time/clock.ts'
import { Roster } from '../time/roster.ts'
import { forEachInTurns } from '../time/turns.ts'
import type { Grant } from './ledger.ts'

/** About a millisecond. */
const MOST_IN_A_TURN = 512

interface InFlightOptions {
  readonly clock: Clock
  renew(grant: Grant): void
  /** All were renewed. */
  onRenewed?(): void
}

/**
 * The grants of which calls are in flight, each renewed before its charge could leave a window. Many are renewed over several turns of
 * the event loop; a lease is long enough for that.
 */
export class InFlight {
  readonly #options: InFlightOptions
  readonly #clock: Clock
  readonly #grants = new Roster<Grant>()
  #everyMs = Infinity
  #timer: Timer | undefined

  constructor(options: InFlightOptions) {
    this.#options = options
    this.#clock = options.clock
  }

  add(grant: Grant): void {
    if (grant.rest !== undefined) this.add(grant.rest)
    this.#grants.add(grant)
    if (grant.part.renewMs < this.#everyMs) {
      this.#everyMs = grant.part.renewMs
      this.#timer?.cancel()
      this.#timer = undefined
    }
    // The timer is not stopped when the last call ends: otherwise every call would make a timer and throw it away.
    this.#timer ??= this.#clock.schedule(this.#everyMs, this.#onTick)
  }

  /** Forgets a grant of which no call is in flight any more. */
  update(grant: Grant): void {
    if (!grant.isInFlight) this.#grants.delete(grant)
  }

  close(): void {
    this.#timer?.cancel()
    this.#grants.clear()
  }

  readonly #onTick = (): void => {
    this.#timer = undefined
    if (this.#grants.size === 0) return
    this.#timer = this.#clock.schedule(this.#everyMs, this.#onTick)
    void this.#renewAll()
  }

  async #renewAll(): Promise<void> {
    await forEachInTurns(this.#grants.all(), MOST_IN_A_TURN, this.#clock, (grant) => {
      // It may have ended meanwhile.
      if (grant.isListed) this.#options.renew(grant)
    })
    this.#options.onRenewed?.()
  }
}
