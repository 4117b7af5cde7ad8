import { retryAfterSeconds } from '../http/retry-after.ts'
import type { EpochMs } from '../time/clock.ts'
import { randomUUID } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import Type, { type Static } from 'typebox'
import { words } from '../config/presets/words.ts'
import { EXECUTIONS, fieldsOf, isPlural, isV1, kindOf, sentFields, shown, shownAlone } from './entities.ts'
import type { Question } from './identify.ts'

export interface Answer {
  readonly status: number
  /** Names and values in turn. */
  readonly headers: string[]
  readonly body: string
}

/** How a 429 or 503 says when to come back. */
export type Dialect = Static<typeof DialectSchema>
export const DialectSchema = Type.Enum(['seconds', 'date', 'none'], { expected: 'one of seconds, date, none' })

/** What Harness would answer, in shape: which shape is told by the path, and nothing is stored. */
export function successAnswer(question: Question, body: string): Answer {
  const { method, path, correlationId } = question
  const segments = path.split('/').filter((segment) => segment !== '')
  const kind = kindOf(segments)
  const asked: Asked = { question, segments, kind, last: segments.at(-1) ?? '' }
  try {
    if (isV1(path)) return v1Answer(asked, body)
    const data = dataOf(asked, body)
    return answer(200, { status: 'SUCCESS', data, metaData: null, correlationId }, correlationId)
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return errorAnswer(question, 400, `Unable to read the body of the ${method} as JSON: ${error.message}`)
  }
}

/** An error in Harness's shape. A `Retry-After` is said on 429 and 503 only. */
export function errorAnswer({ correlationId }: Question, status: number, message: string, retryAfter?: string): Answer {
  const code = CODES[status] ?? (STATUS_CODES[status] ?? 'Unknown error').toUpperCase().replaceAll(/[^A-Z]+/g, '_')
  const content = {
    status: 'ERROR',
    code,
    message,
    correlationId,
    detailedMessage: null,
    responseMessages: [{ code, level: 'ERROR', message, exception: null, failureTypes: [] }],
    metadata: null,
  }
  const answered = answer(status, content, correlationId)
  if (retryAfter !== undefined && (status === 429 || status === 503)) answered.headers.push('Retry-After', retryAfter)
  return answered
}

/**
 * The value of `Retry-After` (RFC 9110 §10.2.3), or undefined for none. Rounded up, because a client that comes back a
 * moment too soon is refused again. A number of seconds stands for itself.
 */
export function retryAfterOf(dialect: Dialect | number, waitMs: number, now: EpochMs): string | undefined {
  switch (dialect) {
    case 'none':
      return undefined
    case 'seconds':
      return String(retryAfterSeconds(waitMs))
    case 'date':
      return new Date(Math.ceil((now + waitMs) / 1_000) * 1_000).toUTCString()
    default:
      return String(dialect)
  }
}

const CODES: Record<number, string> = { 400: 'INVALID_REQUEST', 401: 'INVALID_TOKEN', 403: 'ACCESS_DENIED' }

const SECURITY_FIELDS =
  'X-Content-Type-Options nosniff X-Frame-Options SAMEORIGIN Strict-Transport-Security max-age=31536000'.split(' ')

function answer(status: number, content: unknown, correlationId: string): Answer {
  const body = content === undefined ? '' : JSON.stringify(content)
  const type = content === undefined ? [] : ['Content-Type', 'application/json']
  const length = status === 204 ? [] : ['Content-Length', String(Buffer.byteLength(body))]
  return { status, headers: [...type, ...length, 'X-Request-Id', correlationId, ...SECURITY_FIELDS], body }
}

interface Asked {
  readonly question: Question
  readonly segments: readonly string[]
  readonly kind: string
  readonly last: string
}

/** What stands in the envelope. */
function dataOf(asked: Asked, body: string): unknown {
  const { question, segments, kind, last } = asked
  const { method, path, query, route } = question
  if (route.class === 'webhook') return { eventCorrelationId: randomUUID() }
  if (method === 'DELETE') return true
  if (isExecution(asked)) return { planExecution: { uuid: randomUUID(), status: 'RUNNING' } }
  if (!isReading(question)) return changed(asked, body)
  if (!isList(method, segments) && path !== EXECUTIONS) return shownAlone(path, kind, fieldsOf(last))
  const [pageIndex, content] = page(asked, query)
  const { length: pageItemCount } = content
  const empty = pageItemCount === 0
  return { totalPages: 1, totalItems: TOTAL, pageItemCount, pageSize: 50, content, pageIndex, empty }
}

/** As the newer API answers: no envelope, lists whose length and page are told by header fields, 201 for what is new. */
function v1Answer(asked: Asked, body: string): Answer {
  const { question, segments, kind, last } = asked
  const { method, path, query, correlationId } = question
  if (isExecution(asked)) {
    const started = { execution_details: { execution_id: randomUUID(), status: 'RUNNING' } }
    return answer(200, started, correlationId)
  }
  if (method === 'DELETE') {
    const isSilent = /\/(?:pipelines|input-sets|triggers)\/[^/]+$/.test(path)
    if (isSilent) return answer(204, undefined, correlationId)
    return answer(200, shown(path, kind, fieldsOf(last)), correlationId)
  }
  if (!isReading(question)) return answer(method === 'POST' ? 201 : 200, changed(asked, body), correlationId)
  if (!isList(method, segments)) return answer(200, shownAlone(path, kind, fieldsOf(last)), correlationId)
  const [pageIndex, content] = page(asked, query)
  const listed = answer(200, content, correlationId)
  listed.headers.push('X-Total-Elements', String(TOTAL), 'X-Page-Number', String(pageIndex), 'X-Page-Size', '30')
  return listed
}

function isExecution({ question: { method }, segments }: Asked): boolean {
  return method === 'POST' && segments.includes('execute')
}

function isReading({ route }: Question): boolean {
  return route.charges.includes('read')
}

/** A POST that reads lists. A GET does if its path ends with the name of many things and that is not itself an id. */
function isList(method: string, segments: readonly string[]): boolean {
  const [last = '', previous = ''] = segments.toReversed()
  return method === 'POST' || words(last).includes('list') || (isPlural(last) && !isPlural(previous))
}

const TOTAL = 3

/** All on the first page, so that a client that reads on until a page is empty comes to an end. */
function page({ question: { path }, kind }: Asked, query: string): [pageIndex: number, content: object[]] {
  const pageIndex = Number(/(?:^|&)page(?:Index)?=(\d{1,9})(?:&|$)/.exec(query)?.[1] ?? 0)
  const content: object[] = []
  if (pageIndex > 0) return [pageIndex, content]
  for (let number = 1; number <= TOTAL; number++) content.push(shown(path, kind, fieldsOf(`${kind}_${number}`)))
  return [pageIndex, content]
}

/** What was sent, as if it had been stored; null for a body that is no entity. */
function changed({ question: { method, path }, kind, last }: Asked, body: string): object | null {
  const fields = sentFields(body, kind, method === 'POST' ? `${kind}_1` : last)
  return fields && shown(path, kind, fields)
}
