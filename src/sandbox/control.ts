import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Dialect } from './answers.ts'
import { readBody } from './body.ts'
import type { Fault } from './faults.ts'
import { FieldError } from './fields.ts'
import type { Counts, LimitsGiven } from './limits.ts'
import type { SeenRequest } from './seen.ts'

/** What the control port shows and changes; it throws a `FieldError` for what makes no sense. */
export interface Controlled {
  seen(limit?: number): readonly SeenRequest[]
  counts(): Counts
  reset(): void
  setFaults(fault: Fault): void
  clearFaults(): void
  setLimits(limits: LimitsGiven): void
  setRetryAfter(dialect: Dialect): void
}

/** The control port: JSON in and out, and a 400 that names the field for what makes no sense. */
export async function serveControl(
  sandbox: Controlled,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const body = await readBody(request)
  if (body === undefined) return // whoever asked has gone
  const [path, query] = (request.url ?? '').split('?')
  const operation = OPERATIONS.get(`${request.method} ${path}`)
  if (operation === undefined) {
    respond(response, 404, { error: `there is only ${[...OPERATIONS.keys()].join(', ')}` })
    return
  }
  try {
    respond(response, 200, operation(sandbox, { query: new URLSearchParams(query), body }) ?? DONE)
  } catch (error) {
    if (!(error instanceof FieldError)) throw error
    respond(response, 400, { error: error.message })
  }
}

type Operation = (sandbox: Controlled, order: { query: URLSearchParams; body: string }) => unknown

const DONE = { status: 'ok' }

// The sandbox checks what it is given, so its type may be claimed here.
const OPERATIONS = new Map<string, Operation>([
  ['GET /healthz', () => DONE],
  ['GET /seen', (sandbox, { query }) => sandbox.seen(limitIn(query))],
  ['GET /counts', (sandbox) => sandbox.counts()],
  ['POST /reset', (sandbox) => sandbox.reset()],
  ['PUT /faults', (sandbox, { body }) => sandbox.setFaults(parse(body) as Fault)],
  ['DELETE /faults', (sandbox) => sandbox.clearFaults()],
  ['PUT /limits', (sandbox, { body }) => sandbox.setLimits(parse(body) as object)],
  ['PUT /retry-after', (sandbox, { body }) => sandbox.setRetryAfter(parse(body) as Dialect)],
])

function limitIn(query: URLSearchParams): number | undefined {
  const limit = query.get('limit')
  if (limit === null) return undefined
  if (!/^\d{1,9}$/.test(limit)) throw new FieldError(['limit'], 'must be a whole number')
  return Number(limit)
}

function parse(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    throw new FieldError([], 'the body must be JSON')
  }
}

function respond(response: ServerResponse, status: number, content: unknown): void {
  const body = JSON.stringify(content)
  response.writeHead(status, ['Content-Type', 'application/json', 'Content-Length', String(Buffer.byteLength(body))])
  response.end(body)
}
