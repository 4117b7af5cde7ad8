import { AdaptiveConcurrency, type ConcurrencyBounds } from './adaptive-concurrency.ts'
import type { Full, QueuedClient } from './admission.ts'
import type { QueuedCall } from './queued-call.ts'

/** The calls of one client that wait in one queue. */
interface Waiting {
  readonly waiting: number
  readonly lastWaiting: QueuedCall | undefined
}

/** The calls that wait in one queue. */
interface WaitingCalls {
  readonly waiting: number
  readonly byClient: ReadonlyMap<string, Waiting>
}

/** How many calls may wait in a class, an account or the process, and which do. */
export class QueueCapacity {
  most: number
  /** What the calls have in common, such as `read calls of harness/prod`. */
  readonly of: string
  waiting = 0
  /** Each queue in which anybody waits. */
  readonly #queues = new Set<WaitingCalls>()
  readonly #byClient = new Map<string, { client: QueuedClient; waiting: number }>()

  constructor(most: number, of: string) {
    this.most = most
    this.of = of
  }

  waitingOf(client: string): number {
    return this.#byClient.get(client)?.waiting ?? 0
  }

  /** A call of the client begins to wait in the queue (1) or does not wait any more (-1). */
  wait(client: QueuedClient, queue: WaitingCalls, change: 1 | -1): void {
    this.waiting += change
    if (change > 0) this.#queues.add(queue)
    else if (queue.waiting === 0) this.#queues.delete(queue)
    const known = this.#byClient.getOrInsertComputed(client.name, () => ({ client, waiting: 0 }))
    if (change > 0) known.client = client // a reload may have changed its weight
    known.waiting += change
    if (known.waiting === 0) this.#byClient.delete(client.name)
  }

  /** The last call of the client that has the most calls for its weight; undefined if this client would, with one more. */
  lastOfNoisier(client: QueuedClient): QueuedCall | undefined {
    let noisiest = (this.waitingOf(client.name) + 1) / client.weight
    let name: string | undefined
    for (const { client: other, waiting } of this.#byClient.values()) {
      const noise = waiting / other.weight
      if (noise > noisiest) [name, noisiest] = [other.name, noise]
    }
    return name === undefined ? undefined : this.#lastOf(name)
  }

  /** The last call of a client in the queue in which it has most. */
  #lastOf(name: string): QueuedCall | undefined {
    let most: Waiting | undefined
    for (const { byClient } of this.#queues) {
      const one = byClient.get(name)
      if (one !== undefined && one.waiting > (most?.waiting ?? 0)) most = one
    }
    return most?.lastWaiting
  }
}

/** Calls that may be in flight: a number, or bounds between which it is adapted; undefined is any number. */
export type Concurrency = number | ConcurrencyBounds | undefined

interface CapacityOptions {
  readonly concurrency?: Concurrency
  /** How many calls of one client may wait. */
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

  /**
   * Returns undefined if one more call of the client may wait, else what is full. `outdone` is a call that must leave to make room: the
   * last call of the client that has the most calls waiting for its weight, in any class if it is the account or the process that is
   * full. So one noisy client can't keep the others out. Without `outdone` the new call may not wait.
   */
  fullFor(client: QueuedClient): { full: Full; outdone?: QueuedCall | undefined } | undefined {
    const [ofClass] = this.#capacities
    const most = this.mostPerClient
    if (ofClass!.waitingOf(client.name) >= most) return { full: { most, of: `calls of ${client.name}` } }
    const full = this.#capacities.find(({ waiting, most }) => waiting >= most)
    return full && { full: { most: full.most, of: full.of }, outdone: full.lastOfNoisier(client) }
  }

  /** A call of the client begins to wait in the queue (1) or does not wait any more (-1). */
  wait(client: QueuedClient, queue: WaitingCalls, change: 1 | -1): void {
    for (const capacity of this.#capacities) capacity.wait(client, queue, change)
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
