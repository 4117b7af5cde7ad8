import type { LookupFunction } from 'node:net'
import { type Dispatcher, Pool } from 'undici'

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
  readonly idleTimeoutMs: number
  readonly tls: TlsOptions
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

  constructor({ url, connections, connectTimeoutMs, idleTimeoutMs, tls, lookup }: TransportOptions) {
    this.#pool = new Pool(url.origin, {
      connections,
      pipelining: 1,
      allowH2: false,
      connect: { timeout: connectTimeoutMs, rejectUnauthorized: true, ...tls, ...(lookup && { lookup }) },
      // undici's own timers are coarse and count an upload as waiting: the attempt keeps the time to the headers itself.
      headersTimeout: 0,
      bodyTimeout: idleTimeoutMs,
      // Longer than undici's 4 s; a shorter time that the upstream names in Keep-Alive wins.
      keepAliveTimeout: 30_000,
    })
  }

  /** Sends one request. Errors go to the handler, also those of a malformed request. */
  dispatch(request: OutgoingRequest, handler: ResponseHandler): void {
    // The type leaves out async iterables, which undici sends like streams.
    this.#pool.dispatch(request as Dispatcher.DispatchOptions, handler)
  }

  /** Connections that are open, idle ones included. */
  get connections(): number {
    return this.#pool.stats.connected
  }

  /** Requests that wait for a connection. */
  get waiting(): number {
    const { queued, pending } = this.#pool.stats
    return queued + pending
  }

  /** Lets running calls finish, then closes every connection. */
  close(): Promise<void> {
    return this.#pool.close()
  }
}
