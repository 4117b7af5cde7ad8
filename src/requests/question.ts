import { TimeSlice } from '../observe/time-slice.ts'
import type { EpochMs } from '../time/clock.ts'
import type { ClientUse } from '../usage/recent-use.ts'
import type { Wanted } from './history.ts'
import { isTrouble, type Lately, type LatelyRow } from './lately.ts'
import { isObject } from '../schema/json.ts'
import { searchFor } from '../schema/search.ts'
import { EVERY_CALL } from '../schema/limits.ts'
import { type RequestRecord, type RequestRow, type RequestStory, rowOf, storyOf } from './story.ts'

/**
 * Asks how the calls of the last five minutes ended. An instance of an older release takes the question for one of kind `list`.
 * `filter` and `most` make it answer with no calls.
 */
export const LATELY = { kind: 'lately', filter: { until: 0 }, most: 0 } as const

/** Whether `value`, from an instance of any release, is a question that this instance can answer. */
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

/** A question to all instances. It goes to other processes as JSON. */
export type RequestQuestion =
  /** What clients have used of limits lately. */
  | { readonly kind: 'usage' }
  | typeof LATELY
  /** All that is known of the calls with this correlation id. A client may have used one id for several calls. */
  | { readonly kind: 'find'; readonly id: string }
  | { readonly kind: 'list'; readonly filter: RequestFilter; readonly most: number }

export interface RequestFilter {
  /** For `client`, `upstream`, `account` and `class`, `unknown` finds calls for which none is known, as in metrics. */
  readonly client?: string
  readonly upstream?: string
  /** The name of an account, alone or with its upstream, as in `harness/prod`. */
  readonly account?: string
  /** The call's own class, or another that its route charges. `all` finds every call that has a class. */
  readonly class?: string
  /** Such as `429`, `4xx` or `none`. */
  readonly status?: string
  readonly outcome?: string
  /** Only calls that ended in trouble, as `isTrouble` in lately.ts says. */
  readonly isTrouble?: true
  /** Calls that ended at `since` or later, and before `until`. Both are in milliseconds since 1970. */
  readonly since?: number
  readonly until?: number
  /** A text or a number that a list shows of the call, in upper or lower case. */
  readonly search?: string
}

/** What the processes that answered know, and which processes did not answer. */
export interface RequestAnswers<Found = RequestRow | RequestStory | ClientUse | LatelyRow> {
  readonly found: readonly Found[]
  readonly away: readonly AwayInstance[]
  /** Since when all that answered count usage, in milliseconds since 1970. Older releases say it in the rows of clients alone. */
  readonly since?: number | undefined
}

/** An instance, or a worker of one, that did not answer. What it knows is missing. */
export interface AwayInstance {
  readonly instance: string
  readonly why: string
}

/** The note that goes with the answers of others if an instance did not answer. */
export function noAnswerOf({ instance, why }: AwayInstance): string {
  return `no answer from ${instance} (${why}): what it knows is missing here`
}

/** How many calls with the same id are returned at most. */
export const MOST_STORIES = 100

/**
 * Answers what this process knows. `records` gives the calls that are wanted, and undefined between those that are not; the first that
 * match are returned. It pauses often, so that it delays no calls.
 */
export async function answerHere(
  question: Exclude<RequestQuestion, { kind: 'usage' }>,
  {
    records,
    lately,
    now,
    instance,
  }: {
    records: (wanted: Wanted) => Iterable<RequestRecord | undefined>
    lately: Lately
    now: EpochMs
    instance: string
  },
): Promise<(RequestRow | RequestStory | LatelyRow)[]> {
  if (question.kind === 'lately') return lately.rows(now)
  const slice = new TimeSlice()
  const found: (RequestRow | RequestStory)[] = []
  const isOne = question.kind === 'find'
  const most = isOne ? MOST_STORIES : question.most
  const matches = isOne ? () => true : matcherOf(question.filter)
  for (const record of records(isOne ? { id: question.id } : { isTrouble: question.filter.isTrouble })) {
    if (record !== undefined && matches(record)) found.push(isOne ? storyOf(record, instance) : rowOf(record, instance))
    if (found.length >= most) break
    await slice.endIfOver()
  }
  return found
}

/** Joins the answers of several processes. Calls become one list, the newest first, of no more than was asked for. */
export function mergeAnswers(answers: readonly RequestAnswers[], question: RequestQuestion): RequestAnswers {
  const away = answers.flatMap((answer) => answer.away)
  const since = latestSince(answers)
  // The asker adds up the numbers of the processes.
  if (question.kind === 'usage' || question.kind === 'lately')
    return { found: answers.flatMap(({ found }) => found), away, since }
  const most = question.kind === 'find' ? MOST_STORIES : question.most
  const found = answers.flatMap((answer) => answer.found as (RequestRow | RequestStory)[])
  found.sort((a, b) => (a.time < b.time ? 1 : a.time > b.time ? -1 : 0))
  return { found: found.slice(0, most), away, since }
}

/** When the process that started last did; undefined if none says so. */
export function latestSince(answers: readonly RequestAnswers[]): number | undefined {
  const known = answers.flatMap(({ since }) => (typeof since === 'number' ? [since] : []))
  return known.length === 0 ? undefined : Math.max(...known)
}

/** The account, class and so on of a call that was refused before these were known, as metrics say it. */
const NONE = 'unknown'

type Matcher = (record: RequestRecord) => boolean

function matcherOf({ status, search, ...filter }: RequestFilter): Matcher {
  const hundred = status?.endsWith('xx') === true ? status[0] : undefined
  const isFound = search === undefined ? undefined : searchFor(search)
  return (record) => {
    const { line, at } = record
    if (filter.since !== undefined && at < filter.since) return false
    if (filter.until !== undefined && at >= filter.until) return false
    const { client = NONE, upstream = NONE, account = NONE } = line
    if (filter.client !== undefined && client !== filter.client) return false
    if (filter.upstream !== undefined && upstream !== filter.upstream) return false
    if (filter.class !== undefined && !isOfClass(record, filter.class)) return false
    if (filter.outcome !== undefined && line.outcome !== filter.outcome) return false
    if (filter.isTrouble === true && (record.isRunning === true || !isTrouble(line))) return false
    if (filter.account !== undefined && filter.account !== account && filter.account !== `${upstream}/${account}`)
      return false
    if (hundred !== undefined ? line.status[0] !== hundred : status !== undefined && line.status !== status)
      return false
    return isFound === undefined || isFound(rowOf(record, ''))
  }
}

/** A route may also charge classes that are not the call's own. Whoever asks who spent the units of a class means these calls too. */
function isOfClass({ line, route }: RequestRecord, name: string): boolean {
  if (line.class === undefined) return name === NONE
  return line.class === name || name === EVERY_CALL || route?.charges.includes(name) === true
}
