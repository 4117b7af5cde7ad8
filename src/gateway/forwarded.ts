import type { Failure } from './failure.ts'

/** How a call ended: answered in full, given up by its client, broken off in the middle, or to be refused. */
export type Forwarded = { readonly kind: 'delivered' | 'client_gone' | 'broken_off' } | Refused
export type Refused = { readonly kind: 'refused'; readonly failure: Failure }

export const GONE: Forwarded = { kind: 'client_gone' }

export function refused(failure: Failure): Refused {
  return { kind: 'refused', failure }
}
