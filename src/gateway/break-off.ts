import type { Socket } from 'node:net'
import type { Call } from './call.ts'

/**
 * Ends a response in the middle, so that its client knows that it is not whole. A body in HTTP/1.0 has no chunks and may have no
 * length: the end of the connection is its end, and only a reset is none (RFC 9112 §8). In TLS, too, since many clients do not mind
 * that the end was not announced.
 */
export function breakOff({ request, response }: Pick<Call, 'request' | 'response'>): void {
  const socket = request.httpVersion === '1.0' ? response.socket : undefined
  // What is being ended already can't be reset.
  if (socket?.writableEnded !== false) response.destroy()
  else bareConnection(socket).resetAndDestroy()
}

/** The connection below TLS, which Node keeps in a field without a public name. */
function bareConnection(socket: Socket): Socket {
  // oxlint-disable-next-line no-underscore-dangle -- see above
  const below = (socket as { readonly _parent?: Socket | null })._parent
  return below ? bareConnection(below) : socket
}
