import type { Config } from '../schema/schema.ts'
import type { Transport } from '../upstream/transport.ts'
import { TimeSlice } from '../observe/time-slice.ts'
import { buildSnapshot, type Services, type Snapshot, snapshotInSteps } from './snapshot.ts'

/**
 * Holds the snapshot in force. A call uses the snapshot that it began with to its end. A transport that is in no newer snapshot
 * is closed after the last call that uses it.
 */
export class LiveSnapshot {
  readonly #services: Services
  #current: Snapshot
  #replaced: Promise<void> = Promise.resolve()
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

  /**
   * Puts a configuration in force for all later calls. Replacements run one after the other. Calls go on meanwhile. If it rejects,
   * nothing has changed.
   */
  replace(config: Config): Promise<void> {
    const replaced = this.#replaced.then(() => this.#replace(config))
    this.#replaced = replaced.catch(() => undefined)
    return replaced
  }

  async #replace(config: Config): Promise<void> {
    const previous = this.#current
    const building = snapshotInSteps(config, this.#services, previous)
    const slice = new TimeSlice()
    let step = building.next()
    for (; step.done !== true; step = building.next()) await slice.endIfOver()
    const next = step.value
    this.#hold(next)
    this.#current = next
    for (const [name, { accounts }] of previous.upstreams) {
      const kept = next.upstreams.get(name)?.accounts
      for (const { name: account, admissionPolicies } of accounts.values())
        if (kept?.has(account) !== true) admissionPolicies.close('removed')
    }
    previous.calls.onIdle(() => this.#release(previous))
  }

  /** Closes every transport, and breaks off what still goes on there. After the last call, no client waits for any of that. */
  async close(): Promise<void> {
    await this.#replaced
    await Promise.all([...this.#holders.keys()].map((transport) => transport.destroy()))
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
