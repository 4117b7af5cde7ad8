import type { Sealed } from './master-keys.ts'

export interface SecretVersion {
  readonly sealed: Sealed
  /** Times are in milliseconds since 1970. */
  readonly createdAt: number
  readonly expiresAt?: number
}

/** One stored secret, and while it is rotated, what is to follow. */
export interface SecretRecord {
  readonly current: SecretVersion
  readonly next?: SecretVersion
}

/** Where sealed secrets are kept. */
export interface SecretRecords {
  /** All of them, by name. Throws if they can't be read. */
  read(): Promise<ReadonlyMap<string, SecretRecord>>
  /**
   * Changes one of them as a whole or, if it throws, not at all; no change that another makes at the same time is lost.
   * `change` gets the record as it is and returns what it is to be, undefined for none; it may be called several times.
   */
  change(name: string, change: (record: SecretRecord | undefined) => SecretRecord | undefined): Promise<void>
  /** Calls back whenever something may have changed, until it is closed. */
  watch(onChange: () => void): void
  close(): Promise<void>
}
