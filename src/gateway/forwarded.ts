import type { Failure } from './failure.ts'

/** How a response that was passed on ended: whole, given up by its client, or broken off in the middle. */
export type Delivered =
  | { readonly kind: 'delivered' | 'client_gone' }
  | { readonly kind: 'broken_off'; readonly cause: unknown }
export type Refused = { readonly kind: 'refused'; readonly failure: Failure }
/** How a call ended. */
export type Forwarded = Delivered | Refused

export const DELIVERED: Delivered = { kind: 'delivered' }
export const GONE: Delivered = { kind: 'client_gone' }

export function refused(failure: Failure): Refused {
  return { kind: 'refused', failure }
}
