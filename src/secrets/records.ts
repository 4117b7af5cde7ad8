import type { Records } from '../records/records.ts'
import type { Sealed } from './master-keys.ts'

export interface SecretVersion {
  readonly sealed: Sealed
  /** Times are in milliseconds since 1970. */
  readonly createdAt: number
  readonly expiresAt?: number
  /** When an upstream refused it, if it was to follow another. */
  readonly refusedAt?: number
}

/** One stored secret, and while it is rotated, what is to follow. */
export interface SecretRecord {
  readonly current: SecretVersion
  readonly next?: SecretVersion
}

/** Where sealed secrets are kept. */
export type SecretRecords = Records<SecretRecord>
