import type { Clock } from '../time/clock.ts'
import type { Full } from './admission.ts'
import { Arrivals } from './arrivals.ts'
import type { Capacity } from './capacity.ts'
import type { Demand } from '../ledger/demand.ts'
import { type Claimant, ClientQueue } from './client-queue.ts'
import type { Place } from './place.ts'

/** Who waits in one room: a queue for each client. */
export class Queues {
  readonly byClient = new Map<string, ClientQueue<Place>>()
  /** Claims included, since they have to be served as well. */
  size = 0
  claims = 0
  readonly #clock: Clock
  readonly #capacity: Capacity
  /** Of the calls that come to wait. */
  readonly #arrivals: Arrivals

  constructor(clock: Clock, capacity: Capacity) {
    this.#clock = clock
    this.#capacity = capacity
    this.#arrivals = new Arrivals(clock)
  }

  add(place: Place): void {
    const { client } = place
    const queue = this.byClient.getOrInsertComputed(client.name, () => new ClientQueue<Place>(client))
    queue.client = client // a reload may have changed its weight
    queue.add(place)
    this.size++
    if (place.isClaim) {
      this.claims++
      queue.claims++
      return
    }
    this.#capacity.wait(1)
    this.#arrivals.add(client.name)
  }

  remove(place: Place): void {
    const { name } = place.client
    const queue = this.byClient.get(name)!
    queue.remove(place)
    if (queue.size === 0) this.byClient.delete(name)
    this.size--
    if (place.isClaim) {
      this.claims--
      queue.claims--
    } else this.#capacity.wait(-1)
  }

  readonly has = (client: string): boolean => this.byClient.has(client)

  /** How often calls of a client come to wait lately. */
  readonly perSecond = (client: string): number => this.#arrivals.perSecond(client)

  /** Any of those that wait. */
  get any(): Place | undefined {
    return this.byClient.values().next().value?.first
  }

  /** Everyone; each may leave when it is its turn. */
  *all(): Iterable<Place> {
    for (const queue of this.byClient.values()) {
      for (let place = queue.first; place !== undefined;) {
        const next = queue.after(place)
        yield place
        place = next
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
  fullFor(client: Claimant): { full: Full; outdone?: Place | undefined } | undefined {
    const own = waitingIn(this.byClient.get(client.name))
    const { full, mostPerClient } = this.#capacity
    if (own >= mostPerClient) return { full: { most: mostPerClient, of: `calls of ${client.name}` } }
    if (full === undefined) return undefined
    let longest: ClientQueue<Place> | undefined
    for (const queue of this.byClient.values()) {
      if (longest === undefined || waitingIn(queue) / queue.client.weight > waitingIn(longest) / longest.client.weight)
        longest = queue
    }
    const isNoisy = longest !== undefined && waitingIn(longest) / longest.client.weight > (own + 1) / client.weight
    return { full: { most: full.most, of: full.of }, outdone: isNoisy ? lastWaitingIn(longest!) : undefined }
  }
}

function waitingIn(queue: ClientQueue<Place> | undefined): number {
  return queue === undefined ? 0 : queue.size - queue.claims
}

function lastWaitingIn(queue: ClientQueue<Place>): Place | undefined {
  if (queue.claims === 0) return queue.last
  let last: Place | undefined
  for (let place = queue.first; place !== undefined; place = queue.after(place)) if (!place.isClaim) last = place
  return last
}
