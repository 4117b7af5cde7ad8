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

/** Breaks off a response that was written to its end, once the client takes nothing of the rest for `idleMs`. */
export function breakOffWhenIdle(call: Pick<Call, 'request' | 'response'>, idleMs: number): void {
  const { response } = call
  response.setTimeout(idleMs, () => breakOff(call))
  // Node would leave the timer to the next response on this connection, which may be long in coming.
  response.prependOnceListener('finish', () => response.setTimeout(0))
}

/** The connection below TLS, which Node keeps in a field without a public name. */
export function bareConnection(socket: Socket): Socket {
  // oxlint-disable-next-line no-underscore-dangle -- see above
  const below = (socket as { readonly _parent?: Socket | null })._parent
  return below ? bareConnection(below) : socket
}
