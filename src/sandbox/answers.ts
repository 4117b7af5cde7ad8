import type { EpochMs } from '../clock.ts'
import { randomUUID } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import Type, { type Static } from 'typebox'
import { words } from '../config/presets/words.ts'
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
  const content = { status: 'SUCCESS', data: dataOf(question, body), metaData: null, correlationId }
  const isCreated = method === 'POST' && path.startsWith('/v1/') && !isReading(question)
  return answer(isCreated ? 201 : 200, content, correlationId)
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
      return String(Math.max(1, Math.ceil(waitMs / 1_000)))
    case 'date':
      return new Date(Math.ceil((now + waitMs) / 1_000) * 1_000).toUTCString()
    default:
      return String(dialect)
  }
}

const CODES: Record<number, string> = { 400: 'INVALID_REQUEST', 401: 'INVALID_TOKEN', 403: 'ACCESS_DENIED' }

const SECURITY_FIELDS =
  'X-Content-Type-Options nosniff X-Frame-Options SAMEORIGIN Strict-Transport-Security max-age=31536000'.split(' ')

function answer(status: number, content: object, correlationId: string): Answer {
  const body = JSON.stringify(content)
  const length = String(Buffer.byteLength(body))
  const fields = ['Content-Type', 'application/json', 'Content-Length', length, 'X-Request-Id', correlationId]
  return { status, headers: [...fields, ...SECURITY_FIELDS], body }
}

function dataOf(question: Question, body: string): unknown {
  const { method, path, query, route } = question
  if (route.class === 'webhook') return { eventCorrelationId: randomUUID() }
  if (method === 'DELETE') return true
  const segments = path.split('/').filter((segment) => segment !== '')
  if (method === 'POST' && segments.includes('execute'))
    return { planExecution: { uuid: randomUUID(), status: 'RUNNING' } }
  if (!isReading(question)) return echo(body)
  const shape = shapeOf(path, kindOf(segments))
  if (isList(method, segments) || path === EXECUTIONS) return page(kindOf(segments), query, shape)
  const identifier = segments.at(-1) ?? ''
  if (EXECUTION.test(path)) return { pipelineExecutionSummary: shape(identifier), executionGraph: null }
  if (PIPELINE.test(path)) return { yamlPipeline: `pipeline:\n  identifier: ${identifier}\n  name: ${identifier}\n` }
  return shape(identifier)
}

function isReading({ route }: Question): boolean {
  return route.charges.includes('read')
}

/** A POST that reads lists. A GET does if its path ends with the name of many things and that is not itself an id. */
function isList(method: string, segments: readonly string[]): boolean {
  const [last = '', previous = ''] = segments.toReversed()
  return method === 'POST' || words(last).includes('list') || (isPlural(last) && !isPlural(previous))
}

const EXECUTIONS = '/pipeline/api/pipelines/execution/summary'
const EXECUTION = /^\/pipeline\/api\/pipelines\/execution\/(?:v2\/)?[^/]+$/
const PIPELINE = /^\/pipeline\/api\/pipelines\/[^/]+$/
/** Services whose entities stand there as they are; those of others stand under the name of what they are. */
const BARE = /^\/(?:(?:pipeline|template)\/api|ng\/api\/user-groups)\//

/**
 * How one thing is shown, alone and in lists: as in the models of the vendor's SDK,
 * https://github.com/harness/harness-go-sdk/tree/main/harness/nextgen/docs (PageResponsePmsPipelineSummaryResponse,
 * PipelineExecutionDetail, PipelineExecutionSummary, ProjectResponse, TemplateResponse).
 */
function shapeOf(path: string, kind: string): (identifier: string) => object {
  if (path === EXECUTIONS || EXECUTION.test(path)) return execution
  return BARE.test(`${path}/`)
    ? (identifier) => ({ ...fieldsOf(identifier), ...TIMES })
    : (identifier) => entity(kind, identifier)
}

function execution(planExecutionId: string): object {
  const pipeline = { pipelineIdentifier: 'pipeline_1', name: 'pipeline_1', tags: [] }
  const [startTs, endTs] = [TIMES.createdAt, TIMES.createdAt + 60_000]
  return { ...pipeline, planExecutionId, status: 'Success', startTs, endTs, createdAt: startTs, runSequence: 1 }
}

/** All on the first page, so that a client that reads on until a page is empty comes to an end. */
function page(kind: string, query: string, shape: (identifier: string) => object): object {
  const pageIndex = Number(/(?:^|&)page(?:Index)?=(\d{1,9})(?:&|$)/.exec(query)?.[1] ?? 0)
  const content = pageIndex === 0 ? [1, 2, 3].map((number) => shape(`${kind}_${number}`)) : []
  const { length: pageItemCount } = content
  return { totalPages: 1, totalItems: 3, pageItemCount, pageSize: 50, content, pageIndex, empty: pageItemCount === 0 }
}

// One moment for all, so that a question asked twice gets the same data.
const TIMES = { createdAt: Date.UTC(2026, 0), lastModifiedAt: Date.UTC(2026, 0) }

function entity(kind: string, identifier: string): object {
  return { [kind]: fieldsOf(identifier), ...TIMES }
}

function fieldsOf(identifier: string): object {
  return { identifier, name: identifier, description: '', tags: {} }
}

/** `project` in `/ng/api/projects/my-project`, `userGroup` in `/ng/api/user-groups`. */
function kindOf(segments: readonly string[]): string {
  const [first = 'item', ...rest] = words(segments.findLast(isPlural) ?? 'items')
  const name = first + rest.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('')
  return name.replace(/ies$/, 'y').replace(/s$/, '')
}

function isPlural(segment: string): boolean {
  return /[^sui]s$/.test(words(segment).at(-1) ?? '')
}

/** What was sent, as if it had been stored; null for what is no JSON object. */
function echo(body: string): object | null {
  if (!body.startsWith('{')) return null
  try {
    return { ...JSON.parse(body), ...TIMES }
  } catch {
    return null // broken, or too long to have been kept
  }
}
