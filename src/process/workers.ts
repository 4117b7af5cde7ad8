import type { Actor } from '../audit/audit.ts'
import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises'
import { Registry } from '@prometheus-io/client'
import { systemClock } from '../time/clock.ts'
import type { FoundConfig } from '../config/find.ts'
import type { Config } from '../schema/schema.ts'
import { instanceName, type Log } from '../observe/log.ts'
import { CommonConfig, type ConfigText } from './common-config.ts'
import { openManaged } from './management.ts'
import { fullerOf } from '../observe/gauges.ts'
import { gaugesOfAll, type ProcessGauges } from '../observe/gauges-of-all.ts'
import { droppedLines, OPENMETRICS } from '../observe/metrics.ts'
import { registerProcessInfo } from '../observe/process-info.ts'
import { ReloadCounts } from '../observe/reload-counts.ts'
import { applied, type ReloadParts, reloadable, Reloader, reloadFor, SELF } from './reload.ts'
import type { CountPiece } from '../observe/series.ts'
import { isCount, untoldCounts, WorkerCounts } from '../observe/worker-counts.ts'
import { type GatewayProcess, type Running, runAdmin, runWithoutAdmin } from './run.ts'
import { mergeAnswers, type RequestAnswers, type RequestQuestion } from '../requests/question.ts'
import type { BreakerState } from '../resilience/breaker.ts'
import { mergeQueues } from '../server/admin/queue.ts'
import type {
  BreakerOrder,
  BreakerRow,
  BudgetRow,
  CredentialRow,
  Controls,
  QueueRow,
  QuotaRow,
  Reloaded,
  Status,
} from '../server/admin/status.ts'
import { type Reply, type Told, WorkerLink } from './worker-link.ts'

/** How long a worker that died is gone, so that one that can't live does not keep the machine busy. */
const REPLACE_AFTER_MS = 1_000
/** Longer than any turn of a busy worker's event loop, and than its wait for Redis: only one that hangs takes more. */
const ANSWER_WITHIN_MS = 2_000
/** The wait for answers that a readiness probe can do without. The whole probe may have only two seconds. */
const ANSWER_SOON_MS = 500
/**
 * How often a worker tells what it has counted: what one that is killed has counted since is lost. Once a second, but with many
 * series less often, so that it costs the worker no more than a hundredth of its time.
 */
const COUNTS_EVERY_MS = 1_000
const COUNTS_PART = 1 / 100

/** The number under which the first process keeps its own counts. Workers are numbered from 1. */
const OWN = 0

type Question =
  | 'alive'
  | 'counts'
  | 'notReady'
  | 'degraded'
  | 'quota'
  | 'budgets'
  | 'queue'
  | 'credentials'
  | 'requests'
  | 'metrics'
  | 'reload'
  | 'breakers'
  | 'setBreaker'
interface Ask {
  readonly ask: Question
  readonly number: number
  /** What is to be put in force, or done. */
  readonly input?: ConfigText | BreakerOrder | RequestQuestion
}
/** What a worker that begins asks for, and gets. */
interface Begun {
  readonly begun: true
}
interface Begin {
  readonly begin: ConfigText
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
 * Runs as many processes as are configured on one port, and itself the admin port for all of them: metrics are added
 * up, and a worker that dies or hangs is replaced. Throws, and leaves no worker behind, if a worker can't start or the
 * admin port is taken. Longer than a screen, because all of it shares the list of workers and the phase.
 */
export async function runWorkers(
  config: Config,
  { log, load, text }: { log: Log; load: ReloadParts['load']; text: ConfigText },
): Promise<Running> {
  // Each worker accepts for itself. Node's default lets the first process hand connections over one by one: that costs it 80 µs
  // each, and one on its way to a worker that is killed is neither answered nor closed, ever.
  cluster.schedulingPolicy = cluster.SCHED_NONE
  let phase: 'starting' | 'serving' | 'stopping' = 'starting'
  let inForce = config
  const common = new CommonConfig(text)
  const name = instanceName(config.log.instance)
  const counts = new WorkerCounts()
  const links = new Set<WorkerLink>()
  const fork = async (): Promise<string> => {
    const worker = cluster.fork()
    const { pid } = worker.process
    let isHung = false
    let countAt = 0
    const link = new WorkerLink(worker, {
      beat() {
        return { ask: performance.now() >= countAt ? 'counts' : 'alive' } satisfies Pick<Ask, 'ask'>
      },
      onBeat(answer) {
        if (answer === 'alive') return
        countAt = performance.now() + Math.max(COUNTS_EVERY_MS / 2, (answer as number) / COUNTS_PART)
      },
      onTold(part) {
        // A piece that comes after the worker ended is dropped: its counts were closed then.
        if (links.has(link)) counts.note(worker.id, part as CountPiece)
      },
      onHung() {
        isHung = true
        log.logger.error({ worker: pid }, 'a worker does not answer any more and is killed')
        worker.process.kill('SIGKILL')
      },
    })
    links.add(link)
    worker.once('exit', (code, signal) => {
      links.delete(link)
      common.leave(link)
      void counts.end(worker.id)
      if (phase !== 'serving') return
      log.logger.error({ worker: pid, code, signal }, 'a worker died and will be replaced')
      void pause(isHung ? 0 : REPLACE_AFTER_MS).then(replace)
    })
    const given = common.inForce
    const url = await urlOf(worker, given)
    link.listens()
    await common.join(link, given)
    return url
  }
  const replace = async (): Promise<void> => {
    if (phase !== 'serving') return
    await fork().catch((err: unknown) => log.logger.error({ err }, 'no new worker'))
  }
  // Whatever ends this process: a worker that hangs, or is stopped, would stay behind.
  process.on('exit', () => {
    for (const { worker } of links) worker.process.kill('SIGKILL')
  })
  const askEach = <Answer>(ask: Question, input?: Ask['input'], withinMs = ANSWER_WITHIN_MS) =>
    Promise.all(
      [...links]
        .filter((link) => link.isListening)
        .map((link) =>
          link.ask<Answer>({ ask, ...(input === undefined ? {} : { input }) }, link.isAlive ? withinMs : 0),
        ),
    )
  const missing = (): number => config.server.workers - [...links].filter((link) => link.isAlive).length
  const endWorkers = async (): Promise<void> => {
    phase = 'stopping'
    const ended = [...links].map(({ worker }) => once(worker, 'exit'))
    for (const link of links) {
      common.leave(link)
      link.worker.process.kill('SIGTERM')
    }
    await Promise.all(ended)
  }
  const managed = await openManaged(config.store, { clock: systemClock, logger: log.logger })
  const own = new Registry(OPENMETRICS)
  const dropped = droppedLines(own)
  log.onDropped(() => dropped.increment())
  const missingWorkers = registerProcessInfo(own)
  const apply = async (found: FoundConfig): Promise<Reloaded> => {
    const { config: next, changed, needRestart } = reloadable(found, inForce)
    if (changed.length === 0) return { result: 'unchanged', needRestart }
    const problems = await common.offer(textOf(found))
    if (problems !== undefined) return { result: 'rejected', problems }
    inForce = next
    return { result: 'applied', changed, needRestart }
  }
  const reloader = new Reloader({ load, apply, counts: new ReloadCounts(own), logger: log.logger })
  const reload = (): Promise<Reloaded> => reloader.reload()
  const status: Status = {
    async *metrics() {
      const known = (await askEach<ProcessGauges>('metrics')).filter((gauges) => gauges !== undefined)
      missingWorkers.set(config.server.workers - known.length)
      for await (const piece of untoldCounts(own)) counts.note(OWN, piece)
      yield await gaugesOfAll([...known, await gaugesOf(own)])
      yield* counts.exposition()
      yield '# EOF\n'
    },
    quota: async () => mergeRows(await askEach<QuotaRow[] | null>('quota')),
    // They are counted in Redis: any worker knows.
    budgets: async () => (await askEach<BudgetRow[] | null>('budgets')).find(Array.isArray),
    queue: async () => mergeQueues((await askEach<QueueRow[]>('queue')).flatMap((rows) => rows ?? [])),
    // Each has the same credentials, and leaves them out by itself: the one that does so most is shown.
    credentials: async () =>
      mergeCredentials((await askEach<CredentialRow[]>('credentials')).flatMap((rows) => rows ?? [])),
    async requests(question) {
      const asked = [...links].filter((link) => link.isListening)
      const answers = await Promise.all(
        asked.map(async (link): Promise<RequestAnswers> => {
          const ask = { ask: 'requests', input: question } satisfies Pick<Ask, 'ask' | 'input'>
          const found = await link.ask<RequestAnswers['found']>(ask, link.isAlive ? ANSWER_SOON_MS : 0)
          const away = { instance: `${name} worker ${link.worker.process.pid}`, why: 'it does not answer' }
          return found === undefined ? { found: [], away: [away] } : { found, away: [] }
        }),
      )
      return mergeAnswers(answers, question)
    },
    async notReady() {
      if (phase === 'stopping') return 'draining'
      const asked = [...links].filter((link) => link.isAlive)
      if (asked.length === 0) return 'no worker answers'
      // One that serves is enough to be ready: taking calls from the others would make an outage of it.
      return firstReady(asked.map((link) => link.ask<string | null>({ ask: 'notReady' }, ANSWER_WITHIN_MS)))
    },
    async degraded() {
      const answers = await askEach<string | null>('degraded', undefined, ANSWER_SOON_MS)
      const count = missing()
      const absent = count > 0 ? `${count} of ${config.server.workers} workers are missing` : undefined
      const reasons = [answers.find((answer) => typeof answer === 'string'), absent]
      return reasons.filter((reason) => reason !== undefined).join('; ') || undefined
    },
  }
  try {
    const urls = await Promise.all(Array.from({ length: config.server.workers }, fork))
    const controls: Controls = {
      reload,
      lastReload: () => reloader.latest,
      breakers: async () => mergeBreakers(await askEach<BreakerRow[]>('breakers')),
      setBreaker: async (order) => (await askEach<boolean>('setBreaker', order)).includes(true),
    }
    const { adminUrl, close } = await runAdmin(config, {
      status,
      controls,
      management: { ...managed, config: () => inForce },
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
    return { url: urls[0]!, adminUrl, status, reload: reloadBy, stop: () => (stopping ??= stop()) }
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
  const { registry } = gateway.metrics
  const answers = {
    notReady: () => gateway.status.notReady(),
    degraded: () => gateway.status.degraded(),
    quota: () => gateway.status.quota(),
    budgets: () => gateway.status.budgets(),
    queue: () => gateway.status.queue(),
    credentials: () => gateway.status.credentials(),
    requests: async (question) => (await gateway.status.requests(question as RequestQuestion)).found,
    metrics: async () => {
      await tellCounts(registry)
      return gaugesOf(registry)
    },
    alive: () => Promise.resolve('alive'),
    counts: () => tellCounts(registry),
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

/**
 * Tells the first process what changed since it was last told, in pieces, between which calls are served. For how many
 * milliseconds this process was busy with it.
 */
async function tellCounts(registry: Registry): Promise<number> {
  let busyMs = 0
  const pieces = untoldCounts(registry)
  for (;;) {
    const before = performance.now()
    const { value: piece, done } = await pieces.next()
    if (done === true) return busyMs
    if (piece.values.length > 0) {
      const sent = new Promise((resolve) => process.send?.({ told: piece } satisfies Told, resolve))
      busyMs += performance.now() - before
      await sent
    }
    await nextTurn()
  }
}

/** What says how it is now: everything but counters and histograms. */
async function gaugesOf(registry: Registry): Promise<ProcessGauges> {
  const all = registry.getMetricsAsArray() as unknown as {
    readonly type?: string
    get(): Promise<ProcessGauges[number]>
  }[]
  return Promise.all(all.filter((metric) => !isCount(metric)).map((metric) => metric.get()))
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

/** Undefined as soon as one is ready; else why the first of them is not. */
async function firstReady(asked: readonly Promise<string | null | undefined>[]): Promise<string | undefined> {
  const ready = asked.map(async (answer) => {
    if ((await answer) !== null) throw new Error('not ready')
  })
  try {
    await Promise.any(ready)
    return undefined
  } catch {
    const reasons = await Promise.all(asked)
    return reasons.find((reason) => typeof reason === 'string') ?? 'no worker answers'
  }
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

function mergeCredentials(rows: readonly CredentialRow[]): CredentialRow[] {
  const merged = new Map<string, CredentialRow>()
  for (const row of rows) {
    const key = JSON.stringify([row.upstream, row.account, row.credential])
    const known = merged.get(key)
    if (known === undefined || known.quarantined < row.quarantined) merged.set(key, row)
  }
  return [...merged.values()]
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
    else merged.set(key, { ...fullerOf(other, row), waiting: row.waiting + other.waiting })
  }
  return [...merged.values()]
}
