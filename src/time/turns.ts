import type { Clock } from './clock.ts'

/** Each goes on for about a tenth of a millisecond, and everybody else has to wait meanwhile. */
const MOST_IN_A_TURN = 32

const byClock = new WeakMap<Clock, Turns>()

/**
 * Spreads calls that waited for the same over turns of the event loop. Without it, thousands that get their quota, a token or an answer
 * at one moment would all go on in one turn, and no other call would be served until the last of them has been sent.
 */
export class Turns {
  readonly #clock: Clock
  #passed = 0
  #next: Promise<void> | undefined

  private constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The same for everybody who has this clock, since they share the event loop. */
  static of(clock: Clock): Turns {
    return byClock.getOrInsertComputed(clock, () => new Turns(clock))
  }

  /** Undefined if one more may go on now, else a promise after which it has to ask again. */
  full(): Promise<void> | undefined {
    if (this.#next === undefined && this.#passed < MOST_IN_A_TURN) {
      this.#passed++
      return undefined
    }
    return (this.#next ??= new Promise((resolve) => {
      this.#clock.soon(() => {
        this.#passed = 0
        this.#next = undefined
        resolve()
      })
    }))
  }

  /** Resolves when one more may go on. */
  async pass(): Promise<void> {
    for (let full = this.full(); full !== undefined; full = this.full()) await full
  }
}
