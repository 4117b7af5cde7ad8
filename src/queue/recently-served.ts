/** Whose calls were served while a call waited. */
export interface ServedBefore {
  readonly calls: number
  /**
   * How many of the last calls, at most `REMEMBERED`, were of which client. Clients with the most calls come first, at
   * most `NAMED`.
   */
  readonly byClient: readonly (readonly [client: string, calls: number])[]
}

/** Bounds what a call that waited long costs: each of these is looked at once when its wait is over. */
const REMEMBERED = 256
const NAMED = 5

/** The clients whose calls were served last in one queue, in that order. */
export class RecentlyServed {
  readonly #clients: string[] = []
  /** How many calls were served so far. */
  count = 0
  /** The latest result. It is kept because thousands of calls may leave between two that are served. */
  #latest: { readonly at: number; readonly looked: number; readonly byClient: ServedBefore['byClient'] } | undefined

  add(client: string): void {
    this.#clients[this.count++ % REMEMBERED] = client
  }

  /** What was served since `this.count` was `count`. */
  since(count: number): ServedBefore {
    const calls = this.count - count
    const looked = Math.min(calls, REMEMBERED)
    if (this.#latest?.at !== this.count || this.#latest.looked !== looked)
      this.#latest = { at: this.count, looked, byClient: this.#byClient(looked) }
    return { calls, byClient: this.#latest.byClient }
  }

  #byClient(looked: number): ServedBefore['byClient'] {
    const known = new Map<string, number>()
    for (let i = this.count - looked; i < this.count; i++) {
      const client = this.#clients[i % REMEMBERED]!
      known.set(client, (known.get(client) ?? 0) + 1)
    }
    return [...known].sort(([, a], [, b]) => b - a).slice(0, NAMED)
  }
}
