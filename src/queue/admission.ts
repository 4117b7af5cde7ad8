import type { Cancellation } from '../time/cancellation.ts'
import type { Priority } from '../ledger/demand.ts'
import type { LimitUsage, ChargeSet } from '../ledger/ledger.ts'
import type { Limit } from '../ledger/limit.ts'
import type { Permit } from './permit.ts'
import type { ServedBefore } from './recently-served.ts'

/** Why nobody can wait any more: the account was taken out of the configuration, or the gateway stops. */
export type Closing = 'removed' | 'draining'

/** What there is too little of: calls that may be sent in the window, or slots for calls in flight. */
export type Shortage = 'quota' | 'concurrency'

/** Why a call was not admitted at once, and how its wait went: for whoever asks later. */
export interface WaitRecord {
  readonly because: Shortage
  /** The limit that decides when its turn is; `pause` while the upstream wants no calls; undefined if it is not known. */
  readonly heldBy: Limit | 'pause' | undefined
  /** The state of its limits when it came, as far as it was known without asking. */
  readonly usage: readonly LimitUsage[]
  /** Its place, from 1, among all calls that waited when it came, those at other gateways included. */
  readonly position: number
  readonly expectedMs: number
  /**
   * How many calls this gateway had served in the same queue when the call came. `served` tells which it served after
   * that, and is set when the wait is over.
   */
  readonly servedCount: number
  served: ServedBefore | undefined
}

interface Refusal {
  readonly because: Shortage
  /** Milliseconds from now until its turn could be. */
  readonly waitMs: number
  readonly usage: readonly LimitUsage[]
  readonly wait: WaitRecord | undefined
}

/** A queue capacity that is used up: `most` calls of `of` wait. */
export interface Full {
  readonly most: number
  readonly of: string
}

/** What an admission queue says to a call. */
export type Admission =
  /** `because` is why it had to wait; undefined if it did not. */
  | {
      readonly kind: 'admitted'
      readonly permit: Permit
      readonly because: Shortage | undefined
      readonly wait?: WaitRecord
    }
  /** Its turn would come later than it may wait. */
  | ({ readonly kind: 'quota_exhausted' } & Refusal)
  /** Its turn would come too late only because of other clients, which have had less of the quota. */
  | ({ readonly kind: 'share_exceeded' } & Refusal)
  | ({ readonly kind: 'queue_full'; readonly full: Full } & Refusal)
  /** It costs more units than the limit ever allows. `wait` is given if a reload made that so while the call waited. */
  | {
      readonly kind: 'too_expensive'
      readonly because: Shortage
      readonly limit: Limit
      readonly units: number
      readonly wait: WaitRecord | undefined
    }
  /** It would have to wait, and no call may wait any more. */
  | { readonly kind: 'closed'; readonly because: Closing }
  /** It left by itself: the client has gone. */
  | { readonly kind: 'gone'; readonly because: Shortage; readonly wait: WaitRecord | undefined }

/** What fair queueing needs to know of a client. */
export interface QueuedClient {
  readonly name: string
  readonly weight: number
  /** The part of each quota (0 to 1) that the client gets at least while it wants it. */
  readonly share: number
  /** The most urgent priority that its calls may have. */
  readonly priority: Priority
}

/** A call that wants to be admitted. */
export interface Waiter {
  readonly chargeSet: ChargeSet
  readonly maxWaitMs: number
  readonly client: QueuedClient
  /** Not above the client's own. */
  readonly priority: Priority
  /**
   * True: its client comes back when it is told to, so its turn is kept. False: it takes no kept turn, either, as it
   * must not if it is no call of its client's own. Undefined: no turn is kept for it, but it may take one.
   */
  readonly comesBack?: boolean | undefined
  /** Ends its wait when its client has gone. */
  readonly cancellation?: Cancellation | undefined
}
