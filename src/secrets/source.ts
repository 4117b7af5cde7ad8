/*
 * src/secrets: where the values of references come from (files, the encrypted store, Vault), and how they follow
 * changes.
 * It imports records, files, observe, resilience, schema and time, and knows nothing of requests.
 * A change here must prove that a bad, blank or missing value never replaces a good one, and that no message shows a
 * value (test/secrets).
 */

/** The value of a reference and, during a rotation, its next value. */
export interface Found {
  readonly text: string
  readonly next?: string
  /** When the value expires, in milliseconds since 1970, if that is known. */
  readonly expiresAt?: number
  /** The same of the next value. */
  readonly nextExpiresAt?: number
}

/** A value, or why there is none. The problem never shows a value. */
export type Answer = Found | { readonly problem: string }

/** Where the values of one kind of reference come from, such as files or Vault. */
export interface SecretSource {
  /** Looks up names. Each gets an answer. Never rejects: a failure is the problem of each name. */
  read(names: readonly string[]): Promise<ReadonlyMap<string, Answer>>
  /** Calls back whenever one of these names may have changed, until it is closed. */
  watch(names: readonly string[], onChange: () => void): void
  /** Notes that an upstream refused this next value, if it still is one. Never rejects. */
  noteRefused?(name: string, value: string): Promise<void>
  close(): Promise<void>
}
