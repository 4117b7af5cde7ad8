import { request as httpsRequest } from 'node:https'
import type { Socket } from 'node:net'
import { errors } from 'undici'
import { request as httpRequest } from '../http/node-http.ts'

/** The proxy refused to make a tunnel. */
export class ProxyError extends Error {
  readonly code = 'ERR_PROXY_REFUSED'
}

type Callback = (...result: [error: null, socket: Socket] | [error: Error, socket: null]) => void

/**
 * Connects to `authority`, a `host:port`, through an HTTP proxy (CONNECT, RFC 9110 §9.3.6). TLS is later spoken with that host
 * through the tunnel, not with the proxy. The proxy looks the host up. No error contains the credentials of the proxy.
 */
export function openTunnel(proxy: URL, authority: string, timeoutMs: number, callback: Callback): void {
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
    () => end(new errors.ConnectTimeoutError('the proxy made no tunnel in time'), null),
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
  // "response" comes instead of "connect" from a proxy that takes CONNECT for an ordinary request.
  connecting.on('response', ({ statusCode }) =>
    end(new ProxyError(`the proxy made no tunnel: it answered ${statusCode}`), null),
  )
  connecting.on('error', (error) => end(error, null))
  connecting.end()
}
