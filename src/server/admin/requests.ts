import type { FastifyInstance } from 'fastify'
import type { AllRequests } from '../../requests/peers.ts'
import { type AwayInstance, noAnswerOf, type RequestFilter } from '../../requests/question.ts'
import { isRequestId } from '../../http/request-id.ts'
import type { Clock } from '../../time/clock.ts'
import { momentOf, readListQuery, readTexts, TAKES_QUERY, textOf } from './list.ts'
import { AdminProblem, invalid } from './problem.ts'

const TEXTS = ['client', 'upstream', 'account', 'class', 'outcome'] as const
const FILTERS = [...TEXTS, 'status', 'since', 'until']
/** How many calls each instance sends over Redis at once. */
const MOST_LISTED = 1_000

/** Serves `/v1/requests`, the latest calls of all instances, and `/v1/requests/{correlationId}`, the whole story of one. */
export function requestRoutes(
  api: FastifyInstance,
  { requests, clock }: { requests: Pick<AllRequests, 'ask'>; clock: Clock },
): void {
  api.get('/requests', TAKES_QUERY, async ({ query }) => {
    const { filter, most, offset } = readRequestList(query as Record<string, unknown>, clock)
    const { found, away } = await requests.ask({ kind: 'list', filter, most })
    return { data: found.slice(offset), away }
  })
  api.get<{ Params: { id: string } }>('/requests/:id', async ({ params: { id } }) => {
    if (!isRequestId(id)) throw invalid('a correlation id is 1 to 128 visible ASCII characters, and neither . nor ..')
    const { found, away } = await requests.ask({ kind: 'find', id })
    if (found.length === 0) throw unknownRequest(id, away)
    return { data: found, away }
  })
}

/** Reads the query of a list of requests. It asks for `most` calls, of which the first `offset` belong to earlier pages. */
export function readRequestList(
  query: Record<string, unknown>,
  clock: Clock,
): { filter: RequestFilter; most: number; offset: number } {
  const { search, limit, offset } = readListQuery(query, FILTERS)
  const most = offset + limit
  if (most > MOST_LISTED)
    throw invalid(`offset and limit together must be at most ${MOST_LISTED}: ask for older calls with until`)
  return { filter: readFilter(query, clock, search), most, offset }
}

/** Names the instances that did not answer. Otherwise an id might seem wrong only because its instance is away. */
function unknownRequest(id: string, away: readonly AwayInstance[]): AdminProblem {
  const kept =
    'each gateway process keeps its latest calls only (requests.keep, requests.maxBytes): the log may have it'
  const missing = away.map((one) => `; ${noAnswerOf(one)}`).join('')
  return new AdminProblem(404, 'NOT_FOUND', `no call with the correlation id "${id}" is known; ${kept}${missing}`)
}

function readFilter(query: Record<string, unknown>, clock: Clock, search: string | undefined): RequestFilter {
  const filter: { -readonly [Key in keyof RequestFilter]: RequestFilter[Key] } = readTexts(query, TEXTS)
  if (search !== undefined) filter.search = search
  const status = textOf(query, 'status')
  if (status !== undefined && !/^([1-5]\d\d|[1-5]xx|none)$/.test(status))
    throw invalid('status must be a status such as 429, a range such as 5xx, or none')
  if (status !== undefined) filter.status = status
  for (const name of ['since', 'until'] as const) {
    const text = textOf(query, name)
    if (text !== undefined) filter[name] = momentOf(name, text, clock)
  }
  return filter
}
