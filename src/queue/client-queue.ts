import { type Demand, PRIORITIES, type Priority } from '../ledger/demand.ts'
import { URGENCY } from './fair-share.ts'

/** A client, as far as it matters when its calls have to wait. */
export interface QueuedClient {
  readonly name: string
  readonly weight: number
  /** Part of each quota (0 to 1) that it gets at least, while it wants it. */
  readonly share: number
  /** The most urgent that its calls may be. */
  readonly priority: Priority
}

/** What stands in a queue; it belongs to one at most. */
export interface Queued {
  readonly priority: Priority
  readonly arrivedAt: number
  before: Queued | undefined
  behind: Queued | undefined
}

/** Those of one priority, linked, so that anyone leaves in one step, the last one too. */
class Line<Item extends Queued> {
  first: Item | undefined
  last: Item | undefined
  length = 0

  add(item: Item): void {
    item.before = this.last
    if (this.last === undefined) this.first = item
    else this.last.behind = item
    this.last = item
    this.length++
  }

  remove(item: Item): void {
    if (item.before === undefined) this.first = item.behind as Item | undefined
    else item.before.behind = item.behind
    if (item.behind === undefined) this.last = item.before as Item | undefined
    else item.behind.before = item.before
    item.before = item.behind = undefined
    this.length--
  }
}

/** The calls of one client that wait in one queue: the more urgent first, and of these whoever came first. */
export class ClientQueue<Item extends Queued> {
  client: QueuedClient
  size = 0
  /** How many of these are turns that are kept, and not calls that wait. */
  claims = 0
  readonly #lines = { interactive: new Line<Item>(), normal: new Line<Item>(), batch: new Line<Item>() }

  constructor(client: QueuedClient) {
    this.client = client
  }

  add(item: Item): void {
    this.#lines[item.priority].add(item)
    this.size++
  }

  remove(item: Item): void {
    this.#lines[item.priority].remove(item)
    this.size--
  }

  get first(): Item | undefined {
    for (const priority of PRIORITIES) if (this.#lines[priority].first !== undefined) return this.#lines[priority].first
    return undefined
  }

  get last(): Item | undefined {
    for (const priority of PRIORITIES.toReversed()) {
      if (this.#lines[priority].last !== undefined) return this.#lines[priority].last
    }
    return undefined
  }

  /** Who comes after `item`, or undefined after the last. */
  after(item: Item): Item | undefined {
    if (item.behind !== undefined) return item.behind as Item
    for (const priority of PRIORITIES.slice(PRIORITIES.indexOf(item.priority) + 1)) {
      if (this.#lines[priority].first !== undefined) return this.#lines[priority].first
    }
    return undefined
  }

  /** How many are at least as urgent. */
  aheadOf(priority: Priority): number {
    let ahead = 0
    for (const each of PRIORITIES) {
      ahead += this.#lines[each].length
      if (each === priority) break
    }
    return ahead
  }

  /** What other gateways need to know of it. Of a client, what comes is told once. */
  *demands(now: number, arrivals: number, isBlocked: boolean): Iterable<Demand> {
    const { name, weight, share } = this.client
    let perSecond = Math.round(arrivals * 1_000) / 1_000
    for (const priority of PRIORITIES) {
      const { length, first } = this.#lines[priority]
      if (first === undefined) continue
      const waitedMs = Math.round(now - first.arrivedAt)
      const demand = { client: name, weight, share, priority, calls: length, waitedMs, perSecond }
      yield isBlocked ? { ...demand, isBlocked } : demand
      perSecond = 0
    }
  }
}

/** The weight of a client of which calls of these priorities wait. */
export function weightOf(weight: number, priorities: Iterable<Priority>): number {
  let most = 0
  for (const priority of priorities) most = Math.max(most, URGENCY[priority])
  return weight * most
}
