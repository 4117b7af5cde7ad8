import type { IncomingHttpHeaders } from 'node:http'
import type { Route } from '../routing/route.ts'
import type { OutgoingRequest } from '../upstream/transport.ts'

/** A request that is complete but for its credential. */
export type Unproven = { -readonly [Field in keyof OutgoingRequest]: OutgoingRequest[Field] }

/** What a client asks for, as it sent it: the query with its `?`, or empty. */
export interface RequestHead {
  readonly path: string
  readonly query: string
  readonly headers: IncomingHttpHeaders
}

/** How an account is proven to its upstream. It never leaves the gateway but on a request to that upstream. */
export interface Credential {
  /** Under which it appears in `explain`, logs and metrics: `upstream/account`. */
  readonly name: string
  /** Lower-case names of the headers that it sets, which no client's request brings along. */
  readonly headerNames: readonly string[]
  /** Whether a body is worth keeping so that a call that is refused can be sent again with another. */
  readonly isRenewable: boolean
  /** Grows whenever another value is added than before. */
  readonly version: number
  /** What a request with it shows to the upstream, which may repeat it; the empty text if that is no secret. */
  readonly exposed: string
  /** Why a request can't be sent with it, for the client to mend. Asked before the request is charged. */
  whyNot?(request: RequestHead): string | undefined
  /** Undefined if it can be added now; else when it can. Rejects with a `CredentialUnavailableError`. */
  ready?(): Promise<void> | undefined
  /**
   * The upstream answered a call, to which it was added in that version, with 401, 403 or 429. Whether the call, sent
   * again once, would carry another. `isRepeatable` is whether it can be.
   */
  refused(status: number, version: number, isRepeatable: boolean, retryAfterMs?: number): boolean
  /** How a call was answered that had been sent again because of a refusal. */
  settled?(status: number): void
  /** It is in use from now on, until that is disposed of. Asked before it is added to a request. */
  take?(): Disposable
  /** Its name in the pool that it is of. */
  readonly member?: string
  /** Whether another of that pool is not left out. */
  readonly hasOthers?: boolean
  /** Adds it to a request, in the way that the route wants. */
  addTo(request: Unproven, route: Route): void
}
