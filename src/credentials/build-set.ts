import type { AccountConfig } from '../schema/schema.ts'
import { buildCredential, type CredentialPlace, type CredentialServices } from './build.ts'
import type { Credential } from './credential.ts'
import { type CredentialSet, type Expiry, expiryOf } from './credential-set.ts'
import { CredentialPool } from './pool.ts'
import { isRotating, Rotation } from './rotation.ts'

/** Makes the credentials of an account; undefined if it has none. */
export function buildCredentialSet(
  place: CredentialPlace,
  account: Pick<AccountConfig, 'credential' | 'credentials' | 'pool'>,
  services: CredentialServices,
): CredentialSet | undefined {
  const { credential, credentials } = account
  if (credentials !== undefined) return new CredentialPool(place, credentials, account.pool, services)
  if (credential === undefined) return undefined
  if (isRotating(credential)) return new Rotation(place, credential, services)
  return new OneCredential(buildCredential(place, credential, services), credential)
}

class OneCredential implements CredentialSet {
  readonly name: string
  readonly headerNames: readonly string[]
  readonly #credential: Credential
  readonly #config: object & { readonly expires?: string }

  constructor(credential: Credential, config: object) {
    this.name = credential.name
    this.headerNames = credential.headerNames
    this.#credential = credential
    this.#config = config
  }

  choose(): Credential {
    return this.#credential
  }

  get expiries(): readonly Expiry[] {
    return expiryOf(this.name, this.#config)
  }
}
