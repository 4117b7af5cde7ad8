import type { Demand } from '../../src/ledger/demand.ts'
import type { Argument } from '../../src/ledger/redis/protocol.ts'

interface Told {
  readonly at: number
  readonly ends: number
  readonly demands: readonly Demand[]
}

/** What demand-exchange.lua does, in TypeScript; the test beside it shows that both answer the same. */
export class ExchangeModel {
  readonly #told = new Map<string, Map<string, Told>>()
  readonly #virtualService = new Map<string, Map<string, number>>()
  readonly #turns = new Map<string, number>()

  run([toldKey, servedKey]: readonly string[], args: readonly Argument[]): string {
    const gateway = String(args[0])
    const now = Math.floor(Number(args[1]) / 1_000)
    const demands = JSON.parse(String(args[3])) as readonly Demand[]
    const told = this.#told.getOrInsertComputed(toldKey!, () => new Map<string, Told>())
    const virtualService = this.#virtualServiceOf(servedKey!)
    const others: { agoMs: number; demands: readonly Demand[] }[] = []
    const [waiting, wasWaiting] = [new Set<string>(), new Set<string>()]
    for (const [name, { at, ends, demands: theirs }] of told) {
      if (ends < now) {
        told.delete(name)
        continue
      }
      for (const { client } of theirs) wasWaiting.add(client)
      if (name === gateway) continue
      others.push({ agoMs: now - at, demands: theirs })
      for (const { client } of theirs) waiting.add(client)
    }
    const least =
      wasWaiting.size === 0 ? 0 : Math.min(...[...wasWaiting].map((client) => virtualService.get(client) ?? 0))
    for (const { client } of demands) {
      waiting.add(client)
      if (!wasWaiting.has(client) && (virtualService.get(client) ?? -1) < least) virtualService.set(client, least)
    }
    for (const [client, sum] of virtualService) if (!waiting.has(client) && sum <= least) virtualService.delete(client)
    if (demands.length > 0) told.set(gateway, { at: now, ends: now + Number(args[2]), demands })
    else told.delete(gateway)
    const reply = JSON.stringify({
      virtualService: Object.fromEntries(virtualService),
      turns: this.#turns.get(servedKey!) ?? 0,
      others,
    })
    if (waiting.size === 0) {
      virtualService.clear()
      this.#turns.delete(servedKey!)
    }
    return reply
  }

  /** What charge/charge.lua adds to it; returns how many calls were served so far. */
  serve(
    servedKey: string,
    calls: readonly (readonly [client: string, cost: number])[],
    granted = calls.length,
  ): number {
    const virtualService = this.#virtualServiceOf(servedKey)
    for (const [client, cost] of calls) virtualService.set(client, (virtualService.get(client) ?? 0) + cost)
    const turns = (this.#turns.get(servedKey) ?? 0) + granted
    if (granted > 0) this.#turns.set(servedKey, turns)
    return turns
  }

  copy(): ExchangeModel {
    const copy = new ExchangeModel()
    for (const [key, told] of this.#told) copy.#told.set(key, new Map(told))
    for (const [key, served] of this.#virtualService) copy.#virtualService.set(key, new Map(served))
    for (const [key, turns] of this.#turns) copy.#turns.set(key, turns)
    return copy
  }

  #virtualServiceOf(key: string): Map<string, number> {
    return this.#virtualService.getOrInsertComputed(key, () => new Map<string, number>())
  }
}
