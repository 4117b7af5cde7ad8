/*
 * src/credentials: how an account is proven to its upstream, how its credentials rotate, and how they are scrubbed from
 * answers.
 * It imports what .oxlintrc.ts lists; where a secret comes from is the job of secrets.
 * A change here must prove that a credential goes to its upstream only, and that a rotation loses no call
 * (test/credentials, test/system/echo.test.ts).
 */

import type { IncomingHttpHeaders } from 'node:http'
import type { Route } from '../routing/route.ts'
import type { OutgoingRequest } from '../upstream/transport.ts'

/** A request that is complete except for its credential. */
export type Unproven = { -readonly [Field in keyof OutgoingRequest]: OutgoingRequest[Field] }

/** The head of a client's request as it was sent. The query begins with its `?`, or is empty. */
export interface RequestHead {
  readonly path: string
  readonly query: string
  readonly headers: IncomingHttpHeaders
}

/** Proves an account to its upstream. It leaves the gateway only in requests to that upstream. */
export interface Credential {
  /** The name under which it appears in `explain`, logs and metrics: `upstream/account`. */
  readonly name: string
  /** Lower-case names of the headers that it sets. They are removed from clients' requests. */
  readonly headerNames: readonly string[]
  /** Whether a refused call may be sent again with another value, so that its body is worth keeping. */
  readonly isRenewable: boolean
  /** Increases whenever the value changes that `addTo` adds. */
  readonly version: number
  /**
   * The secret text that a request with it contains, and that the upstream may repeat in its answer; empty if it
   * contains none.
   */
  readonly exposed: string
  /** Why a request can't be sent with it, in words for the client. Asked before the request is charged. */
  whyNot?(request: RequestHead): string | undefined
  /**
   * Resolves once it can be added to a request; undefined if it can be now. Rejects with a
   * `CredentialUnavailableError`. `wasRefused`: the call was refused before. If its secret is being read again from the source, the
   * call waits for that.
   */
  ready?(wasRefused?: boolean): Promise<void> | undefined
  /**
   * Call it when the upstream answered 401, 403 or 429 to a call with that version of the credential. Returns whether the
   * call should be sent again, because it would carry another value. `isRetryable`: whether it can be sent again at all.
   */
  refused(status: number, version: number, isRetryable: boolean, retryAfterMs?: number): boolean
  /**
   * Call it when a call that was answered 403 with this credential was sent again, and is answered with `status`. `isSame`: it was
   * sent with this credential again, and not with another member of the pool. `version` is that of the value that it was sent with.
   */
  settled?(status: number, isSame: boolean, version: number): void
  /** Marks it as in use until the result is disposed of. Called before it is added to a request. */
  take?(): Disposable
  /**
   * Tells it what an answer says of its quota: in `endsInMs` all of it comes back, and for `usedUpMs` nothing of it is left (0 if some
   * is).
   */
  quotaTold?(endsInMs: number, usedUpMs: number): void
  /** Its name within its pool. */
  readonly member?: string
  /** In how many milliseconds another member of its pool can be used; 0 if one can now, Infinity if there is no other. */
  readonly othersInMs?: number
  /** Quarantines it in its pool, because it can't be had. Returns whether another member can be used now. */
  leaveOut?(): boolean
  /** Adds it to a request in the way that the route asks for. */
  addTo(request: Unproven, route: Route): void
}
