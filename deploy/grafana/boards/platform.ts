import {
  type Board,
  bars,
  CALLS,
  CLASSES,
  GATEWAYS,
  graph,
  heading,
  LIMITS,
  quantiles,
  query,
  stat,
  table,
  UPSTREAMS,
} from './parts.ts'
import { gatewayPanels } from './gateways.ts'
import {
  attemptsByReason,
  CLASS_NAME,
  beyondOf,
  burnOf,
  deniedByClient,
  effectiveOf,
  endsIn,
  etaError,
  foreignOf,
  LIMIT_LABELS,
  LIMIT_NAME,
  lookingForOne,
  queueDepth,
  queueWait,
  quotaBurn,
  quotaUsed,
  quotaUsedNow,
  quotaUsedOfLimit,
  retries,
  runsOutIn,
  store,
  unitsByClient,
  usedOf,
} from './shared.ts'
import { THRESHOLDS } from './thresholds.ts'

/** Units that could have been sent now, while calls of that class waited: as the gateway sees it where they wait. */
const wasted = `max by (upstream, account, class) (min by (job, instance, upstream, account, class) (clamp_min(sluice_quota_effective_limit{${LIMITS}} - sluice_quota_used{${LIMITS}}, 0)) and on (job, instance, upstream, account, class) sluice_queue_depth{${CLASSES}} > 0)`
/** A figure of all budgets of teams and of organisations, or one divided by another. */
const TEAM_NAME = '{{team}}{{organisation}} per {{window}}'
const ofTeams = (combine: string, figures: string): string =>
  ['team', 'organisation']
    .map((level) => {
      const metrics = figures.replaceAll(/\w+/g, (figure) => `sluice_${level}_budget_${figure}{${GATEWAYS}}`)
      return `${combine} by (${level}, window) (${metrics})`
    })
    .join(' or ')
export const platform: Board = {
  uid: 'sluice-platform',
  title: 'Sluice: platform',
  about: 'Who spends what, what is left, and what the gateways need: for the team that runs them.',
  panels: [
    stat(
      'Over-admitted',
      'Units that count against limits beyond what they allow. It must be 0, but for limits that were just made smaller in the configuration.',
      `sum(${beyondOf}) or vector(0)`,
      { decimals: 0, thresholds: THRESHOLDS.anyIsBad },
    ),
    quotaUsed,
    runsOutIn,
    quotaBurn,
    stat(
      'Waste',
      'Units that could be sent now, of classes of which calls wait: for another limit, for others in flight, or for their turn. A few are usual, for a moment.',
      `sum(${wasted}) or vector(0)`,
      { decimals: 0, thresholds: THRESHOLDS.anyIsOdd },
    ),
    stat(
      'Foreign use',
      'Units of our limits that the upstreams do not leave to us: others use them, or the upstream refused calls though we counted quota left.',
      `sum(${foreignOf})`,
      { decimals: 0, noValue: '0', thresholds: THRESHOLDS.anyIsOdd },
    ),
    heading('Quotas'),
    quotaUsedOfLimit,
    graph(
      'Quota used and limit',
      'The same in units, with what can be used now.',
      [
        query(usedOf, `${CLASS_NAME} used in {{window}}`),
        query(effectiveOf, `${CLASS_NAME} can be used per {{window}}`),
      ],
      { leadsBy: LIMIT_LABELS, overrides: { B: { 'custom.lineStyle': { fill: 'dash', dash: [8, 8] } } } },
    ),
    quotaUsedNow,
    graph(
      'Waste: unused while calls waited',
      'Units that could have been sent while calls of the class waited. Calls wait for the tightest of their limits: where another one held them, that is at 100 % in “Quota used of limit”.',
      [query(wasted, CLASS_NAME)],
      { leadsBy: LIMIT_LABELS },
    ),
    graph(
      'Foreign use',
      'Units of a limit that the upstream does not leave to us: it says that others have used them, or it refused calls though we counted quota left.',
      [query(foreignOf, LIMIT_NAME)],
      { leadsBy: LIMIT_LABELS },
    ),
    graph(
      'Burn ratio',
      'The rate of the last minutes divided by the one that the limit allows for ever. Above 1 it runs out sooner or later.',
      [query(burnOf, LIMIT_NAME)],
      { leadsBy: LIMIT_LABELS, thresholds: THRESHOLDS.quotaBurn },
    ),
    bars(
      'Time to exhaustion',
      'Until nothing of a limit is left, if all go on as in the last minutes: the fifteen that end first. Limits that never end are not here.',
      query(`bottomk(15, ${endsIn})`, LIMIT_NAME),
      { unit: 's', thresholds: THRESHOLDS.exhaustion, leadsBy: LIMIT_LABELS },
    ),
    graph(
      'Quotas that ran low',
      'How often less than a tenth of a limit was left, at the gateway that saw it most often.',
      [
        query(
          `max by (upstream, account, class, window) (increase(sluice_quota_low_total{${CLASSES}}[$__rate_interval]))`,
          LIMIT_NAME,
        ),
      ],
      { bars: true, stacked: true, leadsBy: LIMIT_LABELS },
    ),
    graph(
      'Would be held back',
      'Attempts that a limit with enforce: false would have held back, if it were enforced.',
      [
        query(
          `sum by (upstream, account, class, window) (rate(sluice_quota_would_deny_total{${CALLS}}[$__rate_interval]))`,
          LIMIT_NAME,
          { exemplar: true },
        ),
      ],
      { unit: 'reqps', stacked: true, leadsBy: LIMIT_LABELS },
    ),
    heading('Who spends, and who waits'),
    unitsByClient,
    deniedByClient,
    graph(
      'Share against due',
      'What a client has had of a quota in an hour, by the part that is due to it among those who used it. At 1 it has its due; above, it uses what others leave; below 1 while its calls wait, others have too much.',
      [
        query(
          `sum by (upstream, account, class, client) (increase(sluice_quota_charged_total{${CALLS}}[1h])) / on (upstream, account, class) group_left () sum by (upstream, account, class) (increase(sluice_quota_charged_total{${CLASSES}}[1h])) / on (upstream, account, class, client) min by (upstream, account, class, client) (sluice_client_due_ratio{${CALLS}})`,
          `{{client}} of ${CLASS_NAME}`,
        ),
      ],
      { leadsBy: ['client', ...LIMIT_LABELS] },
    ),
    graph(
      'Wait by client',
      'How long a call of each client waited for quota on average, if it did, until it had it.',
      [
        query(
          `sum by (client) (rate(sluice_client_wait_seconds_total{${CALLS}}[$__rate_interval])) / sum by (client) (rate(sluice_client_waits_total{${CALLS}}[$__rate_interval]))`,
          '{{client}}',
        ),
      ],
      { unit: 's', leadsBy: ['client'] },
    ),
    bars(
      'Budgets of clients',
      'The part of its own budget that a client has used, over all upstreams.',
      query(
        `max by (client, window) (sluice_client_budget_used{${GATEWAYS},client=~"$client"} / sluice_client_budget_limit{${GATEWAYS},client=~"$client"})`,
        '{{client}} per {{window}}',
      ),
      { unit: 'percentunit', max: 1, thresholds: THRESHOLDS.quota, leadsBy: ['client'] },
    ),
    bars(
      'Budgets of teams and organisations',
      'The part of its budget that a team or an organisation has used, over all upstreams.',
      query(ofTeams('max', 'used / limit'), TEAM_NAME),
      { unit: 'percentunit', max: 1, thresholds: THRESHOLDS.quota },
    ),
    bars(
      'Budgets end in',
      'Until nothing is left of the budget of a team or an organisation, if all go on as in the last minutes: the fifteen that end first. Budgets that never end are not here.',
      query(`bottomk(15, ${ofTeams('min', 'exhaustion_seconds')})`, TEAM_NAME),
      { unit: 's', thresholds: THRESHOLDS.exhaustion },
    ),
    graph(
      'Burn of budgets',
      'The rate of the last minutes divided by the one that the budget of a team or an organisation allows for ever. Above 1 it runs out sooner or later.',
      [query(ofTeams('max', 'burn_ratio'), TEAM_NAME)],
      { thresholds: THRESHOLDS.quotaBurn },
    ),
    graph(
      'Money by client',
      'What the calls of each client cost an hour, by the prices of the upstreams, in their currency.',
      [
        query(
          `3600 * sum by (client, unit) (rate(sluice_money_spent_total{${CALLS}}[$__rate_interval]))`,
          '{{client}} in {{unit}}',
        ),
      ],
      { stacked: true, leadsBy: ['client'] },
    ),
    table(
      'Spent by client',
      'Units that the calls of each client were charged in the whole period shown, the 20 who spent most. A row leads to these calls.',
      `topk(20, sum by (client, upstream, account, class) (increase(sluice_quota_charged_total{${CALLS}}[$__range]))) > 0`,
      {
        value: 'units',
        order: ['client', 'upstream', 'account', 'class'],
        leadsBy: ['client', 'upstream', 'account', 'class'],
      },
    ),
    queueDepth,
    queueWait,
    etaError,
    heading('Upstreams'),
    attemptsByReason,
    retries,
    graph('Connections', 'Connections to upstreams, calls that wait for one, and WebSockets.', [
      query(`sum by (upstream) (sluice_upstream_connections{${UPSTREAMS}})`, '{{upstream}}'),
      query(`sum by (upstream) (sluice_connection_waiting{${UPSTREAMS}})`, '{{upstream}}: calls that wait for one'),
      query(`sum by (upstream) (sluice_websockets{${UPSTREAMS}})`, '{{upstream}}: WebSockets'),
    ]),
    graph(
      'In flight',
      'Calls that hold a permit: sent, and not answered to the end; and how many may, where concurrency finds that number itself.',
      [
        query(`sum by (upstream, account, class) (sluice_in_flight{${CLASSES}})`, CLASS_NAME),
        query(`sum by (upstream, account, class) (sluice_concurrency_limit{${CLASSES}})`, `${CLASS_NAME} may`),
      ],
      { leadsBy: LIMIT_LABELS, overrides: { B: { 'custom.lineStyle': { fill: 'dash', dash: [8, 8] } } } },
    ),
    graph(
      'Tunnels',
      'Tunnels of the forward proxy a second: intercepted, where TLS was ended for an upstream, or passed on to another host; and those that are open.',
      [
        query(`sum by (kind) (rate(sluice_tunnels_total{${GATEWAYS}}[$__rate_interval]))`, '{{kind}}'),
        query(`sum(sluice_tunnels_open{${GATEWAYS}})`, 'open'),
      ],
      { overrides: { B: { 'custom.axisPlacement': 'right' } } },
    ),
    graph(
      'Bytes',
      'Bytes a second of the bodies that clients sent and were sent; those of WebSockets are not counted.',
      [
        query(`sum by (upstream) (rate(sluice_request_bytes_total{${CLASSES}}[$__rate_interval]))`, 'to {{upstream}}'),
        query(`sum by (upstream) (rate(sluice_response_bytes_total{${CLASSES}}[$__rate_interval]))`, 'of {{upstream}}'),
      ],
      { unit: 'Bps' },
    ),
    heading('Cache'),
    graph(
      'Cache hit ratio',
      'Of the calls of cached routes, those that were answered without the upstream: hit, stale or collapsed.',
      [
        query(
          `sum by (upstream) (rate(sluice_cache_total{${CLASSES},result=~"hit|stale|collapsed"}[$__rate_interval])) / sum by (upstream) (rate(sluice_cache_total{${CLASSES}}[$__rate_interval]))`,
          '{{upstream}}',
        ),
      ],
      { unit: 'percentunit', max: 1, leadsBy: ['upstream'] },
    ),
    graph(
      'Calls of cached routes',
      'What the cache did: hit, revalidated by a 304, stale in place of an error or while it is asked for anew, collapsed into another call, miss, bypass, or unavailable with its store away.',
      [query(`sum by (result) (rate(sluice_cache_total{${CLASSES}}[$__rate_interval]))`, '{{result}}')],
      { unit: 'reqps', stacked: true },
    ),
    graph(
      'Quota saved by the cache',
      'Units a second that calls were not charged because the cache answered them.',
      [
        query(
          `sum by (upstream, class) (rate(sluice_quota_saved_total{${CALLS}}[$__rate_interval]))`,
          '{{upstream}} {{class}}',
        ),
      ],
      { stacked: true, leadsBy: ['upstream', 'class'] },
    ),
    heading('Redis'),
    quantiles(
      'Time of the store',
      'How long Redis took to answer about quotas, the way there and back and the event loop included.',
      'sluice_store_duration_seconds',
      GATEWAYS,
      false,
    ),
    store,
    graph(
      'What Redis lost',
      'How often Redis was found to have lost what it keeps for good, by kind; questions to the cache’s Redis that failed; and usage by the day that is to be written later.',
      [
        query(`sum by (records) (increase(sluice_store_losses_total{${GATEWAYS}}[$__rate_interval]))`, '{{records}}'),
        query(`sum(increase(sluice_cache_errors_total{${GATEWAYS}}[$__rate_interval]))`, 'of the cache'),
        query(`sum(increase(sluice_usage_unwritten_total{${GATEWAYS}}[$__rate_interval]))`, 'usage not written'),
      ],
      { bars: true },
    ),
    ...gatewayPanels,
    lookingForOne,
  ],
}
