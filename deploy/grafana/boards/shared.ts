import {
  bars,
  CALLS,
  CLASSES,
  GATEWAYS,
  graph,
  LIMITS,
  NOT_REFUSED,
  type Panel,
  quantiles,
  query,
  stat,
  text,
  UPSTREAMS,
} from './parts.ts'
import { THRESHOLDS } from './thresholds.ts'

/*
 * Panels and expressions that several boards have. With Redis every gateway shows the same usage of a limit, so the greatest counts
 * once.
 */

const BY_LIMIT = 'by (upstream, account, class, window)'
export const usedOf = `max ${BY_LIMIT} (sluice_quota_used{${LIMITS}})`
export const effectiveOf = `min ${BY_LIMIT} (sluice_quota_effective_limit{${LIMITS}})`
/** What each gateway counts beyond a limit; and what the upstream leaves of it to others. */
export const beyondOf = `max ${BY_LIMIT} (clamp_min(sluice_quota_used{${LIMITS}} - sluice_quota_limit{${LIMITS}}, 0))`
export const foreignOf = `max ${BY_LIMIT} ((sluice_quota_region_share{${LIMITS}} or sluice_quota_limit{${LIMITS}}) - sluice_quota_effective_limit{${LIMITS}})`
/**
 * The part of each limit that is used, of what can be used now, which may be nothing, or less than one of a currency. Each
 * gateway's figures are divided by its own, since those of two environments may have different limits under the same labels.
 */
export const usedShare = `max ${BY_LIMIT} (clamp_max(sluice_quota_used{${LIMITS}} / clamp_min(sluice_quota_effective_limit{${LIMITS}}, 1e-9), 1))`
export const LIMIT_NAME = '{{upstream}}/{{account}} {{class}} per {{window}}'
export const CLASS_NAME = '{{upstream}}/{{account}} {{class}}'
export const LIMIT_LABELS = ['upstream', 'account', 'class']

/** Seconds until nothing of a limit is left; and its rate divided by the one that it allows for ever. */
export const endsIn = `min ${BY_LIMIT} (sluice_quota_exhaustion_seconds{${LIMITS}})`
export const burnOf = `max ${BY_LIMIT} (sluice_quota_burn_ratio{${LIMITS}})`

export const lookingForOne: Panel = text(
  'Looking for one call?',
  '[The story of ${call}](${admin}/requests/${call:percentencode}) says which limit held it back, what each attempt died of, and what to do. Its correlation id is in the response’s `X-Correlation-Id`, in every refusal’s body, and behind the dots in the latency panels. Its log line has it as `correlationId`: `docker compose logs gateway` or `kubectl logs -l app.kubernetes.io/name=sluice --prefix --tail=-1`.',
)

export const calls: Panel = stat(
  'Calls',
  'All calls, refused ones too.',
  `sum(rate(sluice_requests_total{${CALLS}}[5m]))`,
  { unit: 'reqps', decimals: 1, noValue: '0', thresholds: THRESHOLDS.none },
)

export const refused: Panel = stat(
  'Refused',
  'Share of the calls that the gateway answered itself, in 5 minutes. “Refusals by kind” has the reasons.',
  `sum(rate(sluice_requests_total{${CALLS},outcome!~"${NOT_REFUSED}"}[5m])) / sum(rate(sluice_requests_total{${CALLS}}[5m]))`,
  { unit: 'percentunit', decimals: 1, noValue: '0%', thresholds: THRESHOLDS.refused },
)

export const quotaUsed: Panel = stat(
  'Quota used',
  'The fullest limit: the one of which the largest part is used. Of what can be used: a limit that the upstream made smaller counts as it is. Limits with enforce: false hold nothing back and are not counted. “not known”: there are none, or no gateway can ask the quota store.',
  `max(${usedShare})`,
  { unit: 'percentunit', decimals: 0, noValue: 'not known', thresholds: THRESHOLDS.quota },
)

export const runsOutIn: Panel = stat(
  'Runs out in',
  'The limit of which nothing is left first, if all go on as in the last minutes. “never”: the windows give back as much as is used.',
  `min(${endsIn})`,
  { unit: 's', noValue: 'never', thresholds: THRESHOLDS.exhaustion },
)

export const quotaBurn: Panel = stat(
  'Burn',
  'The highest rate of the last minutes divided by the one that its limit allows for ever. Above 1 it runs out sooner or later.',
  `max(${burnOf})`,
  { decimals: 1, noValue: '0', thresholds: THRESHOLDS.quotaBurn },
)

export const callsByOutcome: Panel = graph(
  'Calls by outcome',
  '“delivered” is an answer of the upstream, whatever its status; client_gone left before it; broken_off lost the upstream in the middle of a body. The others are refusals of the gateway.',
  [
    query(`sum by (outcome) (rate(sluice_requests_total{${CALLS}}[$__rate_interval]))`, '{{outcome}}', {
      exemplar: true,
    }),
  ],
  { unit: 'reqps', stacked: true, leadsBy: ['outcome'], colors: { delivered: 'green' } },
)

export const refusalsByKind: Panel = graph(
  'Refusals by kind',
  'quota_exhausted, queue_full: more is asked for than the vendor allows. unreachable, interrupted, timeout, breaker_open: the vendor or the way to it. store_unavailable: the quota store. unauthenticated, forbidden, invalid_request and the like: a tool is set up wrongly. internal: a bug, see the log.',
  [
    query(
      `sum by (outcome) (rate(sluice_requests_total{${CALLS},outcome!~"${NOT_REFUSED}"}[$__rate_interval]))`,
      '{{outcome}}',
      { exemplar: true },
    ),
  ],
  { unit: 'reqps', stacked: true, leadsBy: ['outcome'] },
)

export const answersByStatus: Panel = graph(
  'Answers by status',
  'What the upstream answered, as clients got it: without the answers after which the call was retried.',
  [
    query(
      `sum by (status) (rate(sluice_requests_total{${CALLS},outcome="delivered"}[$__rate_interval]))`,
      '{{status}}',
      { exemplar: true },
    ),
  ],
  { unit: 'reqps', stacked: true, leadsBy: ['status'] },
)

export const request: Panel = quantiles(
  'Request',
  'From the arrival of a call to the end of its response, waiting and retries included. Every dot is a call, with its correlation id.',
  'sluice_request_duration_seconds',
  CLASSES,
)

export const upstream: Panel = quantiles(
  'Upstream',
  'Of that, the time to the upstream’s response headers, one attempt at a time. High here: it is the vendor.',
  'sluice_upstream_duration_seconds',
  CLASSES,
)

export const overhead: Panel = quantiles(
  'Gateway overhead',
  'Of that, the gateway’s own: neither upstream, nor waiting for quota, nor between attempts. Usually below a few milliseconds; more means too little CPU.',
  'sluice_gateway_overhead_seconds',
  CLASSES,
)

export const queueWait: Panel = quantiles(
  'Queue wait',
  'How long those waited that did, until they were sent.',
  'sluice_queue_wait_seconds',
  CLASSES,
)

export const queueDepth: Panel = graph(
  'Queue depth',
  'Calls that wait now, for quota or under concurrency.',
  [query(`sum by (upstream, account, class) (sluice_queue_depth{${CLASSES}})`, CLASS_NAME)],
  { stacked: true, leadsBy: LIMIT_LABELS },
)

export const etaError: Panel = graph(
  'ETA error',
  'How far the wait that was forecast when a call came was from its wait, at p95. Later: clients waited longer than was forecast; a call that gave up counts by how long it had waited too long. Sooner: they were served before.',
  [
    query(
      `histogram_quantile(0.95, sum by (than_forecast, le) (rate(sluice_queue_eta_error_seconds_bucket{${CLASSES}}[$__rate_interval])))`,
      '{{than_forecast}}',
      { exemplar: true },
    ),
  ],
  { unit: 's', colors: { later: 'red', sooner: 'blue' } },
)

export const quotaUsedOfLimit: Panel = graph(
  'Quota used of limit',
  'Per account, class and window, of what can be used now. At 100 % calls wait.',
  [query(usedShare, LIMIT_NAME)],
  {
    unit: 'percentunit',
    max: 1,
    leadsBy: LIMIT_LABELS,
    thresholds: THRESHOLDS.nearlyFull,
  },
)

export const quotaUsedNow: Panel = bars(
  'Quota used now',
  'Per account, class and window: the fifteen fullest.',
  query(`topk(15, ${usedShare})`, LIMIT_NAME),
  { unit: 'percentunit', max: 1, thresholds: THRESHOLDS.quota, leadsBy: LIMIT_LABELS },
)

export const attemptsByReason: Panel = graph(
  'Attempts by reason',
  '“first”, or how the attempt before ended: status_503, unreachable, … Every attempt is charged to the quota.',
  [query(`sum by (reason) (rate(sluice_attempts_total{${CLASSES}}[$__rate_interval]))`, '{{reason}}')],
  { unit: 'reqps', stacked: true, colors: { first: 'green' } },
)

export const throttled: Panel = graph(
  '429s of the upstream',
  'explained: our own count was at the limit. Not explained: it was not, so somebody else uses the account, or the limit is lower than configured.',
  [
    query(
      `sum by (explained) (increase(sluice_upstream_throttled_total{${CLASSES}}[$__rate_interval]))`,
      'explained: {{explained}}',
      { exemplar: true },
    ),
  ],
  { bars: true, stacked: true, colors: { 'explained: no': 'red', 'explained: yes': 'blue' } },
)

export const retries: Panel = graph(
  'Retries',
  'Share of retries in the traffic, which retry.budget bounds; and how many were left out because it was spent.',
  [
    query(
      `sum(rate(sluice_attempts_total{${CLASSES},reason!="first"}[$__rate_interval])) / sum(rate(sluice_attempts_total{${CLASSES},reason="first"}[$__rate_interval]))`,
      'retries per call',
    ),
    query(
      `sum by (upstream) (increase(sluice_retry_budget_exhausted_total{${UPSTREAMS}}[$__rate_interval]))`,
      'left out, {{upstream}}',
      { exemplar: true },
    ),
  ],
  {
    unit: 'percentunit',
    overrides: { B: { unit: 'short', 'custom.axisPlacement': 'right', 'custom.drawStyle': 'bars' } },
  },
)

export const store: Panel = graph(
  'Quota store',
  'Calls refused because the store did not answer, and instances without a connection to it.',
  [
    query(`sum(increase(sluice_store_errors_total{${GATEWAYS}}[$__rate_interval]))`, 'calls refused', {
      exemplar: true,
    }),
    query(`sum(sluice_store_degraded{${GATEWAYS}})`, 'instances without store'),
  ],
  { bars: true, overrides: { B: { 'custom.drawStyle': 'line' } } },
)

export const unitsByClient: Panel = graph(
  'Units spent by client',
  'Who spends quota: units that attempts were charged, the ten who spend most. Calls answered by the cache or refused before they were sent spend none. “other” are the clients beyond metrics.maxClients.',
  [query(`topk(10, sum by (client) (rate(sluice_quota_charged_total{${CALLS}}[$__rate_interval])))`, '{{client}}')],
  { stacked: true, leadsBy: ['client'] },
)

export const deniedByClient: Panel = graph(
  'Calls that found no quota',
  'By client, the ten with most: they waited, or were refused.',
  [
    query(`topk(10, sum by (client) (rate(sluice_quota_denied_total{${CALLS}}[$__rate_interval])))`, '{{client}}', {
      exemplar: true,
    }),
  ],
  { unit: 'reqps', stacked: true, leadsBy: ['client'] },
)
