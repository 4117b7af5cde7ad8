import type { Config } from '../schema/schema.ts'
import type { Transport } from '../upstream/transport.ts'
import { buildSnapshot, type Services, type Snapshot } from './snapshot.ts'

/**
 * The snapshot in force, behind one reference. A call keeps to the one that it began with; what only that one has is closed
 * after the last such call.
 */
export class LiveSnapshot {
  readonly #services: Services
  #current: Snapshot
  /** How many snapshots use a transport that is not closed: the one in force, and those before it that calls still read. */
  readonly #holders = new Map<Transport, number>()

  constructor(config: Config, services: Services) {
    this.#services = services
    this.#current = buildSnapshot(config, services)
    this.#hold(this.#current)
  }

  get current(): Snapshot {
    return this.#current
  }

  /** Puts another configuration in force for calls that come from now on. If it throws, nothing has changed. */
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

  /** Breaks nothing off: resolves when the last call upstream is over. */
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
