/** What a reference stands for: the value, and while two are alive, the one that is to follow. */
export interface Found {
  readonly text: string
  readonly next?: string
  /** In milliseconds since 1970, if it is known when the value stops being valid. */
  readonly expiresAt?: number
}

/** A value, or why there is none; that never shows a value. */
export type Answer = Found | { readonly problem: string }

/** Where the values of one kind of reference come from. */
export interface SecretSource {
  /** Looks names up, each of which gets an answer. Never throws: what goes wrong is the problem of each name. */
  read(names: readonly string[]): Promise<ReadonlyMap<string, Answer>>
  /** Calls back whenever one of these names may have changed, until it is closed. */
  watch(names: readonly string[], onChange: () => void): void
  /** Notes that an upstream refused this value, which was to follow the one in force; if it still is to. Never rejects. */
  noteRefused?(name: string, value: string): Promise<void>
  close(): Promise<void>
}
