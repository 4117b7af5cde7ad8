import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { isSafeMethod } from '../routing/route.ts'
import { underWay } from './response.ts'
import { isHttp2 } from './well-formed.ts'

/**
 * While more requests than this wait on a connection, nothing more is read from it. They are not calls yet, so nothing else bounds
 * them.
 */
const MOST_WAITING = 100

/** The requests that wait until the earlier ones on their connection are answered. */
export class Pipelines {
  /** How many wait on each connection. It has an entry from the first that waited on. */
  readonly #waiting = new WeakMap<Socket, number>()

  /** Whether a request has waited on the connection. From then on every request on it waits. */
  haveWaitedOn(socket: Socket): boolean {
    return this.#waiting.has(socket)
  }

  /**
   * Whether a request has to wait. Pipelined requests may run at once only if the methods of all are safe (RFC 9112 §9.3.2). A response
   * has no socket until all responses before it have ended.
   */
  waitsForTurn(request: IncomingMessage, response: ServerResponse): boolean {
    if (isHttp2(request) || response.socket !== null) return false
    const { socket, method = '' } = request
    if (!isSafeMethod(method) || this.#waiting.has(socket)) return true
    // Each request behind the first has a safe method, too, or it waits.
    return !isSafeMethod(underWay(socket)?.req.method ?? '')
  }

  /** Calls `serve` when it is the request's turn; never if the connection ends before. */
  wait({ socket }: IncomingMessage, response: ServerResponse, serve: () => void): void {
    // Node resumes a connection for reasons of its own, such as a body that is read.
    if (!this.#waiting.has(socket)) socket.on('resume', () => this.#pauseIfMany(socket))
    this.#waiting.set(socket, (this.#waiting.get(socket) ?? 0) + 1)
    this.#pauseIfMany(socket)
    response.once('socket', () => {
      const waiting = this.#waiting.get(socket)! - 1
      this.#waiting.set(socket, waiting)
      if (waiting === MOST_WAITING) socket.resume()
      serve()
    })
  }

  /** Whether nothing is read from the connection now: what it lacks did not come late. */
  isHeldBack(socket: Socket): boolean {
    return (this.#waiting.get(socket) ?? 0) > MOST_WAITING
  }

  #pauseIfMany(socket: Socket): void {
    if (this.isHeldBack(socket)) socket.pause()
  }
}
