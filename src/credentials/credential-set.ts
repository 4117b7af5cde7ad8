import type { Credential } from './credential.ts'
import { secretsIn } from '../schema/secret.ts'

/** When a credential expires, if that is known. */
export interface Expiry {
  readonly credential: string
  /** In milliseconds since 1970. */
  readonly at: number
}

/** The credentials of one account. Each attempt of a call uses one of them. */
export interface CredentialSet {
  /** The name under which they appear in `explain`: `upstream/account`. */
  readonly name: string
  /** Lower-case names of the headers that any of them sets. */
  readonly headerNames: readonly string[]
  /** Chooses the credential for the next attempt. */
  choose(): Credential
  /** How many members of a pool are not used for a while, because the upstream refused them. */
  readonly quarantined?: number
  readonly expiries: readonly Expiry[]
}

/** The expiry that the configuration states, else the earliest that any of its secrets knows. */
export function expiryOf(credential: string, config: object & { readonly expires?: string }): Expiry[] {
  const { expires } = config
  const ends =
    expires === undefined ? secretsIn(config).flatMap(({ expiresAt }) => expiresAt ?? []) : [Date.parse(expires)]
  return ends.length === 0 ? [] : [{ credential, at: Math.min(...ends) }]
}
