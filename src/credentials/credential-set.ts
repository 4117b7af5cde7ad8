import type { Credential } from './credential.ts'
import { secretsIn } from '../schema/secret.ts'

/** When a credential expires, if that is known. */
export interface Expiry {
  readonly credential: string
  /** In milliseconds since 1970. */
  readonly at: number
}

/** Several credentials of one account. */
export interface Pool {
  readonly order: 'expires-first' | 'least-used' | 'round-robin'
  readonly members: readonly string[]
  readonly affinity: Affinity | undefined
  /**
   * Returns the members that are not quarantined, the best first. If all are, it returns only the one whose quarantine ends first.
   * `session` names a conversation, which has an order of its own, the same at all gateways. `endsAt` tells when the quota of a member
   * comes back, as the gateway itself counts it, in the time of `Clock.now`; undefined if that is not known.
   */
  ranked(session: string | undefined, endsAt: (member: string) => number | undefined): readonly Credential[]
}

/** What keeps the calls of a conversation on one credential of a pool. */
export interface Affinity {
  /** In lower case. */
  readonly header: string
  /** How long a call waits for that credential's quota at most, in milliseconds, before another one serves it. */
  readonly maxWaitMs: number
}

/** The credentials of one account. Each attempt of a call uses one of them. */
export interface CredentialSet {
  /** `upstream/account`: the name under which the credentials appear in `explain`. */
  readonly name: string
  /** Lower-case names of the headers that any of them sets. */
  readonly headerNames: readonly string[]
  /** Chooses the credential for the next attempt. */
  choose(): Credential
  /** How one of several is chosen; undefined if there is only one. */
  readonly pool?: Pool
  /** How many members of a pool are not used for a while, because the upstream refused them. */
  readonly quarantined?: number
  readonly expiries: readonly Expiry[]
}

/** The expiry that the configuration states, else the earliest one of its secrets; empty if none is known. */
export function expiryOf(credential: string, config: object & { readonly expires?: number }): Expiry[] {
  const { expires } = config
  const ends = expires === undefined ? secretsIn(config).flatMap(({ expiresAt }) => expiresAt ?? []) : [expires]
  return ends.length === 0 ? [] : [{ credential, at: Math.min(...ends) }]
}
