import type { LookupFunction } from 'node:net'
import type { Registry } from '@prometheus-io/client'
import { type Clock, type Random, systemClock } from './clock.ts'
import type { Config } from './config/schema.ts'
import { SecretFollower } from './credentials/follow.ts'
import { openSources } from './credentials/sources/open.ts'
import { secretsIn } from './credentials/secret.ts'
import { buildSnapshot, closeSnapshot } from './gateway/snapshot.ts'
import type { Log } from './observe/log.ts'
import { Metrics } from './observe/metrics.ts'
import { openLedger } from './quota/open-ledger.ts'
import { buildAdmin, type Vitals } from './server/admin.ts'
import { buildApp, connectionsOf, drainApp } from './server/app.ts'
import { Proxy } from './server/proxy.ts'
import { gatewayVitals } from './vitals.ts'

/** A process that is listening for clients. */
export interface GatewayProcess {
  /** Base URL of the port for clients. */
  readonly url: string
  readonly vitals: Vitals
  readonly registry: Registry
  /** Finishes what was accepted, for at most `server.drain`, then stops. Safe to call twice. */
  stop(): Promise<void>
}

/** A gateway with its admin port. */
export interface Running extends GatewayProcess {
  readonly adminUrl: string
}

/** Why a gateway can't start that is no bug, nor the failure to get a port: its message says it all. */
export class StartError extends Error {}

export interface RunOptions {
  readonly log: Log
  readonly clock?: Clock
  readonly random?: Random
  /** Finds the addresses of upstreams, instead of the system. */
  readonly lookup?: LookupFunction
}

/** Starts everything that a configuration asks for. Throws if a port can't be had, a `StartError` if the store can't. */
export async function runGateway(config: Config, options: RunOptions): Promise<Running> {
  const gateway = await runWithoutAdmin(config, options)
  try {
    const { adminUrl, close } = await runAdmin(config, gateway.vitals)
    const stop = async (): Promise<void> => {
      await gateway.stop()
      await close()
    }
    let stopping: Promise<void> | undefined
    return { ...gateway, adminUrl, stop: () => (stopping ??= stop()) }
  } catch (error) {
    await gateway.stop()
    throw error
  }
}

export async function runAdmin(
  { admin: { host, port, token } }: Config,
  vitals: Vitals,
): Promise<{ adminUrl: string; close(): Promise<void> }> {
  const app = buildAdmin(vitals, token)
  const adminUrl = await app.listen({ host, port })
  return { adminUrl, close: () => app.close() }
}

/** The port for clients only, as the workers of a cluster have it. */
export async function runWithoutAdmin(
  config: Config,
  { log, clock = systemClock, random = Math.random, lookup }: RunOptions,
): Promise<GatewayProcess> {
  const { logger } = log
  const metrics = new Metrics()
  const ledger = await openLedger(config.store, { clock, logger }).catch((error: Error) => {
    throw new StartError(error.message, { cause: error })
  })
  const snapshot = buildSnapshot(config, {
    clock,
    random,
    lookup,
    ledger,
    metrics,
    onBreakerChange: (upstream, state) => logger.warn({ upstream, state }, 'the breaker changed its state'),
  })
  const secrets = new SecretFollower(secretsIn(config), openSources(config, clock), logger)
  await secrets.start()
  const proxy = new Proxy({ snapshot: () => snapshot, clock, random, metrics, log })
  const app = buildApp(proxy, config.server)
  const shutDown = async (): Promise<void> => {
    try {
      await secrets.close()
      await closeSnapshot(snapshot)
      await ledger.close()
    } finally {
      log.flush()
    }
  }
  let stopping: Promise<void> | undefined
  const vitals = gatewayVitals({
    metrics,
    ledger,
    snapshot,
    isStopping: () => stopping !== undefined,
    clientConnections: () => connectionsOf(app),
  })
  try {
    const url = await app.listen({ host: config.server.host, port: config.server.port })
    const stop = (): Promise<void> => (stopping ??= drainApp(app, proxy, config.server.drain).then(shutDown))
    return { url, vitals, registry: metrics.registry, stop }
  } catch (error) {
    await Promise.allSettled([app.close(), shutDown()])
    throw error
  }
}
