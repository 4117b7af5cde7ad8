import { STATUS_CODES } from '../http/node-http.ts'
import { retryAfterSeconds } from '../http/retry-after.ts'
import type { EpochMs } from '../time/clock.ts'
import { hash, randomUUID } from 'node:crypto'
import Type, { type Static } from 'typebox'
import { words } from '../config/presets/words.ts'
import { fieldsOf, isPlural, isV1, isWorkspaces, kindOf, SEEDED, sentFields, shown, shownAlone } from './entities.ts'
import type { Question } from './identify.ts'
import { type Outcome, type Page, pageOf, VendorError } from './outcome.ts'
import { wantedOf } from './resources.ts'
import { SEED_COUNT, type Store } from './store.ts'
import { started, storedOutcome } from './stored.ts'

export interface Answer {
  readonly status: number
  /** Names and values in turn. */
  readonly headers: string[]
  readonly body: string
}

/** How a 429 or 503 says when to come back. */
export type Dialect = Static<typeof DialectSchema>
export const DialectSchema = Type.Enum(['seconds', 'date', 'none'], { expected: 'one of seconds, date, none' })

/**
 * What Harness would answer: from the store for the kinds that hold state, else a shape that the path alone tells. `now` is in
 * milliseconds since 1970.
 */
export function successAnswer(question: Question, body: string, store: Store, now: EpochMs): Answer {
  const { method, path } = question
  const segments = path.split('/').filter((segment) => segment !== '')
  const asked: Asked = { question, segments, kind: kindOf(segments), last: segments.at(-1) ?? '' }
  try {
    const wanted = wantedOf(question)
    const outcome = wanted === undefined ? outcomeOf(asked, body) : storedOutcome(wanted, question, body, store, now)
    return outcomeAnswer(question, outcome)
  } catch (error) {
    if (error instanceof VendorError) return errorAnswer(question, error.status, error.message, undefined, error.code)
    // No JSON, too deep, or YAML that holds itself: whatever it is, a body must not end the process.
    return errorAnswer(question, 400, `Unable to take the body of the ${method}: ${(error as Error).message}`)
  }
}

/** The envelope of the older API; or none, a length that header fields tell, and 201 for what is new. */
function outcomeAnswer(question: Question, outcome: Outcome): Answer {
  const { path, correlationId, ifNoneMatch } = question
  const content = outcome.page === undefined ? outcome.data : outcome.page.content
  let answered: Answer
  if (!isV1(path)) {
    const data = outcome.page === undefined ? outcome.data : enveloped(outcome.page)
    answered = answer(200, { status: 'SUCCESS', data, metaData: null, correlationId }, correlationId)
  } else if (outcome.isSilent) {
    answered = answer(204, undefined, correlationId)
  } else {
    answered = answer(outcome.isNew && !isWorkspaces(path) ? 201 : 200, content, correlationId)
  }
  if (isV1(path) && outcome.page !== undefined) {
    const { total, index, size } = outcome.page
    answered.headers.push(
      'X-Total-Elements',
      String(total),
      'X-Page-Number',
      String(index),
      'X-Page-Size',
      String(size),
    )
  }
  if (!outcome.isTagged) return answered
  const tag = tagOf(outcome)
  if (matches(ifNoneMatch, tag)) return notModified(tag, correlationId)
  answered.headers.push('ETag', tag)
  return answered
}

function enveloped({ total, index, size, content }: Page): object {
  const { length: pageItemCount } = content
  return {
    totalPages: Math.ceil(total / size),
    totalItems: total,
    pageItemCount,
    pageSize: size,
    content,
    pageIndex: index,
    empty: pageItemCount === 0,
  }
}

/** Weak, because the correlation id in the body is another one each time (RFC 9110 §8.8.1). */
function tagOf({ data, page }: Outcome): string {
  return `W/"${hash('sha256', JSON.stringify([data, page]), 'base64url').slice(0, 22)}"`
}

/** RFC 9110 §13.1.2: a list of tags, compared weakly, or `*` for any. */
function matches(ifNoneMatch: string | undefined, tag: string): boolean {
  if (ifNoneMatch === undefined) return false
  return (
    ifNoneMatch.trim() === '*' || ifNoneMatch.split(',').some((one) => `W/${one.trim().replace(/^W\//, '')}` === tag)
  )
}

/** RFC 9110 §15.4.5: the fields that a cache needs, and no content. */
function notModified(tag: string, correlationId: string): Answer {
  return { status: 304, headers: ['ETag', tag, 'X-Request-Id', correlationId, ...SECURITY_FIELDS], body: '' }
}

/** An error in Harness's shape, with the code `named` or the one of its status. A `Retry-After` is said on 429 and 503 only. */
export function errorAnswer(
  { correlationId }: Question,
  status: number,
  message: string,
  retryAfter?: string,
  named?: string,
): Answer {
  const code =
    named ?? CODES[status] ?? (STATUS_CODES[status] ?? 'Unknown error').toUpperCase().replaceAll(/[^A-Z]+/g, '_')
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

/** The answer of a path that holds no state. */
function outcomeOf(asked: Asked, body: string): Outcome {
  const { question, segments, kind, last } = asked
  const { method, path, query, route } = question
  const v1 = isV1(path)
  if (route.class === 'webhook' && !v1) return { data: { eventCorrelationId: randomUUID() } }
  if (method === 'DELETE') {
    const data = v1 ? shown(path, kind, fieldsOf(last)) : true
    return { data, isSilent: /\/(?:input-sets|triggers)\/[^/]+$/.test(path) }
  }
  if (method === 'POST' && segments.includes('execute')) return { data: started(v1, randomUUID()) }
  if (!route.charges.includes('read')) return { data: changed(asked, body), isNew: method === 'POST' }
  if (!isList(method, segments)) return { data: shownAlone(path, kind, { fields: fieldsOf(last), ...SEEDED }) }
  const all = Array.from({ length: SEED_COUNT }, (_, index) => shown(path, kind, fieldsOf(`${kind}_${index + 1}`)))
  return { page: pageOf(all, query, v1) }
}

/** A POST that reads lists. A GET does if its path ends with the name of many things and that is not itself an id. */
function isList(method: string, segments: readonly string[]): boolean {
  const [last = '', previous = ''] = segments.toReversed()
  return method === 'POST' || words(last).includes('list') || (isPlural(last) && !isPlural(previous))
}

/** What was sent, as if it had been stored; null for a body that is no entity. */
function changed({ question: { method, path }, kind, last }: Asked, body: string): object | null {
  const fields = sentFields(body, kind, method === 'POST' ? `${kind}_1` : last)
  return fields && shown(path, kind, fields)
}
