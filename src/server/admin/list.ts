import type { FastifyInstance } from 'fastify'
import { TimeSlice } from '../../observe/time-slice.ts'
import { searchFor } from '../../schema/search.ts'
import { parseDuration, parseMoment } from '../../schema/units.ts'
import type { Clock } from '../../time/clock.ts'
import { invalid, notFound } from './problem.ts'

const USUAL_LIMIT = 100
const LARGEST_LIMIT = 1_000

export interface Page {
  readonly limit: number
  readonly offset: number
}

export interface ListQuery extends Page {
  readonly search: string | undefined
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether the route reads its query, and refuses what it does not know. */
    takesQuery?: true
  }
}

export const TAKES_QUERY = { config: { takesQuery: true } } as const

/** Refuses any parameter in the query of a route that takes none, since it would silently do nothing. */
export function refuseQueries(api: FastifyInstance): void {
  api.addHook('preHandler', async ({ query, routeOptions, is404 }) => {
    if (!is404 && routeOptions.config.takesQuery !== true) refuseOthers(query as Query, [])
  })
}

type Query = Readonly<Record<string, unknown>>

/** The query parameters of a list. Any other parameter is an error, since it would silently do nothing. */
export function readListQuery(query: unknown, others: readonly string[] = []): ListQuery {
  const given = query as Query
  refuseOthers(given, ['search', 'limit', 'offset', ...others])
  return {
    search: readTexts(given, ['search']).search,
    limit: readNumber(given, 'limit', USUAL_LIMIT, 1, LARGEST_LIMIT),
    offset: readNumber(given, 'offset', 0, 0, Number.MAX_SAFE_INTEGER),
  }
}

/** Throws if a query has a parameter that is not one of these. */
export function refuseOthers(query: Query, known: readonly string[]): void {
  for (const name of Object.keys(query)) {
    if (!known.includes(name))
      throw invalid(
        `unknown query parameter "${name.slice(0, 64)}"; ${known.length === 0 ? 'this request takes none' : `known are ${known.join(', ')}`}`,
      )
  }
}

/** The parameters of these names that are given. One that is empty is an error. */
export function readTexts<Name extends string>(query: Query, names: readonly Name[]): Partial<Record<Name, string>> {
  const texts: Partial<Record<Name, string>> = {}
  for (const name of names) {
    const text = textOf(query, name)
    if (text === '') throw invalid(`${name} must not be empty`)
    if (text !== undefined) texts[name] = text
  }
  return texts
}

/** The value of a query parameter. A parameter that is given twice is an error. */
export function textOf(query: Query, name: string): string | undefined {
  const value = query[name]
  if (value !== undefined && typeof value !== 'string') throw invalid(`the query parameter ${name} is given twice`)
  return value
}

const TIME =
  /^(\d{4}-\d{2}-\d{2})(?:([T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)(Z|[+\- ]\d{2}:?\d{2})?|(Z|[+-]\d{2}:?\d{2}))?$/

/**
 * Reads a time as ISO 8601 writes it, in UTC unless it says otherwise. In a query a `+` that is not escaped stands for a blank, so a blank
 * stands for it here. `orElse` names the other forms that are allowed, for the error.
 */
export function timeOf(name: string, text: string, orElse = ''): string {
  const [, day, time = 'T00:00', zoneOfTime, zone = zoneOfTime ?? 'Z'] = TIME.exec(text) ?? []
  const ms = Date.parse(`${day}${time.replace(' ', 'T')}${zone.replace(' ', '+')}`)
  if (day === undefined || Number.isNaN(ms)) throw invalid(`${name} must be a time such as 2027-01-31T18:00Z${orElse}`)
  if (Number.isNaN(parseMoment(day))) throw invalid(`${name} must be a day that exists`)
  return new Date(ms).toISOString()
}

/** Reads a time, or a duration before now. Gives milliseconds since 1970. */
export function momentOf(name: string, text: string, clock: Clock): number {
  if (/^\d{1,4}d$/.test(text)) return clock.wall() - 86_400_000 * Number(text.slice(0, -1))
  if (/^\d{1,6}(ms|s|m|h)$/.test(text)) return clock.wall() - parseDuration(text)
  return Date.parse(timeOf(name, text, ', or a duration such as 15m'))
}

/** The field of a resource by which lists sort. */
export interface Listed {
  readonly name: string
}

/**
 * One page of the matching resources, in the order of their names. `search` may match any text or number of a resource, in any case. There
 * may be thousands of them, so other work goes on in between.
 */
export async function listOf<Item extends Listed>(
  items: Iterable<Item>,
  { search, limit, offset }: ListQuery,
): Promise<{ data: Item[] }> {
  const matches = search === undefined ? () => true : searchFor(search)
  const found: Item[] = []
  const slice = new TimeSlice()
  for (const item of items) {
    if (matches(item)) found.push(item)
    await slice.endIfOver()
  }
  found.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
  return { data: found.slice(offset, offset + limit) }
}

/** Finds a resource by its id, or else by its name. Rejects with a 404 that says that there is no such `sort` of thing. */
export async function oneOf<Item extends { id: string; name: string }>(
  items: Iterable<Item>,
  sort: string,
  id: string,
): Promise<Item> {
  let named: Item | undefined
  const slice = new TimeSlice()
  for (const item of items) {
    if (item.id === id) return item
    if (item.name === id) named ??= item
    await slice.endIfOver()
  }
  if (named === undefined) throw notFound(sort, id)
  return named
}

/** Whether a parameter is `true`; not unless it is given. */
export function readFlag(query: Query, name: string): boolean {
  const text = textOf(query, name) ?? 'false'
  if (text !== 'true' && text !== 'false') throw invalid(`${name} must be true or false`)
  return text === 'true'
}

function readNumber(query: Query, name: string, usual: number, least: number, most: number): number {
  const text = textOf(query, name)
  if (text === undefined) return usual
  const number = Number(text)
  if (!/^\d{1,16}$/.test(text) || number < least || number > most) {
    throw invalid(`${name} must be a whole number from ${least} to ${most}`)
  }
  return number
}
