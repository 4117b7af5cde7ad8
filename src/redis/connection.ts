/*
 * src/redis: connections to Redis: one server, sentinels or a cluster; what its errors mean, and how well it keeps
 * data.
 * It imports only schema and time, and runs nobody's scripts.
 * A change here must prove that nothing is ever sent twice, and that each failure is named (test/system/redis).
 */

import { connect } from 'node:net'
import type { Cluster, Redis, RedisOptions } from 'ioredis'
import type { Clock } from '../time/clock.ts'
import { inTime } from '../time/in-time.ts'
import type { StoreConfig } from '../schema/schema.ts'
import { tlsOptions } from '../schema/upstream-schema.ts'
import { ioredis } from './client.ts'
import { isNotTheOne } from './trouble.ts'

/**
 * A server that does not answer for this long, or for twice `commandTimeout` if that is longer, is taken for dead, even if its
 * connection stays open.
 */
const SILENCE_MS = 1_000

const CONNECT_TIMEOUT_MS = 1_000
const HANDSHAKE_MS = 500
/** How long a server may take to close a connection when it is asked to. A dead one never does. */
const DISCONNECT_TIMEOUT_MS = 100
const SENTINEL_TIMEOUT_MS = 500
const RECONNECT_EVERY_MS = 1_000
const GREETING_MS = 500
/** How often a server that is loading its data is asked whether it has finished. */
const LOADING_RETRY_MS = 250

type RegionsConfig = NonNullable<StoreConfig['regions']>

/** Where a Redis is, how to log in to it, and how long it may take to answer. */
export type RedisPlace = RegionsConfig['home'] & Pick<StoreConfig, 'cluster' | 'commandTimeout'>

/** No call waits for home, but an answer is of no use when a share has ended. */
export function homeOf({ home, lease }: RegionsConfig): RedisPlace {
  return { ...home, commandTimeout: lease / 4 }
}

/**
 * Connects to the Redis that a config names: one server, a server that sentinels monitor, or a cluster. A command that can't be
 * sent at once fails. It neither waits nor is sent again, because a charge that is sent twice would be counted twice. An error of
 * the connection needs no listener, since it fails each command.
 */
export function connectRedis(store: RedisPlace): Redis | Cluster {
  const tls = store.tls && tlsOptions(store.tls)
  const options = {
    connectTimeout: CONNECT_TIMEOUT_MS,
    disconnectTimeout: DISCONNECT_TIMEOUT_MS,
    socketTimeout: Math.max(SILENCE_MS, 2 * store.commandTimeout),
    // Bounds the commands that make a connection. The ledger decides itself how long it waits for its script.
    commandTimeout: Math.max(HANDSHAKE_MS, 2 * store.commandTimeout),
    maxLoadingRetryTime: LOADING_RETRY_MS,
    reconnectOnError: atMostEvery(RECONNECT_EVERY_MS, isNotTheOne),
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    ...(store.username === undefined ? {} : { username: store.username }),
    ...(store.password === undefined ? {} : { password: store.password.reveal() }),
    ...(tls === undefined ? {} : { tls }),
  } satisfies RedisOptions
  if (store.cluster !== undefined) {
    const cluster = new (ioredis().Cluster)(store.cluster.map(address), {
      enableOfflineQueue: false,
      clusterRetryStrategy: retryDelayMs,
      redisOptions: options,
      // If a connection broke, the script may have run, so it is not sent again. If the answer was MOVED, ASK or TRYAGAIN,
      // the script did not run, so it is sent to the node that it belongs to.
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
      retryDelayOnTryAgain: 1,
      maxRedirections: 4,
    })
    // ioredis connects to a master only when the first command goes there, and refuses commands until it is connected.
    cluster.on('ready', () => {
      for (const node of cluster.nodes('master')) if (node.status === 'wait') node.connect().catch(() => undefined)
    })
    return noting(cluster)
  }
  const single = { ...options, enableOfflineQueue: false, retryStrategy: retryDelayMs }
  if (store.sentinels !== undefined) {
    const redis = new (ioredis().Redis)({
      ...single,
      sentinels: store.sentinels.map(address),
      name: store.master ?? 'mymaster',
      sentinelRetryStrategy: retryDelayMs,
      sentinelCommandTimeout: SENTINEL_TIMEOUT_MS,
      // A master that hangs keeps its connections open. Without this it would be used long after a replica took over.
      failoverDetector: true,
      sentinelReconnectStrategy: () => SENTINEL_TIMEOUT_MS,
      ...(store.sentinelUsername === undefined ? {} : { sentinelUsername: store.sentinelUsername }),
      ...(store.sentinelPassword === undefined ? {} : { sentinelPassword: store.sentinelPassword.reveal() }),
      ...(tls === undefined ? {} : { sentinelTLS: tls, enableTLSForSentinelMode: true }),
    })
    return lasting(redis)
  }
  return lasting(new (ioredis().Redis)(store.url?.reveal() ?? '', single))
}

/** Limits how often `is` may hold, since every new connection may lead to the wrong server again. */
function atMostEvery(ms: number, is: (error: Error) => boolean): (error: Error) => boolean {
  let latest = -Infinity
  return (error) => {
    if (!is(error) || performance.now() - latest < ms) return false
    latest = performance.now()
    return true
  }
}

/**
 * Makes a client connect again until `disconnect` is called. ioredis itself gives up for ever if a connection is lost while it
 * is being made, for example when a sentinel names a new master at that moment.
 */
function lasting(redis: Redis): Redis {
  let isOver = false
  const disconnect = redis.disconnect.bind(redis)
  redis.disconnect = (reconnect = false) => {
    isOver ||= !reconnect
    disconnect(reconnect)
  }
  redis.on('end', () => {
    if (isOver) return
    setTimeout(() => {
      if (!isOver) redis.connect().catch(() => undefined)
    }, retryDelayMs(1))
  })
  return noting(redis)
}

const TROUBLES = new WeakMap<Redis | Cluster, Error>()

/** Why there is no connection: its latest error. Undefined while there is one, or if the cause is not known. */
export function troubleWith(redis: Redis | Cluster): Error | undefined {
  return TROUBLES.get(redis)
}

function noting<Client extends Redis | Cluster>(redis: Client): Client {
  redis.on('ready', () => void TROUBLES.delete(redis))
  redis.on('error', (error: Error) => {
    if (redis.status !== 'ready') TROUBLES.set(redis, error)
  })
  return redis
}

/**
 * Reads the error that a server sends before it closes a new connection at once, as it does in protected mode or with too many
 * clients. A client that writes first does not see it, only the broken connection (EPIPE, ECONNRESET). Undefined if the server
 * sends nothing.
 */
export function greetingOf(redis: Redis | Cluster, { code }: NodeJS.ErrnoException): Promise<Error | undefined> {
  const isBroken = code === 'EPIPE' || code === 'ECONNRESET'
  if (!isBroken || redis instanceof ioredis().Cluster) return Promise.resolve(undefined)
  if (redis.options.tls !== undefined || redis.options.sentinels) return Promise.resolve(undefined)
  const { host = 'localhost', port = 6379, path } = redis.options
  return new Promise((resolve) => {
    const socket = path === undefined ? connect(port, host) : connect(path)
    let said = ''
    socket.setEncoding('utf8').setTimeout(GREETING_MS, () => socket.destroy())
    socket.on('data', (text: string) => (said += text))
    socket.on('error', () => undefined)
    socket.on('close', () => {
      const [, message] = /^-(.+)\r\n/.exec(said) ?? []
      resolve(message === undefined ? undefined : new (ioredis().ReplyError)(message))
    })
  })
}

async function whenConnected(redis: Redis | Cluster, until: AbortSignal): Promise<void> {
  if (redis.status !== 'ready') await isReady(redis, until)
  if (!(redis instanceof ioredis().Cluster)) return
  for (const node of redis.nodes('master')) if (!takesCommands(node)) await isReady(node, until)
}

/** How long to wait for a connection. */
const CONNECTED_WITHIN_MS = 2_000

/** Resolves once commands can be sent; with a cluster, to every master. Rejects if that takes longer than two seconds, with the cause. */
export async function connectedInTime(redis: Redis | Cluster, clock: Clock): Promise<void> {
  const wait = new AbortController()
  try {
    await inTime(whenConnected(redis, wait.signal), CONNECTED_WITHIN_MS, clock, 'no connection in time')
  } catch (late) {
    const cause = troubleWith(redis)
    throw cause === undefined ? late : ((await greetingOf(redis, cause)) ?? cause)
  } finally {
    wait.abort()
  }
}

/**
 * Resolves once commands can be sent, or after two seconds. An error does not end the wait: Redis may be starting together
 * with the gateway, and become ready a moment later.
 */
export function connectedOrLate(redis: Redis | Cluster, clock: Clock): Promise<void> {
  return connectedInTime(redis, clock).catch(() => undefined)
}

/** For how many whole seconds Redis has been up; with a cluster, the master that started last. */
export async function uptimeSeconds(redis: Redis | Cluster): Promise<number> {
  const nodes = redis instanceof ioredis().Cluster ? redis.nodes('master') : [redis]
  const told = await Promise.all(nodes.map((node) => node.info('server')))
  return Math.min(...told.map((info) => Number(/^uptime_in_seconds:(\d+)/m.exec(info)?.[1] ?? Infinity)))
}

/** Never settles after the wait was given up: in an outage of hours nothing may stay of those who waited. */
function isReady(redis: Redis | Cluster, until: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const onReady = (): void => resolve()
    redis.once('ready', onReady)
    until.addEventListener('abort', () => redis.off('ready', onReady), { once: true })
  })
}

/** Whether commands can be sent now; with a cluster, to every master. */
export function isConnected(redis: Redis | Cluster): boolean {
  if (redis.status !== 'ready') return false
  return !(redis instanceof ioredis().Cluster) || redis.nodes('master').every(takesCommands)
}

/** Whether a node of a cluster takes commands. While it waits, the first command connects to it, and nothing else does. */
function takesCommands({ status }: Redis): boolean {
  return status === 'ready' || status === 'wait'
}

/** Short, because all gateways must be back within a second of each other; see `RedisLedger`. */
function retryDelayMs(attempt: number): number {
  return attempt === 1 ? 1 : Math.min(25 * 2 ** (attempt - 1), 200)
}

function address(text: string): { host: string; port: number } {
  const colon = text.lastIndexOf(':')
  return { host: text.slice(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(text.slice(colon + 1)) }
}
