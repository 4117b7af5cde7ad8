import { type IncomingMessage, type Server, ServerResponse } from 'node:http'
import type { Failure } from '../gateway/failure.ts'
import { hasBody } from '../upstream/body.ts'
import type { Proxy } from './proxy.ts'

/**
 * Hands calls that ask for another protocol to `proxy`: a WebSocket is forwarded like any call, everything else refused.
 * Not by the plugin, which accepts the client before it has asked the upstream, and buffers without a bound.
 */
export function takeUpgrades(server: Server, proxy: Proxy): void {
  server.on('upgrade', (request, socket, head) => {
    void proxy.serve(request, responseTo(request), obstacleOf(request), { socket, head })
  })
  server.on('connect', (request) => refuseConnect(proxy, request, responseTo(request)))
}

export function refuseConnect(proxy: Proxy, request: IncomingMessage, response: ServerResponse): void {
  void proxy.serve(request, response, invalid('CONNECT is not forwarded: this is no tunnel'))
}

/** Node makes none where the protocol may change. It ends the connection, unless the protocol does change. */
function responseTo(request: IncomingMessage): ServerResponse {
  const { socket } = request
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  // What happens to the connection is told by its close.
  socket.on('error', () => undefined)
  response.assignSocket(socket)
  response.once('finish', () => socket.destroySoon())
  return response
}

function obstacleOf(request: IncomingMessage): Failure | undefined {
  if (request.headers.upgrade?.toLowerCase() !== 'websocket') {
    return invalid('of the protocols that Upgrade can ask for only websocket is forwarded')
  }
  // RFC 6455 §4.1
  if (request.method !== 'GET' || hasBody(request)) return invalid('a WebSocket begins with a GET without a body')
  return undefined
}

function invalid(message: string): Failure {
  return { kind: 'invalid_request', message }
}
