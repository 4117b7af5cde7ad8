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

/** Of these functions nothing runs while nothing watches. Each stands with the beginning of its line in the source. */
const FUNCTIONS: Readonly<Record<string, readonly string[]>> = {
  '/src/observe/series.ts': [
    '  increment(id?: string, by = 1, traceId?: string, at?: number): void {',
    '  observeMs(ms: number, id?: string, traceId?: string, at?: number): void {',
  ],
  '/src/usage/usage.ts': ['  count(client: QueuedClient, id: string): void {'],
  '/src/gateway/limit-watch.ts': ['  note(usage: LimitUsage, id?: string): void {'],
}
/** These statements do not run either. */
const STATEMENTS: Readonly<Record<string, readonly string[]>> = {
  '/src/server/proxy.ts': [
    'this.#recorder.record(call, result, times, at)',
    'call.trace = tracing?.begin(request.headers)',
  ],
  '/src/gateway/attempt.ts': ['this.#call.tries.push(this.#try)'],
}
/** A wrapper around a function would be a part of what is measured, so the source itself is changed. */
const changes = [
  ...changesOf(FUNCTIONS, (line) => `${line} if (!watch.isOn) return;`),
  ...changesOf(STATEMENTS, (statement) => `if (watch.isOn) ${statement}`),
]

function changesOf(found: Readonly<Record<string, readonly string[]>>, switched: (text: string) => string) {
  return Object.entries(found).flatMap(([file, texts]) =>
    texts.map((text) => ({ file, text, switched: switched(text) })),
  )
}

registerHooks({
  load(url, context, next) {
    const loaded = next(url, context)
    const own = changes.filter(({ file }) => url.endsWith(file))
    if (own.length === 0) return loaded
    let source = Buffer.from(loaded.source as Buffer).toString()
    for (const { text, switched } of own) {
      if (!source.includes(text)) throw new Error(`${url} has no "${text}" any more, which was to be switched`)
      source = source.replace(text, switched)
    }
    return { ...loaded, source }
  },
})
