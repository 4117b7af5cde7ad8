import type { Clock } from '../time/clock.ts'
import type { Full } from './admission.ts'
import { Arrivals } from './arrivals.ts'
import type { ClassCapacity } from './capacity.ts'
import type { Demand } from '../ledger/demand.ts'
import { type QueuedClient, ClientQueue } from './client-queue.ts'
import type { QueuedCall } from './queued-call.ts'

/** Who waits in one admission queue: a queue for each client. */
export class ClientQueues {
  readonly byClient = new Map<string, ClientQueue<QueuedCall>>()
  /** Claims included, since they have to be served as well. */
  size = 0
  claims = 0
  readonly #clock: Clock
  readonly #capacity: ClassCapacity
  /** Of the calls that come to wait. */
  readonly #arrivals: Arrivals

  constructor(clock: Clock, capacity: ClassCapacity) {
    this.#clock = clock
    this.#capacity = capacity
    this.#arrivals = new Arrivals(clock)
  }

  add(queuedCall: QueuedCall): void {
    const { client } = queuedCall
    const queue = this.byClient.getOrInsertComputed(client.name, () => new ClientQueue<QueuedCall>(client))
    queue.client = client // a reload may have changed its weight
    queue.add(queuedCall)
    this.size++
    if (queuedCall.isClaim) {
      this.claims++
      queue.claims++
      return
    }
    this.#capacity.wait(1)
    this.#arrivals.add(client.name)
  }

  remove(queuedCall: QueuedCall): void {
    const { name } = queuedCall.client
    const queue = this.byClient.get(name)!
    queue.remove(queuedCall)
    if (queue.size === 0) this.byClient.delete(name)
    this.size--
    if (queuedCall.isClaim) {
      this.claims--
      queue.claims--
    } else this.#capacity.wait(-1)
  }

  readonly has = (client: string): boolean => this.byClient.has(client)

  /** How often calls of a client come to wait lately. */
  readonly perSecond = (client: string): number => this.#arrivals.perSecond(client)

  /** Any of those that wait. */
  get any(): QueuedCall | undefined {
    return this.byClient.values().next().value?.first
  }

  /** Everyone; each may leave when it is its turn. */
  *all(): Iterable<QueuedCall> {
    for (const queue of this.byClient.values()) {
      for (let queuedCall = queue.first; queuedCall !== undefined;) {
        const next = queue.after(queuedCall)
        yield queuedCall
        queuedCall = next
      }
    }
  }

  /** What other gateways are told. */
  demands(): Demand[] {
    const now = this.#clock.now()
    const isBlocked = this.#capacity.free <= 0
    const demands: Demand[] = []
    for (const queue of this.byClient.values())
      demands.push(...queue.demands(now, this.perSecond(queue.client.name), isBlocked))
    return demands
  }

  /**
   * Undefined if one more call of the client may wait; else what is full, and whose place it can have. Where calls of a client
   * that has many more of them waiting take up the places, that is the last of these: one noisy client must not keep the others
   * out.
   */
  fullFor(client: QueuedClient): { full: Full; outdone?: QueuedCall | undefined } | undefined {
    const own = waitingIn(this.byClient.get(client.name))
    const { full, mostPerClient } = this.#capacity
    if (own >= mostPerClient) return { full: { most: mostPerClient, of: `calls of ${client.name}` } }
    if (full === undefined) return undefined
    let longest: ClientQueue<QueuedCall> | undefined
    for (const queue of this.byClient.values()) {
      if (longest === undefined || waitingIn(queue) / queue.client.weight > waitingIn(longest) / longest.client.weight)
        longest = queue
    }
    const isNoisy = longest !== undefined && waitingIn(longest) / longest.client.weight > (own + 1) / client.weight
    return { full: { most: full.most, of: full.of }, outdone: isNoisy ? lastWaitingIn(longest!) : undefined }
  }
}

function waitingIn(queue: ClientQueue<QueuedCall> | undefined): number {
  return queue === undefined ? 0 : queue.size - queue.claims
}

function lastWaitingIn(queue: ClientQueue<QueuedCall>): QueuedCall | undefined {
  if (queue.claims === 0) return queue.last
  let last: QueuedCall | undefined
  for (let queuedCall = queue.first; queuedCall !== undefined; queuedCall = queue.after(queuedCall))
    if (!queuedCall.isClaim) last = queuedCall
  return last
}
