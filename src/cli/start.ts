import cluster from 'node:cluster'
import { findConfig, type FoundConfig, foundIn } from '../config/find.ts'
import { FileWatch } from '../files/watch.ts'
import { allWarnings } from '../config/warnings.ts'
import type { Config, StoreConfig } from '../schema/schema.ts'
import { formatDuration } from '../schema/units.ts'
import { createLog, type Log, type Logger } from '../observe/log.ts'
import { type RedisContents, redisContents, whyVolatile } from './redis-contents.ts'
import { runGateway, type Running } from '../process/run.ts'
import { demoConfig, demoNotice } from './demo.ts'
import { findApart } from './find-apart.ts'
import { manageMemory } from './memory.ts'
import { explainFailure, refuseSamePorts } from './start-failure.ts'
import { runWorker, textFromFirstProcess } from '../process/worker.ts'
import { type ConfigText, textOf } from '../process/worker-link.ts'
import { WorkerEnded } from '../process/start-error.ts'
import { runWorkers } from '../process/workers.ts'
import { onStopSignal } from './stop-signal.ts'

/** A reader of the log that takes nothing for this long has stalled. */
const LONGEST_LAST_WORDS_MS = 1_000
/** The log gets at least this long, even if the calls used up the time of the drain. */
const SHORTEST_LAST_WORDS_MS = 100

const PORT_OPTIONS = '--port and --admin-port, or in the configuration'

interface Options {
  readonly config?: string
  readonly port?: number
  readonly adminPort?: number
  readonly isDemo?: boolean
}

/** Runs the gateway until it is told to stop. If nothing is configured, it runs the demo. */
export async function start(options: Options): Promise<void> {
  if (cluster.isWorker) return startWorker(options)
  // Until there is a listener, SIGHUP would end the process. No change is lost: the watch notices what changed before it began.
  process.on('SIGHUP', () => undefined)
  const watch = new FileWatch()
  const { config: file, isDemo = false } = options
  const found = isDemo ? undefined : await watch.follow((onFile) => findConfig(file, { onFile }))
  const sandbox = found === undefined ? await (await import('../sandbox/sandbox.ts')).startSandbox() : undefined
  const first = withPorts(found ?? { config: demoConfig(sandbox!.url), source: 'demo' }, options)
  const { config, source } = first
  // The configuration was checked without the options.
  refuseSamePorts([config.server.port, config.admin.port, config.forwardProxy?.port], PORT_OPTIONS)
  const log = createLog(config.log)
  tellOfMistake(log)
  // Once a file was read, only that file is read. If it is gone, another source must not take its place: its keys and limits are others.
  let named = file ?? fileOf(found)
  const load = async (): Promise<FoundConfig> => {
    const again = isDemo
      ? undefined
      : await watch.follow((onFile) => findApart({ file: named }, () => findConfig(named, { onFile }), onFile))
    named ??= fileOf(again)
    return again === undefined ? first : withPorts(again, options)
  }
  const run = config.server.workers > 1 ? runWorkers : runGateway
  let isStopping = false
  const opening = run(config, { log, load, text: textOf(first), isStopping: () => isStopping })
  const drain = async (gateway: Running, signal: string): Promise<void> => {
    const { server } = gateway.config()
    const until = stoppedBy(server)
    watch.close()
    const { shutdownDelay, drain: drainMs } = server
    const taken = shutdownDelay > 0 ? `new connections for another ${shutdownDelay} ms only` : 'no new connections'
    log.logger.info(
      { signal },
      `draining: ${taken}, calls in flight are finished within ${formatDuration(drainMs)}; a second SIGTERM or Ctrl-C ends them at once`,
    )
    await gateway.stop()
    await sandbox?.stop()
    log.logger.info('stopped')
    await log.close(lastWordsMs(until))
  }
  // The signals come before the ports: as soon as one accepts connections, a signal must break off no call.
  onStopSignal(
    (signal) => {
      isStopping = true
      return opening.then(
        (gateway) => drain(gateway, signal),
        (error: Error) => {
          if (error instanceof WorkerEnded) return
          log.logger.warn({ signal, reason: error.message }, 'stopped before the start had ended')
          log.flush()
        },
      )
    },
    {
      onReload: () =>
        void opening.then(
          (gateway) => gateway.reload({ actor: 'SIGHUP', address: 'local' }),
          () => undefined,
        ),
      onImpatience(signal) {
        log.logger.warn({ signal }, 'stopping at once: calls in flight are broken off')
        log.flush()
      },
    },
  )
  const gateway = await opening.catch((error: unknown) => {
    if (isStopping) return new Promise<never>(() => undefined)
    return explainFailure(error, PORT_OPTIONS)
  })
  log.logger.info({ url: gateway.url, admin: gateway.adminUrl, config: source }, 'listening')
  manageMemory()
  for (const warning of allWarnings(first)) log.logger.warn(warning)
  if (config.store.kind === 'redis') warnIfVolatile(config.store, log.logger)
  if (config.server.watch && !isStopping) watch.start(() => void gateway.reload({ actor: 'file', address: 'local' }))
  // This goes to stderr, because a program may read the log on stdout.
  if (sandbox !== undefined)
    process.stderr.write(demoNotice({ ...gateway, controlUrl: sandbox.controlUrl, isWanted: isDemo }))
}

/** Runs the demo: the gateway in front of a sandbox. Any configuration is ignored. */
export function startDemo(options: Omit<Options, 'isDemo'>): Promise<void> {
  return start({ ...options, isDemo: true })
}

/** Lets the log say why the process ends, if that is a mistake of its own, and writes what the log still holds. */
function tellOfMistake(log: Log): void {
  process.on('uncaughtExceptionMonitor', (error, origin) => {
    log.logger.fatal({ err: error, origin }, 'the gateway made a mistake, and ends')
    log.flush()
  })
}

/** The file that a configuration was read from, if it was one. */
function fileOf(found: FoundConfig | undefined): string | undefined {
  return found?.text === undefined ? undefined : found.source
}

/** Warns if Redis would lose data at a restart. If Redis can't be reached, other parts say so. */
function warnIfVolatile(store: StoreConfig, logger: Logger): void {
  const warn = (contents: RedisContents): void => {
    const warning = whyVolatile(contents)
    if (warning !== undefined) logger.warn(warning)
  }
  redisContents(store).then(warn, () => undefined)
}

/** Runs one of several processes with the configuration that the first process has read. */
async function startWorker(options: Options): Promise<void> {
  const parse = async (text: ConfigText): Promise<FoundConfig> =>
    withPorts((await findApart(text, () => foundIn(text)))!, options)
  const { config } = withPorts(await foundIn(await textFromFirstProcess()), options)
  const log = createLog(config.log)
  tellOfMistake(log)
  const opening = runWorker(config, { log, parse })
  // A terminal sends these signals to all processes at once. Only the first process acts on them, and tells the others.
  for (const signal of ['SIGINT', 'SIGHUP']) process.on(signal, () => undefined)
  const stop = async (): Promise<void> => {
    const worker = await opening
    const until = stoppedBy(worker.management.config().server)
    await worker.stop()
    await log.close(lastWordsMs(until))
  }
  // A service manager may send SIGTERM to every process, and the first process then passes it on. So a worker may get it twice, and the
  // second one must not end it at once. If the first process gets a second signal, it ends the workers.
  onStopSignal(stop, { signals: ['SIGTERM'], onImpatience: 'ignore' })
  await opening
  manageMemory()
}

/** When a gateway that is told to stop now has stopped at the latest. */
function stoppedBy({ shutdownDelay, drain }: Config['server']): number {
  return performance.now() + shutdownDelay + drain
}

/** How long a slow reader may take for the rest of the log: a moment, but not beyond the end of the drain. */
function lastWordsMs(until: number): number {
  return Math.min(LONGEST_LAST_WORDS_MS, Math.max(SHORTEST_LAST_WORDS_MS, until - performance.now()))
}

function withPorts({ config, ...found }: FoundConfig, { port, adminPort }: Options): FoundConfig {
  return {
    ...found,
    config: {
      ...config,
      server: { ...config.server, port: port ?? config.server.port },
      admin: { ...config.admin, port: adminPort ?? config.admin.port },
    },
  }
}
