import type { AwayInstance } from '../../requests/question.ts'
import { accountOf, type LimitStory, type RequestStory, type TryStory, type WaitStory } from '../../requests/story.ts'
import { measured } from '../../schema/units.ts'
import { type Html, html, type Part } from './html.ts'
import { awayNotes, cell, numberCell, page, row, table } from './page-parts.ts'
import { capital } from './cause.ts'

/** The stories of the calls with one correlation id; `owner` is who is signed in. */
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
      ${stories.length === 0 && none} ${stories.map(storyPart)} ${awayNotes(away)}
    </main>`,
    owner,
  )
}

function storyPart(story: RequestStory): Html {
  const { refusal, breaker, cache, route, asked } = story
  const facts: [string, Part | null][] = [
    [
      story.isRunning ? 'State' : 'Ended as',
      story.reason === null || refusal !== null ? story.outcome : `${story.outcome}, ${story.reason}`,
    ],
    ['Status', story.status],
    ['Came at', story.cameAt],
    [
      'Took',
      `${measured(story.durationMs)}: waited ${measured(story.waitMs)}, upstream ${measured(story.upstreamMs)}, between attempts ${measured(story.backoffMs)}, gateway ${measured(story.gatewayMs)}`,
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
        `to wait at most ${measured(asked.maxWaitMs)}, priority ${asked.priority}, retry ${asked.retry ? 'on' : 'off'}`,
    ],
    ['Held back by', story.heldBy],
    ['Cache', cache && [cache.result, cache.status].filter((text) => text !== null).join(': ')],
    ['Breaker', breaker && [breaker.state, breaker.openedBy === null ? '' : openedBy(breaker.openedBy)]],
    ['Quota store', story.storeDegraded && 'did not answer: the limits were checked without it'],
    ['Not enforced', story.wouldDeny.length > 0 && `${story.wouldDeny.join(', ')} would have held it back`],
    ['Trace', story.traceId],
    ['Served by', story.instance],
  ]
  return html`<article>
    ${refusal !== null && html`<p class="failing"><strong>${refusal.kind}: ${refusal.message}.</strong> ${capital(refusal.whatToDo)}.</p>`}
    <dl>
      ${facts
        .filter(([, value]) => value !== null && value !== undefined && value !== false && value !== '')
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
        ${table('Limits then', ['Limit', 'Used', 'Of', 'Units of this call', 'More in'], story.limits.map(limitRow), '')}`
    }
  </article>`
}

function openedBy({ because, correlationId }: NonNullable<NonNullable<RequestStory['breaker']>['openedBy']>): Html {
  return html`, opened by ${because} of <a href="/requests/${encodeURIComponent(correlationId)}">${correlationId}</a>`
}

function waitRow({ servedBefore, ...wait }: WaitStory): Html {
  const served = Object.entries(servedBefore?.byClient ?? {}).map(([client, calls]) => `${client} ${calls}`)
  return row([
    numberCell(wait.beforeAttempt),
    cell(wait.because),
    cell(wait.heldBy ?? ''),
    numberCell(wait.place),
    numberCell(measured(wait.promisedMs)),
    numberCell(measured(wait.waitedMs)),
    cell(wait.ended),
    cell(served.join(', ')),
  ])
}

function tryRow({ status, error, credential, credentialVersion, credentialBecause, ...one }: TryStory): Html {
  const version = credentialVersion === null ? '' : ` (version ${credentialVersion})`
  const because = credentialBecause === null ? '' : `, by ${credentialBecause}`
  return row([
    numberCell(one.number),
    numberCell(measured(one.startedMs)),
    numberCell(measured(one.delayMs)),
    cell(status ?? error ?? ''),
    numberCell(measured(one.ms)),
    cell(`${credential ?? ''}${version}${because}`),
    cell(one.requestId ?? ''),
  ])
}

function limitRow({ limit, requests, effective, used, units, resetMs }: LimitStory): Html {
  const of = effective < requests ? `${effective} (of ${requests})` : `${requests}`
  return row([used, of, units ?? '', measured(resetMs)].map(numberCell), { head: limit })
}
