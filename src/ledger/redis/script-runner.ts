export type Argument = string | number
/** As redis-ledger.lua describes it. */
export type Reply = ArrayLike<number>

/** Runs the script of redis-ledger.lua. */
export interface ScriptRunner {
  /** Rejects when there can be no answer any more; whether the script ran is unknown then. Never sends anything twice. */
  run(keys: readonly string[], args: readonly Argument[]): Promise<Reply>
  /** The same for the script of demand-exchange.lua. */
  runExchange(keys: readonly string[], args: readonly Argument[]): Promise<string>
  /** Calls `listener` whenever a connection was lost: what was written last may be, too. Unless told, of every key. */
  onLost(listener: (isConcerned?: (key: string) => boolean) => void): void
  /** Calls `listener` whenever there is a connection again, with whether the same server answers, which has lost nothing. */
  onFound?(listener: (isSame: boolean) => void): void
  /** The same for the script of partition-register.lua. */
  runRegister(keys: readonly string[], args: readonly Argument[]): Promise<readonly Argument[]>
  /** The same for the script of format-lease.lua; without it, all gateways are taken to have one format. */
  claimFormat?(key: string, args: readonly Argument[]): Promise<readonly number[]>
  /** Why there is no connection, as long as there is none, if that is known. */
  readonly trouble?: Error | undefined
  /** Calls `listener` whenever it becomes known. */
  onTrouble?(listener: () => void): void
  /** Sends something on every connection, so that none of them is idle. */
  keepAlive?(): void
  readonly isConnected: boolean
  close(): void
}
