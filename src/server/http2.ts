import http2 from 'node:http2'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { bareConnection } from '../gateway/break-off.ts'
import { noFields } from '../http/fields.ts'
import { Entry, Roster } from '../time/roster.ts'
import { takeOver } from './connections.ts'
import { MOST_FIELDS } from './well-formed.ts'

/** How many calls a client may make at once over one connection. For more calls it needs another connection. */
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
  /** How long the head of a request may take: without TLS the first bytes of a connection, and then each head while no call is open. */
  readonly headMs: number
  onConnect(request: IncomingMessage, response: ServerResponse): void
  /** Called when a connection ended because its bytes were no HTTP/2. */
  onProtocolError(error: Error, address: string | undefined): void
}

/**
 * Lets a server speak HTTP/2 as well. With TLS, ALPN chooses the version. Without TLS, the first bytes from the client choose it
 * ("prior knowledge", RFC 9113 §3.3). The server's own listeners get the requests, in the shape of HTTP/1.1. `close` ends every
 * session once its calls are finished.
 */
export function addHttp2(
  server: Server,
  { maxHeaderBytes, idleMs, headMs, onConnect, onProtocolError }: Http2Options,
): { close(): void } {
  const h2 = http2.createServer({
    // Beyond this bound Node resets the stream without an answer. The bound allows one field too many, so that whyMalformed can
    // refuse the request and say why.
    maxHeaderListPairs: MOST_FIELDS + PSEUDO_FIELDS + 1,
    settings: { maxConcurrentStreams: STREAMS, maxHeaderListSize: maxHeaderBytes, enablePush: false },
    // A vendor may send a single-value field twice. The client gets both lines, as with HTTP/1.1. In strict mode Node would throw
    // when it writes the head of the response.
    strictSingleValueFields: false,
    Http2ServerRequest: Request,
    Http2ServerResponse: Response,
  })
  const sessions = new Roster<Entry<http2.ServerHttp2Session>>()
  h2.on('session', (session) => {
    const entry = new Entry(session)
    sessions.add(entry)
    // The address is read now, because a session that has ended no longer knows it.
    const address = session.socket.remoteAddress
    // An error ends the connection. The calls on it notice that by themselves.
    session.on('error', (error: Error & { code?: string }) => {
      if (error.code === 'ERR_HTTP2_ERROR') onProtocolError(error, address)
    })
    endWhenIdle(session, idleMs, headMs)
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

/** Node sets `timeout` of a stream as of a socket, but its type does not say so. */
type Timed = http2.ServerHttp2Stream & { readonly timeout?: number }

/**
 * Ends a connection after `idleMs` milliseconds without traffic, and one on which bytes come for two to three times `headMs` that make
 * no call. Calls that are under way finish first.
 */
function endWhenIdle(session: http2.ServerHttp2Session, idleMs: number, headMs: number): void {
  const streams = new Roster<Entry<http2.ServerHttp2Stream>>()
  /** Whether a whole frame has explained what came since the last look. */
  let isUsed = false
  const use = (): void => void (isUsed = true)
  session.on('ping', use).on('remoteSettings', use).on('localSettings', use)
  session.on('stream', (stream) => {
    const entry = new Entry(stream)
    streams.add(entry)
    use()
    stream.on('close', () => {
      streams.delete(entry)
      use()
    })
  })
  const end = (): void => {
    // `session.close` sends GOAWAY and waits until the client has taken all that was written. A client that reads nothing would
    // keep the session open for ever. So at the next timeout it is broken off, if every response is written. A response that has a time
    // of its own for its client to take the rest ends by that.
    const isWritten = streams
      .all()
      .every(({ of: { writableEnded, timeout = 0 } }: { readonly of: Timed }) => writableEnded && timeout === 0)
    if (session.closed && isWritten) return void bareConnection(session.socket).resetAndDestroy()
    session.close()
    session.setTimeout(idleMs)
  }
  session.on('timeout', end)
  session.setTimeout(idleMs)
  // Each byte of a head begins the idle time anew, and Node tells only of whole frames.
  let bytesRead = 0
  let unexplained = 0
  const looking = setInterval(() => {
    if (session.destroyed) return
    const before = bytesRead
    ;({ bytesRead } = session.socket)
    const isExplained = bytesRead === before || isUsed || streams.size > 0
    unexplained = isExplained ? 0 : unexplained + 1
    // Node does not report some frames, such as the last WINDOW_UPDATE of a call, so one such time proves nothing. Bytes of a head that
    // does not end keep coming.
    if (unexplained > 1) end()
    isUsed = false
  }, headMs)
  looking.unref()
  session.on('close', () => clearInterval(looking))
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

/** A request of HTTP/2 with its host, framing and fields in the places where a request of HTTP/1.1 has them. */
class Request extends http2.Http2ServerRequest {
  constructor(...args: ConstructorParameters<typeof http2.Http2ServerRequest>) {
    super(...args)
    const { headers, stream } = this
    headers.host ??= headers[':authority']
    // A body of HTTP/2 needs no Content-Length, because the end of the stream ends it (RFC 9113 §8.1). In HTTP/1.1 such a body
    // is "chunked".
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

/** Names and values alternately, without pseudo fields. Several Cookie fields are joined into one (RFC 9113 §8.2.3). */
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
    // If the client resets a stream, Node keeps it until the request body has been read, which may never happen.
    stream.once('aborted', () => void (this.#isBrokenOff || stream.destroy()))
    // Node ends the response of a stream that was reset. Without this it would seem to be finished.
    Object.defineProperty(this, 'writableFinished', { get: () => stream.writableFinished && !stream.aborted })
  }

  override writeHead(status: number, ...rest: readonly unknown[]): this {
    const fields = rest.at(-1) as readonly string[]
    const kept: string[] = []
    for (let i = 0; i < fields.length; i += 2) {
      if (fields[i] !== 'Connection') kept.push(fields[i]!, fields[i + 1]!)
    }
    // Node sends no status above 599. A client treats such a status as a server error (RFC 9110 §15), so it gets 502.
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

  /** Ends the stream with an error. Without the error the client would take the cut response for a complete one. */
  override destroy(): this {
    this.#isBrokenOff = true
    this.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR)
    // After `close` alone, the stream would stay until the error is sent: for ever, if the client has stopped reading.
    this.stream.destroy()
    return this
  }
}
