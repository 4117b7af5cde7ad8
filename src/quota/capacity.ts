/** What the waiting rooms of one account and class share: how many calls may wait, and how many be in flight. */
export class Capacity {
  maxWaiting: number
  #concurrency: number
  waiting = 0
  inFlight = 0
  /** Rooms in which calls wait for others to end. */
  readonly #blocked = new Set<() => void>()

  /** Undefined concurrency is any number in flight. */
  constructor(maxWaiting: number, concurrency = Infinity) {
    this.maxWaiting = maxWaiting
    this.#concurrency = concurrency
  }

  /** After a reload: those who wait and those in flight stay, even if they are more than there may be now. */
  change(maxWaiting: number, concurrency = Infinity): void {
    this.maxWaiting = maxWaiting
    this.#concurrency = concurrency
    this.release(0)
  }

  /** How many more may be in flight. */
  get free(): number {
    return this.#concurrency - this.inFlight
  }

  /** Calls are not in flight any more: whoever waited for that is told, once. */
  release(calls: number): void {
    this.inFlight -= calls
    if (this.#blocked.size === 0 || this.free <= 0) return
    const blocked = [...this.#blocked]
    this.#blocked.clear()
    for (const serve of blocked) serve()
  }

  onRelease(serve: () => void): void {
    this.#blocked.add(serve)
  }
}
