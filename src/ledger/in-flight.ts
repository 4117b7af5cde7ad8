import type { Clock, Timer } from '../time/clock.ts'
import { Roster } from '../time/roster.ts'
import type { Grant } from './ledger.ts'

/** The grants of which calls are in flight, each renewed before its charge could leave a window. */
export class InFlight {
  readonly #clock: Clock
  readonly #renew: (grants: readonly Grant[]) => void
  readonly #grants = new Roster<Grant>()
  #everyMs = Infinity
  #timer: Timer | undefined

  constructor(clock: Clock, renew: (grants: readonly Grant[]) => void) {
    this.#clock = clock
    this.#renew = renew
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
    this.#renew(this.#grants.all())
  }
}
