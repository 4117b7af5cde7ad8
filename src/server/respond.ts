import type { Http2ServerRequest } from 'node:http2'
import type { Socket } from 'node:net'
import Negotiator from 'negotiator'
import { STATUS_CODES } from '../http/node-http.ts'
import { breakOff } from '../gateway/break-off.ts'
import type { Answering, Call } from '../gateway/call.ts'
import { type Failure, FAILURES } from '../gateway/failure.ts'
import { PROBLEM_TYPE, problemDetails } from '../http/problem.ts'
import { retryAfterSeconds } from '../http/retry-after.ts'
import { ownHeaders, tightestOf, violatedPolicies } from '../gateway/own-headers.ts'
import { errorBody, errorStatus } from './dialects.ts'
import { isHttp2 } from './well-formed.ts'

const JSON_TYPE = 'application/json'
/**
 * The longest request body that is read to its end after a refusal, so that the connection stays open. A longer body, or one of
 * unknown length, closes the connection.
 */
const READ_OFF_BYTES = 65_536
/** How long a client that is still sending may take to read the refusal, before its connection is destroyed. */
const LINGER_MS = 1_000

/** Answers a call with the gateway's own refusal. If the response has already begun, it is broken off instead. */
export function refuse(call: Answering, failure: Failure): void {
  const { request, response } = call
  if (response.headersSent) return breakOff(call)
  const { status, contentType, body } = refusalBody(call.id, failure, chooseType(call), call)
  const headers = [
    ...refusalHeaders(failure, status),
    'Content-Type',
    contentType,
    'Content-Length',
    String(Buffer.byteLength(body)),
  ]
  ownHeaders(call, headers, tightestOf(call))
  const { 'transfer-encoding': coding, 'content-length': length = 0 } = request.headers
  if (!request.complete && (coding !== undefined || Number(length) > READ_OFF_BYTES)) {
    headers.push('Connection', 'close')
    closeAfter(call)
  }
  response.writeHead(status, headers)
  // Node would send a body of text together with the head, both as UTF-8. The head must be latin1, so the body is sent as bytes.
  const bytes = request.method === 'HEAD' ? undefined : Buffer.from(body)
  call.responseBytes = bytes?.length ?? 0
  response.end(bytes)
}

/**
 * Makes a refusal as text that is written straight to the connection. The connection must end after it. It answers a request that
 * can't be read, or `call` if the rest of its request can't be read.
 */
export function rawRefusal(id: string, failure: Failure, call?: Call): string {
  const type = call === undefined ? JSON_TYPE : chooseType(call)
  const { status, contentType, body } = refusalBody(id, failure, type, call)
  const length = String(Buffer.byteLength(body))
  const headers = refusalHeaders(failure, status)
  headers.push('Content-Type', contentType, 'Content-Length', length, 'X-Correlation-Id', id, 'Connection', 'close')
  let head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n`
  for (let i = 0; i < headers.length; i += 2) head += `${headers[i]}: ${headers[i + 1]}\r\n`
  return `${head}\r\n${body}`
}

function refusalHeaders({ kind, retryAfterMs }: Failure, status: number): string[] {
  const headers = ['X-Sluice-Error', kind]
  if (status === 401) headers.push('WWW-Authenticate', 'Bearer realm="sluice"')
  if (status === 407) headers.push('Proxy-Authenticate', 'Basic realm="sluice"')
  if (status === 429 || status === 503) headers.push('Retry-After', String(retryAfterSeconds(retryAfterMs ?? 1_000)))
  return headers
}

/**
 * A longer Accept is ignored. The time that the library takes for an unclosed quotation grows with the square of its length.
 */
const LONGEST_ACCEPT = 1_000

/** The content type that the client prefers by its Accept. Between equal ones, the upstream's usual type for errors wins. */
export function chooseType({ request: { headers }, upstream }: Pick<Call, 'request' | 'upstream'>): string {
  const usual = upstream?.config.errors === 'problem' ? [PROBLEM_TYPE, JSON_TYPE] : [JSON_TYPE, PROBLEM_TYPE]
  if ((headers.accept?.length ?? 0) > LONGEST_ACCEPT) return usual[0] as string
  return new Negotiator({ headers }).mediaType(usual) ?? (usual[0] as string)
}

function refusalBody(
  id: string,
  failure: Failure,
  contentType: string,
  call: Call | undefined,
): { status: number; contentType: string; body: string } {
  if (contentType !== PROBLEM_TYPE) {
    const dialect = call?.upstream?.config.errors
    const body = JSON.stringify(errorBody(dialect, failure, id))
    return { status: errorStatus(dialect, failure), contentType: `${JSON_TYPE}; charset=utf-8`, body }
  }
  const { kind, message } = failure
  const status = FAILURES[kind].status
  const problem = { ...problemDetails(status, FAILURES[kind].code, message), ...PROBLEM_OF[kind] }
  const violated = call === undefined || PROBLEM_OF[kind] === undefined ? [] : violatedPolicies(call)
  const policies = violated.length > 0 ? { 'violated-policies': violated } : {}
  return { status, contentType, body: JSON.stringify({ ...problem, kind, ...policies, correlationId: id }) }
}

const TYPES = 'https://iana.org/assignments/http-problem-types#'
const QUOTA_EXCEEDED = {
  type: `${TYPES}quota-exceeded`,
  title: 'Request cannot be satisfied as assigned quota has been exceeded',
}

/** The problem types of draft-ietf-httpapi-ratelimit-headers-11. The other refusals have no type: their status says enough. */
const PROBLEM_OF: { readonly [Kind in Failure['kind']]?: { readonly type: string; readonly title: string } } = {
  quota_exhausted: QUOTA_EXCEEDED,
  share_exceeded: QUOTA_EXCEEDED,
  breaker_open: {
    type: `${TYPES}temporary-reduced-capacity`,
    title: 'Request cannot be satisfied due to temporary server capacity constraints',
  },
  too_many_attempts: {
    type: `${TYPES}abnormal-usage-detected`,
    title: 'Request not satisfied due to detection of abnormal request pattern',
  },
}

/** Sends `text` and ends the connection. A client that is still sending gets a second to read the text before a reset. */
export function endWith(socket: Socket, text: string): void {
  socket.end(text)
  setTimeout(() => socket.destroy(), LINGER_MS).unref()
}

/**
 * Ends a call whose response ends before its request. A client that is still sending gets a second to read the response before
 * its connection is reset. The connection stays if the rest of the body has come by then and the response did not close it. With
 * HTTP/2 only the stream ends.
 */
export function closeAfter({ request, response }: Call): void {
  if (isHttp2(request)) return endStreamAfter({ request, response })
  const { socket } = request
  // Node would destroy the connection after its last response. If the client is still sending, the system would answer with a
  // reset, and the client would lose a response that it has not read yet (RFC 9112 §9.6).
  const endSoon = (): void => void socket.end()
  socket.destroySoon = endSoon
  const close = (): void => {
    discardRest(request)
    setTimeout(() => {
      // Otherwise the client was not told that the connection closes, and may be in the middle of its next call.
      if (!request.complete || socket.writableEnded) socket.destroy()
      else if (socket.destroySoon === endSoon) Reflect.deleteProperty(socket, 'destroySoon')
    }, LINGER_MS).unref()
  }
  if (response.writableFinished) close()
  else response.once('finish', close)
}

/** Closes the stream after the response. RST_STREAM with NO_ERROR tells the client to stop sending the body (RFC 9113 §8.1). */
function endStreamAfter({ request, response }: Pick<Call, 'request' | 'response'>): void {
  const { stream } = request as unknown as Http2ServerRequest
  const close = (): void => {
    discardRest(request)
    stream.close()
  }
  if (response.writableFinished) close()
  else response.once('finish', close)
}

/**
 * Reads the rest of a body and throws it away. The listener that passed the body upstream still listens but no longer reads. While
 * there is a "readable" listener, `resume` has no effect.
 */
function discardRest(request: Call['request']): void {
  request.removeAllListeners('readable').resume()
}
