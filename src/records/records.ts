/*
 * src/records: things that are kept by name over restarts, in a file or in Redis, whatever they are.
 * It imports files, redis, observe, schema and time; who keeps something stands above.
 * A change here must prove that no crash, race or loss of Redis loses a change or brings back what was removed
 * (test/records).
 */

/** Records of one kind, by name, which survive the process. */
export interface Records<Item> {
  /** Reads all of them. Rejects if they can't be read. */
  read(): Promise<ReadonlyMap<string, Item>>
  /**
   * Changes one of them atomically: if it rejects, nothing has changed, and no concurrent change is lost. `change` gets
   * the current record, and returns the new one, or undefined to remove it. It may be called several times.
   */
  change(name: string, change: (record: Item | undefined) => Item | undefined): Promise<void>
  /** Calls `onChange` whenever something may have changed, until it is closed. Called once. */
  watch(onChange: () => void): void
  close(): Promise<void> | void
}
