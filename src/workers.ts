import type { Actor } from './audit/audit.ts'
import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { Registry } from '@prometheus-io/client'
import { systemClock } from './clock.ts'
import type { FoundConfig } from './config/find.ts'
import type { Config } from './config/schema.ts'
import type { Log } from './observe/log.ts'
import { openManaged } from './management.ts'
import { metricsOfAll, type ProcessMetrics } from './observe/metrics-of-all.ts'
import { droppedLines, OPENMETRICS } from './observe/metrics.ts'
import { registerProcessInfo } from './observe/process-info.ts'
import { ReloadCounts } from './observe/reload-counts.ts'
import { applied, type Reloaded, type ReloadParts, reloadable, Reloader, reloadFor, SELF } from './reload.ts'
import { type GatewayProcess, type Running, runAdmin, runWithoutAdmin } from './run.ts'
import type { BreakerState } from './resilience/breaker.ts'
import type { BreakerOrder, BreakerRow } from './server/admin/breakers.ts'
import { mergeQueues, type QueueRow } from './server/admin/queue.ts'
import type { Controls, QuotaRow, Vitals } from './server/admin.ts'

/** How long a worker that died is gone, so that one that can't live does not keep the machine busy. */
const REPLACE_AFTER_MS = 1_000
/** Longer than any turn of a busy worker's event loop, and than its wait for Redis: only one that hangs takes more. */
const ANSWER_WITHIN_MS = 2_000

type Question = 'notReady' | 'degraded' | 'quota' | 'queue' | 'metrics' | 'reload' | 'breakers' | 'setBreaker'
interface Ask {
  readonly ask: Question
  readonly number: number
  /** What is to be put in force, or done. */
  readonly input?: ConfigText | BreakerOrder
}
/** The configuration as the first process read it: what the others run does not depend on when they look. */
export interface ConfigText {
  readonly source: string
  readonly text: string
}
/** What a worker that begins asks for, and gets. */
interface Begun {
  readonly begun: true
}
interface Begin {
  readonly begin: ConfigText
}
interface Reply {
  readonly reply: number
  readonly answer: unknown
}
interface Listening {
  readonly listening: string
}
type ListenError = NodeJS.ErrnoException & { readonly port?: number; readonly address?: string }
interface Failed {
  readonly failed: object
}

export const isWorker = cluster.isWorker

/**
 * Runs as many processes as are configured on one port, and itself the admin port for all of them: metrics are added up, a
 * worker that dies is replaced. Throws, and leaves no worker behind, if one of them can't start or the admin port be had.
 */
export async function runWorkers(
  config: Config,
  { log, load, text }: { log: Log; load: ReloadParts['load']; text: ConfigText },
): Promise<Running> {
  let phase: 'starting' | 'serving' | 'stopping' = 'starting'
  let inForce = { config, text }
  const fork = (): Promise<string> => urlOf(cluster.fork(), inForce.text)
  cluster.on('exit', (worker, code, signal) => {
    if (phase !== 'serving') return
    log.logger.error({ worker: worker.process.pid, code, signal }, 'a worker died and will be replaced')
    void pause(REPLACE_AFTER_MS).then(() => {
      if (phase === 'serving') fork().catch((err: unknown) => log.logger.error({ err }, 'no new worker'))
    })
  })
  const endWorkers = async (): Promise<void> => {
    phase = 'stopping'
    const ended = workers().map((worker) => once(worker, 'exit'))
    for (const worker of workers()) worker.process.kill('SIGTERM')
    await Promise.all(ended)
  }
  const managed = await openManaged(config.store, { clock: systemClock, logger: log.logger })
  const own = new Registry(OPENMETRICS)
  const dropped = droppedLines(own)
  log.onDropped(() => dropped.increment())
  registerProcessInfo(own)
  const apply = async (found: FoundConfig): Promise<Reloaded> => {
    const { config: next, changed, needRestart } = reloadable(found, inForce.config)
    if (changed.length === 0) return { result: 'unchanged', needRestart }
    const nextText = textOf(found)
    const answers = await askEach<Reloaded>('reload', nextText)
    const refusal = answers.find((answer) => answer?.result === 'rejected')
    if (refusal !== undefined) return refusal
    if (answers.includes(undefined)) return { result: 'rejected', problems: ['a worker did not answer in time'] }
    inForce = { config: next, text: nextText }
    return { result: 'applied', changed, needRestart }
  }
  const reloader = new Reloader({ load, apply, counts: new ReloadCounts(own), logger: log.logger })
  const reload = (): Promise<Reloaded> => reloader.reload()
  const vitals: Vitals = {
    async *metrics() {
      const answers = await askEach<ProcessMetrics>('metrics')
      const known = answers.filter((answer) => answer !== undefined)
      // Without one of them, counters would look as if they had begun anew: better no scrape than that.
      if (known.length < answers.length) throw new Error('a worker does not answer')
      yield await metricsOfAll([...known, await own.getMetricsAsJSON()])
    },
    quota: async () => mergeRows(await askEach<QuotaRow[] | null>('quota')),
    queue: async () => mergeQueues((await askEach<QueueRow[]>('queue')).flatMap((rows) => rows ?? [])),
    async notReady() {
      if (phase === 'stopping') return 'draining'
      const answers = await askEach<string | null>('notReady')
      const missing = config.server.workers - answers.length
      if (missing > 0) return `${missing} of ${config.server.workers} workers are missing`
      if (answers.includes(undefined)) return 'a worker does not answer'
      return answers.find((answer) => typeof answer === 'string')
    },
    async degraded() {
      return (await askEach<string | null>('degraded')).find((answer) => typeof answer === 'string')
    },
  }
  try {
    const urls = await Promise.all(Array.from({ length: config.server.workers }, fork))
    const controls: Controls = {
      reload,
      breakers: async () => mergeBreakers(await askEach<BreakerRow[]>('breakers')),
      setBreaker: async (order) => (await askEach<boolean>('setBreaker', order)).includes(true),
    }
    const { adminUrl, close } = await runAdmin(config, {
      vitals,
      controls,
      management: { ...managed, config: () => inForce.config },
    })
    phase = 'serving'
    const stop = async (): Promise<void> => {
      await endWorkers()
      await close()
      await managed.close()
      log.flush()
    }
    let stopping: Promise<void> | undefined
    const reloadBy = (by: Actor = SELF): Promise<Reloaded> => reloadFor(by, reloader, managed.audit, log.logger)
    return { url: urls[0]!, adminUrl, vitals, reload: reloadBy, stop: () => (stopping ??= stop()) }
  } catch (error) {
    await endWorkers()
    await managed.close()
    throw error
  }
}

/** What the first process has a worker run. */
export function textFromFirstProcess(): Promise<ConfigText> {
  return new Promise((resolve) => {
    // It may be asked something before, as all workers are.
    const listen = ({ begin }: Partial<Begin>): void => {
      if (begin === undefined) return
      process.off('message', listen)
      resolve(begin)
    }
    process.on('message', listen)
    process.send?.({ begun: true } satisfies Begun)
  })
}

/** Runs one of these processes. One that can't start tells the first process why, and ends. */
export async function runWorker(
  config: Config,
  { log, parse }: { log: Log; parse: (text: ConfigText) => Promise<FoundConfig> },
): Promise<GatewayProcess> {
  const gateway = await runWithoutAdmin(config, { log }).catch(failed)
  const answers = {
    notReady: () => gateway.vitals.notReady(),
    degraded: () => gateway.vitals.degraded(),
    quota: () => gateway.vitals.quota(),
    queue: () => gateway.vitals.queue(),
    metrics: () => gateway.metrics.registry.getMetricsAsJSON(),
    reload: (next) => applied(async () => gateway.apply(await parse(next as ConfigText))),
    breakers: () => Promise.resolve(gateway.breakers()),
    setBreaker: (order) => Promise.resolve(gateway.setBreaker(order as BreakerOrder)),
  } satisfies Record<Question, (input?: Ask['input']) => Promise<unknown>>
  process.on('message', ({ ask, number, input }: Ask) => {
    if (ask === undefined) return
    void answers[ask](input).then((answer: unknown) => {
      process.send?.({ reply: number, answer: answer ?? null } satisfies Reply)
    })
  })
  process.send?.({ listening: gateway.url } satisfies Listening)
  return gateway
}

/** Only a file can ask for workers. */
export function textOf({ source, text = '' }: FoundConfig): ConfigText {
  return { source, text }
}

/** Never returns. What is sent as JSON of an error is what explains it. */
function failed({ message, stack, code, port, address }: ListenError): Promise<never> {
  process.send?.({ failed: { message, stack, code, port, address } } satisfies Failed, () => process.exit(1))
  return new Promise(() => undefined)
}

function workers(): Worker[] {
  return Object.values(cluster.workers ?? {}).filter((worker) => worker !== undefined)
}

/** Where a new worker listens; throws what it failed with if it does not come so far. */
function urlOf(worker: Worker, text: ConfigText): Promise<string> {
  return new Promise((resolve, reject) => {
    worker.on('message', (message: Partial<Begun & Listening & Failed>) => {
      if (message.begun === true) worker.send({ begin: text } satisfies Begin)
      if (message.listening !== undefined) resolve(message.listening)
      if (message.failed !== undefined) reject(Object.assign(new Error(), message.failed))
    })
    worker.once('exit', () => reject(new Error('a worker ended before it listened')))
  })
}

let questions = 0

/** What each worker answers; undefined for one that does not in time. */
function askEach<Answer>(ask: Question, input?: Ask['input']): Promise<(Answer | undefined)[]> {
  const about = input === undefined ? { ask } : { ask, input }
  return Promise.all(workers().map((worker) => askOne<Answer>(worker, about)))
}

function askOne<Answer>(worker: Worker, about: Omit<Ask, 'number'>): Promise<Answer | undefined> {
  const number = questions++
  return new Promise((resolve) => {
    const end = (answer: Answer | undefined): void => {
      clearTimeout(timer)
      worker.off('message', listen)
      resolve(answer)
    }
    const listen = ({ reply, answer }: Reply): void => {
      if (reply === number) end(answer as Answer)
    }
    const timer = setTimeout(() => end(undefined), ANSWER_WITHIN_MS)
    worker.on('message', listen)
    // With nobody to tell, an error of a channel that is closed would end the first process.
    worker.send({ ...about, number } satisfies Ask, (error: Error | null) => {
      if (error !== null) end(undefined)
    })
  })
}

const WORSE = { closed: 0, 'half-open': 1, open: 2 } satisfies Record<BreakerState, number>

/** Each worker has its own breakers: the worst state of each is shown. */
function mergeBreakers(answers: readonly (readonly BreakerRow[] | undefined)[]): BreakerRow[] {
  const worst = new Map<string, BreakerRow>()
  for (const row of answers.flatMap((rows) => rows ?? [])) {
    const key = `${row.upstream}\n${row.group ?? ''}`
    const known = worst.get(key)
    if (known === undefined || WORSE[row.state] > WORSE[known.state]) worst.set(key, row)
  }
  return [...worst.values()]
}

/** Workers count in one store, but each has its own queues. Undefined if none of them could ask the store. */
function mergeRows(answers: readonly (readonly QuotaRow[] | null | undefined)[]): QuotaRow[] | undefined {
  const known = answers.filter((rows) => rows !== null && rows !== undefined)
  if (known.length === 0) return undefined
  const merged = new Map<string, QuotaRow>()
  for (const row of known.flat()) {
    const key = [row.upstream, row.account, row.class, row.window].join('\n')
    const other = merged.get(key)
    if (other === undefined) merged.set(key, row)
    else merged.set(key, { ...(row.used > other.used ? row : other), waiting: row.waiting + other.waiting })
  }
  return [...merged.values()]
}
