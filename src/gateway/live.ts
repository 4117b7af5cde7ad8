import type { Config } from '../schema/schema.ts'
import type { Transport } from '../upstream/transport.ts'
import { buildSnapshot, type Services, type Snapshot } from './snapshot.ts'

/**
 * Holds the snapshot in force. A call uses the snapshot that it began with to its end. A transport that is in no newer snapshot
 * is closed after the last call that uses it.
 */
export class LiveSnapshot {
  readonly #services: Services
  #current: Snapshot
  /** For each open transport, how many snapshots use it: the one in force, and older ones that calls still read. */
  readonly #holders = new Map<Transport, number>()

  constructor(config: Config, services: Services) {
    this.#services = services
    this.#current = buildSnapshot(config, services)
    this.#hold(this.#current)
  }

  get current(): Snapshot {
    return this.#current
  }

  /** Puts a configuration in force for calls that come from now on. If this throws, nothing has changed. */
  replace(config: Config): void {
    const previous = this.#current
    const next = buildSnapshot(config, this.#services, previous)
    this.#hold(next)
    this.#current = next
    for (const [name, { accounts }] of previous.upstreams) {
      const kept = next.upstreams.get(name)?.accounts
      for (const { name: account, admissionPolicies } of accounts.values())
        if (kept?.has(account) !== true) admissionPolicies.close('removed')
    }
    previous.calls.onIdle(() => this.#release(previous))
  }

  /** Closes every transport. Running calls are not broken off: this resolves when the last of them is over. */
  async close(): Promise<void> {
    await Promise.all([...this.#holders.keys()].map((transport) => transport.close()))
  }

  #hold({ upstreams }: Snapshot): void {
    for (const { transport } of upstreams.values()) {
      this.#holders.set(transport, (this.#holders.get(transport) ?? 0) + 1)
    }
  }

  #release({ upstreams }: Snapshot): void {
    for (const { transport } of upstreams.values()) {
      const holders = this.#holders.get(transport)! - 1
      if (holders > 0) {
        this.#holders.set(transport, holders)
        continue
      }
      this.#holders.delete(transport)
      void transport.close()
    }
  }
}
