/**
 * Loaded before the gateway: leaves out all that watches calls: stories, metrics, usage by client, notices of limits, and the log
 * line with its fields. What is left is what a call costs for its own sake.
 */
import { registerHooks } from 'node:module'

const LEFT_OUT: Readonly<Record<string, string>> = {
  '/src/server/proxy.ts': 'this.#recorder.record(call, result, times)',
  '/src/gateway/attempt.ts': 'this.#call.tries.push(this.#try)',
}

registerHooks({
  load(url, context, next) {
    const loaded = next(url, context)
    const [, statement] = Object.entries(LEFT_OUT).find(([file]) => url.endsWith(file)) ?? []
    if (statement === undefined) return loaded
    const source = Buffer.from(loaded.source as Buffer).toString()
    if (!source.includes(statement)) throw new Error(`${url} has no "${statement}" any more, which was to be left out`)
    return { ...loaded, source: source.replace(statement, 'void 0') }
  },
})

const { CounterSeries, HistogramSeries } = await import('../../src/observe/series.ts')
const { Spending } = await import('../../src/usage/usage.ts')
const { LimitWatch } = await import('../../src/gateway/limit-watch.ts')
const nothing = (): void => undefined
CounterSeries.prototype.increment = nothing
HistogramSeries.prototype.observeMs = nothing
Spending.prototype.count = nothing
LimitWatch.prototype.note = nothing
