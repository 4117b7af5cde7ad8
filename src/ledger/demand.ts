/** How urgent calls are, the most urgent first. */
export const PRIORITIES = ['interactive', 'normal', 'batch'] as const
export type Priority = (typeof PRIORITIES)[number]

/** Calls of one client and priority that wait at one gateway. The first has waited for `waitedMs`, and `perSecond` more come. */
export interface Demand {
  readonly client: string
  readonly weight: number
  readonly share: number
  readonly priority: Priority
  readonly calls: number
  readonly waitedMs: number
  readonly perSecond: number
  /** None of them can be sent now, because too many calls are in flight at that gateway. */
  readonly isBlocked?: boolean
}

/** What other gateways have told of their calls that wait for the same quota, and what clients have been served. */
export interface PeerDemand {
  readonly virtualService: ReadonlyMap<string, number>
  /** How many calls that had waited all gateways together were granted by then. */
  readonly turns: number
  readonly others: readonly Demand[]
  /** The time of all this, by the clock of this gateway. */
  readonly at: number
}
