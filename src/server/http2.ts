import {
  constants,
  createServer,
  type Http2Server,
  Http2ServerRequest,
  Http2ServerResponse,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { takeOver } from './connections.ts'
import { MOST_FIELDS } from './well-formed.ts'

/** Calls that one client may make at once over one connection; it opens another for more. */
const STREAMS = 250
const PSEUDO_FIELDS = 4
const PREFACE = 'PRI'
const HIGHEST_STATUS = 599
/** How Node's parser calls a request that ends in its middle. */
const CUT_SHORT = 'HPE_INVALID_EOF_STATE'

export interface Http2Options {
  readonly maxHeaderBytes: number
  /** How long a connection may stay without a byte. */
  readonly idleMs: number
  /** Longest time for the first bytes to come. */
  readonly headMs: number
  onConnect(request: IncomingMessage, response: ServerResponse): void
  /** The connection has ended, because what came on it is no HTTP/2. */
  onProtocolError(error: Error, address: string | undefined): void
}

/**
 * Lets a server speak HTTP/2 as well: by ALPN where it has TLS, else with clients that begin with it ("prior knowledge",
 * RFC 9113 §3.3). Requests go to the server's own listeners, in the shape of those of HTTP/1.1.
 */
export function addHttp2(
  server: Server,
  { maxHeaderBytes, idleMs, headMs, onConnect, onProtocolError }: Http2Options,
): { close(): void } {
  const h2 = createServer({
    // The fields of a request of HTTP/1.1 and those that stand for its first line; with more, a stream is reset without a word.
    maxHeaderListPairs: MOST_FIELDS + PSEUDO_FIELDS + 1,
    settings: { maxConcurrentStreams: STREAMS, maxHeaderListSize: maxHeaderBytes, enablePush: false },
    // A vendor may send one of its fields on two lines that has one value: in HTTP/1.1 the client gets both, so here as well.
    // Otherwise Node throws at the head of the response.
    strictSingleValueFields: false,
    Http2ServerRequest: Request,
    Http2ServerResponse: Response,
  })
  const sessions = new Set<ServerHttp2Session>()
  h2.on('session', (session) => {
    sessions.add(session)
    // A session that has ended no longer knows its address, so it is read now.
    const address = session.socket.remoteAddress
    // It ends the connection; the calls on it learn of that by themselves.
    session.on('error', (error: Error & { code?: string }) => {
      if (error.code === 'ERR_HTTP2_ERROR') onProtocolError(error, address)
    })
    // Sends GOAWAY, and lets calls that are under way finish.
    session.setTimeout(idleMs, () => session.close())
    session.on('close', () => sessions.delete(session))
  })
  for (const event of ['request', 'checkContinue', 'checkExpectation'] as const) {
    h2.on(event, (request: unknown, response: unknown) => server.emit(event, request, response))
  }
  // A CONNECT of HTTP/1.1 comes with a bare socket instead of a response.
  h2.on('connect', (request: unknown, response: unknown) => {
    onConnect(request as IncomingMessage, response as ServerResponse)
  })
  if ('setSecureContext' in server) chooseByAlpn(server, h2)
  else chooseByPreface(server, h2, headMs)
  const closeAllConnections = server.closeAllConnections.bind(server)
  server.closeAllConnections = () => {
    closeAllConnections()
    for (const session of sessions) session.destroy()
  }
  return {
    close() {
      for (const session of sessions) session.close()
    },
  }
}

function chooseByAlpn(server: Server, h2: Http2Server): void {
  const listeners = takeOver(server, 'secureConnection')
  server.on('secureConnection', (socket: TLSSocket) => {
    if (socket.alpnProtocol === 'h2') h2.emit('connection', endWithPeer(socket))
    else for (const listener of listeners) listener.call(server, socket)
  })
}

/** A server of HTTP/1.1 lets a client end its half first; of HTTP/2, its calls would outlive it. */
function endWithPeer<S extends Socket>(socket: S): S {
  socket.allowHalfOpen = false
  return socket
}

function chooseByPreface(server: Server, h2: Http2Server, headMs: number): void {
  const listeners = takeOver(server, 'connection')
  server.on('connection', (socket: Socket) => {
    let seen = Buffer.alloc(0)
    const end = (): void => void socket.destroy()
    const refuse = (code: string) => (): void => {
      if (seen.length > 0 || code !== CUT_SHORT)
        server.emit('clientError', Object.assign(new Error(code), { code }), socket)
      else socket.destroy()
    }
    const [onEnd, onTimeout] = [refuse(CUT_SHORT), refuse('ERR_HTTP_REQUEST_TIMEOUT')]
    const look = (chunk: Buffer): void => {
      seen = Buffer.concat([seen, chunk])
      const start = seen.toString('latin1', 0, PREFACE.length)
      if (start !== PREFACE && PREFACE.startsWith(start)) return
      socket.off('data', look).off('error', end).off('end', onEnd).off('timeout', onTimeout).setTimeout(0)
      socket.pause()
      socket.unshift(seen)
      if (start === PREFACE) return void h2.emit('connection', endWithPeer(socket))
      for (const listener of listeners) listener.call(server, socket)
      socket.resume()
    }
    socket.setTimeout(headMs).on('data', look).on('error', end).on('end', onEnd).on('timeout', onTimeout)
  })
}

/** A request of HTTP/2 that says what it says where one of HTTP/1.1 does. */
class Request extends Http2ServerRequest {
  constructor(...args: ConstructorParameters<typeof Http2ServerRequest>) {
    super(...args)
    const { headers, stream } = this
    headers.host ??= headers[':authority']
    // Only a length of zero says that no body comes; where there is none, only its end will tell (RFC 9113 §8.1).
    if (!stream.endAfterHeaders && headers['content-length'] === undefined) headers['transfer-encoding'] = 'chunked'
    const rawHeaders = fieldsOf(this)
    const isComplete = (): boolean => stream.endAfterHeaders || this.readableEnded || stream.destroyed
    Object.defineProperties(this, {
      rawHeaders: { value: rawHeaders },
      headersDistinct: { get: () => distinct(rawHeaders) },
      complete: { get: isComplete },
    })
  }
}

/** Names and values in turn, without pseudo fields, and with one Cookie instead of its crumbs (RFC 9113 §8.2.3). */
function fieldsOf({ headers, rawHeaders }: Http2ServerRequest): string[] {
  const fields: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    if (!name.startsWith(':') && name !== 'cookie') fields.push(name, rawHeaders[i + 1]!)
  }
  if (headers.cookie !== undefined) fields.push('cookie', headers.cookie)
  const authority = headers[':authority']
  // A second one if it is another, as a request of HTTP/1.1 could have it: to be refused like that.
  if (authority !== undefined && authority !== headers.host) fields.push('host', authority)
  return fields
}

function distinct(fields: readonly string[]): NodeJS.Dict<string[]> {
  const values: NodeJS.Dict<string[]> = {}
  for (let i = 0; i < fields.length; i += 2) (values[fields[i]!] ??= []).push(fields[i + 1]!)
  return values
}

/** A response of HTTP/2 that takes what one of HTTP/1.1 takes, and leaves out what has no place there. */
class Response extends Http2ServerResponse {
  #isBrokenOff = false

  constructor(stream: ServerHttp2Stream) {
    super(stream)
    // Node would keep a stream that its client has reset until somebody had read what came of its body.
    stream.once('aborted', () => void (this.#isBrokenOff || stream.destroy()))
    // One that was reset is ended by Node, and would seem to be finished.
    Object.defineProperty(this, 'writableFinished', { get: () => stream.writableFinished && !stream.aborted })
  }

  override writeHead(status: number, ...rest: readonly unknown[]): this {
    const fields = rest.at(-1) as readonly string[]
    const kept: string[] = []
    for (let i = 0; i < fields.length; i += 2) {
      if (fields[i] !== 'Connection') kept.push(fields[i]!, fields[i + 1]!)
    }
    // Node sends no higher one; to a client any of them is an error of the server (RFC 9110 §15).
    const sent = status > HIGHEST_STATUS ? constants.HTTP_STATUS_BAD_GATEWAY : status
    // The type of Node leaves out lists of values, which Node accepts.
    return super.writeHead(sent, kept as unknown as Record<string, string>)
  }

  /** Also writes 100 Continue. */
  writeInformation(status: number, fields: readonly string[] = []): void {
    const headers: OutgoingHttpHeaders = { ':status': status }
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i]!
      headers[name] = [headers[name] ?? [], fields[i + 1]!].flat().map(String)
    }
    this.stream.additionalHeaders(headers)
  }

  override addTrailers(trailers: object): void {
    const lines: Record<string, string[]> = {}
    for (const [name, value] of trailers as [string, string][]) (lines[name] ??= []).push(value)
    super.addTrailers(lines)
  }

  /** Ends the stream with an error: without one, what was sent would look whole. */
  override destroy(): this {
    this.#isBrokenOff = true
    this.stream.close(constants.NGHTTP2_INTERNAL_ERROR)
    return this
  }
}
