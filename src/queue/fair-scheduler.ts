import { type PeerDemand, type Demand, PRIORITIES, type Priority } from '../ledger/demand.ts'
import type { QueuedClient } from './admission.ts'
import { type ClientQueue, weightOf } from './client-queues.ts'
import { callsAhead, costsOf, type Flow, servingOrder } from './fair-share.ts'
import type { QueuedCall } from './queued-call.ts'

export interface Choice {
  readonly chosen: readonly QueuedCall[]
  /** Whether some of the chosen calls take a turn that belongs to calls at other gateways. */
  readonly isTurnOfOthers: boolean
}

interface SchedulerEntry extends Flow {
  readonly queue: ClientQueue | undefined
  /** What waits at other gateways; and of that, what may have its turn. */
  readonly elsewhere: readonly Demand[]
  readonly ready: readonly Demand[]
  /** What the other gateways know of what waits here. */
  readonly told: readonly Demand[]
  /** Calls that come to wait, at all gateways. */
  readonly perSecond: number
}

/** What is known, at one moment, of the calls that wait for one quota. */
export interface SchedulerInput {
  readonly now: number
  readonly queues: ReadonlyMap<string, ClientQueue>
  /** By client, what its calls that were served have cost. */
  readonly virtualService: ReadonlyMap<string, number>
  /** Calls that come to wait here. */
  perSecond(client: string): number
  readonly peerDemand: PeerDemand | undefined
  /** What was told the other gateways when the demand exchange was read. */
  readonly told: readonly Demand[]
  /** So many calls the others were granted since the demand exchange was read. */
  readonly admittedElsewhere: number
}

/** Who waits for one quota at one moment, at all gateways, and in which order they are served. */
export class FairScheduler {
  readonly #entries: SchedulerEntry[] = []
  /** The same without those whose turn would be lost on them. */
  readonly #ready: readonly Flow[]
  readonly #numbers = new Map<string, number>()
  readonly #costs: readonly number[]
  readonly #known: SchedulerInput

  /** `newcomer` is counted among them although none of its calls may wait yet. */
  constructor(known: SchedulerInput, newcomer?: { client: QueuedClient; priority: Priority }) {
    const { queues, virtualService, peerDemand, told } = known
    this.#known = known
    const elsewhere = Map.groupBy(peerDemand?.others ?? [], ({ client }) => client)
    const ownTold = Map.groupBy(elsewhere.size === 0 ? [] : told, ({ client }) => client)
    const names = new Set([...queues.keys(), ...elsewhere.keys()])
    if (newcomer !== undefined) names.add(newcomer.client.name)
    let least = Infinity
    for (const name of names) least = Math.min(least, virtualService.get(name) ?? Infinity)
    // In the same order at all gateways, since it decides between equals.
    for (const name of elsewhere.size === 0 ? names : [...names].sort()) {
      const queue = queues.get(name)
      const others = elsewhere.get(name) ?? []
      const client = queue?.client ?? (newcomer?.client.name === name ? newcomer.client : others[0]!)
      const priorities: Priority[] = others.map(({ priority }) => priority)
      if (queue?.first !== undefined) priorities.push(queue.first.priority)
      if (newcomer?.client.name === name) priorities.push(newcomer.priority)
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
        share: client.share,
        weight: weightOf(client.weight, priorities),
        virtualService: virtualService.get(name) ?? (least === Infinity ? 0 : least),
      })
    }
    this.#costs = costsOf(this.#entries)
    this.#ready = peerDemand?.others.some(({ isBlocked }) => isBlocked) ? this.#entries.map(readyOf) : this.#entries
  }

  /** What one more call of the client costs it. */
  costOf(client: string): number {
    return this.#costs[this.#numbers.get(client) ?? -1] ?? 1
  }

  /** The least virtual service of the clients that wait, with which a client begins that comes now. */
  get leastService(): number {
    let least = Infinity
    for (const { virtualService, calls } of this.#entries) if (calls > 0) least = Math.min(least, virtualService)
    return least === Infinity ? 0 : least
  }

  /**
   * The position, from 1 in the order of all, of a call that comes now and would wait for `waitMs`, during which others with a better
   * claim come as well. `alone`: its position if only its own client were there.
   */
  positionOfNext(client: string, priority: Priority, waitMs: number): { position: number; alone: number } {
    const i = this.#numbers.get(client)!
    const { queue, elsewhere } = this.#entries[i]!
    let rank = (queue?.aheadOf(priority) ?? 0) + 1
    for (const demand of elsewhere) if (!isLessUrgent(demand.priority, priority)) rank += demand.calls
    const flows =
      waitMs === 0
        ? this.#entries
        : this.#entries.map(({ calls, perSecond, weight, share, virtualService }) => {
            return { weight, share, virtualService, calls: calls + Math.floor((perSecond * waitMs) / 1_000) }
          })
    const ahead = callsAhead(flows, this.#costs, i, rank)
    return { position: Math.max(0, ahead - this.#known.admittedElsewhere) + rank, alone: rank }
  }

  /** The position of the client's first call that waits here; Infinity if none does. */
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

  /** The position of the first call that waits here, of any client; 1 if nobody waits elsewhere. */
  get firstPosition(): number {
    const { peerDemand } = this.#known
    if (peerDemand === undefined || peerDemand.others.length === 0) return 1
    let first = Infinity
    for (const client of this.#numbers.keys()) first = Math.min(first, this.positionOfFirst(client))
    return first
  }

  /**
   * Chooses the calls to charge together: all of one charge set, and `most` at most. They are the calls whose turn comes while
   * `free` calls can be admitted, and `unclaimed` more whose turn belongs to other gateways that do not take it.
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

  /** Of the next `count` calls of all gateways, those that wait at this one, with their positions in the order of all. */
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
   * How many calls of the client that wait elsewhere go before one that waits here behind `ahead` others: those that are more urgent,
   * and, as an estimate, those that came before it. It uses only what all gateways know, so that they agree whose turn it is.
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

function readyOf({ weight, share, virtualService, queue, ready }: SchedulerEntry): Flow {
  let calls = queue?.size ?? 0
  for (const demand of ready) calls += demand.calls
  return { weight, share, virtualService, calls }
}

/** The age of a call behind `ahead` others, as if they had come at even distances. */
function ageOf({ waitedMs, calls }: Demand, ahead: number, sinceMs: number): number {
  return (waitedMs + sinceMs) * Math.max(0, 1 - Math.max(0, ahead) / calls)
}

function isLessUrgent(one: Priority, other: Priority): boolean {
  return PRIORITIES.indexOf(one) > PRIORITIES.indexOf(other)
}
