import type { IncomingMessage, ServerResponse as NodeResponse } from 'node:http'
import type { Socket } from 'node:net'
import { ServerResponse } from '../http/node-http.ts'

/** Node sends every part of a response by `_send`. Node's own `flushHeaders` passes no encoding to it, which means UTF-8. */
interface Sender {
  _send(data: string, encoding: BufferEncoding): boolean
}

/**
 * A response whose head is always sent as latin1. Node reads and writes heads as latin1, with one exception: `flushHeaders` sends
 * a head without a body as UTF-8, and each byte beyond ASCII becomes two.
 */
export class ExactResponse<Request extends IncomingMessage = IncomingMessage> extends ServerResponse<Request> {
  override flushHeaders(): void {
    if (!this.headersSent) this.writeHead(this.statusCode)
    // oxlint-disable-next-line no-underscore-dangle -- no public method of Node sends the head of a 101
    ;(this as unknown as Sender)._send('', 'latin1')
  }
}

/** The response that a connection is busy with. Node replaces it by the next one before its "close" is emitted. */
export function underWay(socket: Socket): NodeResponse | undefined {
  const { _httpMessage: response } = socket as { _httpMessage?: NodeResponse | null }
  return response ?? undefined
}
