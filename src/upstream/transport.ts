/*
 * src/upstream: connections to upstreams, and what goes over them: headers, bodies, upgrades.
 * It imports only http, net and time; what to send, and when, is decided in gateway.
 * A change here must prove that no message can be smuggled, and that no connection outlives its call (test/upstream,
 * test/system/hostile.test.ts).
 */

import type { LookupFunction } from 'node:net'
import type { Dispatcher } from 'undici'
import { Pool } from '../packages/undici.ts'
import { cancelStreams } from './cancel-streams.ts'
import { connectorOf } from './connect.ts'
import { adaptParsers } from './response-parser.ts'

/** Gets the events of a request: its start, and the parts of the response as they come. */
export type ResponseHandler = Dispatcher.DispatchHandler
/** Pauses, resumes or aborts a request that is under way. */
export type ResponseControl = Dispatcher.DispatchController

/** What an upstream's TLS needs beyond the system's trust store. */
export interface TlsOptions {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly servername?: string
}

export interface TransportOptions {
  readonly url: URL
  readonly connections: number
  readonly connectTimeoutMs: number
  readonly tlsTimeoutMs: number
  readonly idleTimeoutMs: number
  readonly tls: TlsOptions
  readonly http2: boolean
  /** Returns the URL of the HTTP proxy for the next connection, with its credentials. Undefined: no proxy is used. */
  readonly proxy: (() => URL) | undefined
  /** Looks up the addresses of a host name. Default: the look-up of the system. */
  readonly lookup?: LookupFunction
}

/** Other calls used all connections that the upstream may have, and none became free in time. Nothing was sent. */
export class ConnectionsTaken extends Error {
  readonly code = 'CONNECTIONS_TAKEN'
}

/**
 * The largest head of a response, in bytes. By default nginx takes 8 KiB, HAProxy 16, Envoy 60 and curl 300. In HTTP/2 Node takes
 * as many bytes as this limit.
 */
export const MOST_HEAD_BYTES = 65_536

/**
 * Whether a request failed because the head of its response is larger than `MOST_HEAD_BYTES`. The upstream has carried out the
 * call, and a retry would fail in the same way.
 */
export function isHeadTooLarge(error: unknown): boolean {
  return (error as { code?: string } | undefined)?.code === 'UND_ERR_HEADERS_OVERFLOW'
}

export interface OutgoingRequest {
  readonly method: string
  /** Path and query, exactly as they are sent. */
  readonly path: string
  /** Names and values in turn. */
  readonly headers: string[]
  readonly body: Buffer | AsyncIterable<Buffer> | null
  /** The protocol that the request asks to switch to; null for an ordinary request. */
  readonly upgrade: 'websocket' | null
}

/** The connections to one upstream. Certificates are always verified; nothing is retried or redirected here. */
export class Transport {
  readonly #most: number
  readonly #pool: Pool
  /** The connections for WebSockets, which always begin with HTTP/1.1. */
  readonly #upgrades: Pool

  constructor(options: TransportOptions) {
    this.#most = options.connections
    // With `http2` undici must read the fields: only the form of its raw headers tells HTTP/1.1 responses from HTTP/2 ones.
    const readsFields = !options.http2
    this.#pool = poolOf(options, readsFields)
    this.#upgrades = options.http2 ? poolOf({ ...options, http2: false }, readsFields) : this.#pool
  }

  /** Sends one request. Every error goes to the handler, that of a malformed request included. */
  dispatch(request: OutgoingRequest, handler: ResponseHandler): void {
    const { headers } = request
    // undici joins the lines of a field only if its name is written alike in all. Otherwise Node would end the connection of HTTP/2, and
    // all calls on it.
    if (this.#pool !== this.#upgrades)
      for (let i = 0; i < headers.length; i += 2) headers[i] = headers[i]!.toLowerCase()
    // undici sends async iterables as it sends streams, but its type does not say so.
    this.#poolFor(request.upgrade !== null).dispatch(request as Dispatcher.DispatchOptions, handler)
  }

  /** Whether all connections that there may be are open. A request that waits now waits for another one to end. */
  isFull(isUpgrade: boolean): boolean {
    return this.#poolFor(isUpgrade).stats.connected >= this.#most
  }

  /** Whether a request would be sent at once, or on a new connection. If not, it would wait for another one to end. */
  get hasRoom(): boolean {
    const { connected, free, queued, pending } = this.#pool.stats
    // A request that is pending but not queued waits for a connection that is being made for it.
    return queued === 0 && (free > 0 || connected + pending < this.#most)
  }

  /**
   * Sends one request. Resolves with the head of its response, or rejects with the error. The caller must read the body or dump
   * it: until then the connection is not free.
   */
  request(request: Dispatcher.RequestOptions): Promise<Dispatcher.ResponseData> {
    return this.#pool.request(request)
  }

  /** Connections that are open, idle ones included. */
  get connections(): number {
    return sumOf(this.#pools, ({ connected }) => connected)
  }

  /** Requests that wait for a connection. */
  get waiting(): number {
    // `pending` includes `queued`: the requests that no client of the pool has taken.
    return sumOf(this.#pools, ({ pending }) => pending)
  }

  /** Lets running calls finish, then closes every connection. */
  async close(): Promise<void> {
    await Promise.all(this.#pools.map((pool) => pool.close()))
  }

  /** Breaks off running calls, and closes every connection. */
  async destroy(): Promise<void> {
    await Promise.all(this.#pools.map((pool) => pool.destroy()))
  }

  #poolFor(isUpgrade: boolean): Pool {
    return isUpgrade ? this.#upgrades : this.#pool
  }

  get #pools(): readonly Pool[] {
    return this.#pool === this.#upgrades ? [this.#pool] : [this.#pool, this.#upgrades]
  }
}

function poolOf(options: TransportOptions, readsFields: boolean): Pool {
  const { url, connections, connectTimeoutMs, tlsTimeoutMs, idleTimeoutMs, tls, lookup, http2, proxy } = options
  const useH2c = http2 && url.protocol === 'http:'
  const pool = new Pool(url.origin, {
    connections,
    pipelining: 1,
    allowH2: http2,
    // undici's type does not have this option.
    ...({ useH2c } as object),
    connect: connectorOf({
      connectTimeoutMs,
      tlsTimeoutMs,
      tcp: { ...({ useH2c } as object), ...(lookup && { lookup }) },
      tls: { allowH2: http2, rejectUnauthorized: true, ...tls },
      proxy,
    }),
    // undici's timer is coarse, and counts the time of an upload as waiting. The attempt measures the time to the headers.
    headersTimeout: 0,
    bodyTimeout: idleTimeoutMs,
    maxHeaderSize: MOST_HEAD_BYTES,
    // undici's default is 4 s. If the upstream names a time in Keep-Alive, undici goes by that time instead.
    keepAliveTimeout: 30_000,
  })
  adaptParsers(pool, { readsFields })
  if (http2) cancelStreams(pool, connectTimeoutMs)
  return pool
}

function sumOf(pools: readonly Pool[], count: (stats: Pool['stats']) => number): number {
  let sum = 0
  for (const pool of pools) sum += count(pool.stats)
  return sum
}
