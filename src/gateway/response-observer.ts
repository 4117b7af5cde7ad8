import type { Fields } from '../http/fields.ts'
import type { Cancellation } from '../time/cancellation.ts'
import type { Forwarded } from './forwarded.ts'
import type { StoredAnswer } from './stored-answer.ts'

/** Sees the responses to a call on their way, and decides whether something else answers it. Disposed of at the end of the call. */
export interface ResponseObserver extends Disposable {
  /** Names and values in turn that go upstream in the place of the client's own conditions. */
  readonly conditions: readonly string[] | undefined
  /** The request goes out. */
  sent(): void
  /** What takes the place of a response that would be delivered: a stored answer, or a request without the conditions. */
  replace(status: number, fields: Fields): StoredAnswer | { readonly kind: 'ask-again' } | undefined
  /** A response begins; to its headers, those of the gateway itself not among them, it may add. */
  begin(status: number, reason: string, fields: Fields, headers: string[]): void
  piece(chunk: Buffer): void
  /** It was whole. */
  end(): void
  /** The client takes it slowly. */
  slow(): void
  /** Whether others wait for it, so that it goes on without its client, and as fast as it can. */
  readonly isAwaited: boolean
  /** Cancelled when, from now on, the last of them leaves. */
  lastWaiterGone(): Cancellation | undefined
  /** What becomes of a call that ended so: that, or a stored answer in the place of a refusal. */
  conclude(end: Forwarded): Forwarded | StoredAnswer
}
