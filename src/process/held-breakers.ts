import type { BreakerOrder, BreakerRow } from '../server/admin/status.ts'

/** The breakers that are held open by hand, for the workers that start later: each worker has breakers of its own. */
export class HeldBreakers {
  /** The orders in force. */
  readonly #orders = new Map<string, BreakerOrder>()

  /** `give` passes an order on to the workers that take calls, and resolves with whether there is such a breaker. */
  async set(order: BreakerOrder, give: () => Promise<boolean>): Promise<boolean> {
    const name = nameOf(order)
    const before = this.#orders.get(name)
    // Before the workers are asked: one that begins to take calls meanwhile is not among them.
    if (order.state === 'open') this.#orders.set(name, order)
    else this.#orders.delete(name)
    const isKnown = await give()
    if (!isKnown && before === undefined) this.#orders.delete(name)
    return isKnown
  }

  /** Forgets orders for breakers that a reload has removed. `ask` resolves with the breakers of all workers that answer. */
  async forgetRemoved(ask: () => Promise<readonly BreakerRow[]>): Promise<void> {
    const names = [...this.#orders.keys()]
    if (names.length === 0) return
    const rows = await ask()
    const known = new Set(rows.map(nameOf))
    if (rows.length > 0) for (const name of names) if (!known.has(name)) this.#orders.delete(name)
  }

  all(): Iterable<BreakerOrder> {
    return this.#orders.values()
  }
}

function nameOf({ upstream, group }: Pick<BreakerOrder, 'upstream'> & { readonly group?: string | undefined }): string {
  return JSON.stringify([upstream, group])
}
