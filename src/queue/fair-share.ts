import type { Priority } from '../ledger/demand.ts'

/**
 * The factor by which a waiting call of a priority multiplies its client's weight. Priority is a factor, and not an order in which all
 * interactive calls go first, so that every call has its turn at some time.
 */
export const URGENCY = { interactive: 4, normal: 1, batch: 1 / 4 } as const satisfies Record<Priority, number>

/** The calls of one client that wait for the same quota, at all gateways. */
export interface Flow {
  /** The weight of its most urgent call. */
  readonly weight: number
  /** Part of the quota (0 to 1) that it gets at least. */
  readonly share: number
  readonly calls: number
  /** The sum of the costs of its calls that were served. The flow with the least is next. */
  readonly virtualService: number
  /** Its calls in the order of service, if some are less urgent than others. Undefined if all cost the same. */
  readonly parts?: readonly Part[] | undefined
}

/** Calls of one flow that are equally urgent. */
export interface Part {
  readonly calls: number
  /** How many times as much one of them costs as the most urgent call of the flow. */
  readonly times: number
}

/** The part that is left to the others if guaranteed shares add up to everything. */
const LEAST_REST = 0.01
/** Sums of costs are compared with this tolerance, because gateways add them up in different orders. */
const SAME = 1e-9

/**
 * What a call of each flow costs it: the larger its part of the quota, the less. Parts go by weight, but no flow gets less than its
 * share (start-time fair queueing, Goyal et al. 1996, with a floor). A call of a flow without a share always costs the inverse of its
 * weight, so that sums remain comparable while others come and go.
 */
export function costsOf(flows: readonly Flow[]): number[] {
  const isRaised = flows.map(() => false)
  let rest = 1
  let weights = 0
  for (const { weight } of flows) weights += weight
  for (let i = 0; i < flows.length; i++) {
    const { share, weight } = flows[i]!
    if (isRaised[i]! || share * weights <= rest * weight) continue
    isRaised[i] = true
    rest = Math.max(LEAST_REST, rest - share)
    weights -= weight
    i = -1 // less is left to the others, so more of them may need to be raised
  }
  const unit = weights > SAME ? rest / weights : 1
  return flows.map(({ share, weight }, i) => (isRaised[i]! ? unit / share : 1 / weight))
}

/** Whether the cost of a flow's calls goes by its weight, and not by its share. */
export function isByWeight({ weight }: Flow, cost: number): boolean {
  return cost === 1 / weight
}

/** The parts of a flow. All calls of a flow that gets its share cost the same. */
function partsByCost(flow: Flow, cost: number): readonly Part[] {
  return flow.parts !== undefined && isByWeight(flow, cost) ? flow.parts : [{ calls: flow.calls, times: 1 }]
}

/** How many calls of other flows are served before the `n`-th call (from 1) of flow `i`. */
export function callsAhead(flows: readonly Flow[], costs: readonly number[], i: number, n: number): number {
  const start = startOf(flows[i]!, costs[i]!, n)
  let ahead = 0
  for (let j = 0; j < flows.length; j++) if (j !== i) ahead += callsBefore(flows[j]!, costs[j]!, start, j < i)
  return ahead
}

/** The costs of a flow's calls until its `n`-th call, from 1. If it has fewer calls, more like its last are added. */
function startOf(flow: Flow, cost: number, n: number): number {
  let start = flow.virtualService
  let left = n - 1
  let last = cost
  for (const { calls, times } of partsByCost(flow, cost)) {
    last = times * cost
    const here = Math.min(calls, left)
    start += here * last
    left -= here
  }
  return start + left * last
}

/** How many calls of a flow start before `start`. If two flows start at the same time, the first in the list is served first. */
function callsBefore(flow: Flow, cost: number, start: number, isFirst: boolean): number {
  const { parts, calls: all, virtualService } = flow
  // Most flows have one part. A list is not made for each: there may be thousands.
  if (parts === undefined || !isByWeight(flow, cost)) return within(all, (start - virtualService) / cost, isFirst)
  let at = virtualService
  let count = 0
  for (const { calls, times } of parts) {
    count += within(calls, (start - at) / (times * cost), isFirst)
    at += calls * times * cost
  }
  return count
}

function within(calls: number, earlier: number, isFirst: boolean): number {
  return Math.min(calls, Math.max(0, isFirst ? Math.floor(earlier + SAME) + 1 : Math.ceil(earlier - SAME)))
}

/** Whose calls are served next, in order: the number of a flow for each of the first `count` calls. */
export function* servingOrder(flows: readonly Flow[], costs: readonly number[], count: number): Generator<number> {
  const starts = flows.map(({ virtualService }) => virtualService)
  const left = flows.map(({ calls }) => calls)
  const parts = flows.map((flow, i) => partsByCost(flow, costs[i]!))
  const part = flows.map(() => 0)
  const leftInPart = parts.map(([first]) => first!.calls)
  for (let n = 0; n < count; n++) {
    let next = -1
    for (let i = 0; i < flows.length; i++) {
      if (left[i]! > 0 && (next < 0 || starts[i]! < starts[next]! - SAME)) next = i
    }
    if (next < 0) return
    left[next]!--
    while (leftInPart[next] === 0) leftInPart[next] = parts[next]![++part[next]!]!.calls
    leftInPart[next]!--
    starts[next]! += costs[next]! * parts[next]![part[next]!]!.times
    yield next
  }
}

/** Up to this many clients are remembered without a check whether they have to be. */
const FEW = 100

/** The virtual service of each client while anybody waits for the same quota: what its calls that were served have cost. */
export class VirtualService {
  #costs: Map<string, number>
  /**
   * With this many clients, those that need not be remembered are dropped. It is twice what was left the last time, so
   * that the check costs little for each client.
   */
  #most = FEW

  constructor(costs?: ReadonlyMap<string, number>) {
    this.#costs = new Map(costs)
  }

  get costs(): ReadonlyMap<string, number> {
    return this.#costs
  }

  add(client: string, cost: number): void {
    this.#costs.set(client, (this.#costs.get(client) ?? 0) + cost)
  }

  /**
   * A client that comes anew begins where the others are, at `least`: it can't make up for what it did not want
   * earlier. So a client need not be remembered if it does not wait and has had no more than `least`.
   */
  begin(client: string, least: number, isWaiting: (client: string) => boolean): void {
    this.#costs.set(client, Math.max(this.#costs.get(client) ?? 0, least))
    if (this.#costs.size < this.#most) return
    for (const [name, sum] of this.#costs)
      if (sum <= least && name !== client && !isWaiting(name)) this.#costs.delete(name)
    this.#most = Math.max(FEW, 2 * this.#costs.size)
  }

  clear(): void {
    this.#costs.clear()
  }
}
