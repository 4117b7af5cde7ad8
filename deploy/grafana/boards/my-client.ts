import {
  bars,
  type Board,
  CALLS,
  CLASSES,
  GATEWAYS,
  graph,
  heading,
  NOT_REFUSED,
  ofMyClient,
  query,
  stat,
  table,
} from './parts.ts'
import {
  answersByStatus,
  CLASS_NAME,
  calls,
  callsByOutcome,
  etaError,
  LIMIT_LABELS,
  lookingForOne,
  quotaUsedOfLimit,
  refusalsByKind,
  refused,
  upstream,
} from './shared.ts'
import { THRESHOLDS } from './thresholds.ts'

/** Which calls of the client a line is about. */
const MINE = ['$client', ...LIMIT_LABELS]

export const myClient: Board = {
  uid: 'sluice-my-client',
  title: 'Sluice: my client',
  about: 'What I spend, how long I wait, what I was refused and why: for the author of a tool.',
  isOfOneClient: true,
  panels: [
    calls,
    refused,
    stat(
      'Units spent',
      'Units that my calls were charged in the whole period shown.',
      `sum(increase(sluice_quota_charged_total{${CALLS}}[$__range]))`,
      { decimals: 0, noValue: '0', thresholds: THRESHOLDS.none },
    ),
    stat(
      'Found no quota',
      'Calls in the whole period shown that found no quota when they came: they waited, or were refused.',
      `sum(increase(sluice_quota_denied_total{${CALLS}}[$__range]))`,
      { decimals: 0, noValue: '0', thresholds: THRESHOLDS.anyIsOdd },
    ),
    stat(
      'Wait',
      'How long my calls waited for quota on average, in 5 minutes, of those that did.',
      `sum(rate(sluice_client_wait_seconds_total{${CALLS}}[5m])) / sum(rate(sluice_client_waits_total{${CALLS}}[5m]))`,
      { unit: 's', noValue: '0', thresholds: THRESHOLDS.wait },
    ),
    stat(
      'My key expires in',
      'Until the first of my keys is refused, of those that expire.',
      `min(sluice_client_key_expires_seconds{${GATEWAYS},client=~"$client"})`,
      { unit: 's', noValue: 'never', thresholds: THRESHOLDS.expiry },
    ),
    lookingForOne,
    heading('What I spend'),
    graph(
      'Units spent',
      'Units a second that my calls were charged, by what they were charged to. Calls answered by the cache or refused before they were sent spend none.',
      [
        query(
          `sum by (upstream, account, class) (rate(sluice_quota_charged_total{${CALLS}}[$__rate_interval]))`,
          CLASS_NAME,
          { exemplar: true },
        ),
      ],
      { stacked: true, leadsBy: MINE },
    ),
    graph(
      'My share and my due',
      'My part of what all clients spent in an hour, and the part that is due to me among them. Above it I use what others leave.',
      [
        query(
          `sum by (upstream, account, class) (increase(sluice_quota_charged_total{${CALLS}}[1h])) / sum by (upstream, account, class) (increase(sluice_quota_charged_total{${CLASSES}}[1h]))`,
          `my share of ${CLASS_NAME}`,
        ),
        query(`min by (upstream, account, class) (sluice_client_due_ratio{${CALLS}})`, `my due of ${CLASS_NAME}`),
      ],
      {
        unit: 'percentunit',
        max: 1,
        leadsBy: MINE,
        overrides: { B: { 'custom.lineStyle': { fill: 'dash', dash: [8, 8] } } },
      },
    ),
    bars(
      'My budget',
      'The part of my own budget that I have used, over all upstreams.',
      query(
        `max by (window) (sluice_client_budget_used{${GATEWAYS},client=~"$client"} / sluice_client_budget_limit{${GATEWAYS},client=~"$client"})`,
        'per {{window}}',
      ),
      { unit: 'percentunit', max: 1, thresholds: THRESHOLDS.quota },
    ),
    graph(
      'Money I spend',
      'What my calls cost an hour, by the prices of the upstreams, in their currency.',
      [
        query(
          `3600 * sum by (upstream, account, class, unit) (rate(sluice_money_spent_total{${CALLS}}[$__rate_interval]))`,
          `${CLASS_NAME} in {{unit}}`,
        ),
      ],
      { stacked: true, leadsBy: MINE },
    ),
    quotaUsedOfLimit,
    ofMyClient(callsByOutcome),
    graph(
      'Saved by the cache',
      'Units a second that my calls were not charged because the cache answered them.',
      [
        query(
          `sum by (upstream, account, class) (rate(sluice_quota_saved_total{${CALLS}}[$__rate_interval]))`,
          CLASS_NAME,
        ),
      ],
      { stacked: true, leadsBy: MINE },
    ),
    heading('What I wait'),
    graph(
      'Calls that found no quota',
      'They waited, or were refused.',
      [
        query(
          `sum by (upstream, account, class) (rate(sluice_quota_denied_total{${CALLS}}[$__rate_interval]))`,
          CLASS_NAME,
          { exemplar: true },
        ),
      ],
      { unit: 'reqps', stacked: true, leadsBy: MINE },
    ),
    graph(
      'My waits',
      'How long my calls waited for quota on average, of those that did, until they had it.',
      [
        query(
          `sum by (upstream, account, class) (rate(sluice_client_wait_seconds_total{${CALLS}}[$__rate_interval])) / sum by (upstream, account, class) (rate(sluice_client_waits_total{${CALLS}}[$__rate_interval]))`,
          CLASS_NAME,
        ),
      ],
      { unit: 's', leadsBy: MINE },
    ),
    etaError,
    heading('What I was refused, and why'),
    ofMyClient(refusalsByKind),
    table(
      'My refusals',
      'By kind, in the whole period shown. A row leads to these calls, and each of those to its story, which says what to do.',
      `sort_desc(sum by (client, outcome, status, upstream, account, class) (increase(sluice_requests_total{${CALLS},outcome!~"${NOT_REFUSED}"}[$__range])) > 0)`,
      {
        value: 'calls',
        order: ['outcome', 'status', 'upstream', 'account', 'class'],
        leadsBy: ['client', 'outcome', 'upstream', 'account', 'class'],
      },
    ),
    ofMyClient(answersByStatus),
    upstream,
    bars(
      'My keys expire in',
      'Until a key is refused, of those that expire.',
      query(`min by (key) (sluice_client_key_expires_seconds{${GATEWAYS},client=~"$client"})`, '{{key}}'),
      { unit: 's', thresholds: THRESHOLDS.expiry },
    ),
  ],
}
