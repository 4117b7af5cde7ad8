import type { Credential } from './credential.ts'
import { secretsIn } from '../schema/secret.ts'

/** When a credential stops being valid, as far as that is known beforehand. */
export interface Expiry {
  readonly credential: string
  /** In milliseconds since 1970. */
  readonly at: number
}

/** The credentials of one account: of which each call gets one. */
export interface CredentialSet {
  /** Under which they appear in `explain`: `upstream/account`. */
  readonly name: string
  /** Lower-case names of the headers that any of them sets. */
  readonly headerNames: readonly string[]
  /** The one for the next attempt. */
  choose(): Credential
  /** How many of a pool are left out for a while, because the upstream refused them. */
  readonly quarantined?: number
  readonly expiries: readonly Expiry[]
}

/** By what the configuration says, else the first end that any of its secrets knows of. */
export function expiryOf(credential: string, config: object & { readonly expires?: string }): Expiry[] {
  const { expires } = config
  const ends =
    expires === undefined ? secretsIn(config).flatMap(({ expiresAt }) => expiresAt ?? []) : [Date.parse(expires)]
  return ends.length === 0 ? [] : [{ credential, at: Math.min(...ends) }]
}
