import type { ServerResponse } from 'node:http'
import { Writable } from 'node:stream'

/** The response of a call that is made for no client. It takes everything and keeps nothing. */
class NullResponse extends Writable {
  statusCode = 0
  headersSent = false

  writeHead(status: number): this {
    this.statusCode = status
    this.headersSent = true
    return this
  }

  flushHeaders(): void {}

  addTrailers(): void {}

  writeInformation(): void {}

  override _write(_: unknown, __: unknown, done: () => void): void {
    done()
  }
}

export function nullResponse(): ServerResponse {
  return new NullResponse() as unknown as ServerResponse
}
