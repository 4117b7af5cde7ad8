import type { Cancellation } from '../time/cancellation.ts'
import type { Fields } from '../http/fields.ts'
import type { Call, Target } from './call.ts'
import type { Forwarded } from './forwarded.ts'

/** Sends a call upstream, and tells what became of it, or what its observer took. */
export type Send = (
  call: Call,
  target: Target,
  observer: ResponseObserver | undefined,
) => Promise<Forwarded | Intercepted>

/** The response is not for the client, for which something else is at hand. */
export interface Intercepted {
  readonly kind: 'intercepted'
  readonly status: number
  readonly fields: Fields
}

/** Sees every response that goes to the client, as it goes. */
export interface ResponseObserver {
  /** Names and values in turn that go upstream in the place of the client's own conditions. */
  readonly conditions: readonly string[] | undefined
  /** The request goes out. */
  sent(): void
  /** Whether it takes a response that would be delivered in the client's place. */
  intercepts(status: number, fields: Fields): boolean
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
}
