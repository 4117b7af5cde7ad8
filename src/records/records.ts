/** Where records of one sort are kept, by their names, so that they survive the process. */
export interface Records<Item> {
  /** All of them, by name. Throws if they can't be read. */
  read(): Promise<ReadonlyMap<string, Item>>
  /**
   * Changes one of them as a whole or, if it throws, not at all; no change that another makes at the same time is lost.
   * `change` gets the record as it is and returns what it is to be, undefined for none; it may be called several times.
   */
  change(name: string, change: (record: Item | undefined) => Item | undefined): Promise<void>
  /** Calls back whenever something may have changed, until it is closed. */
  watch(onChange: () => void): void
  close(): Promise<void>
}
