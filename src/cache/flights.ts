import { LRUCache } from 'lru-cache'
import { Cancellation } from '../time/cancellation.ts'
import type { Entry } from './entry.ts'

/** The answer to a read, for the reads that waited for it. `names` and `selector` tell whether it answers their requests, too. */
export interface Landed {
  readonly entry: Entry
  /** The names of the request fields that the answer depends on, and the selector that their values give. */
  readonly names: readonly string[] | undefined
  readonly selector: string
}

/** How long reads of a place do not wait for one another after an answer that could not be shared, in milliseconds. */
const ALONE_MS = 60_000
/** How many such places are remembered. */
const ALONE_KEPT = 10_000

/**
 * A read that is under way, and the reads that wait for its answer. It ends once: with an answer for all that wait, or without
 * one, and then each of them asks the upstream itself.
 */
export class Flight {
  /** The generation of the resource when the read began. A read that finds another one came after a write. */
  readonly generation: string
  /** Whether the request was sent to the upstream. */
  isSent = false
  /**
   * How long its own call could wait, in milliseconds, if it was refused and more time might have helped. -Infinity if its client left;
   * Infinity in any other case. A read with more patience may still get an answer.
   */
  patienceMs = Infinity
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

  /**
   * Calls `land` at the end of the flight, with the answer, or with undefined if there is none. `land` must not throw. Returns a
   * function that stops the wait.
   */
  join(land: (landed: Landed | undefined) => void): () => void {
    this.#waiting.add(land)
    return () => {
      if (this.#waiting.delete(land) && this.#waiting.size === 0) this.#lastWaiterGone?.cancel()
    }
  }

  /** Returns a cancellation for the time when the last waiting read leaves. Ask for it when the flight's own client has gone. */
  lastWaiterGone(): Cancellation {
    return (this.#lastWaiterGone ??= new Cancellation())
  }

  /** Keeps further reads from finding the flight. The reads that wait already still get its answer. */
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

/** The flights of this process, by the key of the place that they read. */
export class Flights {
  /** An object without a prototype. A Map would keep finished reads in memory, see `Roster`. */
  readonly #flights = Object.create(null) as Record<string, Flight>
  /** Until when the reads of a place do not wait for one another. With `max` it would take all its memory at the start. */
  readonly #alone = new LRUCache<string, number>({ maxSize: ALONE_KEPT, sizeCalculation: () => 1 })

  /** Returns the flight that a read of this generation may wait for; undefined if there is none. */
  find(key: string, generation: string): Flight | undefined {
    const flight = this.#flights[key]
    return flight?.generation === generation ? flight : undefined
  }

  /** Begins a flight. Returns undefined if there is one of this generation already, or if an answer could not be shared lately. */
  begin(key: string, generation: string, now: number): Flight | undefined {
    const aloneUntil = this.#alone.get(key)
    if (aloneUntil !== undefined) {
      if (aloneUntil > now) return undefined
      this.#alone.delete(key)
    }
    const before = this.#flights[key]
    if (before?.generation === generation) return undefined
    before?.close()
    const flight = new Flight(generation, () => {
      if (this.#flights[key] === flight) delete this.#flights[key]
    })
    this.#flights[key] = flight
    return flight
  }

  /** Notes that an answer could not be shared: the next ones will probably not be shareable either. */
  goAlone(key: string, now: number): void {
    this.#alone.set(key, now + ALONE_MS)
  }
}
