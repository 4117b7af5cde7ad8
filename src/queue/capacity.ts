/** How many calls may wait in one part of the program, and how many do. */
export class Places {
  most: number
  /** What the calls have in common, such as `read calls of harness/prod`. */
  readonly of: string
  taken = 0

  constructor(most: number, of: string) {
    this.most = most
    this.of = of
  }
}

interface CapacityOptions {
  /** Calls that may be in flight; undefined is any number. */
  readonly concurrency?: number | undefined
  /** How many calls of one client may wait in one room. */
  readonly mostPerClient?: number | undefined
}

/** What the waiting rooms of one account and class share: places to wait in, and how many calls be in flight. */
export class Capacity {
  /** Of the class, then of the wider circles that it is part of: its account, the process. */
  readonly #places: readonly Places[]
  #concurrency: number
  mostPerClient: number
  inFlight = 0
  /** Rooms in which calls wait for others to end. */
  readonly #blocked = new Set<() => void>()

  constructor(places: readonly Places[], { concurrency = Infinity, mostPerClient = Infinity }: CapacityOptions = {}) {
    this.#places = places
    this.#concurrency = concurrency
    this.mostPerClient = mostPerClient
  }

  get waiting(): number {
    return this.#places[0]?.taken ?? 0
  }

  /** The first of the circles in which nobody more may wait. */
  get full(): Places | undefined {
    return this.#places.find(({ taken, most }) => taken >= most)
  }

  /** Somebody begins to wait (1) or does not wait any more (-1). */
  wait(change: 1 | -1): void {
    for (const places of this.#places) places.taken += change
  }

  /** After a reload: those who wait and those in flight stay, even if they are more than there may be now. */
  change(queue: { maxWaiting: number; maxWaitingPerClient?: number | undefined }, concurrency = Infinity): void {
    this.#places[0]!.most = queue.maxWaiting
    this.mostPerClient = queue.maxWaitingPerClient ?? Infinity
    this.#concurrency = concurrency
    this.release(0)
  }

  /** Whether calls have to wait for others in flight to end. */
  get isBounded(): boolean {
    return this.#concurrency !== Infinity
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
