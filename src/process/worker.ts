import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Registry } from '@prometheus-io/client'
import type { FoundConfig } from '../config/find.ts'
import { gaugesOf } from '../observe/gauges-of-all.ts'
import type { Log } from '../observe/log.ts'
import { beginGeneration } from '../ledger/limit.ts'
import { unsentCounts } from '../observe/worker-counts.ts'
import type { RequestQuestion } from '../requests/question.ts'
import type { Config } from '../schema/schema.ts'
import type { BreakerOrder } from '../server/admin/status.ts'
import { systemClock } from '../time/clock.ts'
import { FirstProcess } from './first-process.ts'
import { applied, STOPS } from './reload.ts'
import { type GatewayProcess, runWithoutAdmin } from './run.ts'
import type { Ask, ConfigText, FromWorker, GivenText, Question, ToWorker } from './worker-link.ts'

/** Asks the first process for the configuration that this one is to run. */
export function textFromFirstProcess(): Promise<GivenText> {
  return new Promise((resolve) => {
    // The first process may ask something before it answers.
    const listen = ({ begin }: ToWorker): void => {
      if (begin === undefined) return
      process.off('message', listen)
      beginGeneration(begin.generation)
      resolve(begin)
    }
    process.on('message', listen)
    process.send?.({ begun: true } satisfies FromWorker)
  })
}

/** Runs a gateway as one of several processes. If it can't start, it tells the first process why, and this process ends. */
export async function runWorker(
  config: Config,
  { log, parse }: { log: Log; parse: (text: ConfigText) => Promise<FoundConfig> },
): Promise<GatewayProcess> {
  const first = config.store.kind === 'memory' ? new FirstProcess(systemClock) : undefined
  await first?.ledger.begun
  const gateway = await runWithoutAdmin(config, { log, first, isWorker: true }).catch(failed)
  const { registry } = gateway.metrics
  const answers = {
    ...gateway.status,
    requests: (question) => gateway.status.requests(question as RequestQuestion),
    metrics: async (_, number) => {
      await tellCounts(registry)
      for await (const part of gaugesOf(registry)) await tell({ reply: number, part })
    },
    alive: () => Promise.resolve('alive'),
    counts: () => tellCounts(registry),
    async reload(next) {
      const reloaded = await applied(async () => {
        const { generation, ...text } = next as GivenText
        const found = await parse(text)
        beginGeneration(generation)
        return gateway.apply(found)
      })
      return reloaded === STOPS ? null : reloaded
    },
    breakers: () => Promise.resolve(gateway.breakers()),
    setBreaker: (order) => Promise.resolve(gateway.setBreaker(order as BreakerOrder)),
  } satisfies Record<Question, (input: Ask['input'], number: number) => Promise<unknown>>
  process.on('message', ({ ask, number, input }: Ask) => {
    if (ask === undefined) return
    answers[ask](input, number).then(
      (answer: unknown) => {
        process.send?.({ reply: number, answer: answer ?? null } satisfies FromWorker)
      },
      // A reply without an answer means to the first process that this worker is away. Calls go on.
      (err: unknown) => {
        log.logger.error({ err, ask }, 'a worker could not answer the first process')
        process.send?.({ reply: number } satisfies FromWorker)
      },
    )
  })
  const { url, forwardProxyUrl } = gateway
  process.send?.({ listening: { url, forwardProxyUrl } } satisfies FromWorker)
  return gateway
}

/**
 * Sends the first process the counts that changed since the last time, in pieces. Calls are served between the pieces. Resolves
 * with the milliseconds for which this process was busy sending.
 */
async function tellCounts(registry: Registry): Promise<number> {
  let busyMs = 0
  const pieces = unsentCounts(registry)
  for (;;) {
    const before = performance.now()
    const { value: piece, done } = await pieces.next()
    if (done === true) return busyMs
    if (piece.values.length > 0) {
      const sent = tell({ told: piece })
      busyMs += performance.now() - before
      await sent
    }
    await nextTurn()
  }
}

/** Resolves when the message was handed to the channel, or could not be. */
function tell(message: FromWorker): Promise<unknown> {
  return new Promise((resolve) => process.send?.(message, resolve))
}

type ListenError = NodeJS.ErrnoException & { readonly port?: number; readonly address?: string }
/** Ends the process, so the promise never settles. JSON leaves out the message of an error, so its fields are sent one by one. */
function failed({ message, stack, code, port, address }: ListenError): Promise<never> {
  process.send?.({ failed: { message, stack, code, port, address } } satisfies FromWorker, () => process.exit(1))
  return new Promise(() => undefined)
}
