import type { Ledger } from '../ledger/ledger.ts'

/** A queue in which calls may wait. */
interface Rival {
  readonly isDue: boolean
  ask(): void
}

/**
 * The queues of one partition in which calls wait. Several may wait for the same limit, and quota goes to the queue that asks first. So
 * the one that was served least lately asks first. Otherwise a queue in which calls always wait would be first each time, and the calls
 * in the others would never have their turn.
 */
export class Rivals {
  /** Those that were served least lately come first. */
  readonly #queues = new Set<Rival>()

  /** The queues that ask this ledger for the quota of a partition. */
  static of(ledger: Ledger, partition: string): Rivals {
    const ofLedger = byLedger.getOrInsertComputed(ledger, () => new Map<string, Rivals>())
    return ofLedger.getOrInsertComputed(partition, () => new Rivals())
  }

  /** Calls wait in the queue. */
  add(queue: Rival): void {
    this.#queues.add(queue)
  }

  /** No calls wait in the queue. */
  delete(queue: Rival): void {
    this.#queues.delete(queue)
  }

  served(queue: Rival): void {
    if (this.#queues.delete(queue)) this.#queues.add(queue)
  }

  /** Lets those ask that are due and were served less lately than this queue, which asks next. */
  letOthersAsk(queue: Rival): void {
    for (const one of this.#queues) {
      if (one === queue) return
      if (one.isDue) one.ask()
    }
  }

  /**
   * A call of this queue gave quota back. Lets it ask, and one other: first the one that was served less lately. That is one only, because
   * many may wait, and most of them for other limits.
   */
  gaveBack(queue: Rival): void {
    const [first, second] = this.#queues
    const other = first === queue ? second : first
    if (first === queue) queue.ask()
    if (other !== undefined) {
      this.served(other)
      other.ask()
    }
    if (first !== queue) queue.ask()
  }
}

const byLedger = new WeakMap<Ledger, Map<string, Rivals>>()
