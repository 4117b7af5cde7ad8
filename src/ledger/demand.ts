/** How urgent calls are, the most urgent first. */
export const PRIORITIES = ['interactive', 'normal', 'batch'] as const
export type Priority = (typeof PRIORITIES)[number]

/** Calls of one client and priority that wait at one gateway; the first of them for `waitedMs`, and more come `perSecond`. */
export interface Demand {
  readonly client: string
  readonly weight: number
  readonly share: number
  readonly priority: Priority
  readonly calls: number
  readonly waitedMs: number
  readonly perSecond: number
  /** None of them can be sent for now, because too many are in flight there. */
  readonly isBlocked?: boolean
}

/** What other gateways have told of their calls that wait for the same quota, and what each client was served. */
export interface PeerDemand {
  readonly virtualService: ReadonlyMap<string, number>
  /** How many calls that had waited all gateways were granted by then. */
  readonly turns: number
  readonly others: readonly Demand[]
  /** When it was so, by the clock of this gateway. */
  readonly at: number
}
