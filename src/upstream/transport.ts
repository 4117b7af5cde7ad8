/*
 * src/upstream: connections to upstreams, and what goes over them: headers, bodies, upgrades.
 * It imports only http, net and time; what to send, and when, is decided in gateway.
 * A change here must prove that no message can be smuggled, and that no connection outlives its call (test/upstream,
 * test/system/hostile.test.ts).
 */

import type { LookupFunction } from 'node:net'
import { type Dispatcher, Pool } from 'undici'
import { connectorOf } from './connect.ts'
import { acceptUnaskedContinue } from './interim.ts'

/** Is told of a request's way: its start, and the response as it comes. */
export type ResponseHandler = Dispatcher.DispatchHandler
/** Steers a request that is under way. */
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
  /** An HTTP proxy through which connections are made, with its credentials. */
  readonly proxy: URL | undefined
  /** Finds the addresses of a host name. Default: as the system does. */
  readonly lookup?: LookupFunction
}

export interface OutgoingRequest {
  readonly method: string
  /** Path and query, exactly as they go on the wire. */
  readonly path: string
  /** Names and values in turn. */
  readonly headers: string[]
  readonly body: Buffer | AsyncIterable<Buffer> | null
  /** The protocol that is asked for; null where the request is an ordinary one. */
  readonly upgrade: 'websocket' | null
}

/** The connections to one upstream. Certificates are always verified; nothing is retried or redirected here. */
export class Transport {
  readonly #pool: Pool
  /** For WebSockets, which begin with HTTP/1.1. */
  readonly #upgrades: Pool

  constructor(options: TransportOptions) {
    this.#pool = poolOf(options)
    this.#upgrades = options.http2 ? poolOf({ ...options, http2: false }) : this.#pool
  }

  /** Sends one request. Errors go to the handler, also those of a malformed request. */
  dispatch(request: OutgoingRequest, handler: ResponseHandler): void {
    // The type leaves out async iterables, which undici sends like streams.
    const pool = request.upgrade === null ? this.#pool : this.#upgrades
    pool.dispatch(request as Dispatcher.DispatchOptions, handler)
  }

  /** Connections that are open, idle ones included. */
  get connections(): number {
    return sumOf(this.#pools, ({ connected }) => connected)
  }

  /** Requests that wait for a connection. */
  get waiting(): number {
    return sumOf(this.#pools, ({ queued, pending }) => queued + pending)
  }

  /** Lets running calls finish, then closes every connection. */
  async close(): Promise<void> {
    await Promise.all(this.#pools.map((pool) => pool.close()))
  }

  get #pools(): readonly Pool[] {
    return this.#pool === this.#upgrades ? [this.#pool] : [this.#pool, this.#upgrades]
  }
}

function poolOf(options: TransportOptions): Pool {
  const { url, connections, connectTimeoutMs, tlsTimeoutMs, idleTimeoutMs, tls, lookup, http2, proxy } = options
  const useH2c = http2 && url.protocol === 'http:'
  const pool = new Pool(url.origin, {
    connections,
    pipelining: 1,
    allowH2: http2,
    // The pool's type leaves it out.
    ...({ useH2c } as object),
    connect: connectorOf({
      connectTimeoutMs,
      tlsTimeoutMs,
      tcp: { ...({ useH2c } as object), ...(lookup && { lookup }) },
      tls: { allowH2: http2, rejectUnauthorized: true, ...tls },
      proxy,
    }),
    // undici's own timers are coarse and count an upload as waiting: the attempt keeps the time to the headers itself.
    headersTimeout: 0,
    bodyTimeout: idleTimeoutMs,
    // Longer than undici's 4 s; a shorter time that the upstream names in Keep-Alive wins.
    keepAliveTimeout: 30_000,
  })
  acceptUnaskedContinue(pool)
  return pool
}

function sumOf(pools: readonly Pool[], count: (stats: Pool['stats']) => number): number {
  let sum = 0
  for (const pool of pools) sum += count(pool.stats)
  return sum
}
