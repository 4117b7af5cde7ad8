import type { Ledger } from '../ledger/ledger.ts'

/** A queue in which calls may wait. */
interface Rival {
  /** When it asks next; Infinity if no time is planned. */
  readonly dueAt: number
  ask(): void
}

/**
 * The queues of one partition in which calls wait. Several may wait for the same limit, and quota goes to the queue that asks first. So
 * the one that was served least lately asks first. Otherwise a queue in which calls always wait would be first each time, and the calls
 * in the others would never have their turn.
 */
export class Rivals {
  /** Each with the number of its latest turn. Those that were served least lately come first. */
  readonly #turns = new Map<Rival, number>()
  /** Those that were asked least lately, when a call gave quota back, come first. */
  readonly #listeners = new Set<Rival>()
  #turn = 0

  /** The queues that ask this ledger for the quota of a partition. */
  static of(ledger: Ledger, partition: string): Rivals {
    const ofLedger = byLedger.getOrInsertComputed(ledger, () => new Map<string, Rivals>())
    return ofLedger.getOrInsertComputed(partition, () => new Rivals())
  }

  /** Calls wait in the queue. */
  add(queue: Rival): void {
    if (this.#turns.has(queue)) return
    this.#turns.set(queue, ++this.#turn)
    this.#listeners.add(queue)
  }

  /** No calls wait in the queue. */
  delete(queue: Rival): void {
    this.#turns.delete(queue)
    this.#listeners.delete(queue)
  }

  served(queue: Rival): void {
    if (this.#turns.delete(queue)) this.#turns.set(queue, ++this.#turn)
  }

  /** Lets those ask that are due by then and were served less lately than this queue, which asks next. */
  letOthersAsk(queue: Rival, by: number): void {
    for (const one of this.#turns.keys()) {
      if (one === queue) return
      if (one.dueAt <= by) one.ask()
    }
  }

  /**
   * A call of this queue gave quota back. Lets it ask, and one other: first the one that was served less lately. That is one only, because
   * many may wait, and most of them for other limits. They are asked in turn. To be asked is not to be served, so it costs no turn.
   */
  gaveBack(queue: Rival): void {
    const [first, second] = this.#listeners
    const other = first === queue ? second : first
    if (other === undefined) return queue.ask()
    this.#listeners.delete(other)
    this.#listeners.add(other)
    const isFirst = this.#turns.has(queue) && this.#turns.get(queue)! < this.#turns.get(other)!
    for (const one of isFirst ? [queue, other] : [other, queue]) one.ask()
  }
}

const byLedger = new WeakMap<Ledger, Map<string, Rivals>>()
