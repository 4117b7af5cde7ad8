import { AdaptiveConcurrency, type ConcurrencyBounds } from './adaptive-concurrency.ts'

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

/** Calls that may be in flight: a number, or bounds between which it is adapted; undefined is any number. */
export type Concurrency = number | ConcurrencyBounds | undefined

interface CapacityOptions {
  readonly concurrency?: Concurrency
  /** How many calls of one client may wait in one queue. */
  readonly mostPerClient?: number | undefined
}

/** What the admission queues of one account and class share: how many calls may wait, and how many may be in flight. */
export class ClassCapacity {
  /** The capacity of the class, then of its account, then of the process. */
  readonly #capacities: readonly QueueCapacity[]
  #concurrency: number | AdaptiveConcurrency
  mostPerClient: number
  inFlight = 0
  /** The queues in which calls wait for a call in flight to end. Each is called once when that happens. */
  #blocked = new Set<() => void>()

  constructor(capacities: readonly QueueCapacity[], { concurrency, mostPerClient = Infinity }: CapacityOptions = {}) {
    this.#capacities = capacities
    this.#concurrency = concurrencyOf(concurrency)
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
  change(queue: { maxWaiting: number; maxWaitingPerClient?: number | undefined }, concurrency: Concurrency): void {
    this.#capacities[0]!.most = queue.maxWaiting
    this.mostPerClient = queue.maxWaitingPerClient ?? Infinity
    this.#concurrency = concurrencyOf(concurrency, this.#concurrency)
    this.release(0)
  }

  /** Whether calls have to wait for others in flight to end. */
  get isBounded(): boolean {
    return this.#concurrency !== Infinity
  }

  /** How many may be in flight now, if that is adapted. */
  get adapted(): number | undefined {
    return typeof this.#concurrency === 'object' ? this.#concurrency.limit : undefined
  }

  /** A call was answered after `tookMs`, or was refused because there were too many, or not answered in time. */
  answered(tookMs: number, isRefusal: boolean): void {
    if (typeof this.#concurrency !== 'object') return
    this.#concurrency.note(tookMs, isRefusal, this.inFlight)
    this.release(0)
  }

  /** How many more calls may be in flight; negative while more are in flight than may be now. */
  get free(): number {
    return (this.adapted ?? (this.#concurrency as number)) - this.inFlight
  }

  /** This many calls are not in flight any more. Each queue that waited for a free slot is told once. */
  release(calls: number): void {
    this.inFlight -= calls
    if (this.#blocked.size === 0 || this.free <= 0) return
    const blocked = this.#blocked
    // Not `clear`, which would link the old table to the next: see `Roster`.
    this.#blocked = new Set()
    for (const serve of blocked) serve()
  }

  onRelease(serve: () => void): void {
    this.#blocked.add(serve)
  }
}

function concurrencyOf(concurrency: Concurrency, before?: number | AdaptiveConcurrency): number | AdaptiveConcurrency {
  if (typeof concurrency !== 'object') return concurrency ?? Infinity
  if (typeof before !== 'object') return new AdaptiveConcurrency(concurrency)
  before.change(concurrency)
  return before
}
