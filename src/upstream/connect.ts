import type { TLSSocket } from 'node:tls'
import type { buildConnector as Connectors } from 'undici'
import { buildConnector, errors } from '../packages/undici.ts'
import { request as httpsRequest } from 'node:https'
import { isIPv6, type Socket } from 'node:net'
import { request as httpRequest } from '../http/node-http.ts'

export type ConnectPhase = 'connect' | 'tls'

/** The TCP connection or the TLS handshake took too long. Nothing of the request was sent. */
export class ConnectTimeout extends Error {
  readonly phase: ConnectPhase

  constructor(phase: ConnectPhase, cause: Error) {
    super(`no ${phase === 'tls' ? 'TLS' : 'TCP'} connection in time`, { cause })
    this.name = 'ConnectTimeout'
    this.phase = phase
  }
}

interface ConnectOptions {
  readonly connectTimeoutMs: number
  readonly tlsTimeoutMs: number
  /** Options of the TCP connection, such as how names are looked up. */
  readonly tcp: Connectors.BuildOptions
  readonly tls: Connectors.BuildOptions
  /** Returns the proxy for the next TCP connection. Undefined: no proxy is used. */
  readonly proxy: (() => URL) | undefined
}

/** Makes a connector that connects in two steps with a timeout each. undici has only one timeout for both. */
export function connectorOf({ connectTimeoutMs, tlsTimeoutMs, tcp, tls, proxy }: ConnectOptions): Connectors.connector {
  const connectDirectly = buildConnector({ ...tcp, timeout: connectTimeoutMs })
  const connectTcp: Connectors.connector =
    proxy === undefined
      ? connectDirectly
      : ({ hostname, port }, callback) => {
          // undici has taken the brackets off an IPv6 address, which an authority needs.
          const host = isIPv6(hostname) ? `[${hostname}]` : hostname
          openTunnel(proxy(), `${host}:${port}`, connectTimeoutMs, callback)
        }
  const connectTls = buildConnector({ ...tls, timeout: tlsTimeoutMs })
  // undici resumes the latest TLS session of a server, but holds it only by a weak reference. `held` keeps it alive. Otherwise the
  // next garbage collection would take the session, and the next connection would cost a full handshake.
  const held: { session?: Buffer } = {}
  const hold = (session: Buffer): void => void (held.session = session)
  return (options, callback) => {
    // If undici gets a server name for a host that is an IP address, it uses a `lookup` of its own, which is not guarded.
    const { servername: _, ...tcpOptions } = options
    const port = options.port || (options.protocol === 'https:' ? '443' : '80')
    connectTcp({ ...tcpOptions, protocol: 'http:', port }, (error, socket) => {
      if (error !== null) return callback(inPhase('connect', error), null)
      if (options.protocol === 'http:') return callback(null, socket)
      const connecting = connectTls({ ...options, httpSocket: socket }, (tlsError, secure) => {
        if (tlsError === null) return callback(null, secure)
        socket.destroy()
        return callback(inPhase('tls', tlsError), null)
      }) as unknown as TLSSocket // undici's type does not tell that it returns one
      return connecting.on('session', hold)
    })
  }
}

function inPhase(phase: ConnectPhase, error: Error): Error {
  return (error as { code?: string }).code === 'UND_ERR_CONNECT_TIMEOUT' ? new ConnectTimeout(phase, error) : error
}

/** The proxy refused to make a tunnel. */
class ProxyError extends Error {
  readonly code = 'ERR_PROXY_REFUSED'
}

type Callback = (...result: [error: null, socket: Socket] | [error: Error, socket: null]) => void

/**
 * Connects to `authority`, a `host:port`, through an HTTP proxy (CONNECT, RFC 9110 §9.3.6). TLS is later spoken with that host
 * through the tunnel, not with the proxy. The proxy looks the host up. No error contains the credentials of the proxy.
 */
function openTunnel(proxy: URL, authority: string, timeoutMs: number, callback: Callback): void {
  const { hostname, port, protocol, username, password } = proxy
  const request = protocol === 'https:' ? httpsRequest : httpRequest
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  const authorization = { 'proxy-authorization': `Basic ${Buffer.from(credentials).toString('base64')}` }
  const connecting = request({
    host: hostname.replace(/^\[(.*)\]$/, '$1'),
    port: port || (protocol === 'https:' ? 443 : 80),
    method: 'CONNECT',
    path: authority,
    headers: { host: authority, ...(username === '' && password === '' ? {} : authorization) },
    agent: false,
  })
  let isOver = false
  const end = (...result: Parameters<Callback>): void => {
    if (isOver) return
    isOver = true
    clearTimeout(timer)
    if (result[0] !== null) connecting.destroy()
    callback(...result)
  }
  const timer = setTimeout(
    // If this process stood still, the proxy's answer may have arrived meanwhile. `setImmediate` lets it be read first.
    () => setImmediate(() => end(new errors.ConnectTimeoutError('the proxy made no tunnel in time'), null)),
    timeoutMs,
  )
  connecting.on('connect', ({ statusCode = 0 }, socket: Socket, head: Buffer) => {
    if (isOver || statusCode < 200 || statusCode > 299) {
      socket.destroy()
      end(new ProxyError(`the proxy made no tunnel: it answered ${statusCode}`), null)
      return
    }
    if (head.length > 0) socket.unshift(head)
    socket.setNoDelay(true)
    end(null, socket)
  })
  // If a proxy takes CONNECT for an ordinary request, "response" comes instead of "connect".
  connecting.on('response', ({ statusCode }) =>
    end(new ProxyError(`the proxy made no tunnel: it answered ${statusCode}`), null),
  )
  connecting.on('error', (error) => end(error, null))
  connecting.end()
}
