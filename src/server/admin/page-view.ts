import type { AwayInstance } from '../../requests/question.ts'
import {
  accountOf,
  type LimitState,
  type RequestRow,
  type RequestStory,
  type TryStory,
  type WaitStory,
} from '../../requests/story.ts'
import { type Html, html } from './html.ts'
import { capital, duration, type PageState } from './page-state.ts'
import type { QuotaRow } from './status.ts'

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
export function liveParts({ causes, limits, queue, breakers, credentials, failed, away }: PageState): Html {
  return html`
    <section aria-labelledby="now">
      <h2 id="now">What is wrong now</h2>
      ${causes.length === 0 && html`<p class="well">Nothing. Calls are served.</p>`}
      <ul class="causes">
        ${causes.map(({ severity, what, todo }) => html`<li class="${severity}"><strong>${severity === 'failing' ? 'Failing' : 'Warning'}: ${what}</strong> ${todo}</li>`)}
      </ul>
      ${away.map(({ instance, why }) => html`<p class="away">Not heard of: ${instance}. ${why}.</p>`)}
    </section>
    <section aria-labelledby="limits">
      <h2 id="limits">Limits</h2>
      ${limits === undefined && html`<p>The quota store does not answer.</p>`}
      ${table('Limits', ['Account', 'Class', 'Window', 'Used', '', 'More in', 'Ends in', 'Burn', 'Waiting'], [...(limits ?? [])].sort(fullestFirst).map(limitRow), 'No limits are configured.')}
    </section>
    <section aria-labelledby="waits">
      <h2 id="waits">Who waits</h2>
      ${table(
        'Clients with waiting calls',
        ['Account', 'Class', 'Client', 'Calls', 'First in', 'Last in'],
        queue.map(
          (row) =>
            html`<tr>
              <th scope="row">${row.upstream}/${row.account}</th>
              <td>${row.class}</td>
              <td>${row.client}</td>
              <td class="number">${row.waiting}</td>
              <td class="number">${duration(row.nextInMs)}</td>
              <td class="number">${duration(row.lastInMs)}</td>
            </tr>`,
        ),
        'Nobody.',
      )}
    </section>
    <section aria-labelledby="breakers">
      <h2 id="breakers">Breakers</h2>
      ${table(
        'Breakers',
        ['Upstream', 'State', 'Next probe in'],
        breakers.map(
          ({ upstream, group, state, byHand, retryAfterMs }) =>
            html`<tr class="${state === 'closed' ? '' : 'failing'}">
              <th scope="row">${upstream}${group === undefined ? '' : ` (${group})`}</th>
              <td>${state}${byHand && ', by hand'}</td>
              <td class="number">${retryAfterMs === undefined ? '' : duration(retryAfterMs)}</td>
            </tr>`,
        ),
        'There are none.',
      )}
    </section>
    <section aria-labelledby="credentials">
      <h2 id="credentials">Credentials</h2>
      ${table(
        'Credentials',
        ['Account', 'Credential', 'Expires in', 'Left out'],
        credentials.map(
          ({ upstream, account, credential, expiresInMs, quarantined }) =>
            html`<tr>
              <th scope="row">${upstream}/${account}</th>
              <td>${credential ?? ''}</td>
              <td class="number">
                ${expiresInMs === null ? 'not known' : expiresInMs <= 0 ? 'expired' : duration(expiresInMs)}
              </td>
              <td class="number">${quarantined}</td>
            </tr>`,
        ),
        'There are none.',
      )}
    </section>
    <section aria-labelledby="failed">
      <h2 id="failed">Calls that failed lately</h2>
      ${table('Calls that failed lately', CALL_COLUMNS, failed.map(callRow), 'None in the last five minutes.')}
    </section>
  `
}

const CALL_COLUMNS = ['Time', 'Client', 'Account', 'Call', 'Status', 'Ended as', 'Took']

function fullestFirst(a: QuotaRow, b: QuotaRow): number {
  return b.used / Math.max(1, b.effective) - a.used / Math.max(1, a.effective)
}

function limitRow({
  upstream,
  account,
  class: kind,
  window,
  limit,
  effective,
  used,
  resetMs,
  exhaustionInMs,
  burnRatio,
  waiting,
}: QuotaRow): Html {
  const of = effective < limit ? `${effective} (of ${limit})` : `${limit}`
  const max = Math.max(1, effective)
  return html`<tr class="${used >= effective ? 'failing' : ''}">
    <th scope="row">${upstream}/${account}</th>
    <td>${kind}</td>
    <td>${window}</td>
    <td class="number">${used} of ${of}</td>
    <td>
      <meter min="0" max="${max}" low="${max * 0.7}" high="${max * 0.9}" optimum="0" value="${Math.min(used, max)}">
        ${Math.round((100 * used) / max)} %
      </meter>
    </td>
    <td class="number">${used === 0 ? '' : duration(resetMs)}</td>
    <td class="number">
      ${exhaustionInMs === null ? '' : exhaustionInMs === 0 ? 'used up' : duration(exhaustionInMs)}
    </td>
    <td class="number">${burnRatio === null ? '' : burnRatio.toFixed(1)}</td>
    <td class="number">${waiting}</td>
  </tr>`
}

function callRow({
  correlationId,
  time,
  client,
  upstream,
  account,
  method,
  path,
  status,
  outcome,
  durationMs,
}: RequestRow): Html {
  return html`<tr>
    <td>
      <a href="/requests/${encodeURIComponent(correlationId)}"><time datetime="${time}">${time.slice(11, 19)}</time></a>
    </td>
    <td>${client ?? ''}</td>
    <td>${accountOf({ upstream, account }) ?? ''}</td>
    <td class="path">${method ?? ''} ${path}</td>
    <td class="number">${status}</td>
    <td>${outcome}</td>
    <td class="number">${duration(durationMs)}</td>
  </tr>`
}

/** The calls that a list was asked for. */
export function listPage(
  query: Readonly<Record<string, unknown>>,
  rows: readonly RequestRow[],
  away: readonly AwayInstance[],
  owner: string | undefined,
): string {
  const asked = Object.entries(query).map(([name, value]) => `${name} ${String(value)}`)
  return page(
    'Calls',
    undefined,
    html`<main>
      <p><a href="/">All that happens now</a></p>
      <h2>Calls: ${asked.join(', ')}</h2>
      ${table('Calls', CALL_COLUMNS, rows.map(callRow), 'None is kept. Each gateway process keeps its latest calls only.')}
      ${away.map(({ instance, why }) => html`<p class="away">Not heard of: ${instance}. ${why}.</p>`)}
    </main>`,
    owner,
  )
}

/** The stories of the calls with one correlation id. */
export function storyPage(
  id: string,
  stories: readonly RequestStory[],
  away: readonly AwayInstance[],
  owner: string | undefined,
): string {
  const none = html`<p>
    No call with this correlation id is known. Each gateway process keeps its latest calls only: the log may have it.
  </p>`
  return page(
    `Call ${id}`,
    undefined,
    html`<main>
      <p><a href="/">All that happens now</a></p>
      <h2>Call ${id}</h2>
      ${stories.length === 0 && none} ${stories.map(storyPart)}
      ${away.map(({ instance, why }) => html`<p class="away">Not heard of: ${instance}. ${why}.</p>`)}
    </main>`,
    owner,
  )
}

function storyPart(story: RequestStory): Html {
  const { refusal, breaker, cache, route, asked } = story
  const facts: [string, string | number | null | undefined][] = [
    ['Ended as', story.reason === null || refusal !== null ? story.outcome : `${story.outcome}, ${story.reason}`],
    ['Status', story.status],
    ['Came at', story.cameAt],
    [
      'Took',
      `${duration(story.durationMs)}: waited ${duration(story.waitMs)}, upstream ${duration(story.upstreamMs)}, between attempts ${duration(story.backoffMs)}, gateway ${duration(story.gatewayMs)}`,
    ],
    ['Client', story.client],
    ['Address', story.address],
    ['Call', `${story.method ?? ''} ${story.path}`],
    ['Account', accountOf(story)],
    ['Class', story.class],
    ['Route', route && `${route.line}; a retry is ${route.retry}`],
    ['Charged to', route?.charges.join(', ')],
    [
      'Asked for',
      asked &&
        `to wait at most ${duration(asked.maxWaitMs)}, priority ${asked.priority}, retry ${asked.retry ? 'on' : 'off'}`,
    ],
    ['Held back by', story.heldBy],
    ['Cache', cache && [cache.result, cache.status].filter((text) => text !== null).join(': ')],
    [
      'Breaker',
      breaker && (breaker.openedBy === null ? breaker.state : `${breaker.state}: ${breaker.openedBy.because}`),
    ],
    ['Served by', story.instance],
  ]
  return html`<article>
    ${refusal !== null && html`<p class="failing"><strong>${refusal.kind}: ${refusal.message}.</strong> ${capital(refusal.whatToDo)}.</p>`}
    <dl>
      ${facts
        .filter(([, value]) => value !== null && value !== undefined && value !== '')
        .map(
          ([name, value]) =>
            html`<div>
              <dt>${name}</dt>
              <dd>${value ?? ''}</dd>
            </div>`,
        )}
    </dl>
    ${
      story.waits.length > 0 &&
      html`<h3>Waits</h3>
        ${table('Waits', ['Before attempt', 'Because', 'Held by', 'Place', 'Promised', 'Waited', 'Ended', 'Served before it'], story.waits.map(waitRow), '')}`
    }
    <h3>Attempts</h3>
    ${table('Attempts', ['Attempt', 'Sent after', 'Delay', 'Status', 'Took', 'Credential', 'Vendor’s id'], story.tries.map(tryRow), 'It was not sent.')}
    ${
      story.limits.length > 0 &&
      html`<h3>Limits, as they were then</h3>
        ${table('Limits then', ['Limit', 'Used', 'Of', 'Units of this call', 'More in'], story.limits.map(limitStateRow), '')}`
    }
  </article>`
}

function waitRow({
  beforeAttempt,
  because,
  heldBy,
  place,
  promisedMs,
  waitedMs,
  ended,
  servedBefore,
}: WaitStory): Html {
  const served =
    servedBefore === null
      ? ''
      : Object.entries(servedBefore.byClient)
          .map(([client, calls]) => `${client} ${calls}`)
          .join(', ')
  return html`<tr>
    <td class="number">${beforeAttempt}</td>
    <td>${because}</td>
    <td>${heldBy ?? ''}</td>
    <td class="number">${place}</td>
    <td class="number">${duration(promisedMs)}</td>
    <td class="number">${duration(waitedMs)}</td>
    <td>${ended}</td>
    <td>${served}</td>
  </tr>`
}

function tryRow({
  number,
  startedMs,
  delayMs,
  status,
  error,
  ms,
  credential,
  credentialVersion,
  requestId,
}: TryStory): Html {
  const version = credentialVersion === null ? '' : ` (version ${credentialVersion})`
  return html`<tr>
    <td class="number">${number}</td>
    <td class="number">${duration(startedMs)}</td>
    <td class="number">${duration(delayMs)}</td>
    <td>${status ?? error ?? ''}</td>
    <td class="number">${duration(ms)}</td>
    <td>${credential ?? ''}${version}</td>
    <td>${requestId ?? ''}</td>
  </tr>`
}

function limitStateRow({ limit, requests, effective, used, units, resetMs }: LimitState): Html {
  const of = effective < requests ? `${effective} (of ${requests})` : `${requests}`
  return html`<tr>
    <th scope="row">${limit}</th>
    <td class="number">${used}</td>
    <td class="number">${of}</td>
    <td class="number">${units ?? ''}</td>
    <td class="number">${duration(resetMs)}</td>
  </tr>`
}

/** Where one signs in. `problem` is why that failed. */
export function signInPage(problem: string | undefined): string {
  return page(
    'Sign in to Sluice',
    undefined,
    html`<main class="sign-in">
      <h2>Sign in</h2>
      ${problem !== undefined && html`<p class="failing" role="alert">${problem}</p>`}
      <form method="post" action="/sign-in">
        <label for="token">Admin token</label>
        <input id="token" name="token" type="password" required autocomplete="current-password" autofocus />
        <button>Sign in</button>
      </form>
      <p>It is <code>admin.token</code>, or yours of <code>admin.tokens</code>.</p>
    </main>`,
    undefined,
  )
}

function table(caption: string, columns: readonly string[], rows: readonly Html[], none: string): Html {
  if (rows.length === 0) return html`<p class="none">${none}</p>`
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0">
    <table>
      <thead>
        <tr>
          ${columns.map((column) => html`<th scope="col">${column}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows}
      </tbody>
    </table>
  </div>`
}

function page(title: string, head: Html | undefined, body: Html, owner: string | undefined): string {
  const signOut =
    owner !== undefined &&
    html`<form method="post" action="/sign-out"><span>${owner}</span> <button>Sign out</button></form>`
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <title>${title}</title>
        <link rel="stylesheet" href="/page.css" />
        ${head}
      </head>
      <body>
        <header>
          <h1><a href="/">Sluice</a></h1>
          <p id="connection" role="status"></p>
          ${signOut}
        </header>
        ${body}
      </body>
    </html>`.text
}
