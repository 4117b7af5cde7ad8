import { type PeerDemand, type Demand, PRIORITIES } from '../demand.ts'

/** As demand-exchange.lua answers. */
interface ExchangeReply {
  readonly virtualService: Readonly<Record<string, number>>
  readonly turns: number
  /** An empty list comes as an empty object. */
  readonly others: readonly { readonly agoMs: number; readonly demands: readonly Demand[] }[]
}

/** Above what any gateway has waiting of one client. */
const MOST_CALLS = 1e6

/** Throws where it is nothing that gateways tell: whose turn it is must never be computed from that. */
export function peerDemandOf(reply: string, at: number): PeerDemand {
  const { virtualService, turns, others } = JSON.parse(reply) as ExchangeReply
  const reports = Object.values(others)
  const sums = Object.entries(virtualService)
  const areDemands = reports.every(({ agoMs, demands }) => Number.isFinite(agoMs) && demands.every(isDemand))
  if (!areDemands || !isAmount(turns) || !sums.every(([, sum]) => isAmount(sum)))
    throw new TypeError('what gateways told is garbled')
  return {
    at,
    virtualService: new Map(sums),
    turns,
    others: reports.flatMap(({ agoMs, demands }) =>
      demands.map((demand) => ({ ...demand, waitedMs: demand.waitedMs + agoMs })),
    ),
  }
}

function isDemand({ client, weight, share, priority, calls, waitedMs, perSecond, isBlocked }: Demand): boolean {
  return (
    typeof client === 'string' &&
    isAmount(weight) &&
    weight > 0 &&
    isAmount(share) &&
    share <= 1 &&
    PRIORITIES.includes(priority) &&
    isAmount(calls) &&
    calls <= MOST_CALLS &&
    isAmount(waitedMs) &&
    isAmount(perSecond) &&
    (isBlocked === undefined || typeof isBlocked === 'boolean')
  )
}

function isAmount(value: number): boolean {
  return Number.isFinite(value) && value >= 0
}
