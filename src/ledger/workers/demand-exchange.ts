import type { Demand } from '../demand.ts'
import { REPORT_TERM_MS } from '../ledger.ts'

/** Who waits in one queue at one worker, and when it said so. */
interface Report {
  readonly at: number
  readonly demands: readonly Demand[]
}

/** One queue at all workers: who waits there, and what was served. */
interface Queue {
  readonly reports: Map<object, Report>
  readonly virtualService: Map<string, number>
  turns: number
}

/** What a worker hears of a queue: `PeerDemand`, as it is sent. */
export interface Heard {
  readonly virtualService: readonly (readonly [client: string, sum: number])[]
  readonly turns: number
  readonly others: readonly Demand[]
}

/** Where workers tell each other who waits for one quota. It answers as redis/demand-exchange.lua does. */
export class DemandExchange {
  /** By partition and queue. A queue where nobody waits has no entry. */
  readonly #queues = new Map<string, Queue>()

  /** A worker tells who waits there, and hears of the others. */
  exchange(worker: object, key: string, demands: readonly Demand[], now: number): Heard {
    const queue = this.#queueOf(key)
    const { reports, virtualService } = queue
    const others: Demand[] = []
    const [waiting, wasWaiting] = [new Set<string>(), new Set<string>()]
    for (const [other, { at, demands: theirs }] of reports) {
      if (at + REPORT_TERM_MS < now) {
        reports.delete(other)
        continue
      }
      for (const demand of theirs) {
        wasWaiting.add(demand.client)
        if (other === worker) continue
        waiting.add(demand.client)
        others.push({ ...demand, waitedMs: demand.waitedMs + now - at })
      }
    }
    let least = Infinity
    for (const client of wasWaiting) least = Math.min(least, virtualService.get(client) ?? 0)
    if (least === Infinity) least = 0
    for (const { client } of demands) {
      waiting.add(client)
      // A client that comes anew begins where the others are. It can't make up for what it did not want earlier.
      if (!wasWaiting.has(client) && (virtualService.get(client) ?? -1) < least) virtualService.set(client, least)
    }
    for (const [client, sum] of virtualService) if (!waiting.has(client) && sum <= least) virtualService.delete(client)
    if (demands.length > 0) reports.set(worker, { at: now, demands })
    else reports.delete(worker)
    if (waiting.size === 0) this.#queues.delete(key)
    return { virtualService: [...virtualService], turns: queue.turns, others }
  }

  /** The first `granted` of these calls were served. Returns how many calls that had waited in the queue were served so far. */
  serve(key: string, costs: readonly (readonly [client: string, cost: number])[], granted: number): number {
    // A call that was not granted makes no entry.
    if (granted === 0) return this.#queues.get(key)?.turns ?? 0
    const queue = this.#queueOf(key)
    for (const [client, cost] of costs.slice(0, granted))
      queue.virtualService.set(client, (queue.virtualService.get(client) ?? 0) + cost)
    return (queue.turns += granted)
  }

  /** The worker has ended, and nobody waits there any more. */
  forget(worker: object): void {
    for (const [key, { reports }] of this.#queues) {
      reports.delete(worker)
      // Who waits next begins anew. Otherwise one that comes then would go before all who were served earlier.
      if (reports.size === 0) this.#queues.delete(key)
    }
  }

  #queueOf(key: string): Queue {
    return this.#queues.getOrInsertComputed(key, () => ({ reports: new Map(), virtualService: new Map(), turns: 0 }))
  }
}
