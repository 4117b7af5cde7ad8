import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { Registry } from '../packages/prometheus.ts'
import { systemClock } from '../time/clock.ts'
import type { FoundConfig } from '../config/find.ts'
import type { Config } from '../schema/schema.ts'
import { instanceName, type Log } from '../observe/log.ts'
import { CommonConfig } from './common-config.ts'
import { HeldBreakers } from './held-breakers.ts'
import { openManaged } from './management.ts'
import { followBesideWorkers } from '../secrets/open.ts'
import { gaugesOf, gaugesOfAll, type GaugeValues } from '../observe/gauges-of-all.ts'
import { collectProcessMetrics, droppedLines, OPENMETRICS } from '../observe/metrics.ts'
import { registerProcessInfo } from '../observe/process-info.ts'
import { type ReloadParts, reloadable, STOPS } from './reload.ts'
import type { CountPiece } from '../observe/series.ts'
import { unsentCounts, WorkerCounts } from '../observe/worker-counts.ts'
import { type Running, runAdmin } from './run.ts'
import { mergeAnswers, type RequestAnswers } from '../requests/question.ts'
import type {
  BreakerRow,
  BudgetRow,
  CredentialRow,
  Degradation,
  QueueRow,
  QuotaRow,
  Reloaded,
  Status,
} from '../server/admin/status.ts'
import type { FileDays } from '../usage/file-days.ts'
import { SharedStore } from './shared-store.ts'
import { tellFailure, WorkerEnded } from './start-error.ts'
import { mergeBreakers, mergeCredentials, mergeQueues, mergeQuotas, mergeRows } from './merge-rows.ts'
import {
  type Listening,
  type Ask,
  type ConfigText,
  type FromWorker,
  type GivenText,
  type Question,
  textOf,
  type ToWorker,
  WorkerLink,
} from './worker-link.ts'
import { UnderWay } from './under-way.ts'

/** A worker that died is replaced after this time, so that one that dies again and again does not keep the machine busy. */
const REPLACE_AFTER_MS = 1_000
/** Longer than any turn of a busy worker's event loop, and than its wait for Redis: only a worker that hangs takes longer. */
const ANSWER_WITHIN_MS = 2_000
/** The wait for answers that a readiness probe can do without. The whole probe may have only two seconds. */
const ANSWER_SOON_MS = 500
/**
 * How often a worker sends its counts. When a worker is killed, what it counted since it last sent them is lost. With many series
 * it sends them less often, so that sending takes at most `COUNTS_PART` of its time.
 */
const COUNTS_EVERY_MS = 1_000
const COUNTS_PART = 1 / 100

/** The number under which the first process keeps its own counts. Workers are numbered from 1. */
const OWN = 0

/**
 * Runs the configured number of workers, which share one port. This process serves the admin port for all of them, adds up
 * their metrics, and replaces a worker that dies or hangs. Throws if a worker can't start or the admin port is taken, and
 * leaves no worker behind. The function is longer than a screen, because all of it shares the list of workers and the phase.
 */
export async function runWorkers(
  config: Config,
  {
    log,
    load,
    text,
    isStopping,
  }: {
    log: Log
    load: ReloadParts['load']
    text: ConfigText
    /** Whether the gateway was told to stop. Workers may have been told, too, and have ended. */
    isStopping: () => boolean
  },
): Promise<Running> {
  // Each worker accepts its own connections. By Node's default the first process accepts them and hands each one over. That takes
  // time, and a connection that is being handed to a worker that is killed is never answered or closed.
  cluster.schedulingPolicy = cluster.SCHED_NONE
  const { store } = config
  const clock = systemClock
  await using parts = new AsyncDisposableStack()
  const managed = await openManaged(store, { clock, logger: log.logger })
  parts.defer(() => managed.close())
  const shared =
    store.kind === 'memory'
      ? new SharedStore(store, managed.usageDays as FileDays, { clock, logger: log.logger })
      : undefined
  parts.defer(() => shared?.close())
  let phase: 'starting' | 'serving' | 'stopping' = 'starting'
  let inForce = config
  const common = new CommonConfig(text)
  let secrets = await followBesideWorkers(config, managed)
  secrets.serve()
  const reloads = new UnderWay()
  parts.defer(async () => {
    // A reload that is under way replaces `secrets`.
    await reloads.over()
    await secrets.close()
  })
  const name = instanceName(config.log.instance)
  const counts = new WorkerCounts()
  const links = new Set<WorkerLink>()
  const held = new HeldBreakers()
  const fork = async (): Promise<Listening> => {
    const worker = cluster.fork()
    // Without this listener an error of a closed channel would end the first process, and so would a worker that can't be started.
    worker.on('error', () => undefined)
    const { pid } = worker.process
    if (pid === undefined) throw (await once(worker.process, 'error'))[0]
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
        // A piece that arrives after the worker ended is dropped, because the counts of that worker are closed.
        if (links.has(link)) counts.note(worker.id, part as CountPiece)
      },
      onHung() {
        isHung = true
        log.logger.error({ worker: pid }, 'a worker does not answer any more and is killed')
        worker.process.kill('SIGKILL')
      },
    })
    links.add(link)
    shared?.serve(worker)
    worker.on('message', ({ invalidated }: FromWorker) => {
      if (invalidated === undefined) return
      for (const other of links) if (other !== link) other.worker.send({ invalidated } satisfies ToWorker)
    })
    worker.once('exit', (code, signal) => {
      links.delete(link)
      common.leave(link)
      void counts.end(worker.id)
      if (phase !== 'serving') return
      log.logger.error({ worker: pid, code, signal }, 'a worker died and will be replaced')
      replaceAfter(isHung ? 0 : REPLACE_AFTER_MS)
    })
    const given = common.inForce
    const urls = await urlsOf(worker, common.given(given))
    const hold = (): void => {
      for (const order of held.all()) void link.ask({ ask: 'setBreaker', input: order }, Infinity)
    }
    hold()
    link.listens()
    await common.join(link, given)
    // A breaker may be of a configuration that it has only now.
    hold()
    return urls
  }
  const replace = async (): Promise<void> => {
    if (phase !== 'serving') return
    await fork().catch((err: NodeJS.ErrnoException) => {
      // A gateway that stops ends also the workers that still start.
      if (phase !== 'serving') return
      log.logger.error({ err }, 'no new worker')
      // One that the system did not start does not exit either.
      if (err.syscall?.startsWith('spawn') === true) replaceAfter(REPLACE_AFTER_MS)
    })
  }
  const replaceAfter = (ms: number): void => void pause(ms).then(replace)
  // Workers are killed whatever ends this process. Otherwise one that hangs, or is stopped, would stay behind.
  process.on('exit', () => {
    for (const { worker } of links) worker.process.kill('SIGKILL')
  })
  const listening = (): WorkerLink[] => [...links].filter((link) => link.isListening)
  /** The answers are in the order of `listening()` at the time of the call. */
  const askEach = <Answer>(ask: Question, input?: Ask['input'], withinMs = ANSWER_WITHIN_MS) => {
    const question = { ask, ...(input === undefined ? {} : { input }) }
    return Promise.all(listening().map((link) => link.ask<Answer>(question, link.isAlive ? withinMs : 0)))
  }
  const askRows = async <Row>(ask: Question): Promise<Row[]> =>
    (await askEach<Row[]>(ask)).flatMap((rows) => rows ?? [])
  const missing = (): number => config.server.workers - [...links].filter((link) => link.isAlive).length
  const endWorkers = async (): Promise<void> => {
    phase = 'stopping'
    // `exit` is too early: the channel may still hold what the worker sent before it. `disconnect` may never come: it does not if a
    // worker dies before it takes a listener that was sent to it.
    const ended = [...links].map(({ worker }) => once(worker.process, 'close'))
    for (const link of links) {
      common.leave(link)
      link.worker.process.kill('SIGTERM')
    }
    await Promise.all(ended)
  }
  const own = new Registry(OPENMETRICS)
  const dropped = droppedLines(own)
  log.onDropped(() => dropped.increment())
  // This process needs memory and processor time of its own, too. With the embedded store it charges every call.
  collectProcessMetrics(own)
  const missingWorkers = registerProcessInfo(own)
  const applyNow = async (found: FoundConfig): Promise<Reloaded> => {
    if (phase === 'stopping') return STOPS
    const { config: next, changed, needRestart } = reloadable(found, inForce)
    if (changed.length === 0) return { result: 'unchanged', needRestart }
    // What can fail comes before the workers take the configuration.
    await using opened = new AsyncDisposableStack()
    const followed = opened.adopt(await followBesideWorkers(next, managed), (one) => one.close())
    const problems = await common.offer(textOf(found))
    if (problems !== undefined) return { result: 'rejected', problems }
    opened.move()
    inForce = next
    const before = secrets
    secrets = followed
    secrets.serve()
    await held.forgetRemoved(() => askRows<BreakerRow>('breakers'))
    // A worker that had not taken the configuration yet did not know a new breaker that was opened meanwhile.
    for (const order of held.all()) await askEach('setBreaker', order)
    await before.close()
    return { result: 'applied', changed, needRestart }
  }
  const apply = (found: FoundConfig): Promise<Reloaded> => reloads.add(applyNow(found))
  const status: Status = {
    async *metrics() {
      const known = (await askEach<GaugeValues[]>('metrics')).filter((gauges) => gauges !== undefined)
      missingWorkers.set(config.server.workers - known.length)
      for await (const piece of unsentCounts(own)) counts.note(OWN, piece)
      yield* gaugesOfAll([...known.flat(), ...(await Array.fromAsync(gaugesOf(own)))])
      yield* counts.exposition()
      yield '# EOF\n'
    },
    async quota() {
      const known = (await askEach<QuotaRow[] | null>('quota')).filter((rows) => rows !== null && rows !== undefined)
      return known.length === 0 ? undefined : mergeQuotas(known.flat())
    },
    // Budgets are counted in one ledger, so the answer of any worker will do.
    budgets: async () => (await askEach<BudgetRow[] | null>('budgets')).find(Array.isArray),
    queue: async () => mergeQueues(await askRows<QueueRow>('queue')),
    credentials: async () => mergeCredentials(await askRows<CredentialRow>('credentials')),
    async requests(question) {
      const asked = listening()
      const answers = await askEach<RequestAnswers>('requests', question, ANSWER_SOON_MS)
      const told = asked.map(({ worker }, i): RequestAnswers => {
        const away = { instance: `${name} worker ${worker.process.pid}`, why: 'it does not answer' }
        return answers[i] ?? { found: [], away: [away] }
      })
      return mergeAnswers(told, question)
    },
    async notReady() {
      if (phase === 'stopping') return 'draining'
      const asked = [...links].filter((link) => link.isAlive)
      if (asked.length === 0) return 'no worker answers'
      // One worker that serves is enough. Not to be ready would take calls from that worker, too, and cause an outage.
      return firstReady(asked.map((link) => link.ask<string | null>({ ask: 'notReady' }, ANSWER_WITHIN_MS)))
    },
    async degraded() {
      const answers = (await askEach<Degradation[]>('degraded', undefined, ANSWER_SOON_MS)).flatMap((one) => one ?? [])
      const count = missing()
      if (count > 0) answers.push({ kind: 'workers', why: `${count} of ${config.server.workers} workers are missing` })
      return mergeRows(
        answers,
        ({ kind }) => [kind],
        (known) => known,
      )
    },
  }
  try {
    const [first] = await Promise.all(Array.from({ length: config.server.workers }, fork))
    const configInForce = (): Config => inForce
    const { adminUrl, webhooks, reload, close } = await runAdmin(config, {
      status,
      load,
      apply,
      registry: own,
      management: { ...managed, config: configInForce },
      breakers: async () => mergeBreakers(await askRows<BreakerRow>('breakers')),
      setBreaker: (order) => held.set(order, async () => (await askEach<boolean>('setBreaker', order)).includes(true)),
    })
    phase = 'serving'
    for (let count = links.size; count < config.server.workers && !isStopping(); count++) {
      log.logger.error('a worker died while others started and will be replaced')
      void replace()
    }
    const started = parts.move()
    const stop = async (): Promise<void> => {
      // The phase is set first: workers may be told to end by somebody else, too, and must not be replaced then.
      phase = 'stopping'
      await webhooks.close()
      await endWorkers()
      await close()
      await started.disposeAsync()
      log.flush()
    }
    let stopping: Promise<void> | undefined
    return { ...first!, adminUrl, status, config: configInForce, reload, stop: () => (stopping ??= stop()) }
  } catch (error) {
    if (!isStopping()) tellFailure(log.logger, error as Error)
    await endWorkers()
    throw error
  }
}

/** The URLs of a new worker. Rejects with the error of the worker if it can't start, or `WorkerEnded` if it ends before. */
function urlsOf(worker: Worker, begin: GivenText): Promise<Listening> {
  return new Promise((resolve, reject) => {
    worker.on('message', (message: FromWorker) => {
      if (message.begun === true) worker.send({ begin } satisfies ToWorker)
      if (message.listening !== undefined) resolve(message.listening)
      if (message.failed !== undefined) reject(Object.assign(new Error(), message.failed))
    })
    worker.once('exit', (code: number, signal: string | null) => {
      reject(new WorkerEnded(`a worker ended before it took calls (${signal ?? `code ${code}`})`))
    })
  })
}

/** Undefined as soon as one worker is ready. If none is, the reason that the first of them gives. */
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
