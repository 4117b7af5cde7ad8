import { Turn } from '../observe/turn.ts'
import type { EpochMs } from '../time/clock.ts'
import type { ClientUse } from '../usage/recent-use.ts'
import type { Wanted } from './history.ts'
import { isTrouble, type Lately, type LatelyRow } from './lately.ts'
import { isObject } from '../schema/json.ts'
import { EVERY_CALL } from '../schema/limits.ts'
import { type RequestRecord, type RequestRow, type RequestStory, rowOf, storyOf } from './story.ts'

/**
 * How the calls of the last five minutes ended. An instance of an older release takes it for a list, and answers with one of no calls.
 */
export const LATELY = { kind: 'lately', filter: { until: 0 }, most: 0 } as const

/** Whether another instance, of whatever release, asks what this one can answer. */
export function isQuestion(value: unknown): value is RequestQuestion {
  if (!isObject(value)) return false
  const { kind, id, filter } = value
  return (
    kind === 'usage' ||
    kind === 'lately' ||
    (kind === 'find' && typeof id === 'string') ||
    (kind === 'list' && isObject(filter))
  )
}

/** What is asked of all instances. It goes to other processes as JSON. */
export type RequestQuestion =
  /** What clients have used of limits lately. */
  | { readonly kind: 'usage' }
  | typeof LATELY
  /** All that is known of the calls with this correlation id, which its client may have used for several. */
  | { readonly kind: 'find'; readonly id: string }
  | { readonly kind: 'list'; readonly filter: RequestFilter; readonly most: number }

export interface RequestFilter {
  /** Here and below `unknown` is also what a call has none of, as metrics say it. */
  readonly client?: string
  readonly upstream?: string
  /** The name of an account, or with its upstream: `harness/prod`. */
  readonly account?: string
  /** Its own, or one that its route charges, too. */
  readonly class?: string
  /** Such as `429`, `4xx` or `none`. */
  readonly status?: string
  readonly outcome?: string
  /** Only those that ended so that somebody should look. */
  readonly isTrouble?: true
  /** When it ended, in milliseconds since 1970: not before the one, and before the other. */
  readonly since?: number
  readonly until?: number
  /** Any text, in any case, of what a list shows of it. */
  readonly search?: string
}

/** What some processes know, and which others did not answer. */
export interface RequestAnswers<Found = RequestRow | RequestStory | ClientUse | LatelyRow> {
  readonly found: readonly Found[]
  readonly away: readonly AwayInstance[]
}

/** An instance, or a worker of one, that did not answer. What it knows is missing. */
export interface AwayInstance {
  readonly instance: string
  readonly why: string
}

/** What is said of it beside the answers of others. */
export function noAnswerOf({ instance, why }: AwayInstance): string {
  return `no answer from ${instance} (${why}): what it knows is missing here`
}

/** How many calls with the same id are told at most. */
export const MOST_STORIES = 100

/** What one process knows. `records` gives its calls, the newest first, or those that are wanted. Delays no calls. */
export async function answerHere(
  question: Exclude<RequestQuestion, { kind: 'usage' }>,
  {
    records,
    lately,
    now,
    instance,
  }: { records: (wanted: Wanted) => Iterable<RequestRecord>; lately: Lately; now: EpochMs; instance: string },
): Promise<(RequestRow | RequestStory | LatelyRow)[]> {
  if (question.kind === 'lately') return lately.rows(now)
  const turn = new Turn()
  const found: (RequestRow | RequestStory)[] = []
  const isOne = question.kind === 'find'
  const most = isOne ? MOST_STORIES : question.most
  const matches = isOne ? () => true : matcherOf(question.filter)
  for (const record of records(isOne ? { id: question.id } : { isTrouble: question.filter.isTrouble })) {
    if (matches(record)) found.push(isOne ? storyOf(record, instance) : rowOf(record, instance))
    if (found.length >= most) break
    await turn.endIfOver()
  }
  return found
}

/** What several know is one list, the newest first, of no more than was asked for. */
export function mergeAnswers(answers: readonly RequestAnswers[], question: RequestQuestion): RequestAnswers {
  const away = answers.flatMap((answer) => answer.away)
  // Whoever asked adds up what processes know of the same.
  if (question.kind === 'usage' || question.kind === 'lately')
    return { found: answers.flatMap(({ found }) => found), away }
  const most = question.kind === 'find' ? MOST_STORIES : question.most
  const found = answers.flatMap((answer) => answer.found as (RequestRow | RequestStory)[])
  found.sort((a, b) => (a.time < b.time ? 1 : a.time > b.time ? -1 : 0))
  return { found: found.slice(0, most), away }
}

/** What metrics call the account, class and so on of a call that was refused before it had one. */
const NONE = 'unknown'

type Matcher = (record: RequestRecord) => boolean

function matcherOf({ status, search, ...filter }: RequestFilter): Matcher {
  const hundred = status?.endsWith('xx') === true ? status[0] : undefined
  const text = search?.toLowerCase()
  return (record) => {
    const { line, at } = record
    if (filter.since !== undefined && at < filter.since) return false
    if (filter.until !== undefined && at >= filter.until) return false
    const { client = NONE, upstream = NONE, account = NONE } = line
    if (filter.client !== undefined && client !== filter.client) return false
    if (filter.upstream !== undefined && upstream !== filter.upstream) return false
    if (filter.class !== undefined && !isOfClass(record, filter.class)) return false
    if (filter.outcome !== undefined && line.outcome !== filter.outcome) return false
    if (filter.isTrouble === true && (record.isRunning || !isTrouble(line))) return false
    if (filter.account !== undefined && filter.account !== account && filter.account !== `${upstream}/${account}`)
      return false
    if (hundred !== undefined ? line.status[0] !== hundred : status !== undefined && line.status !== status)
      return false
    return text === undefined || JSON.stringify(rowOf(record, '')).toLowerCase().includes(text)
  }
}

/** Units are charged to classes that are not the call's own, too: whoever asks who spent them means these calls. */
function isOfClass({ line, route }: RequestRecord, name: string): boolean {
  if (line.class === undefined) return name === NONE
  return line.class === name || name === EVERY_CALL || route?.charges.includes(name) === true
}
