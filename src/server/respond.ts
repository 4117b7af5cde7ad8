import { STATUS_CODES } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { Socket } from 'node:net'
import Negotiator from 'negotiator'
import type { Answering, Call } from '../gateway/call.ts'
import { CODE_OF, type Failure, STATUS_OF } from '../gateway/failure.ts'
import { PROBLEM_TYPE, problemDetails } from '../http/problem.ts'
import { retryAfterSeconds } from '../http/retry-after.ts'
import { ownHeaders, violatedPolicies } from '../gateway/own-headers.ts'
import { errorBody, errorStatus } from './dialects.ts'
import { isHttp2 } from './well-formed.ts'

const JSON_TYPE = 'application/json'
/** A rest of a body that is no larger is read, so that the connection can go on; for a larger one it is closed. */
const READ_OFF_BYTES = 65_536
/** How long a client may take to read the refusal before its connection is cut off in the middle of its body. */
const LINGER_MS = 1_000

/** Answers a call with the gateway's own refusal. Once a response has begun, all that is left is to break it off. */
export function refuse(call: Answering, failure: Failure): void {
  const { request, response } = call
  if (response.headersSent) {
    response.destroy()
    return
  }
  const { status, contentType, body } = refusalBody(call.id, failure, chooseType(call), call)
  const headers = [
    ...refusalHeaders(failure, status),
    'Content-Type',
    contentType,
    'Content-Length',
    String(Buffer.byteLength(body)),
  ]
  ownHeaders(call, headers)
  if (!request.complete && isLong(request.headers)) {
    headers.push('Connection', 'close')
    closeAfter(call)
  }
  response.writeHead(status, headers)
  // As text, Node would send the head with it in the encoding of the body.
  const bytes = request.method === 'HEAD' ? undefined : Buffer.from(body)
  call.responseBytes = bytes?.length ?? 0
  response.end(bytes)
}

/**
 * The same for the bare connection, which ends with it: for a request of which no call could be made, or for a call that can't
 * be read to its end.
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

/** The library takes the square of what stands in quotes that are not closed. A longer field is as good as none. */
const LONGEST_ACCEPT = 1_000

/** The shape that clients of the upstream parse, unless they would rather have the other. */
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
  const status = STATUS_OF[kind]
  const problem = { ...problemDetails(status, CODE_OF[kind], message), ...PROBLEM_OF[kind] }
  const violated = call === undefined || PROBLEM_OF[kind] === undefined ? [] : violatedPolicies(call)
  const policies = violated.length > 0 ? { 'violated-policies': violated } : {}
  return { status, contentType, body: JSON.stringify({ ...problem, kind, ...policies, correlationId: id }) }
}

const TYPES = 'https://iana.org/assignments/http-problem-types#'
const QUOTA_EXCEEDED = {
  type: `${TYPES}quota-exceeded`,
  title: 'Request cannot be satisfied as assigned quota has been exceeded',
}

/** The problem types of draft-ietf-httpapi-ratelimit-headers-11. Of other refusals the status says all. */
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

function isLong(headers: Record<string, unknown>): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > READ_OFF_BYTES
}

/** Ends a connection with these last words, but leaves a client that is still sending the time to read them. */
export function endWith(socket: Socket, text: string): void {
  socket.end(text)
  setTimeout(() => socket.destroy(), LINGER_MS).unref()
}

/** Closes the connection behind the response, but leaves a client that is still sending the time to read it. */
export function closeAfter({ request, response }: Call): void {
  if (isHttp2(request)) return endStreamAfter({ request, response })
  const { socket } = request
  // Node would destroy the connection behind the last response on it. Whatever the client still sends is then answered by a
  // reset, which takes the response away from it before it was read (RFC 9112 §9.6).
  socket.destroySoon = () => void socket.end()
  const close = (): void => {
    request.resume()
    setTimeout(() => socket.destroy(), LINGER_MS).unref()
  }
  if (response.writableFinished) close()
  else response.once('finish', close)
}

/** Of HTTP/2 only the stream is closed, with the word that no more of the body is wanted (RFC 9113 §8.1). */
function endStreamAfter({ request, response }: Pick<Call, 'request' | 'response'>): void {
  const { stream } = request as unknown as Http2ServerRequest
  const close = (): void => {
    request.resume()
    stream.close()
  }
  if (response.writableFinished) close()
  else response.once('finish', close)
}
