import type { Route } from '../routing/route.ts'
import type { OutgoingRequest } from '../upstream/transport.ts'

/** A request that is complete but for its credential. */
export type Unproven = { -readonly [Field in keyof OutgoingRequest]: OutgoingRequest[Field] }

/** How an account is proven to its upstream. It never leaves the gateway but on a request to that upstream. */
export interface Credential {
  /** Under which it appears in `explain`, logs and metrics: `upstream/account`. */
  readonly name: string
  /** Lower-case names of the headers that it sets, which no client's request brings along. */
  readonly headerNames: readonly string[]
  /** Adds it to a request, in the way that the route wants. */
  addTo(request: Unproven, route: Route): void
}
