import { LRUCache } from 'lru-cache'
import { Cancellation } from '../time/cancellation.ts'
import type { Entry } from './entry.ts'

/** An answer that came for another call, and whose request it answers. */
export interface Landed {
  readonly entry: Entry
  /** The fields of the request on which it depends, and the selector by their values. */
  readonly names: readonly string[] | undefined
  readonly selector: string
}

/** How long reads of what turned out not to be kept are not made to wait for one another. */
const ALONE_MS = 60_000
/** Of how many places that is remembered. */
const ALONE_KEPT = 10_000

/**
 * One read that is under way, and others that wait for its answer. It is over once: with an answer for those that wait, or
 * with nothing, and then each goes on its own.
 */
export class Flight {
  /** Of the resource when it was asked for: who finds another one came after a write. */
  readonly generation: string
  /** Whether the upstream has the request. */
  isSent = false
  #isOpen = true
  readonly #onOver: () => void
  #lastWaiterGone: Cancellation | undefined
  readonly #waiting = new Set<(landed: Landed | undefined) => void>()

  constructor(generation: string, onOver: () => void) {
    this.generation = generation
    this.#onOver = onOver
  }

  get isAwaited(): boolean {
    return this.#waiting.size > 0
  }

  /** Calls `land`, which must not throw, once it is over. Returns how to stop waiting. */
  join(land: (landed: Landed | undefined) => void): () => void {
    this.#waiting.add(land)
    return () => {
      if (this.#waiting.delete(land) && this.#waiting.size === 0) this.#lastWaiterGone?.cancel()
    }
  }

  /** Cancelled when, from now on, the last of those that wait leaves. */
  lastWaiterGone(): Cancellation {
    return (this.#lastWaiterGone ??= new Cancellation())
  }

  /** From now on nobody can join it. */
  close(): void {
    if (this.#isOpen) this.#onOver()
    this.#isOpen = false
  }

  end(landed: Landed | undefined): void {
    this.close()
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const land of waiting) land(landed)
  }
}

/** The reads that are under way in this process, by what they ask for. */
export class Flights {
  readonly #flights = new Map<string, Flight>()
  /** Until when reads of a place go alone. */
  readonly #alone = new LRUCache<string, number>({ max: ALONE_KEPT })

  /** The flight that a read may wait for. */
  find(key: string, generation: string): Flight | undefined {
    const flight = this.#flights.get(key)
    return flight?.generation === generation ? flight : undefined
  }

  /** Begins one, unless there is one already, or the last answer was not for others. */
  begin(key: string, generation: string, now: number): Flight | undefined {
    const aloneUntil = this.#alone.get(key)
    if (aloneUntil !== undefined) {
      if (aloneUntil > now) return undefined
      this.#alone.delete(key)
    }
    const before = this.#flights.get(key)
    if (before?.generation === generation) return undefined
    before?.close()
    const flight = new Flight(generation, () => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key)
    })
    this.#flights.set(key, flight)
    return flight
  }

  /** The answer is not for others, and the next ones will probably not be either. */
  goAlone(key: string, now: number): void {
    this.#alone.set(key, now + ALONE_MS)
  }
}
