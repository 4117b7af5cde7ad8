import type { Records } from '../records/records.ts'
import type { Sealed } from './master-keys.ts'

export interface SecretVersion {
  readonly sealed: Sealed
  /** Times are in milliseconds since 1970. */
  readonly createdAt: number
  readonly expiresAt?: number
  /** When an upstream refused it, while it was the next value. */
  readonly refusedAt?: number
}

/** A stored secret and, during a rotation, its next value. */
export interface SecretRecord {
  readonly current: SecretVersion
  readonly next?: SecretVersion
}

/** Where sealed secrets are kept. */
export type SecretRecords = Records<SecretRecord>
