import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { Failure } from '../gateway/failure.ts'
import { hasBody } from '../upstream/body.ts'
import type { Proxy } from './proxy.ts'
import { ExactResponse } from './response.ts'

/**
 * Whether a request asks for a WebSocket. A server may ignore every other Upgrade, and does so in HTTP/1.0 always (RFC 9110
 * §7.8): the request is then served as if it had none. Java's HttpClient and `curl --http2` offer h2c with every request.
 */
export function asksForWebSocket({ headers, httpVersion }: IncomingMessage): boolean {
  return httpVersion === '1.1' && /(?:^|[\s,])websocket(?:$|[\s,/])/i.test(headers.upgrade ?? '')
}

/**
 * Hands calls that ask for a WebSocket to `proxy`, which forwards them like any call. Not by the plugin, which accepts the
 * client before it has asked the upstream, and buffers without a bound.
 */
export function takeUpgrades(server: Server, proxy: Proxy, onConnect?: ConnectListener): void {
  server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
    if (request.headers.upgrade !== undefined && !isLastRead(request)) response.shouldKeepAlive = false
  })
  server.on('upgrade', (request, socket, head) => {
    void proxy.serve(request, responseTo(request), preRejectionOf(request), { socket, head })
  })
  server.on('connect', (request, socket, head) => {
    if (onConnect === undefined) refuseConnect(proxy, request, responseTo(request))
    else onConnect(request, responseTo(request), socket as Socket, head)
  })
}

/** Serves a CONNECT. The response is for a refusal; a tunnel takes the connection. */
export type ConnectListener = (request: IncomingMessage, response: ServerResponse, socket: Socket, head: Buffer) => void

export function refuseConnect(proxy: Proxy, request: IncomingMessage, response: ServerResponse): void {
  void proxy.serve(request, response, invalid('CONNECT is not forwarded: this is no tunnel'))
}

/** Node makes none where the protocol may change. It ends the connection, unless the protocol does change. */
function responseTo(request: IncomingMessage): ServerResponse {
  const { socket } = request
  const response = new ExactResponse(request)
  response.shouldKeepAlive = false
  // What happens to the connection is told by its close.
  socket.on('error', () => undefined)
  response.assignSocket(socket)
  response.once('finish', () => socket.destroySoon())
  return response
}

/**
 * Whether nothing was read together with a request but its own body. Node loses what it read behind a request whose Upgrade
 * is ignored: a client that had sent its next request at once would wait for the answer for ever. It has to be told to send
 * that over another connection.
 */
function isLastRead({ headers, socket }: IncomingMessage): boolean {
  if (headers['transfer-encoding'] !== undefined) return false
  const { parser } = socket as { parser?: { getCurrentBuffer?(): Buffer } }
  const read = parser?.getCurrentBuffer?.()
  if (read === undefined) return false
  return read.indexOf(HEAD_END) + HEAD_END.length + Number(headers['content-length'] ?? 0) === read.length
}

const HEAD_END = '\r\n\r\n'

function preRejectionOf(request: IncomingMessage): Failure | undefined {
  // RFC 6455 §4.1
  if (request.method !== 'GET' || hasBody(request)) return invalid('a WebSocket begins with a GET without a body')
  if (request.headers['sec-websocket-key'] === undefined) return invalid('a WebSocket begins with a Sec-WebSocket-Key')
  return undefined
}

function invalid(message: string): Failure {
  return new Failure('invalid_request', message)
}
