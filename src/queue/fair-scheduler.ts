import { type PeerDemand, type Demand, PRIORITIES, type Priority } from '../ledger/demand.ts'
import type { QueuedClient } from './admission.ts'
import type { ClientQueue } from './client-queues.ts'
import { callsAhead, costsOf, type Flow, isByWeight, type Part, servingOrder, URGENCY } from './fair-share.ts'
import type { QueuedCall } from './queued-call.ts'

export interface Choice {
  readonly chosen: readonly QueuedCall[]
  /** Whether some of the chosen calls take a turn that belongs to calls at other gateways. */
  readonly isTurnOfOthers: boolean
}

interface SchedulerEntry extends Flow {
  readonly queue: ClientQueue | undefined
  /** That of its most urgent call. */
  readonly urgency: number
  /** The client's calls that wait at other gateways. */
  readonly elsewhere: readonly Demand[]
  /** `elsewhere` without the calls that are blocked there, because too many calls are in flight. */
  readonly ready: readonly Demand[]
  /** What the other gateways know of the client's calls that wait here. */
  readonly told: readonly Demand[]
  /** How many calls a second come to wait, over all gateways. */
  readonly perSecond: number
}

/** What this gateway knows, at one moment, of the calls that wait for one quota. */
export interface SchedulerInput {
  readonly now: number
  readonly queues: ReadonlyMap<string, ClientQueue>
  /** For each client, what its served calls have cost. */
  readonly virtualService: ReadonlyMap<string, number>
  /** How many calls a second of a client come to wait here. */
  perSecond(client: string): number
  readonly peerDemand: PeerDemand | undefined
  /** What the other gateways knew of the calls here when the demand exchange was read. */
  readonly told: readonly Demand[]
  /** How many calls other gateways were granted since the demand exchange was read. */
  readonly admittedElsewhere: number
}

/** The order in which the calls that wait for one quota, at one moment and at all gateways, are served. */
export class FairScheduler {
  readonly #entries: SchedulerEntry[] = []
  /** The entries without calls that are blocked at their gateway. These could not use their turn. */
  readonly #ready: readonly Flow[]
  readonly #numbers = new Map<string, number>()
  readonly #costs: readonly number[]
  readonly #known: SchedulerInput

  /** `newcomer` is counted as a client that waits, even if none of its calls waits yet. */
  constructor(known: SchedulerInput, newcomer?: { client: QueuedClient; priority: Priority }) {
    const { queues, virtualService, peerDemand, told } = known
    this.#known = known
    const elsewhere = Map.groupBy(peerDemand?.others ?? [], ({ client }) => client)
    const ownTold = Map.groupBy(elsewhere.size === 0 ? [] : told, ({ client }) => client)
    const names = new Set([...queues.keys(), ...elsewhere.keys()])
    if (newcomer !== undefined) names.add(newcomer.client.name)
    let least = Infinity
    for (const name of names) least = Math.min(least, virtualService.get(name) ?? Infinity)
    // The order decides between clients that are equal. So it must be the same at all gateways.
    for (const name of elsewhere.size === 0 ? names : [...names].sort()) {
      const queue = queues.get(name)
      const others = elsewhere.get(name) ?? []
      const client = queue?.client ?? (newcomer?.client.name === name ? newcomer.client : others[0]!)
      const priorities: Priority[] = others.map(({ priority }) => priority)
      if (queue?.first !== undefined) priorities.push(queue.first.priority)
      if (newcomer?.client.name === name) priorities.push(newcomer.priority)
      let urgency = 0
      for (const priority of priorities) urgency = Math.max(urgency, URGENCY[priority])
      let [calls, perSecond] = [queue?.size ?? 0, known.perSecond(name)]
      for (const other of others) {
        calls += other.calls
        perSecond += other.perSecond
      }
      this.#numbers.set(name, this.#entries.length)
      this.#entries.push({
        queue,
        elsewhere: others,
        ready: others.filter(({ isBlocked }) => isBlocked !== true),
        told: ownTold.get(name) ?? [],
        calls,
        perSecond,
        parts: partsByPriority(queue, others, urgency),
        share: client.share,
        urgency,
        weight: client.weight * urgency,
        virtualService: virtualService.get(name) ?? (least === Infinity ? 0 : least),
      })
    }
    this.#costs = costsOf(this.#entries)
    this.#ready = peerDemand?.others.some(({ isBlocked }) => isBlocked) ? this.#entries.map(readyOf) : this.#entries
  }

  /** How much a call adds to the virtual service of its client when it is served. */
  costOf({ client, priority }: QueuedCall): number {
    const i = this.#numbers.get(client.name)
    if (i === undefined) return 1
    const [entry, cost] = [this.#entries[i]!, this.#costs[i]!]
    return isByWeight(entry, cost) ? cost * (entry.urgency / URGENCY[priority]) : cost
  }

  /** The least virtual service of the clients that wait. A client that comes now begins with it. */
  get leastService(): number {
    let least = Infinity
    for (const { virtualService, calls } of this.#entries) if (calls > 0) least = Math.min(least, virtualService)
    return least === Infinity ? 0 : least
  }

  /**
   * The position, from 1, of a call that comes now, in the order of all calls. It also counts the calls that are expected to arrive
   * within `waitMs` milliseconds and go first. `alone` is its position if there were no other clients.
   */
  positionOfNext(client: string, priority: Priority, waitMs: number): { position: number; alone: number } {
    const i = this.#numbers.get(client)!
    const { queue, elsewhere } = this.#entries[i]!
    let rank = (queue?.aheadOf(priority) ?? 0) + 1
    for (const demand of elsewhere) if (!isLessUrgent(demand.priority, priority)) rank += demand.calls
    const flows =
      waitMs === 0
        ? this.#entries
        : this.#entries.map(({ calls, parts, perSecond, weight, share, virtualService }) => {
            const coming = Math.floor((perSecond * waitMs) / 1_000)
            return { weight, share, virtualService, calls: calls + coming, parts: withMore(parts, coming) }
          })
    const ahead = callsAhead(flows, this.#costs, i, rank)
    return { position: Math.max(0, ahead - this.#known.admittedElsewhere) + rank, alone: rank }
  }

  /** The position, from 1, of the client's first call that waits here; Infinity if none waits here. */
  positionOfFirst(client: string): number {
    return this.#positionOf(client, 'first')
  }

  positionOfLast(client: string): number {
    return this.#positionOf(client, 'last')
  }

  #positionOf(client: string, which: 'first' | 'last'): number {
    const i = this.#numbers.get(client)!
    const entry = this.#entries[i]!
    const queuedCall = entry.queue?.[which]
    if (queuedCall === undefined) return Infinity
    const ahead = which === 'first' ? 0 : entry.queue!.size - 1
    const rank = ahead + 1 + this.#olderElsewhere(entry, queuedCall, ahead)
    return callsAhead(this.#ready, this.#costs, i, rank) + rank
  }

  /** The position of the first call that waits here, of any client. It is 1 if no call waits at other gateways. */
  get firstPosition(): number {
    const { peerDemand } = this.#known
    if (peerDemand === undefined || peerDemand.others.length === 0) return 1
    let first = Infinity
    for (const client of this.#numbers.keys()) first = Math.min(first, this.positionOfFirst(client))
    return first
  }

  /**
   * Chooses the calls to charge together: at most `most`, all of one charge set. Calls up to the position `free` have their turn.
   * Calls behind it take turns that other gateways leave unused. One is added only while fewer than `unclaimed` calls are chosen in all.
   */
  choose(most: number, free: number, unclaimed: number): Choice {
    const chosen: QueuedCall[] = []
    let isTurnOfOthers = false
    for (const { queuedCall, position } of this.next(unclaimed > 0 ? Infinity : free)) {
      const isOurTurn = position <= free || chosen.length < unclaimed
      const isSameChargeSet = chosen.length === 0 || queuedCall.chargeSet === chosen[0]!.chargeSet
      if (!isOurTurn || chosen.length >= most || !isSameChargeSet) break
      chosen.push(queuedCall)
      isTurnOfOthers = position > free
    }
    return { chosen, isTurnOfOthers }
  }

  /** Yields those of the next `count` calls of all gateways that wait here. Positions are in the order of all gateways, from 1. */
  *next(count: number): Generator<{ queuedCall: QueuedCall; position: number }> {
    const turns = this.#entries.map(() => 0)
    const taken = this.#entries.map(() => 0)
    const queuedCalls = this.#entries.map(({ queue }) => queue?.first)
    let position = 0
    for (const i of servingOrder(this.#ready, this.#costs, count)) {
      position++
      const queuedCall = queuedCalls[i]
      turns[i]!++
      if (queuedCall === undefined) continue
      const entry = this.#entries[i]!
      if (taken[i]! + 1 + this.#olderElsewhere(entry, queuedCall, taken[i]!) > turns[i]!) continue
      taken[i]!++
      queuedCalls[i] = entry.queue!.after(queuedCall)
      yield { queuedCall, position }
    }
  }

  /**
   * How many of the client's calls at other gateways go before one of its calls here that has `ahead` calls before it. These are the
   * more urgent calls and, by an estimate, the older ones. If the others were told of calls of its priority, its age is estimated from
   * what they were told: so all gateways agree whose turn it is.
   */
  #olderElsewhere({ ready, told }: SchedulerEntry, { priority, arrivedAt }: QueuedCall, ahead: number): number {
    if (ready.length === 0) return 0
    const { now, peerDemand } = this.#known
    const sinceMs = now - peerDemand!.at
    let ageMs = now - arrivedAt
    let moreUrgent = 0
    for (const demand of told) {
      if (isLessUrgent(priority, demand.priority)) moreUrgent += demand.calls
      if (demand.priority === priority) ageMs = ageOf(demand, ahead - moreUrgent, sinceMs)
    }
    let older = 0
    for (const demand of ready) {
      if (isLessUrgent(priority, demand.priority)) older += demand.calls
      else if (demand.priority === priority) {
        const oldestMs = demand.waitedMs + sinceMs
        if (oldestMs > ageMs) older += Math.ceil(demand.calls * ((oldestMs - ageMs) / oldestMs))
      }
    }
    return older
  }
}

function readyOf({ weight, share, virtualService, urgency, queue, ready }: SchedulerEntry): Flow {
  let calls = queue?.size ?? 0
  for (const demand of ready) calls += demand.calls
  return { weight, share, virtualService, calls, parts: partsByPriority(queue, ready, urgency) }
}

/** The calls of a client by their priority; undefined if all are as urgent as `urgency`. */
function partsByPriority(
  queue: ClientQueue | undefined,
  elsewhere: readonly Demand[],
  urgency: number,
): readonly Part[] | undefined {
  const first = queue?.first?.priority
  // So it is with nearly all clients, of whom there may be thousands.
  const isPlain = first !== undefined && elsewhere.length === 0 && queue!.lengthOf(first) === queue!.size
  if (isPlain && URGENCY[first] === urgency) return undefined
  const parts: Part[] = []
  for (const priority of PRIORITIES) {
    let calls = queue?.lengthOf(priority) ?? 0
    for (const demand of elsewhere) if (demand.priority === priority) calls += demand.calls
    if (calls > 0) parts.push({ calls, times: urgency / URGENCY[priority] })
  }
  return parts.every(({ times }) => times === 1) ? undefined : parts
}

/** With more calls that are as urgent as the first. Calls that are still to come are not known by their priority. */
function withMore(parts: readonly Part[] | undefined, coming: number): readonly Part[] | undefined {
  if (parts === undefined) return undefined
  const [first, ...rest] = parts
  return [{ calls: first!.calls + coming, times: first!.times }, ...rest]
}

/** The estimated age, in milliseconds, of a call that has `ahead` calls of its demand before it, if they came at even intervals. */
function ageOf({ waitedMs, calls }: Demand, ahead: number, sinceMs: number): number {
  return (waitedMs + sinceMs) * Math.max(0, 1 - Math.max(0, ahead) / calls)
}

function isLessUrgent(one: Priority, other: Priority): boolean {
  return PRIORITIES.indexOf(one) > PRIORITIES.indexOf(other)
}
