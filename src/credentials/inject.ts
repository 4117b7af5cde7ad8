import type { Route } from '../routing/route.ts'
import type { Secret } from './secret.ts'

/** How an account is proven to its upstream. */
export interface Credential {
  /** Under which it appears in `explain` and logs: `upstream/account`. */
  readonly name: string
  readonly header: string
  readonly value: Secret
}

/** Adds the credential to outgoing fields, as the route wants it. The client's own never get here. */
export function injectCredential(headers: string[], credential: Credential | undefined, route: Route): void {
  if (credential === undefined || route.credential === 'none') return
  if (route.credential === 'bearer') headers.push('Authorization', `Bearer ${credential.value.reveal()}`)
  else headers.push(credential.header, credential.value.reveal())
}
