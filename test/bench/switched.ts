/**
 * Loaded before the gateway: all that watches calls can be switched off and on by the messages "unwatched" and "watched": stories,
 * metrics, usage by client, notices of limits, traces, and the log line with its fields. What is left is what a call costs for its own
 * sake. Both are measured in one process, because two processes of the same code may differ by a tenth.
 */
import { registerHooks } from 'node:module'

const watch = { isOn: true }
Object.assign(globalThis, { watch })
process.on('message', (message) => {
  if (message !== 'watched' && message !== 'unwatched') return
  watch.isOn = message === 'watched'
  process.send?.({ isOn: watch.isOn })
})
process.channel?.unref()

const SWITCHED: Readonly<Record<string, readonly [statement: string, switched: string][]>> = {
  '/src/server/proxy.ts': [
    [
      'this.#recorder.record(call, result, times, at)',
      'if (watch.isOn) this.#recorder.record(call, result, times, at)',
    ],
    ['call.trace = tracing?.begin(request.headers)', 'if (watch.isOn) call.trace = tracing?.begin(request.headers)'],
  ],
  '/src/gateway/attempt.ts': [['this.#call.tries.push(this.#try)', 'if (watch.isOn) this.#call.tries.push(this.#try)']],
}

registerHooks({
  load(url, context, next) {
    const loaded = next(url, context)
    const [, statements = []] = Object.entries(SWITCHED).find(([file]) => url.endsWith(file)) ?? []
    if (statements.length === 0) return loaded
    let source = Buffer.from(loaded.source as Buffer).toString()
    for (const [statement, switched] of statements) {
      if (!source.includes(statement))
        throw new Error(`${url} has no "${statement}" any more, which was to be switched`)
      source = source.replace(statement, switched)
    }
    return { ...loaded, source }
  },
})

const { CounterSeries, HistogramSeries } = await import('../../src/observe/series.ts')
const { Spending } = await import('../../src/usage/usage.ts')
const { LimitWatch } = await import('../../src/gateway/limit-watch.ts')

function makeSwitched<Name extends string>(
  of: { prototype: Record<Name, (...args: never[]) => void> },
  name: Name,
): void {
  const run = of.prototype[name]
  of.prototype[name] = function switched(...args) {
    if (watch.isOn) run.apply(this, args)
  }
}
makeSwitched(CounterSeries, 'increment')
makeSwitched(HistogramSeries, 'observeMs')
makeSwitched(Spending, 'count')
makeSwitched(LimitWatch, 'note')
