import type { AccountConfig } from '../schema/schema.ts'
import { buildCredential, type CredentialPlace, type CredentialServices } from './build.ts'
import { type CredentialSet, expiryOf } from './credential-set.ts'
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
  const only = buildCredential(place, credential, services)
  const { name, headerNames } = only
  return {
    name,
    headerNames,
    choose: () => only,
    get expiries() {
      return expiryOf(name, credential)
    },
  }
}
