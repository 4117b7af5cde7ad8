import type { ChargeSet } from './ledger.ts'
import type { Limit } from './limit.ts'

/** What part of each limit this gateway's region may use, where quotas are split over regions. */
export interface Shares {
  of(partition: string): PartitionShares
  /** No call is charged to the partition any more. */
  forget(partition: string): void
  /** Why the region has to do with its reserve, in words for people, if it has. */
  readonly problem: string | undefined
  close(): void
}

/** The region's shares of the limits of one partition. */
export interface PartitionShares {
  /** Units of the limit that may be used now; undefined for a limit that is not split. */
  unitsOf(limit: Limit): number | undefined
  /** Units that no region may use now, as far as this gateway knows, because they are on their way from one to another. */
  strandedOf(limit: Limit): number
  /**
   * What part of its leases a gateway may go on to use while its own store is away: all, as long as the region has its share. After
   * that the gateways together may use no more than the region's reserve, so each may use that part.
   */
  leasePartOf(limit: Limit): number
  /** Calls are charged to these limits. */
  use(chargeSet: ChargeSet): void
  /** A call of so many units found no room in the region's share. */
  lacks(limit: Limit, units: number): void
}
