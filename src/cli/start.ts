import cluster from 'node:cluster'
import { configOf, findConfig, type FoundConfig } from '../config/find.ts'
import { FileWatch } from '../files/watch.ts'
import { allWarnings } from '../config/warnings.ts'
import type { StoreConfig } from '../schema/schema.ts'
import { createLog, type Logger } from '../observe/log.ts'
import { type RedisContents, redisContents, whyVolatile } from './redis-contents.ts'
import { runGateway } from '../process/run.ts'
import { startSandbox } from '../sandbox/sandbox.ts'
import { demoConfig, demoNotice } from './demo.ts'
import { explainFailure } from './start-failure.ts'
import { runWorker, textFromFirstProcess } from '../process/worker.ts'
import { type ConfigText, textOf } from '../process/worker-link.ts'
import { runWorkers } from '../process/workers.ts'
import { onStopSignal } from './stop-signal.ts'

/** A reader that takes nothing for so long has stalled. */
const LONGEST_LAST_WORDS_MS = 1_000
/** Even where calls took all the time that there was. */
const SHORTEST_LAST_WORDS_MS = 100

interface Options {
  readonly config?: string
  readonly port?: number
  readonly adminPort?: number
  readonly isDemo?: boolean
}

/** Runs the gateway until it is told to stop: as configured, or as a demo where nothing is. */
export async function start(options: Options): Promise<void> {
  if (cluster.isWorker) return startWorker(options)
  // Would end the process until it is heeded; what has changed by then, the watch sees.
  process.on('SIGHUP', () => undefined)
  const watch = new FileWatch()
  const { config: file, isDemo = false } = options
  const find = async (): Promise<FoundConfig | undefined> =>
    isDemo ? undefined : watch.follow((onFile) => findConfig(file, { onFile }))
  const found = await find()
  const sandbox = found === undefined ? await startSandbox() : undefined
  const first = withPorts(found ?? { config: demoConfig(sandbox!.url), source: 'demo' }, options)
  const { config, source } = first
  const log = createLog(config.log)
  const load = async (): Promise<FoundConfig> => {
    const again = await find()
    return again === undefined ? first : withPorts(again, options)
  }
  const run = config.server.workers > 1 ? runWorkers : runGateway
  const gateway = await run(config, { log, load, text: textOf(first) }).catch(explain)
  const drain = async (signal: string): Promise<void> => {
    const until = performance.now() + config.server.drain
    watch.close()
    log.logger.info({ signal }, 'draining: no new connections, calls in flight are finished')
    await gateway.stop()
    await sandbox?.stop()
    log.logger.info('stopped')
    await log.close(lastWordsMs(until))
  }
  // First of all: who reads that it listens may already send a signal.
  onStopSignal(drain, {
    onReload: () => void gateway.reload({ actor: 'SIGHUP', address: 'local' }),
    onImpatience(signal) {
      log.logger.warn({ signal }, 'stopping at once: calls in flight are broken off')
      log.flush()
    },
  })
  log.logger.info({ url: gateway.url, admin: gateway.adminUrl, config: source }, 'listening')
  for (const warning of allWarnings(first)) log.logger.warn(warning)
  if (config.store.kind === 'redis') warnIfVolatile(config.store, log.logger)
  if (config.server.watch) watch.start(() => void gateway.reload({ actor: 'file', address: 'local' }))
  // Not among the log lines on stdout, which a program may read.
  if (sandbox !== undefined)
    process.stderr.write(demoNotice({ ...gateway, controlUrl: sandbox.controlUrl, isWanted: isDemo }))
}

/** Runs the gateway in front of a sandbox, whatever is configured. */
export function startDemo(options: Omit<Options, 'isDemo'>): Promise<void> {
  return start({ ...options, isDemo: true })
}

/** Where Redis is away, that is said by others. */
function warnIfVolatile(store: StoreConfig, logger: Logger): void {
  const warn = (contents: RedisContents): void => {
    const warning = whyVolatile(contents)
    if (warning !== undefined) logger.warn(warning)
  }
  redisContents(store).then(warn, () => undefined)
}

/** One of several processes: runs what the first of them has read. */
async function startWorker(options: Options): Promise<void> {
  const parse = async ({ source, text }: ConfigText): Promise<FoundConfig> =>
    withPorts({ config: await configOf(source, text), source, text }, options)
  const { config } = await parse(await textFromFirstProcess())
  const log = createLog(config.log)
  const worker = await runWorker(config, { log, parse })
  // A terminal sends these to all processes at once; the first of them decides what the others do.
  for (const signal of ['SIGINT', 'SIGHUP']) process.on(signal, () => undefined)
  const stop = async (): Promise<void> => {
    const until = performance.now() + config.server.drain
    await worker.stop()
    await log.close(lastWordsMs(until))
  }
  onStopSignal(stop, { signals: ['SIGTERM'] })
}

/** How long a reader of the log that is slow may take for the rest: a moment, and not beyond the end of the drain. */
function lastWordsMs(until: number): number {
  return Math.min(LONGEST_LAST_WORDS_MS, Math.max(SHORTEST_LAST_WORDS_MS, until - performance.now()))
}

function explain(error: unknown): never {
  return explainFailure(error, '--port and --admin-port, or in the configuration')
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
