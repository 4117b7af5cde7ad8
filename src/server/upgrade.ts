import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type Failure, invalid } from '../gateway/failure.ts'
import { hasBody } from '../upstream/body.ts'
import type { Proxy } from './proxy.ts'
import { ExactResponse, underWay } from './response.ts'

/**
 * Whether a request asks for a WebSocket. Every other Upgrade is ignored: the request is served as if the field were not there.
 * RFC 9110 §7.8 allows that, and demands it for HTTP/1.0. It matters because Java's HttpClient and `curl --http2` offer h2c with
 * every request.
 */
export function asksForWebSocket({ headers, httpVersion }: IncomingMessage): boolean {
  return httpVersion === '1.1' && /(?:^|[\s,])websocket(?:$|[\s,/])/i.test(headers.upgrade ?? '')
}

/**
 * Hands calls that ask for a WebSocket to `proxy`, which forwards them like any other call. Hands each CONNECT to `onConnect`, or
 * refuses it if there is none. The plugin's own WebSockets are not used: the plugin accepts the client before it has asked the
 * upstream, and it buffers without a bound.
 */
export function takeUpgrades(server: Server, proxy: Proxy, onConnect?: ConnectListener): void {
  server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
    if (request.headers.upgrade !== undefined && !isLastRead(request)) response.shouldKeepAlive = false
  })
  server.on('upgrade', (request, socket, head) => {
    inTurn(request, proxy, () => {
      void proxy.serve(request, responseTo(request), preRejectionOf(request), { socket, head })
    })
  })
  server.on('connect', (request, socket, head) => {
    inTurn(request, proxy, () => {
      if (onConnect === undefined) refuseConnect(proxy, request, responseTo(request))
      else onConnect(request, responseTo(request), socket as Socket, head)
    })
  })
}

/**
 * Serves a request with an Upgrade, or a CONNECT, once every earlier request of its connection is answered. Node hands the
 * connection over at once, even if earlier responses are not finished. To assign another response to it before they are would
 * throw, and that would end the process.
 */
function inTurn({ socket }: IncomingMessage, proxy: Proxy, serve: () => void): void {
  // An error without a listener would end the process. The calls react to the "close" that follows it.
  socket.on('error', () => undefined)
  // Once Node has handed the connection over, it no longer passes "drain" to the response. The rest of the response would
  // never be sent.
  socket.on('drain', () => {
    const response = underWay(socket)
    if (response?.writableNeedDrain === true && socket.writableLength === 0) response.emit('drain')
  })
  if (underWay(socket) === undefined) return serve()
  socket.once('close', () => proxy.endQueued(socket))
  // The socket ends when the client has left, which is noticed only by reading. Bytes that the client sent early stay in the
  // socket's buffer until `serve` is called.
  const onReadable = (): void => void (socket.readableLength === 0 && socket.read())
  const onEnd = (): void => void socket.destroy()
  socket.on('readable', onReadable).on('end', onEnd)
  const onTurn = (): void => {
    if (socket.destroyed || socket.writableEnded) return
    const earlier = underWay(socket)
    if (earlier !== undefined) return void earlier.once('close', onTurn)
    socket.off('readable', onReadable).off('end', onEnd)
    serve()
  }
  onTurn()
}

/** Serves a CONNECT. The response is for a refusal; a tunnel takes the connection. */
export type ConnectListener = (request: IncomingMessage, response: ServerResponse, socket: Socket, head: Buffer) => void

export function refuseConnect(proxy: Proxy, request: IncomingMessage, response: ServerResponse): void {
  void proxy.serve(request, response, invalid('CONNECT is not forwarded: this is no tunnel'))
}

/**
 * Makes the response to a request with an Upgrade, or to a CONNECT: Node makes none. The connection ends after the response,
 * unless it is handed to a tunnel.
 */
function responseTo(request: IncomingMessage): ServerResponse {
  const { socket } = request
  const response = new ExactResponse(request)
  response.shouldKeepAlive = false
  response.assignSocket(socket)
  response.once('finish', () => socket.destroySoon())
  return response
}

/**
 * Whether it is certain that Node read no bytes behind this request. If Node ignores an Upgrade, it loses such bytes. A client
 * that had already sent its next request would then wait for an answer for ever. So if this is false, the connection must be
 * closed after the response, which tells the client to send its next request over another one.
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
