import type { Demand } from './client-queue.ts'
import type { Board } from './contention.ts'

/** As queue-board.lua answers. */
interface BoardReply {
  readonly served: Readonly<Record<string, number>>
  /** An empty list comes as an empty object. */
  readonly others: readonly { readonly agoMs: number; readonly demands: readonly Demand[] }[]
}

export function boardOf(reply: string, at: number): Board {
  const { served, others } = JSON.parse(reply) as BoardReply
  const reports = Object.values(others)
  const sum = reports.reduce((ago, { agoMs }) => ago + agoMs, 0)
  return {
    at,
    toldAt: at - sum / Math.max(1, reports.length),
    served: new Map(Object.entries(served)),
    others: reports.flatMap(({ agoMs, demands }) =>
      demands.map((demand) => ({ ...demand, waitedMs: demand.waitedMs + agoMs })),
    ),
  }
}
