/** How many calls may wait in a class, an account or the process, and how many do. */
export class QueueCapacity {
  most: number
  /** What the calls have in common, such as `read calls of harness/prod`. */
  readonly of: string
  waiting = 0

  constructor(most: number, of: string) {
    this.most = most
    this.of = of
  }
}

interface CapacityOptions {
  /** Calls that may be in flight; undefined is any number. */
  readonly concurrency?: number | undefined
  /** How many calls of one client may wait in one queue. */
  readonly mostPerClient?: number | undefined
}

/** What the admission queues of one account and class share: how many calls may wait, and how many may be in flight. */
export class ClassCapacity {
  /** The capacity of the class, then of its account, then of the process. */
  readonly #capacities: readonly QueueCapacity[]
  #concurrency: number
  mostPerClient: number
  inFlight = 0
  /** Called once when a call ends: the queues in which calls wait for that. */
  readonly #blocked = new Set<() => void>()

  constructor(
    capacities: readonly QueueCapacity[],
    { concurrency = Infinity, mostPerClient = Infinity }: CapacityOptions = {},
  ) {
    this.#capacities = capacities
    this.#concurrency = concurrency
    this.mostPerClient = mostPerClient
  }

  get waiting(): number {
    return this.#capacities[0]?.waiting ?? 0
  }

  /** The first capacity that is used up. */
  get full(): QueueCapacity | undefined {
    return this.#capacities.find(({ waiting, most }) => waiting >= most)
  }

  /** Somebody begins to wait (1) or does not wait any more (-1). */
  wait(change: 1 | -1): void {
    for (const capacity of this.#capacities) capacity.waiting += change
  }

  /** After a reload: those who wait and those in flight stay, even if they are more than there may be now. */
  change(queue: { maxWaiting: number; maxWaitingPerClient?: number | undefined }, concurrency = Infinity): void {
    this.#capacities[0]!.most = queue.maxWaiting
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

  /** So many calls are not in flight any more. Each queue that waited for that is told once. */
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
