import { type IncomingMessage, ServerResponse } from 'node:http'

/** What Node sends everything of a response by; `flushHeaders` leaves the encoding out, which then is UTF-8. */
interface Sender {
  _send(data: string, encoding: BufferEncoding): boolean
}

/**
 * A response whose head has the same bytes however it is sent. Node reads and writes a head byte by byte (latin1), but not if
 * it goes out alone: each byte beyond ASCII would become two.
 */
export class ExactResponse<Request extends IncomingMessage = IncomingMessage> extends ServerResponse<Request> {
  override flushHeaders(): void {
    if (!this.headersSent) this.writeHead(this.statusCode)
    // oxlint-disable-next-line no-underscore-dangle -- of a 101 Node sends nothing by any other method that is public
    ;(this as unknown as Sender)._send('', 'latin1')
  }
}
