import type { Findings } from './causes.ts'
import type { UsageNow, ClientPart, UsedLimit } from './usage-view.ts'
import { roughly } from '../../schema/units.ts'
import { type Html, html, type Part } from './html.ts'
import { callTable } from './page-list.ts'
import { awayNotes, cell, numberCell, page, row, table } from './page-parts.ts'
import {
  type BreakerRow,
  type BudgetRow,
  type CredentialRow,
  fullnessOf,
  NOT_KNOWN,
  type QueueRow,
  type QuotaRow,
} from './status.ts'

/** What the live page shows. */
export interface PageState extends Findings {
  readonly usage: UsageNow
}

/** How often a page without scripts asks again. */
const REFRESH_S = 5

/** The whole live page. `owner` is undefined where nobody has to sign in. */
export function livePage(state: PageState, owner: string | undefined): string {
  const refresh = html`<noscript><meta http-equiv="refresh" content="${REFRESH_S}" /></noscript>`
  const live = html`<script src="/page-live.js" defer></script>`
  const search = html`<form class="search" action="/requests" role="search">
    <label for="id">Correlation id</label>
    <input id="id" name="id" required maxlength="128" autocomplete="off" spellcheck="false" />
    <button>Show the call</button>
  </form>`
  const body = html`${search}
    <main id="live" aria-live="off">${liveParts(state)}</main>`
  return page('Sluice', html`${refresh}${live}`, body, owner)
}

/** What changes while the page is open. */
export function liveParts({ causes, limits, usage, queue, breakers, credentials, failed, away }: PageState): Html {
  const fullest = limits?.toSorted((a, b) => fullnessOf(b) - fullnessOf(a)) ?? []
  const longest = queue.toSorted((a, b) => b.waiting - a.waiting)
  const openFirst = breakers.toSorted((a, b) => Number(b.state !== 'closed') - Number(a.state !== 'closed'))
  const worst = credentials.toSorted((a, b) => b.quarantined - a.quarantined || endOf(a) - endOf(b))
  return html`
    ${section('now', 'What is wrong now', [
      causes.length === 0 && html`<p class="well">Nothing. Calls are served.</p>`,
      html`<ul class="causes">
        ${causes.slice(0, MOST_ROWS).map(({ severity, what, todo }) => html`<li class="${severity}"><strong>${severity === 'failing' ? 'Failing' : 'Warning'}: ${what}</strong> ${todo}</li>`)}
      </ul>`,
      moreNote(causes.length - MOST_ROWS, 'the alerts'),
      awayNotes(away),
    ])}
    ${section('limits', 'Limits', [
      limits === undefined && html`<p>They can’t be read now.</p>`,
      noteOf(fullest),
      ...first(fullest, 'npx sluice quota', (rows) =>
        table('Limits', LIMIT_COLUMNS, rows.map(limitRow), 'No limits are configured.'),
      ),
    ])}
    ${section('spends', 'Who spends', spenders(usage))}
    ${section(
      'waits',
      'Who waits',
      first(longest, 'GET /v1/queue', (rows) =>
        table('Clients with waiting calls', QUEUE_COLUMNS, rows.map(queueRow), 'Nobody.'),
      ),
    )}
    ${section(
      'breakers',
      'Breakers',
      first(openFirst, 'GET /v1/breakers', (rows) =>
        table('Breakers', BREAKER_COLUMNS, rows.map(breakerRow), 'There are none.'),
      ),
    )}
    ${section(
      'credentials',
      'Credentials',
      first(worst, 'sluice_credential_expires_seconds', (rows) =>
        table('Credentials', CREDENTIAL_COLUMNS, rows.map(credentialRow), 'There are none.'),
      ),
    )}
    ${section('failed', 'Calls that failed lately', callTable('Calls that failed lately', failed, 'None in the last five minutes.'))}
  `
}

/** So many rows of what there may be any number of are shown. A page with all of them would take megabytes each second. */
const MOST_ROWS = 100

/** What is made of the first rows, and how many more there are and where. */
function first<Row>(rows: readonly Row[], where: string, show: (rows: readonly Row[]) => Html): Part[] {
  return [show(rows.slice(0, MOST_ROWS)), moreNote(rows.length - MOST_ROWS, where)]
}

function moreNote(more: number, where: string): Part {
  return more > 0 && html`<p class="none">… and ${more} more: see <code>${where}</code>.</p>`
}

/** Those of which it is not known come last. */
function endOf({ expiresInMs }: CredentialRow): number {
  return expiresInMs ?? Number.MAX_VALUE
}

function section(id: string, title: string, content: Part): Html {
  return html`<section aria-labelledby="${id}">
    <h2 id="${id}">${title}</h2>
    ${content}
  </section>`
}

const LIMIT_COLUMNS = ['Account', 'Class', 'Window', 'Used', '', 'More in', 'Ends in', 'Burn', 'Waiting']
const QUEUE_COLUMNS = ['Account', 'Class', 'Client', 'Calls', 'First in', 'Last in']
const BREAKER_COLUMNS = ['Upstream', 'State', 'Next probe in']
const CREDENTIAL_COLUMNS = ['Account', 'Credential', 'Expires in', 'Left out']

function queueRow({ upstream, account, class: kind, client, ...queued }: QueueRow): Html {
  const numbers = [queued.waiting, roughly(queued.nextInMs), roughly(queued.lastInMs)].map(numberCell)
  return row([cell(kind), cell(client), ...numbers], { head: `${upstream}/${account}` })
}

function breakerRow({ upstream, group, state, byHand, retryAfterMs }: BreakerRow): Html {
  const probe = retryAfterMs === undefined ? '' : roughly(retryAfterMs)
  const head = group === undefined ? upstream : `${upstream} (${group})`
  return row([cell([state, byHand && ', by hand']), numberCell(probe)], { head, isFailing: state !== 'closed' })
}

function credentialRow({ upstream, account, credential, expiresInMs, quarantined }: CredentialRow): Html {
  const expires = expiresInMs === null ? 'not known' : expiresInMs <= 0 ? 'expired' : roughly(expiresInMs)
  return row([cell(credential ?? ''), numberCell(expires), numberCell(quarantined)], {
    head: `${upstream}/${account}`,
  })
}

function noteOf(rows: readonly Pick<QuotaRow, 'isLocal'>[]): Part {
  return rows.some(({ isLocal }) => isLocal) && html`<p>${NOT_KNOWN}</p>`
}

function limitRow(limit: QuotaRow): Html {
  const { effective, used, exhaustionInMs, burnRatio, isLocal } = limit
  const of = effective < limit.limit ? `${effective} (of ${limit.limit})` : `${limit.limit}`
  const fullness = fullnessOf(limit)
  const meter =
    isLocal === true
      ? cell('')
      : html`<td>
          <meter min="0" max="1" low="0.7" high="0.9" optimum="0" value="${Math.min(fullness, 1)}">
            ${Math.round(100 * fullness)} %
          </meter>
        </td>`
  const numbers = [
    isLocal === true || used === 0 ? '' : roughly(limit.resetMs),
    exhaustionInMs === null ? '' : exhaustionInMs === 0 ? 'used up' : roughly(exhaustionInMs),
    burnRatio === null ? '' : burnRatio.toFixed(1),
    limit.waiting,
  ]
  return row(
    [
      cell(limit.class),
      cell(limit.window),
      numberCell(`${isLocal === true ? '?' : used} of ${of}`),
      meter,
      ...numbers.map(numberCell),
    ],
    { head: `${limit.upstream}/${limit.account}`, isFailing: fullness >= 1 },
  )
}

/** Where one signs in, to go on to `next`. `problem` is why that failed. */
export function signInPage(problem: string | undefined, next: string): string {
  return page(
    'Sign in to Sluice',
    undefined,
    html`<main class="sign-in">
      <h2>Sign in</h2>
      ${problem !== undefined && html`<p class="failing" role="alert">${problem}</p>`}
      <form method="post" action="/sign-in">
        <input name="next" type="hidden" value="${next}" />
        <label for="token">Admin token</label>
        <input id="token" name="token" type="password" required autocomplete="current-password" autofocus />
        <button>Sign in</button>
      </form>
      <p>It is <code>admin.token</code>, or yours of <code>admin.tokens</code>.</p>
    </main>`,
    undefined,
  )
}

/** So many clients and limits are shown: whoever used most of the fullest limits. */
const MOST_SHOWN = 20
const CLIENT_COLUMNS = ['Account', 'Class', 'Window', 'Client', 'Used', 'Due', 'Last hour', 'Last day']
const BUDGET_COLUMNS = ['Whose', 'Window', 'Used', 'Left', 'More in']

/** Who uses which limit, and what is left of budgets. */
function spenders({ limits, budgets = [] }: UsageNow): Part {
  const rows: Html[] = []
  for (const limit of limits) {
    for (const client of limit.clients.slice(0, MOST_SHOWN - rows.length)) rows.push(clientRow(limit, client))
  }
  const emptiest = budgets.toSorted((a, b) => leftOf(a) - leftOf(b))
  return [
    table('Clients by limit', CLIENT_COLUMNS, rows, 'Nobody has, within a day.'),
    budgets.length > 0 && [
      html`<h3>Budgets</h3>`,
      noteOf(budgets),
      table('Budgets', BUDGET_COLUMNS, emptiest.slice(0, MOST_SHOWN).map(budgetRow), ''),
    ],
  ]
}

function clientRow({ upstream, account, class: kind, window, effective }: UsedLimit, part: ClientPart): Html {
  const used = effective === null ? part.used : `${part.used} of ${effective}`
  const numbers = [used, part.dueUnits ?? '', part.hour, part.day].map(numberCell)
  return row([kind, window, part.client].map(cell).concat(numbers), { head: `${upstream}/${account}` })
}

/** The part of a budget that is left. What nobody knows comes last. */
function leftOf({ remaining, limit, isLocal }: BudgetRow): number {
  return isLocal === true ? Infinity : remaining / limit
}

function budgetRow({ level, name, window, limit, used, remaining, resetMs, isLocal }: BudgetRow): Html {
  const known = [`${used} of ${limit}`, remaining, used === 0 ? '' : roughly(resetMs)]
  const head = level === 'client' ? name : `${level} ${name}`
  const numbers = (isLocal === true ? [`? of ${limit}`, '?', ''] : known).map(numberCell)
  return row([cell(window), ...numbers], { head, isFailing: isLocal !== true && remaining === 0 })
}
