import type { Call } from './call.ts'

/** One of two attempts of one call that are under way at once. */
export interface Runner {
  /** Another was first: gives up without a word. */
  lose(): void
}

/**
 * Two attempts of one call, of which at most one answers it: the first with response headers that are no failure, or the
 * last that is left. Times of the call count once.
 */
export class Race {
  readonly startedAt: number
  readonly #call: Call
  readonly #runners = new Set<Runner>()
  #isOver = false
  /** Called once, when no other attempt is of use any more. */
  onOver: () => void = () => undefined

  constructor(call: Call) {
    this.#call = call
    this.startedAt = call.clock.now()
  }

  /** Whether another attempt would still be of use. */
  get isOpen(): boolean {
    return !this.#isOver && !this.#call.isGone
  }

  /** How many are under way. */
  get runners(): number {
    return this.#runners.size
  }

  join(runner: Runner): void {
    this.#runners.add(runner)
  }

  /** Whether the runner, which has response headers, may go on with them; the others have lost then. */
  claims(runner: Runner, isFailure: boolean): boolean {
    if (isFailure && this.#runners.size > 1) return false
    this.close()
    for (const other of this.#runners) if (other !== runner) other.lose()
    return true
  }

  /** The runner ended by a mistake of the gateway: the others end as well, since nobody waits for them any more. */
  crash(runner: Runner): void {
    this.#runners.delete(runner)
    this.close()
    for (const other of this.#runners) other.lose()
  }

  /** The runner has ended. Returns whether it was the last, whose end is that of the attempt. */
  leaves(runner: Runner): boolean {
    this.#runners.delete(runner)
    if (this.#runners.size > 0) return false
    this.close()
    return true
  }

  /** No other attempt is of use any more. */
  close(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.onOver()
  }
}
