import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import type { Config } from './config/schema.ts'
import type { Log } from './observe/log.ts'
import { metricsOfAll, type ProcessMetrics } from './observe/metrics-of-all.ts'
import { type GatewayProcess, type Running, runAdmin, runWithoutAdmin } from './run.ts'
import type { QuotaRow, Vitals } from './server/admin.ts'

/** How long a worker that died is gone, so that one that can't live does not keep the machine busy. */
const REPLACE_AFTER_MS = 1_000
/** Longer than any turn of a busy worker's event loop, and than its wait for Redis: only one that hangs takes more. */
const ANSWER_WITHIN_MS = 2_000

type Question = 'notReady' | 'degraded' | 'quota' | 'metrics'
interface Ask {
  readonly ask: Question
  readonly number: number
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
export async function runWorkers(config: Config, { log }: { log: Log }): Promise<Omit<Running, 'registry'>> {
  let phase: 'starting' | 'serving' | 'stopping' = 'starting'
  cluster.on('exit', (worker, code, signal) => {
    if (phase !== 'serving') return
    log.logger.error({ worker: worker.process.pid, code, signal }, 'a worker died and will be replaced')
    void pause(REPLACE_AFTER_MS).then(() => {
      if (phase === 'serving') urlOf(cluster.fork()).catch((err: unknown) => log.logger.error({ err }, 'no new worker'))
    })
  })
  const endWorkers = async (): Promise<void> => {
    phase = 'stopping'
    const ended = workers().map((worker) => once(worker, 'exit'))
    for (const worker of workers()) worker.process.kill('SIGTERM')
    await Promise.all(ended)
  }
  const vitals: Vitals = {
    async metrics() {
      const answers = await askEach<ProcessMetrics>('metrics')
      const known = answers.filter((answer) => answer !== undefined)
      // Without one of them, counters would look as if they had begun anew: better no scrape than that.
      if (known.length < answers.length) throw new Error('a worker does not answer')
      return metricsOfAll(known)
    },
    quota: async () => mergeRows(await askEach<QuotaRow[] | null>('quota')),
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
    const urls = await Promise.all(Array.from({ length: config.server.workers }, () => urlOf(cluster.fork())))
    const { adminUrl, close } = await runAdmin(config, vitals)
    phase = 'serving'
    const stop = async (): Promise<void> => {
      await endWorkers()
      await close()
      log.flush()
    }
    let stopping: Promise<void> | undefined
    return { url: urls[0]!, adminUrl, vitals, stop: () => (stopping ??= stop()) }
  } catch (error) {
    await endWorkers()
    throw error
  }
}

/** Runs one of these processes. One that can't start tells the first process why, and ends. */
export async function runWorker(config: Config, { log }: { log: Log }): Promise<GatewayProcess> {
  const gateway = await runWithoutAdmin(config, { log }).catch(failed)
  const answers = {
    notReady: () => gateway.vitals.notReady(),
    degraded: () => gateway.vitals.degraded(),
    quota: () => gateway.vitals.quota(),
    metrics: () => gateway.registry.getMetricsAsJSON(),
  } satisfies Record<Question, () => Promise<unknown>>
  process.on('message', ({ ask, number }: Ask) => {
    if (ask === undefined) return
    void answers[ask]().then((answer) => {
      process.send?.({ reply: number, answer: answer ?? null } satisfies Reply)
    })
  })
  process.send?.({ listening: gateway.url } satisfies Listening)
  return gateway
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
function urlOf(worker: Worker): Promise<string> {
  return new Promise((resolve, reject) => {
    worker.on('message', (message: Partial<Listening & Failed>) => {
      if (message.listening !== undefined) resolve(message.listening)
      if (message.failed !== undefined) reject(Object.assign(new Error(), message.failed))
    })
    worker.once('exit', () => reject(new Error('a worker ended before it listened')))
  })
}

let questions = 0

/** What each worker answers; undefined for one that does not in time. */
function askEach<Answer>(ask: Question): Promise<(Answer | undefined)[]> {
  return Promise.all(workers().map((worker) => askOne<Answer>(worker, ask)))
}

function askOne<Answer>(worker: Worker, ask: Question): Promise<Answer | undefined> {
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
    worker.send({ ask, number } satisfies Ask, (error: Error | null) => {
      if (error !== null) end(undefined)
    })
  })
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
