import { findConfig } from '../config/find.ts'
import type { Config } from '../config/schema.ts'
import { warningsOf } from '../config/warnings.ts'
import { createLog } from '../observe/log.ts'
import { runGateway } from '../run.ts'
import { startSandbox } from '../sandbox/sandbox.ts'
import { demoConfig, demoNotice } from './demo.ts'
import { explainFailure } from './start-failure.ts'
import { isWorker, runWorker, runWorkers } from '../workers.ts'
import { onStopSignal } from './stop-signal.ts'

interface Options {
  readonly config?: string
  readonly port?: number
  readonly adminPort?: number
}

/** Runs the gateway until it is told to stop: as configured, or as a demo where nothing is. */
export async function start(options: Options): Promise<void> {
  const found = await findConfig(options.config)
  const sandbox = found === undefined ? await startSandbox() : undefined
  const config = withPorts(found?.config ?? demoConfig(sandbox!.url), options)
  const log = createLog(config.log)
  if (isWorker) {
    const worker = await runWorker(config, { log })
    // A terminal sends these to all processes at once; the first of them decides when the others stop.
    for (const signal of ['SIGINT', 'SIGHUP']) process.on(signal, () => undefined)
    onStopSignal(() => worker.stop(), { signals: ['SIGTERM'] })
    return
  }
  const run = config.server.workers > 1 ? runWorkers : runGateway
  const gateway = await run(config, { log }).catch(explain)
  const drain = async (signal: string): Promise<void> => {
    log.logger.info({ signal }, 'draining: no new connections, calls in flight are finished')
    await gateway.stop()
    await sandbox?.stop()
    log.logger.info('stopped')
    log.flush()
  }
  // First of all: who reads that it listens may already send a signal.
  onStopSignal(drain, {
    onImpatience(signal) {
      log.logger.warn({ signal }, 'stopping at once: calls in flight are broken off')
      log.flush()
    },
  })
  log.logger.info({ url: gateway.url, admin: gateway.adminUrl, config: found?.source ?? 'demo' }, 'listening')
  for (const warning of warningsOf(config)) log.logger.warn(warning)
  // Not among the log lines on stdout, which a program may read.
  if (sandbox !== undefined) process.stderr.write(demoNotice({ ...gateway, controlUrl: sandbox.controlUrl }))
}

function explain(error: unknown): never {
  return explainFailure(error, '--port and --admin-port, or in the configuration')
}

function withPorts(config: Config, { port, adminPort }: Options): Config {
  return {
    ...config,
    server: { ...config.server, port: port ?? config.server.port },
    admin: { ...config.admin, port: adminPort ?? config.admin.port },
  }
}
