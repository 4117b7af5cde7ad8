import type { Socket } from 'node:net'
import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify'
import { formatPath, type Problem } from '../../config/problem.ts'
import { STATUS_CODES } from '../../http/node-http.ts'
import { PROBLEM_TYPE, problemDetails } from '../../http/problem.ts'
import type { Logger } from '../../observe/log.ts'

/** An error that the admin API answers as problem details (RFC 9457). Its texts never repeat a secret. */
export class AdminProblem extends Error {
  readonly status: number
  readonly code: string
  readonly errors: readonly Problem[]

  constructor(status: number, code: string, detail: string, errors: readonly Problem[] = []) {
    super(detail)
    this.status = status
    this.code = code
    this.errors = errors
  }
}

/** The code of the problem, and of the errors of the store itself (`StoreError`). */
const STORE_UNAVAILABLE = 'STORE_UNAVAILABLE'

const SERVED =
  'it has the live page at /, GET /healthz, /readyz and /metrics, and below /v1 what docs/admin-api.md lists; clients call the other port'

/** The 503 while the store can't be used. */
export function storeUnavailable(detail: string): AdminProblem {
  return new AdminProblem(503, STORE_UNAVAILABLE, detail)
}

/** The 404 for a thing of this kind, with the id or name under which it was looked for. */
export function notFound(what: string, name: string): AdminProblem {
  return new AdminProblem(404, 'NOT_FOUND', `there is no ${what} "${name.slice(0, 200)}"`)
}

export function nameTaken(what: string): AdminProblem {
  return new AdminProblem(409, 'NAME_TAKEN', `there is a ${what} of this name already`)
}

export function invalid(detail: string, errors: readonly Problem[] = []): AdminProblem {
  return new AdminProblem(400, 'INVALID_REQUEST', detail, errors)
}

/** The body of the answer. `errors` lists every fault with its place. */
function problemBody({ status, code, message, errors }: AdminProblem): object {
  const problem = problemDetails(status, code, message)
  if (errors.length === 0) return problem
  return {
    ...problem,
    errors: errors.map(({ path, message }) => (path.length === 0 ? { message } : { path: formatPath(path), message })),
  }
}

/** Makes every error of the routes of `api` a problem. For a bug the answer says only that there was one; the log has the rest. */
export function answerProblems(api: FastifyInstance, logger: Logger): void {
  api.setErrorHandler(async (error: FastifyError | AdminProblem, _, reply) => {
    const problem = asProblem(error)
    if (problem.status >= 500) logger.error({ err: error }, 'a request to the admin API failed')
    await sendProblem(reply, problem)
  })
}

/** Answers a request for whose path no route could be looked for. */
export function answerBadPath(error: FastifyError, _: unknown, reply: FastifyReply): void {
  void sendProblem(reply, asProblem(error))
}

/** Answers what is no HTTP, is too long, or does not come to its end. */
export function answerNoRequest({ code }: { readonly code?: string }, socket: Socket): void {
  const [status, detail] = NO_REQUEST[code ?? ''] ?? [400, 'this is no well-formed HTTP request']
  const body = JSON.stringify(problemBody(new AdminProblem(status, 'INVALID_REQUEST', detail)))
  const fields = `Content-Type: ${PROBLEM_TYPE}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close`
  if (socket.writable && code !== 'ECONNRESET')
    socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${fields}\r\n\r\n${body}`)
  socket.destroy()
}

const NO_REQUEST: Readonly<Record<string, [status: number, detail: string]>> = {
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'the request did not come to its end in time'],
  HPE_HEADER_OVERFLOW: [431, 'the header of the request is larger than the admin API takes'],
}

function sendProblem(reply: FastifyReply, problem: AdminProblem): FastifyReply {
  return reply.code(problem.status).type(PROBLEM_TYPE).send(problemBody(problem))
}

/** Answers requests below the prefix of `api` that no route is for. */
export function answerNotFound(api: FastifyInstance): void {
  api.setNotFoundHandler(async ({ method, url }, reply) => {
    const [path = ''] = url.split('?')
    const detail = `there is no ${method} ${path.slice(0, 200)} on the admin port; ${SERVED}`
    await sendProblem(reply, new AdminProblem(404, 'NOT_FOUND', detail))
  })
}

function asProblem(error: FastifyError | AdminProblem): AdminProblem {
  if (error instanceof AdminProblem) return error
  const { code, message, statusCode = 500 } = error
  // It came from Redis, or from a file of the store, and says what is wrong there.
  if (code === STORE_UNAVAILABLE) return new AdminProblem(503, code, message)
  // What the system says of a file that it can't read or write.
  if ((error as NodeJS.ErrnoException).syscall !== undefined)
    return storeUnavailable(`the store can’t be used: ${message}`)
  if (statusCode >= 500)
    return new AdminProblem(500, 'INTERNAL_ERROR', 'the gateway made a mistake; its log knows more')
  // The framework's own message may repeat what was sent, which may be a secret.
  const known = FRAMEWORK[code]
  if (known !== undefined) return new AdminProblem(statusCode, ...known)
  return new AdminProblem(statusCode, 'INVALID_REQUEST', 'the request can’t be taken as it is')
}

/** Our messages for requests that the framework refuses before a route sees them. */
const FRAMEWORK: Readonly<Record<string, [code: string, detail: string]>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: [
    'UNSUPPORTED_MEDIA_TYPE',
    'the body must be JSON, and say so: send the header Content-Type: application/json, or for a PATCH application/merge-patch+json',
  ],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['INVALID_REQUEST', 'the body is empty, though Content-Type says that it is JSON'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['INVALID_REQUEST', 'the body is not well-formed JSON'],
  FST_ERR_CTP_BODY_TOO_LARGE: ['BODY_TOO_LARGE', 'the body is larger than the admin API takes, 65536 bytes'],
  FST_ERR_BAD_URL: [
    'INVALID_REQUEST',
    'the path is not well-formed: each % must be followed by two hex digits of UTF-8',
  ],
  FST_ERR_MAX_PARAM_LENGTH: ['INVALID_REQUEST', 'a part of the path is longer than any id or name'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['INVALID_REQUEST', 'the body is not as long as Content-Length says'],
}
