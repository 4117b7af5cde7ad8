/*
 * src/process: puts everything together, as one process or as several workers, and reloads and stops it.
 * It may import nearly everything; only cli stands above.
 * A change here must prove that a reload or a stop breaks off no call (test/system/reload.test.ts, drain.test.ts,
 * workers.test.ts).
 */

import type { LookupFunction } from 'node:net'
import type { Registry } from '@prometheus-io/client'
import type { Actor } from '../audit/audit.ts'
import { type Clock, type Random, systemClock } from '../time/clock.ts'
import { SharedCache } from '../cache/open-cache.ts'
import { clashesOf } from '../config/both-clients.ts'
import type { FoundConfig } from '../config/find.ts'
import type { Config } from '../schema/schema.ts'
import { membershipsOf } from '../clients/membership.ts'
import { GuessGuard } from '../clients/guess-guard.ts'
import { followSecrets } from '../secrets/open.ts'
import { countedAnew } from '../gateway/counting.ts'
import { LiveSnapshot } from '../gateway/live.ts'
import { sentenceOf } from '../gateway/limit-watch.ts'
import { instanceName, type Log } from '../observe/log.ts'
import { Metrics } from '../observe/metrics.ts'
import { registerProcessInfo } from '../observe/process-info.ts'
import { ReloadCounts } from '../observe/reload-counts.ts'
import { LOSABLE } from '../records/losses.ts'
import { TokenShare } from '../credentials/token-share.ts'
import { RedisTokens } from '../credentials/token-store.ts'
import { cachePeers } from './cache-peers.ts'
import type { FirstProcess } from './first-process.ts'
import { openManaged, sharedBy } from './management.ts'
import { QueueCapacity } from '../queue/capacity.ts'
import { openForwardProxy } from './open-forward-proxy.ts'
import { openLedger } from './open-ledger.ts'
import { type ReloadParts, reloadable, Reloader, reloadFor, SELF, STOPS } from './reload.ts'
import { buildAdmin } from '../server/admin/admin.ts'
import type { BreakerOrder, BreakerRow, Controls, Reloaded, Status } from '../server/admin/status.ts'
import type { AdminParts, Management } from '../server/admin/management.ts'
import { buildApp, certificateTaker, connectionsOf, drainApps } from '../server/app.ts'
import { addressedBy, clientAddress } from '../server/client-address.ts'
import { BACKLOG } from '../server/connections.ts'
import { Proxy } from '../server/proxy.ts'
import { openAllRequests } from '../requests/peers.ts'
import { RequestHistory } from '../requests/history.ts'
import { UsageKeeper } from '../usage/keeper.ts'
import { Usage } from '../usage/usage.ts'
import { answerHere } from '../requests/question.ts'
import { Tracing } from '../traces/tracing.ts'
import { failed, tellFailure } from './start-error.ts'
import { breakerRows, gatewayStatus } from './status.ts'
import { Claims } from '../webhooks/claims.ts'
import { WebhookCounts } from '../webhooks/counts.ts'
import { Webhooks } from '../webhooks/webhooks.ts'
import { warmUp } from './warm-up.ts'
import { UnderWay } from './under-way.ts'

/** A process that is listening for clients. */
export interface GatewayProcess {
  /** Base URL of the port for clients. */
  readonly url: string
  /** Base URL of the forward proxy; undefined if there is none. */
  readonly forwardProxyUrl: string | undefined
  readonly status: Status
  readonly metrics: Metrics
  readonly management: Management
  /**
   * Puts another configuration in force. Rejects with a `ConfigError`, and changes nothing, if it contradicts settings that only a
   * restart can change. Resolves with `rejected` while the gateway stops.
   */
  apply(found: FoundConfig): Promise<Reloaded>
  breakers(): BreakerRow[]
  /** Opens or closes a breaker. Returns whether there is such a breaker. */
  setBreaker(order: BreakerOrder): boolean
  /** Waits for `server.shutdownDelay`, lets accepted calls finish for at most `server.drain`, then stops. Safe to call twice. */
  stop(): Promise<void>
}

/** A gateway with its admin port. */
export interface Running extends Pick<GatewayProcess, 'url' | 'forwardProxyUrl' | 'status' | 'stop'> {
  readonly adminUrl: string
  /** The configuration in force. */
  config(): Config
  /** Reads the configuration anew, by `load` if that is given, and puts it in force. */
  reload(by?: Actor, load?: ReloadParts['load']): Promise<Reloaded>
}

export interface RunOptions {
  readonly log: Log
  readonly clock?: Clock
  readonly random?: Random
  /** Looks up the addresses of upstreams, in place of the system resolver. */
  readonly lookup?: LookupFunction
  /** Whether this process is one of several workers. */
  readonly isWorker?: boolean
  /** The first process, if it has the store for all workers. */
  readonly first?: FirstProcess | undefined
}

/** The spans of the last calls get at least this long to be sent, even if these calls took all of `server.drain`. */
const LAST_SPANS_MS = 1_000

/** Starts everything that a configuration asks for. Rejects if a port is taken, and with a `StartError` if the store can't be opened. */
export async function runGateway(
  config: Config,
  { load = () => ({ config, source: 'start' }), ...options }: RunOptions & { load?: ReloadParts['load'] },
): Promise<Running> {
  await using parts = new AsyncDisposableStack()
  const gateway = await runWithoutAdmin(config, options)
  parts.defer(() => gateway.stop())
  const { status, apply, url, forwardProxyUrl, metrics, management } = gateway
  registerProcessInfo(metrics.registry)
  const { adminUrl, webhooks, reload, close } = await runAdmin(config, {
    status,
    management,
    load,
    apply,
    registry: metrics.registry,
    lookup: options.lookup,
    breakers: () => Promise.resolve(gateway.breakers()),
    setBreaker: (order) => Promise.resolve(gateway.setBreaker(order)),
  }).catch((error: Error) => {
    tellFailure(management.logger, error)
    throw error
  })
  // Webhooks end first. Otherwise they would tell people of a failure, because a gateway that stops is not ready.
  parts.defer(() => webhooks.close())
  const started = parts.move()
  let stopping: Promise<void> | undefined
  const end = async (): Promise<void> => {
    try {
      await started.disposeAsync()
    } finally {
      // The admin port closes last, because until then it says that the gateway drains.
      await close()
    }
  }
  const stop = (): Promise<void> => (stopping ??= end())
  return { url, forwardProxyUrl, status, adminUrl, config: management.config, reload, stop }
}

/** What a gateway has once, however many workers it has: the admin port, reloads and webhooks. */
export async function runAdmin(
  config: Config,
  {
    status,
    management,
    registry,
    lookup,
    ...parts
  }: Pick<AdminParts, 'status' | 'management'> &
    Pick<Controls, 'breakers' | 'setBreaker'> &
    Pick<ReloadParts, 'load' | 'apply'> & { registry: Registry; lookup?: LookupFunction | undefined },
): Promise<{ webhooks: Pick<Webhooks, 'close'>; close(): Promise<void> } & Pick<Running, 'adminUrl' | 'reload'>> {
  const { admin, server, store, log } = config
  const { audit, clients, clock, logger } = management
  const reloader = new Reloader({ ...parts, clients, counts: new ReloadCounts(registry), logger })
  for (const warning of clashesOf(config, clients.active)) logger.warn(warning)
  const controls = { ...parts, reload: () => reloader.reload(), lastReload: () => reloader.latest }
  await using opened = new AsyncDisposableStack()
  const name = instanceName(log.instance)
  const requests = openAllRequests({ store, clock, name, answer: (question) => status.requests(question) })
  opened.defer(() => requests.close())
  const addressOf = clientAddress(server.trustedProxies)
  const app = buildAdmin(admin, { status, controls, management, requests, addressOf })
  opened.defer(() => app.close())
  const adminUrl = await app.listen({ host: admin.host, port: admin.port })
  const claims = new Claims(clock, sharedBy(store).redis)
  const counts = new WebhookCounts(registry)
  const webhooks = new Webhooks({ status, controls, management, claims, counts, lookup })
  const started = opened.move()
  const reload: Running['reload'] = (by = SELF, load) => reloadFor(by, reloader, { audit, logger }, load)
  return { adminUrl, webhooks, reload, close: () => started.disposeAsync() }
}

/**
 * Serves only the port for clients, as each worker of a cluster does. The function is long because it is a list: each part is made of
 * earlier parts. At a stop, or if a part throws, the parts end in the reverse order.
 */
export async function runWithoutAdmin(
  config: Config,
  { log, clock = systemClock, random = Math.random, lookup, first, isWorker = false }: RunOptions,
): Promise<GatewayProcess> {
  const { logger } = log
  await using parts = new AsyncDisposableStack()
  parts.defer(() => log.flush())
  const metrics = new Metrics(config.metrics)
  log.onDropped(() => metrics.logDropped.increment())
  const onAnswer = (ms: number): void => metrics.storeDuration.observeMs(ms)
  const ledger = first?.ledger ?? (await openLedger(config.store, { clock, logger, onAnswer }).catch(failed))
  parts.defer(() => ledger.close())
  const { store } = config
  const tokenStore = store.kind === 'redis' ? new RedisTokens(store, clock) : first?.tokens
  const tokens = tokenStore && new TokenShare(tokenStore, store.prefix, clock)
  parts.defer(() => tokens?.close())
  const cache = new SharedCache(config, { clock, metrics, peers: isWorker ? cachePeers() : undefined })
  parts.defer(() => cache.close())
  const usage = new Usage({ metrics, clock })
  const managed = await openManaged(config.store, { clock, logger, isWorker })
  parts.defer(() => managed.close())
  // The series begin at zero. Otherwise Prometheus would not see the first loss as an increase.
  for (const records of LOSABLE) metrics.storeLosses.of({ records })
  managed.losses.onLoss((records) => metrics.storeLosses.of({ records }).increment())
  const keeper = new UsageKeeper({
    usage,
    days: first?.usageDays ?? managed.usageDays,
    clock,
    logger,
    owners() {
      const { config: now } = live.current
      const membershipOf = membershipsOf(now, managed.clients)
      return ({ client, upstream }) => ({ ...membershipOf(client), unit: now.upstreams[upstream]?.price?.unit })
    },
    onUnwritten: () => metrics.usageUnwritten.of({}).increment(),
  })
  parts.defer(() => keeper.close())
  const live = new LiveSnapshot(config, {
    clock,
    logger,
    tokens,
    random,
    lookup,
    ledger,
    metrics,
    usage,
    cache,
    managed: managed.clients,
    queueCapacity: new QueueCapacity(config.server.maxWaiting, 'calls of this process'),
    onBreakerChange: (name, state, { failure, ...change }) => {
      logger.warn({ ...name, state, ...change, ...failure }, 'the breaker changed its state')
    },
    onQuotaNotice: (notice) => logger.warn(notice, sentenceOf(notice)),
  })
  parts.defer(async () => {
    await live.close()
    live.current.issuers?.close()
  })
  await cache.opened
  let secrets = await followSecrets(config, managed)
  secrets.serve()
  parts.defer(() => secrets.close())
  const guard = new GuessGuard({
    what: 'keys',
    limits: config.server.wrongKeys,
    clock,
    logger,
    ...sharedBy(store),
    isWorker,
  })
  parts.defer(() => guard.close())
  const dropped = metrics.spansDropped.of({})
  // All workers share a configured name, so the process id tells them apart.
  const instanceId =
    config.log.instance === undefined ? instanceName(undefined) : `${config.log.instance}:${process.pid}`
  const tracing = new Tracing({ logger, dropped, instanceId })
  parts.defer(() => tracing.close(LAST_SPANS_MS))
  const history = new RequestHistory(config.requests)
  const proxy = new Proxy({
    snapshot: () => live.current,
    clock,
    random,
    metrics,
    usage,
    log,
    guard,
    tracing,
    history,
    addressOf: clientAddress(config.server.trustedProxies),
    addressedBy: addressedBy(config.server.trustedProxies),
  })
  const app = buildApp(proxy, config.server)
  parts.defer(() => app.close())
  const forwardProxy = await openForwardProxy(config, { proxy, metrics, lookup }, logger).catch(failed)
  parts.defer(() => forwardProxy?.close())
  let stopping: Promise<void> | undefined
  const status = gatewayStatus({
    clock,
    metrics,
    ledger,
    usage,
    live,
    losses: managed.losses,
    isStopping: () => stopping !== undefined,
    tunnels: forwardProxy && (() => forwardProxy.open),
    clientConnections: () => connectionsOf(app),
    requests: (question) =>
      question.kind === 'usage'
        ? usage.recent()
        : answerHere(question, {
            records: (wanted) => proxy.requests(wanted),
            lately: history.lately,
            now: clock.wall(),
            instance: instanceName(config.log.instance),
          }),
  })
  await warmUp(config)
  tracing.take(await tracing.open(config.telemetry.traces))
  const url = await app.listen({ host: config.server.host, port: config.server.port, backlog: BACKLOG })
  const forwardProxyUrl = await forwardProxy?.listen()
  const started = parts.move()
  const end = async (): Promise<void> => {
    const { drain, shutdownDelay } = live.current.config.server
    try {
      // A load balancer still sends calls here until it has seen that this gateway is not ready.
      proxy.closeConnections()
      if (shutdownDelay > 0) await new Promise<void>((resolve) => void clock.schedule(shutdownDelay, resolve))
      const until = clock.now() + drain
      forwardProxy?.drain()
      await drainApps(forwardProxy === undefined ? [app] : [app, forwardProxy.app], proxy, drain)
      await tracing.close(Math.max(LAST_SPANS_MS, until - clock.now()))
    } finally {
      // A reload that is under way may still open parts that must be closed.
      await reloads.over()
      await started.disposeAsync()
    }
  }
  const stop = (): Promise<void> => (stopping ??= end())
  const reloads = new UnderWay()
  const applyNow = async (found: FoundConfig): Promise<Reloaded> => {
    if (stopping !== undefined) return STOPS
    const { config: next, changed, needRestart } = reloadable(found, live.current.config)
    if (changed.length === 0) return { result: 'unchanged', needRestart }
    const anew = countedAnew(live.current.config.upstreams, next.upstreams)
    // Whatever can fail comes before the replacement. Otherwise a reload would be half in force, and told to be rejected.
    await using opened = new AsyncDisposableStack()
    const takeCertificate = certificateTaker(app, next.server)
    const traces = opened.adopt(await tracing.open(next.telemetry.traces), (one) => tracing.drop(one))
    const followed = opened.adopt(await followSecrets(next, managed), (one) => one.close())
    await live.replace(next)
    opened.move()
    takeCertificate()
    tracing.take(traces)
    const before = secrets
    secrets = followed
    secrets.serve()
    if (anew.length > 0) {
      const why = 'which accounts have them in common has changed'
      logger.warn({ upstreams: anew }, `limits of these upstreams begin to count anew: ${why}; see docs/run.md`)
    }
    await before.close()
    return { result: 'applied', changed, needRestart }
  }
  const apply = (found: FoundConfig): Promise<Reloaded> => reloads.add(applyNow(found))
  const setBreaker = ({ upstream, group, state }: BreakerOrder): boolean => {
    const breaker = live.current.upstreams.get(upstream)?.breakers.named(group)
    if (state === 'open') breaker?.hold()
    else breaker?.close()
    return breaker !== undefined
  }
  const breakers = (): BreakerRow[] => breakerRows(live.current)
  const management = { ...managed, usage: keeper, config: () => live.current.config }
  return { url, forwardProxyUrl, status, metrics, management, apply, breakers, setBreaker, stop }
}
