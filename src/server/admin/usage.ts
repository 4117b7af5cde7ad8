import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { membershipsOf } from '../../clients/membership.ts'
import type { Logger } from '../../observe/log.ts'
import { TimeSlice } from '../../observe/time-slice.ts'
import { UNITS_OF_MONEY } from '../../schema/price-schema.ts'
import { searchFor } from '../../schema/search.ts'
import { DAY_MS, type DayRow, KEPT_DAYS, nextDay } from '../../usage/day-row.ts'
import { momentOf, readListQuery, readTexts, refuseOthers, TAKES_QUERY, textOf } from './list.ts'
import type { AdminParts } from './management.ts'
import { invalid, storeUnavailable } from './problem.ts'
import type { BudgetRow } from './status.ts'
import { type UsedLimit, usageNow } from './usage-view.ts'

const NAMES = ['client', 'upstream', 'account', 'class'] as const
const DAY_NAMES = [...NAMES, 'team', 'organisation'] as const

type Wanted = Partial<Record<(typeof DAY_NAMES)[number], string>>
type Row = Pick<DayRow, 'upstream' | 'account' | 'class'> & Partial<Pick<DayRow, 'client' | 'team' | 'organisation'>>

/** `/v1/usage`: who uses which limit now, and within the last hour and day; `/v1/usage/days`: by the day, for charge-back. */
export function usageRoutes(api: FastifyInstance, parts: AdminParts): void {
  const { clock, usage, clients, config, logger } = parts.management
  api.get('/usage', TAKES_QUERY, async ({ query }) => {
    const { search, limit, offset } = readListQuery(query, NAMES)
    const { client, ...wanted } = readTexts(query as Record<string, unknown>, DAY_NAMES)
    const { limits, budgets, away, since } = await usageNow(parts)
    const membershipOf = membershipsOf(config(), clients)
    const has = search === undefined ? () => true : searchFor(search)
    const isOver = ({ level, name }: BudgetRow, of: string): boolean =>
      name === (level === 'client' ? of : membershipOf(of)[level])
    const found: UsedLimit[] = []
    for (const row of limits) {
      if (!isWanted(row, wanted)) continue
      const spenders = client === undefined ? row.clients : row.clients.filter((one) => one.client === client)
      const shown = { ...row, clients: spenders }
      if (has(shown) && (client === undefined || spenders.length > 0)) found.push(shown)
    }
    return {
      data: found.slice(offset, offset + limit),
      budgets: budgets?.filter((row) => has(row) && (client === undefined || isOver(row, client))) ?? null,
      since: since === undefined ? null : new Date(since).toISOString(),
      away,
    }
  })
  api.get('/usage/days', TAKES_QUERY, (request, reply) => {
    const query = request.query as Record<string, unknown>
    refuseOthers(query, [...DAY_NAMES, 'since', 'until'])
    const untilText = textOf(query, 'until') ?? '0s'
    const until = momentOf('until', untilText, clock)
    const since = momentOf('since', textOf(query, 'since') ?? untilText, clock)
    const [first, last, oldest] = [since, until, clock.wall() - KEPT_DAYS * DAY_MS].map(nextDay) as [
      number,
      number,
      number,
    ]
    if (last < oldest) throw invalid(`usage is kept for ${KEPT_DAYS} days: the day of until is before that`)
    if (last < first) throw invalid('the day of until must not be before the day of since')
    const wanted = readTexts(query, DAY_NAMES)
    return daysText(usage.read(since, until), wanted, logger).then((text) =>
      reply.type('application/json').send(Readable.from(text)),
    )
  })
}

/**
 * The answer, in pieces: all days together may be large. Delays no calls. A failed read is an error, never an empty list: a 503 unless
 * rows were sent before.
 */
async function daysText(
  read: AsyncIterable<readonly DayRow[]>,
  wanted: Wanted,
  logger: Logger,
): Promise<AsyncIterable<string>> {
  const days = read[Symbol.asyncIterator]()
  let isBegun = false
  const next = (): Promise<IteratorResult<readonly DayRow[]>> =>
    days.next().catch((error: Error) => {
      // It can only be cut off then, which says nothing of why.
      if (isBegun) logger.error({ err: error }, 'an export of usage was cut off: a day can’t be read')
      throw storeUnavailable(`usage can’t be read now: ${error.message}`)
    })
  const first = await next()
  const slice = new TimeSlice()
  return (async function* () {
    let text = ''
    for (let day = first; day.done !== true; day = await next()) {
      for (const row of day.value) {
        if (isWanted(row, wanted)) text += `${isBegun || text !== '' ? ',' : '{"data":['}${shownOf(row)}`
        if (text !== '' && slice.isEnough(text)) {
          yield text
          isBegun = true
          text = ''
        }
        await slice.endIfOver()
      }
    }
    yield isBegun || text !== '' ? `${text}]}` : '{"data":[]}'
  })()
}

function shownOf(day: DayRow): string {
  const { waitMs, spent, unit = null, team = null, organisation = null, ...row } = day
  const money = { spent: spent / UNITS_OF_MONEY, unit }
  return JSON.stringify({ ...row, waitSeconds: waitMs / 1_000, ...money, team, organisation })
}

/** The query may name an account alone, or with its upstream: `harness/prod`. */
function isWanted(row: Row, { account, ...wanted }: Wanted): boolean {
  if (account !== undefined && row.account !== account && `${row.upstream}/${row.account}` !== account) return false
  return Object.entries(wanted).every(([name, text]) => row[name as keyof Wanted] === text)
}
