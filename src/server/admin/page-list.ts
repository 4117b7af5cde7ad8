import type { AwayInstance } from '../../requests/question.ts'
import { accountOf, type RequestRow } from '../../requests/story.ts'
import { countOf, measured } from '../../schema/units.ts'
import { type Html, html } from './html.ts'
import { awayNotes, cell, numberCell, page, row, table } from './page-parts.ts'

/** The calls that a list was asked for. */
export interface ListedCalls {
  readonly query: Readonly<Record<string, unknown>>
  readonly rows: readonly RequestRow[]
  /** There are older ones. */
  readonly hasMore: boolean
  /** It was asked for what metrics call `other`. */
  readonly isOfOthers: boolean
  readonly away: readonly AwayInstance[]
}

export function listPage(calls: ListedCalls, owner: string | undefined): string {
  const { query, rows, hasMore, isOfOthers, away } = calls
  const asked = Object.entries(query).map(([name, value]) => `${name} ${String(value)}`)
  return page(
    'Calls',
    undefined,
    html`<main>
      <p><a href="/">All that happens now</a></p>
      <h2>Calls: ${asked.join(', ')}</h2>
      ${isOfOthers && html`<p>In metrics “other” are all clients, or accounts, beyond metrics.maxClients and maxAccounts. Here are the calls of all of them.</p>`}
      ${callTable('Calls', rows, 'None is kept. Each gateway process keeps its latest calls only.')}
      ${hasMore && html`<p>These are the latest ${countOf(rows.length, 'call')}. <a href="/requests?${olderThan(calls)}">Older ones</a></p>`}
      ${awayNotes(away)}
    </main>`,
    owner,
  )
}

/** What ended within the same millisecond as the last call shown is shown again, so that none is left out. */
function olderThan({ query, rows }: ListedCalls): string {
  const { offset: _, ...rest } = query as Record<string, string>
  const [first, last] = [rows[0]!, rows.at(-1)!].map(({ time }) => Date.parse(time)) as [number, number]
  return new URLSearchParams({ ...rest, until: new Date(first === last ? last : last + 1).toISOString() }).toString()
}

const CALL_COLUMNS = ['Time (UTC)', 'Client', 'Account', 'Call', 'Status', 'Ended as', 'Took']

/** Calls, each with a link to its story. */
export function callTable(caption: string, calls: readonly RequestRow[], none: string): Html {
  return table(caption, CALL_COLUMNS, calls.map(callRow), none)
}

function callRow(call: RequestRow): Html {
  const time = html`<time datetime="${call.time}">${call.time.slice(0, 19).replace('T', ' ')}</time>`
  return row([
    cell(html`<a href="/requests/${encodeURIComponent(call.correlationId)}">${time}</a>`),
    cell(call.client ?? ''),
    cell(accountOf(call) ?? ''),
    html`<td class="path">${call.method ?? ''} ${call.path}</td>`,
    numberCell(call.status),
    cell(call.outcome),
    numberCell(measured(call.durationMs)),
  ])
}
