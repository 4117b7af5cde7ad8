import { once } from 'node:events'
import { type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Readable } from 'node:stream'

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly trailers: NodeJS.Dict<string>
  readonly body: string
  json(): any // eslint-disable-line typescript/no-explicit-any -- tests look into many shapes
}

export interface CallOptions {
  readonly method?: string
  readonly headers?: Record<string, string | string[]>
  readonly body?: string | Buffer | Readable
}

/** Sends one request over a connection of its own. The path goes out exactly as it is given. */
export async function call(base: string, path: string, options: CallOptions = {}): Promise<Answer> {
  const response = await open(base, path, options)
  const pieces: Buffer[] = []
  for await (const piece of response) pieces.push(piece as Buffer)
  const body = Buffer.concat(pieces).toString()
  const { statusCode = 0, headers, rawHeaders, trailers } = response
  return { status: statusCode, headers, rawHeaders, trailers, body, json: () => JSON.parse(body) as unknown }
}

/** The same, up to the head of the response. */
export function open(
  base: string,
  path: string,
  { method = 'GET', headers = {}, body }: CallOptions = {},
): Promise<IncomingMessage> {
  const { hostname, port } = new URL(base)
  return new Promise((resolve, reject) => {
    const outgoing = request({ hostname, port, path, method, headers, agent: false }, resolve)
    outgoing.once('error', reject)
    if (typeof body === 'object' && 'pipe' in body) body.pipe(outgoing)
    else outgoing.end(body)
  })
}

/** A bare connection, for requests that no client library would send. */
export class RawClient {
  readonly socket: Socket
  #received = ''
  #isClosed = false
  #wake: () => void = () => undefined

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk) => {
      this.#received += chunk.toString('latin1')
      this.#wake()
    })
    socket.on('close', () => {
      this.#isClosed = true
      this.#wake()
    })
    socket.on('error', () => undefined)
  }

  static async connect(base: string): Promise<RawClient> {
    const { hostname, port } = new URL(base)
    const socket = connect(Number(port), hostname)
    await once(socket, 'connect')
    return new RawClient(socket)
  }

  /** All that was received so far. */
  get received(): string {
    return this.#received
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  write(text: string): void {
    this.socket.write(text, 'latin1')
  }

  /** All that was received, once it matches or the connection is closed. */
  async until(pattern: RegExp): Promise<string> {
    while (!pattern.test(this.#received) && !this.#isClosed) {
      await new Promise<void>((resolve) => void (this.#wake = resolve))
    }
    return this.#received
  }

  /** All that was received, once the connection is closed. */
  async closed(): Promise<string> {
    while (!this.#isClosed) await new Promise<void>((resolve) => void (this.#wake = resolve))
    return this.#received
  }
}
