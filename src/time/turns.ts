import type { Clock } from './clock.ts'

/** The most calls that go on in one turn, in which no other call is served: see `npm run bench:latency -- --only turns`. */
const MOST_IN_A_TURN = 32

const byClock = new WeakMap<Clock, Turns>()

/**
 * Spreads calls that waited for the same thing over several turns of the event loop. Without it, thousands of calls that get their quota,
 * a token or an answer at one moment would all go on in one turn, and no other call would be served until the last of them was sent.
 */
export class Turns {
  readonly #clock: Clock
  #passed = 0
  #next: Promise<void> | undefined

  private constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The turns of this clock: whoever shares the clock shares the event loop. */
  static of(clock: Clock): Turns {
    return byClock.getOrInsertComputed(clock, () => new Turns(clock))
  }

  /**
   * Returns undefined if one more call may go on now, and counts that call. After `MOST_IN_A_TURN` calls it returns a promise of the
   * next turn, after which the caller must ask again. The count does not start anew with each turn: that would take a callback at the
   * end of each, and an idle turn is short.
   */
  full(): Promise<void> | undefined {
    if (this.#next === undefined && this.#passed < MOST_IN_A_TURN) {
      this.#passed++
      return undefined
    }
    return (this.#next ??= nextTurn(this.#clock).then(() => {
      this.#passed = 0
      this.#next = undefined
    }))
  }

  /** Resolves when one more call may go on. */
  async pass(): Promise<void> {
    for (let full = this.full(); full !== undefined; full = this.full()) await full
  }
}

/**
 * Calls `act` with each item, at most `most` of them in one turn of the event loop. The first turn is this one: nothing is awaited
 * before. If `act` throws, the rest is left out and the promise rejects.
 */
export async function forEachInTurns<Item>(
  items: Iterable<Item>,
  most: number,
  clock: Clock,
  act: (item: Item) => void,
): Promise<void> {
  let left = most
  for (const item of items) {
    if (left-- === 0) {
      await nextTurn(clock)
      left = most - 1
    }
    act(item)
  }
}

/** Resolves in the next turn of the event loop, after everything that is ready to run now. */
export function nextTurn(clock: Clock): Promise<void> {
  return new Promise((resolve) => clock.soon(resolve))
}

/** The most calls that `endOfTurn` lets go on in one turn, in which nothing is read. */
const MOST_TOGETHER = 128

interface End {
  readonly reached: Promise<void>
  asked: number
}
const ends = new WeakMap<Clock, End>()

/**
 * Resolves at the end of this turn of the event loop, for all callers of this turn, one after the other. So calls that take the same
 * step take it together, while the processor has its code and data in its caches. If more than `MOST_TOGETHER` ask, the rest resolve
 * in later turns.
 */
export function endOfTurn(clock: Clock): Promise<void> {
  let end = ends.get(clock)
  if (end === undefined || end.asked === MOST_TOGETHER) {
    const turn = end === undefined ? nextTurn(clock) : end.reached.then(() => nextTurn(clock))
    const next: End = { asked: 0, reached: turn.then(() => void (ends.get(clock) === next && ends.delete(clock))) }
    ends.set(clock, (end = next))
  }
  end.asked++
  return end.reached
}
