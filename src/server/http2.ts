import http2 from 'node:http2'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { bareConnection } from '../gateway/break-off.ts'
import { noFields } from '../http/fields.ts'
import { Entry, Roster } from '../time/roster.ts'
import { takeOver } from './connections.ts'
import { MOST_FIELDS } from './well-formed.ts'

/** How many calls a client may make at once over one connection. For more it opens another. */
const STREAMS = 250
const PSEUDO_FIELDS = 4
const PREFACE = 'PRI'
const HIGHEST_STATUS = 599
/** The code of Node's parser for a request that ends before it is complete. */
const CUT_SHORT = 'HPE_INVALID_EOF_STATE'

export interface Http2Options {
  readonly maxHeaderBytes: number
  /** How long a connection may stay without any traffic. */
  readonly idleMs: number
  /** How long the first bytes may take to arrive. */
  readonly headMs: number
  onConnect(request: IncomingMessage, response: ServerResponse): void
  /** Is called when a connection ended because its bytes were no HTTP/2. */
  onProtocolError(error: Error, address: string | undefined): void
}

/**
 * Lets a server speak HTTP/2 as well. With TLS, ALPN chooses. Without TLS, the client chooses by beginning with HTTP/2 ("prior
 * knowledge", RFC 9113 §3.3). Requests go to the server's own listeners, in the shape of requests of HTTP/1.1.
 */
export function addHttp2(
  server: Server,
  { maxHeaderBytes, idleMs, headMs, onConnect, onProtocolError }: Http2Options,
): { close(): void } {
  const h2 = http2.createServer({
    // As many fields as in HTTP/1.1, the pseudo fields, and one more: whyMalformed can then refuse the request and say why.
    // Beyond this bound Node resets the stream without an answer.
    maxHeaderListPairs: MOST_FIELDS + PSEUDO_FIELDS + 1,
    settings: { maxConcurrentStreams: STREAMS, maxHeaderListSize: maxHeaderBytes, enablePush: false },
    // A vendor may send a single-value field twice. With HTTP/1.1 the client gets both lines, so here too. In strict mode Node
    // would throw when it writes the head of the response.
    strictSingleValueFields: false,
    Http2ServerRequest: Request,
    Http2ServerResponse: Response,
  })
  const sessions = new Roster<Entry<http2.ServerHttp2Session>>()
  h2.on('session', (session) => {
    const entry = new Entry(session)
    sessions.add(entry)
    // A session that has ended no longer knows its address, so it is read now.
    const address = session.socket.remoteAddress
    // An error ends the connection. The calls on it notice that by themselves.
    session.on('error', (error: Error & { code?: string }) => {
      if (error.code === 'ERR_HTTP2_ERROR') onProtocolError(error, address)
    })
    endWhenIdle(session, idleMs)
    session.on('close', () => sessions.delete(entry))
  })
  for (const event of ['request', 'checkContinue', 'checkExpectation'] as const) {
    h2.on(event, (request: unknown, response: unknown) => server.emit(event, request, response))
  }
  // "connect" can't be passed on like the others: its listeners for HTTP/1.1 expect a socket instead of a response.
  h2.on('connect', (request: unknown, response: unknown) => {
    onConnect(request as IncomingMessage, response as ServerResponse)
  })
  if ('setSecureContext' in server) chooseByAlpn(server, h2)
  else chooseByPreface(server, h2, headMs)
  return {
    close() {
      for (const { of: session } of sessions.all()) session.close()
    },
  }
}

/** Ends a connection after so long without any traffic. Calls that are under way finish first. */
function endWhenIdle(session: http2.ServerHttp2Session, idleMs: number): void {
  const streams = new Roster<Entry<http2.ServerHttp2Stream>>()
  session.on('stream', (stream) => {
    const entry = new Entry(stream)
    streams.add(entry)
    stream.on('close', () => streams.delete(entry))
  })
  session.on('timeout', () => {
    // It says goodbye with GOAWAY, and stays open for as long as its client takes nothing of what is written: for ever, if nobody
    // breaks it off.
    const isWritten = streams.all().every(({ of: { writableEnded } }) => writableEnded)
    if (session.closed && isWritten) return void bareConnection(session.socket).resetAndDestroy()
    session.close()
    session.setTimeout(idleMs)
  })
  session.setTimeout(idleMs)
}

function chooseByAlpn(server: Server, h2: http2.Http2Server): void {
  const listeners = takeOver(server, 'secureConnection')
  server.on('secureConnection', (socket: TLSSocket) => {
    if (socket.alpnProtocol === 'h2') h2.emit('connection', endWithPeer(socket))
    else for (const listener of listeners) listener.call(server, socket)
  })
}

/**
 * Makes the connection end as soon as the client ends its half. Servers of HTTP/1.1 keep their half open, so that they can
 * still answer. With HTTP/2 the calls would then go on for a client that has gone.
 */
function endWithPeer<S extends Socket>(socket: S): S {
  socket.allowHalfOpen = false
  return socket
}

function chooseByPreface(server: Server, h2: http2.Http2Server, headMs: number): void {
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

/** A request of HTTP/2 that has its host, framing and fields where a request of HTTP/1.1 has them. */
class Request extends http2.Http2ServerRequest {
  constructor(...args: ConstructorParameters<typeof http2.Http2ServerRequest>) {
    super(...args)
    const { headers, stream } = this
    headers.host ??= headers[':authority']
    // HTTP/2 needs no Content-Length: the end of the stream ends the body (RFC 9113 §8.1). In HTTP/1.1 that is "chunked".
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

/** Names and values in turn, without pseudo fields. The crumbs of Cookie are joined to one field (RFC 9113 §8.2.3). */
function fieldsOf({ headers, rawHeaders }: http2.Http2ServerRequest): string[] {
  const fields: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    if (!name.startsWith(':') && name !== 'cookie') fields.push(name, rawHeaders[i + 1]!)
  }
  if (headers.cookie !== undefined) fields.push('cookie', headers.cookie)
  const authority = headers[':authority']
  // An authority that differs from Host becomes a second Host, so that whyMalformed refuses the request.
  if (authority !== undefined && authority !== headers.host) fields.push('host', authority)
  return fields
}

function distinct(fields: readonly string[]): NodeJS.Dict<string[]> {
  const values = noFields<string[]>()
  for (let i = 0; i < fields.length; i += 2) (values[fields[i]!] ??= []).push(fields[i + 1]!)
  return values
}

/** A response of HTTP/2 that is written like one of HTTP/1.1. It leaves out what HTTP/2 does not have. */
class Response extends http2.Http2ServerResponse {
  #isBrokenOff = false

  constructor(stream: http2.ServerHttp2Stream) {
    super(stream)
    // If the client resets a stream, Node keeps it until its body has been read, which may be never.
    stream.once('aborted', () => void (this.#isBrokenOff || stream.destroy()))
    // Node ends a response whose stream was reset, so that it would seem to be finished.
    Object.defineProperty(this, 'writableFinished', { get: () => stream.writableFinished && !stream.aborted })
  }

  override writeHead(status: number, ...rest: readonly unknown[]): this {
    const fields = rest.at(-1) as readonly string[]
    const kept: string[] = []
    for (let i = 0; i < fields.length; i += 2) {
      if (fields[i] !== 'Connection') kept.push(fields[i]!, fields[i + 1]!)
    }
    // Node sends no status above 599. A client treats all of those as an error of the server (RFC 9110 §15).
    const sent = status > HIGHEST_STATUS ? http2.constants.HTTP_STATUS_BAD_GATEWAY : status
    // Node accepts a list of names and values, but its type does not say so.
    return super.writeHead(sent, kept as unknown as Record<string, string>)
  }

  /** Also writes 100 Continue. */
  writeInformation(status: number, fields: readonly string[] = []): void {
    this.stream.additionalHeaders({ ':status': status, ...distinct(fields) })
  }

  override addTrailers(trailers: object): void {
    const lines = noFields<string[]>()
    for (const [name, value] of trailers as [string, string][]) (lines[name] ??= []).push(value)
    super.addTrailers(lines)
  }

  /** Ends the stream with an error. Without it the client would take the cut response for a complete one. */
  override destroy(): this {
    this.#isBrokenOff = true
    this.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR)
    // Closed alone, it would stay until the error is sent: for ever, if the client no longer reads from its connection.
    this.stream.destroy()
    return this
  }
}
