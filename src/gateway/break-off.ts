import type { Socket } from 'node:net'
import type { Call } from './call.ts'

/**
 * Ends a response in the middle, so that its client knows that it is not whole. In HTTP/1.0 a body has no chunks and may have no
 * length. The end of the connection is then the end of the body, unless it is a reset (RFC 9112 §8). The same goes for TLS, since
 * many clients accept an end that was not announced.
 */
export function breakOff({ request, response }: Pick<Call, 'request' | 'response'>): void {
  const socket = request.httpVersion === '1.0' ? response.socket : undefined
  // A connection that is being ended already can't be reset.
  if (socket?.writableEnded !== false) response.destroy()
  else bareConnection(socket).resetAndDestroy()
}

/** Breaks off a response that was written to its end, once the client takes nothing of the rest for `idleMs`. */
export function breakOffWhenIdle(call: Pick<Call, 'request' | 'response'>, idleMs: number): void {
  const { response } = call
  response.setTimeout(idleMs, () => breakOff(call))
  // Node would leave the timer running for the next response on this connection, which may come much later.
  response.prependOnceListener('finish', () => response.setTimeout(0))
}

/** The connection below TLS, which Node keeps in a field without a public name. */
export function bareConnection(socket: Socket): Socket {
  // oxlint-disable-next-line no-underscore-dangle -- see above
  const below = (socket as { readonly _parent?: Socket | null })._parent
  return below ? bareConnection(below) : socket
}
