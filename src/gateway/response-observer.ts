import type { Fields } from '../http/fields.ts'
import type { Cancellation } from '../time/cancellation.ts'
import type { Forwarded } from './forwarded.ts'
import type { StoredAnswer } from './stored-answer.ts'

/**
 * Sees the responses to a call on their way, and decides whether something else answers the call. Disposed of at the end of the call.
 */
export interface ResponseObserver extends Disposable {
  /** Names and values in turn. They go upstream in place of the client's own conditions. */
  readonly conditions: readonly string[] | undefined
  /** The request is sent now. */
  sent(): void
  /** What takes the place of a response that would be delivered: a stored answer, or a request without the conditions. */
  replace(status: number, fields: Fields): StoredAnswer | { readonly kind: 'ask-again' } | undefined
  /** A response begins. The observer may add to `headers`, which do not hold the gateway's own yet. */
  begin(status: number, reason: string, fields: Fields, headers: string[]): void
  piece(chunk: Buffer): void
  /** The body was whole. */
  end(): void
  /** The client takes the body more slowly than it comes. */
  slow(): void
  /** Whether other calls wait for the response. Then it goes on without its client, and does not wait for it. */
  readonly isAwaited: boolean
  /** Returns a cancellation for when the last of those calls has left. Ask when the client itself has gone. */
  lastWaiterGone(): Cancellation | undefined
  /** Returns the end of the call, or a stored answer in place of a refusal. */
  conclude(end: Forwarded): Forwarded | StoredAnswer
}
