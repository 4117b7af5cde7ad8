import type { Clock } from '../time/clock.ts'
import { Turns } from '../time/turns.ts'
import { type Demand, PRIORITIES, type Priority } from '../ledger/demand.ts'
import type { ChargeSet } from '../ledger/ledger.ts'
import type { QueuedClient } from './admission.ts'
import type { ClassCapacity } from './capacity.ts'
import type { QueuedCall } from './queued-call.ts'

/** The calls of one priority. They form a linked list, so any call can leave in constant time. */
class Line {
  first: QueuedCall | undefined
  last: QueuedCall | undefined
  length = 0

  add(call: QueuedCall): void {
    call.before = this.last
    if (this.last === undefined) this.first = call
    else this.last.behind = call
    this.last = call
    this.length++
  }

  remove(call: QueuedCall): void {
    if (call.before === undefined) this.first = call.behind
    else call.before.behind = call.behind
    if (call.behind === undefined) this.last = call.before
    else call.behind.before = call.before
    call.before = call.behind = undefined
    this.length--
  }
}

/** The calls of one client that wait in one queue. More urgent calls go first, and among equals the one that came first. */
export class ClientQueue {
  client: QueuedClient
  size = 0
  /** How many of `size` are claims: places kept for calls that were refused and told to come back. */
  claims = 0
  readonly #lines = { interactive: new Line(), normal: new Line(), batch: new Line() }

  constructor(client: QueuedClient) {
    this.client = client
  }

  add(call: QueuedCall): void {
    this.#lines[call.priority].add(call)
    this.size++
  }

  remove(call: QueuedCall): void {
    this.#lines[call.priority].remove(call)
    this.size--
  }

  get first(): QueuedCall | undefined {
    for (const priority of PRIORITIES) if (this.#lines[priority].first !== undefined) return this.#lines[priority].first
    return undefined
  }

  get last(): QueuedCall | undefined {
    for (const priority of PRIORITIES.toReversed()) {
      if (this.#lines[priority].last !== undefined) return this.#lines[priority].last
    }
    return undefined
  }

  /** How many calls wait; a claim does not. */
  get waiting(): number {
    return this.size - this.claims
  }

  /** The last call that is no claim. */
  get lastWaiting(): QueuedCall | undefined {
    if (this.claims === 0) return this.last
    let last: QueuedCall | undefined
    for (let call = this.first; call !== undefined; call = this.after(call)) if (!call.isClaim) last = call
    return last
  }

  /** The call that is served after `call`; undefined after the last. */
  after(call: QueuedCall): QueuedCall | undefined {
    if (call.behind !== undefined) return call.behind
    for (const priority of PRIORITIES.slice(PRIORITIES.indexOf(call.priority) + 1)) {
      if (this.#lines[priority].first !== undefined) return this.#lines[priority].first
    }
    return undefined
  }

  /** How many calls have this priority. */
  lengthOf(priority: Priority): number {
    return this.#lines[priority].length
  }

  /** How many calls are at least as urgent as `priority`. */
  aheadOf(priority: Priority): number {
    let ahead = 0
    for (const each of PRIORITIES) {
      ahead += this.#lines[each].length
      if (each === priority) break
    }
    return ahead
  }

  /** What other gateways are told of this queue. Only the first demand has the rate of arrivals, so that it is counted once. */
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

/** The calls that wait in one admission queue. Each client has a queue of its own. */
export class ClientQueues {
  readonly byClient = new Map<string, ClientQueue>()
  /** All calls, and the claims too, because claims are served as well. */
  size = 0
  claims = 0
  /** How many calls and claims have each charge set. */
  readonly #chargeSets = new Map<ChargeSet, number>()
  readonly #clock: Clock
  readonly #capacity: ClassCapacity
  readonly #arrivals: Arrivals

  constructor(clock: Clock, capacity: ClassCapacity) {
    this.#clock = clock
    this.#capacity = capacity
    this.#arrivals = new Arrivals(clock)
  }

  add(queuedCall: QueuedCall): void {
    const { client } = queuedCall
    const queue = this.byClient.getOrInsertComputed(client.name, () => new ClientQueue(client))
    queue.client = client // a reload may have changed its weight
    queue.add(queuedCall)
    this.size++
    this.#count(queuedCall.chargeSet, 1)
    if (queuedCall.isClaim) {
      this.claims++
      queue.claims++
      return
    }
    this.#capacity.wait(client, this, 1)
    this.#arrivals.add(client.name)
  }

  remove(queuedCall: QueuedCall): void {
    const { name } = queuedCall.client
    const queue = this.byClient.get(name)!
    queue.remove(queuedCall)
    if (queue.size === 0) this.byClient.delete(name)
    this.size--
    this.#count(queuedCall.chargeSet, -1)
    if (queuedCall.isClaim) {
      this.claims--
      queue.claims--
    } else this.#capacity.wait(queue.client, this, -1)
  }

  /** How many calls wait; a claim does not. */
  get waiting(): number {
    return this.size - this.claims
  }

  /** Whether the calls have more than one charge set. */
  get areVaried(): boolean {
    return this.#chargeSets.size > 1
  }

  /** Whether any call here has another charge set than this call, which has left. */
  differFrom({ chargeSet }: QueuedCall): boolean {
    return this.areVaried || this.any?.chargeSet !== chargeSet
  }

  /** Changes the charge set of a call that waits. */
  charge(queuedCall: QueuedCall, chargeSet: ChargeSet): void {
    this.#count(queuedCall.chargeSet, -1)
    this.#count(chargeSet, 1)
    queuedCall.chargeSet = chargeSet
  }

  #count(chargeSet: ChargeSet, change: 1 | -1): void {
    const calls = (this.#chargeSets.get(chargeSet) ?? 0) + change
    if (calls === 0) this.#chargeSets.delete(chargeSet)
    else this.#chargeSets.set(chargeSet, calls)
  }

  readonly has = (client: string): boolean => this.byClient.has(client)

  /** How many calls a second of a client have come to wait lately. */
  readonly perSecond = (client: string): number => this.#arrivals.perSecond(client)

  /** Some call or claim; undefined if there is none. */
  get any(): QueuedCall | undefined {
    return this.byClient.values().next().value?.first
  }

  /** All calls and claims. The caller may remove the call that was yielded last, but no other. */
  *all(): Iterable<QueuedCall> {
    for (const queue of this.byClient.values()) {
      for (let queuedCall = queue.first; queuedCall !== undefined;) {
        const next = queue.after(queuedCall)
        yield queuedCall
        queuedCall = next
      }
    }
  }

  /** Ends the wait of as many calls as are here now. Between them it lets other work of the event loop go on. */
  async endAll(end: (queuedCall: QueuedCall) => void): Promise<void> {
    const turns = Turns.of(this.#clock)
    for (let left = this.size; left > 0; left--) {
      for (let full = turns.full(); full !== undefined; full = turns.full()) await full
      const { any } = this
      if (any === undefined) return
      end(any)
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
}

/** Up to so many clients are remembered without a check whether they still come. */
const FEW = 100
/** A client may be forgotten once its rate is below this. After a single call that takes about a minute. */
const LEAST_PER_SECOND = 1 / 1_000

/** How often calls of each client have come lately. Clients that have stopped coming are forgotten. */
export class Arrivals {
  readonly #clock: Clock
  readonly #rates = new Map<string, Rate>()
  /** All clients are checked when there are so many: twice as many as the last check left. So a check costs little for each client. */
  #most = FEW

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#rates.size
  }

  add(client: string): void {
    this.#rates.getOrInsertComputed(client, () => new Rate(this.#clock)).add()
    if (this.#rates.size < this.#most) return
    for (const [name, { perSecond }] of this.#rates) if (perSecond < LEAST_PER_SECOND) this.#rates.delete(name)
    this.#most = Math.max(FEW, 2 * this.#rates.size)
  }

  perSecond(client: string): number {
    return this.#rates.get(client)?.perSecond ?? 0
  }
}

/** The rate is a mean over about this time. The longer ago a call was, the less it counts. */
const OVER_MS = 10_000

/** How often something happens lately. */
class Rate {
  readonly #clock: Clock
  #perSecond = 0
  #at: number

  constructor(clock: Clock) {
    this.#clock = clock
    this.#at = clock.now()
  }

  add(): void {
    this.#perSecond = this.perSecond + 1_000 / OVER_MS
    this.#at = this.#clock.now()
  }

  get perSecond(): number {
    return this.#perSecond * Math.exp((this.#at - this.#clock.now()) / OVER_MS)
  }
}
