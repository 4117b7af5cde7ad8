/** So many clients are remembered without looking whether they need be. */
const FEW = 100

/** By client, what its calls that were served have cost, while anybody waits for the same quota. */
export class VirtualService {
  #costs: Map<string, number>
  /** Looked through when it has become twice as many as needed to be remembered, so that it costs little for each. */
  #most = FEW

  constructor(costs?: ReadonlyMap<string, number>) {
    this.#costs = new Map(costs)
  }

  get costs(): ReadonlyMap<string, number> {
    return this.#costs
  }

  add(client: string, cost: number): void {
    this.#costs.set(client, (this.#costs.get(client) ?? 0) + cost)
  }

  /**
   * A client comes anew, and begins where the others are, at `least`: what was not wanted earlier can't be made up for. So
   * nobody who does not wait and has had no more than that need be remembered.
   */
  begin(client: string, least: number, isWaiting: (client: string) => boolean): void {
    this.#costs.set(client, Math.max(this.#costs.get(client) ?? 0, least))
    if (this.#costs.size < this.#most) return
    for (const [name, sum] of this.#costs)
      if (sum <= least && name !== client && !isWaiting(name)) this.#costs.delete(name)
    this.#most = Math.max(FEW, 2 * this.#costs.size)
  }

  clear(): void {
    this.#costs.clear()
  }
}
