/**
 * What happened, as series of one sample every 15 s in promtool's notation (`0+3x40`: 40 more samples, each 3 higher), and
 * which alerts must fire at `at`. Where a case says nothing of it, the gateway is up.
 */
export interface AlertCase {
  readonly name: string
  readonly series: Readonly<Record<string, string>>
  readonly at: string
  readonly firing: readonly string[]
}

const GATEWAY = 'job="sluice",instance="a"'
const ACCOUNT = `upstream="harness",account="prod",${GATEWAY}`
const CLASS_LABELS = `upstream="harness",account="prod",class="read",${GATEWAY}`
/** Events of which the counters, and so the first ones, are alerts, with the names of these. */
const EVENTS = {
  SluiceUpstreamThrottledUnexplained: `sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`,
  SluiceRetryBudgetExhausted: `sluice_retry_budget_exhausted_total{upstream="harness",${GATEWAY}}`,
  SluiceInternalErrors: calls('internal'),
  SluiceCredentialRolledBack: `sluice_credential_rollbacks_total{${ACCOUNT}}`,
}
const everyEvent = (values: string): Record<string, string> =>
  Object.fromEntries(Object.values(EVENTS).map((series) => [series, values]))

/** A counter that grows by so many a second. */
function perSecond(rate: number): string {
  return `0+${rate * 15}x240`
}

function calls(outcome: string): string {
  return `sluice_requests_total{${CLASS_LABELS},client="bot",status="200",outcome="${outcome}"}`
}

function delivered(status: string): string {
  return `sluice_requests_total{${CLASS_LABELS},client="bot",status="${status}",outcome="delivered"}`
}

/** A histogram of one call a second, all of which took between 50 and 100 ms, or less than 1 ms. */
function overhead(isHigh: boolean): Record<string, string> {
  const low = isHigh ? '0x240' : perSecond(1)
  return {
    [overheadBucket('0.001')]: low,
    [overheadBucket('0.05')]: low,
    [overheadBucket('0.1')]: perSecond(1),
    [overheadBucket('+Inf')]: perSecond(1),
  }
}

function overheadBucket(le: string): string {
  return `sluice_gateway_overhead_seconds_bucket{${CLASS_LABELS},le="${le}"}`
}

/** A histogram of one call a second that waited: this part of them for less than a second, the others for up to ten. */
function waits(short: number): Record<string, string> {
  const name = `sluice_queue_wait_seconds_bucket{${CLASS_LABELS},le=`
  return {
    [`${name}"1"}`]: perSecond(short),
    [`${name}"5"}`]: perSecond(short),
    [`${name}"10"}`]: perSecond(1),
    [`${name}"+Inf"}`]: perSecond(1),
    [`sluice_queue_wait_seconds_count{${CLASS_LABELS}}`]: perSecond(1),
  }
}

/** A limit that all of its gateways may use up, where `effective` says nothing else. */
function quota(used: string, limit: string, effective = limit, labels = CLASS_LABELS): Record<string, string> {
  return {
    [`sluice_quota_limit{${labels},window="1m"}`]: limit,
    [`sluice_quota_effective_limit{${labels},window="1m"}`]: effective,
    [`sluice_quota_used{${labels},window="1m"}`]: used,
  }
}

/** Without `firing`, the alert fires by which the name begins, or none. */
function when(
  name: string,
  at: string,
  series: AlertCase['series'],
  firing: readonly string[] = /^Sluice\w+/.exec(name) ?? [],
): AlertCase {
  return { name, series, at, firing: [...firing] }
}

export const ALERT_CASES: readonly AlertCase[] = [
  when('nothing while all is well', '30m', {
    [calls('delivered')]: perSecond(10),
    [calls('quota_exhausted')]: perSecond(0.2),
    [calls('client_gone')]: perSecond(5),
    [`sluice_breaker_state{upstream="harness",job="sluice",instance="a"}`]: '0x240',
    [`sluice_store_errors_total{job="sluice",instance="a"}`]: '0x240',
    [`sluice_store_degraded{job="sluice",instance="a"}`]: '0x240',
    [`sluice_workers_missing{job="sluice",instance="a"}`]: '0x240',
    [`sluice_log_dropped_total{job="sluice",instance="a"}`]: '7x240',
    ...quota('850x240', '1000x240'),
    [`sluice_quota_low_total{${CLASS_LABELS},window="1m"}`]: '0x100 1x140',
    [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(10),
    [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="yes"}`]: perSecond(2),
    ...overhead(false),
  }),
  when('SluiceDown for an instance that does not answer', '7m', {
    'up{job="sluice",instance="a"}': '1x20 0x20',
    'up{job="sluice",instance="b"}': '1x240',
    'sluice_build_info{job="sluice",instance="a"}': '1x20',
    'sluice_build_info{job="sluice",instance="b"}': '1x240',
  }),
  when('SluiceDown for a gateway whose job has another name, and not for other programs of that job', '7m', {
    'up{job="egress",instance="a"}': '1x20 0x20',
    'sluice_build_info{job="egress",instance="a"}': '1x20',
    'up{job="egress",instance="redis"}': '0x40',
    'up{job="egress",instance="b"}': '1x240',
    'sluice_build_info{job="egress",instance="b"}': '1x240',
  }),
  when('nothing for gateways whose job is not called sluice', '30m', {
    'up{job="egress",instance="b"}': '1x240',
    'sluice_build_info{job="egress",instance="b"}': '1x240',
  }),
  when('SluiceDown once for the only gateway, though none is scraped then', '30m', {
    'up{job="sluice",instance="a"}': '1x20 0x200',
    'sluice_build_info{job="sluice",instance="a"}': '1x20',
  }),
  when('nothing for a scrape that failed', '5m15s', { 'up{job="sluice",instance="a"}': '1x20 0x1 1x20' }),
  when('SluiceDown where Prometheus knows of no gateway at all', '8m', {
    'up{job="sluice",instance="a"}': '_x240',
    'sluice_build_info{job="sluice",instance="a"}': '_x240',
  }),
  when('SluiceRestarts for a process that does not stay up', '20m', {
    'sluice_start_time_seconds{job="sluice",instance="a"}': '1x20 100x20 200x20 300x20',
  }),
  when('nothing for two restarts of a rolling update', '20m', {
    'sluice_start_time_seconds{job="sluice",instance="a"}': '1x20 100x20 200x200',
  }),
  when('SluiceWorkersMissing for a worker that does not come back', '20m', {
    'sluice_workers_missing{job="sluice",instance="a"}': '0x20 1x220',
  }),
  when('SluiceWorkersMissing for workers that die as soon as they are back', '20m', {
    'sluice_workers_missing{job="sluice",instance="a"}': `0x20 ${'1 0 0 0 '.repeat(50)}`,
  }),
  when('nothing for a worker that is replaced', '18m', {
    'sluice_workers_missing{job="sluice",instance="a"}': '0x60 1 1 0x180',
  }),
  when('SluiceLogDropped where nobody reads the log', '20m', {
    'sluice_log_dropped_total{job="sluice",instance="a"}': '0x60 5x180',
  }),
  when('nothing when the log has been read again for a while', '20m', {
    'sluice_log_dropped_total{job="sluice",instance="a"}': '0x20 5x220',
  }),
  when('SluiceSpansDropped while the collector takes none', '30m', {
    'sluice_trace_spans_dropped_total{job="sluice",instance="a"}': '0x60 5+5x180',
  }),
  when('nothing for spans that were lost once', '30m', {
    'sluice_trace_spans_dropped_total{job="sluice",instance="a"}': '0x60 5x180',
  }),
  when('SluiceUsageUnwritten while the store does not take it', '30m', {
    'sluice_usage_unwritten_total{job="sluice",instance="a"}': '0x60 1+1x180',
  }),
  when('nothing for usage that was written the next time', '30m', {
    'sluice_usage_unwritten_total{job="sluice",instance="a"}': '0x60 1x180',
  }),
  when('SluiceMemoryHigh for a process that is near its limit', '20m', {
    'process_resident_memory_bytes{job="sluice",instance="a"}': '100x20 190x200',
    'sluice_memory_limit_bytes{job="sluice",instance="a"}': '200x240',
  }),
  when('nothing for one that was so for a few minutes', '20m', {
    'process_resident_memory_bytes{job="sluice",instance="a"}': '100x20 190x20 100x200',
    'sluice_memory_limit_bytes{job="sluice",instance="a"}': '200x240',
  }),
  when('SluiceReloadRejected while a wrong configuration waits to be corrected', '12m', {
    'sluice_config_last_reload_successful{job="sluice",instance="a"}': '1x20 0x100',
  }),
  when('nothing once it was', '12m', {
    'sluice_config_last_reload_successful{job="sluice",instance="a"}': '1x20 0x12 1x200',
  }),
  when('nothing for a breaker that opened once and closed after its probe', '4m', {
    'sluice_breaker_state{upstream="harness",job="sluice",instance="a"}': '0x4 2x4 1x1 0x200',
  }),
  when('SluiceBreakerOpen for one that opens again after every probe', '8m', {
    'sluice_breaker_state{upstream="harness",job="sluice",instance="a"}': '0x4 2x4 1x1 2x4 1x1 2x4 1x1 2x4 1x1 2x200',
  }),
  when('nothing for a half-open breaker that no call probes', '20m', {
    'sluice_breaker_state{upstream="harness",job="sluice",instance="a"}': '0x4 2x4 1x200',
  }),
  when('SluiceStoreErrors while calls are refused for want of the store', '9m', {
    'sluice_store_errors_total{job="sluice",instance="a"}': '0x20 0+2x40',
  }),
  when('nothing for a Redis that was away for a moment', '5m30s', {
    'sluice_store_errors_total{job="sluice",instance="a"}': '0x20 7x40',
    'sluice_store_degraded{job="sluice",instance="a"}': '0x20 1x1 0x40',
  }),
  when('SluiceStoreDegraded for an instance without a connection to its store, though nobody calls', '8m', {
    'sluice_store_degraded{job="sluice",instance="a"}': '0x20 1x40',
  }),
  when('SluiceStoreLostData when one of two gateways found that clients were lost', '6m', {
    'sluice_store_losses_total{job="sluice",instance="a",records="clients"}': '0x20 1x40',
    'sluice_store_losses_total{instance="b",records="clients"}': '0x60',
    'sluice_store_losses_total{job="sluice",instance="a",records="secrets"}': '0x60',
  }),
  when('nothing for what was lost before', '30m', {
    'sluice_store_losses_total{job="sluice",instance="a",records="clients"}': '3x240',
    'sluice_store_losses_total{job="sluice",instance="a",records="secrets"}': '0x240',
  }),
  when('SluiceHighRefusals when a fifth of the calls finds no quota', '15m', {
    [calls('delivered')]: perSecond(8),
    [calls('quota_exhausted')]: perSecond(2),
  }),
  when('nothing when that has lasted only four minutes', '4m', {
    [calls('delivered')]: perSecond(8),
    [calls('quota_exhausted')]: perSecond(2),
  }),
  when('nothing for a job that calls every two minutes, though it is always refused', '40m', {
    [calls('timeout')]: perSecond(1 / 120),
  }),
  when('SluiceCallersRejected, which wakes nobody, when a tool comes with a revoked key', '30m', {
    [calls('delivered')]: perSecond(1),
    [calls('unauthenticated')]: perSecond(1),
  }),
  when('nothing when that has lasted only ten minutes', '10m', {
    [calls('delivered')]: perSecond(1),
    [calls('unauthenticated')]: perSecond(1),
  }),
  when('nothing for somebody who tries a wrong key now and then', '40m', {
    [calls('unauthenticated')]: perSecond(1 / 120),
  }),
  when('SluiceUpstreamThrottledUnexplained for the first such 429, whose series did not exist before', '22m', {
    [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: '_x80 1x160',
  }),
  when(
    'what happens for the first time just after a start',
    '32m',
    {
      'up{job="sluice",instance="a"}': '_x120 1x120',
      'sluice_build_info{job="sluice",instance="a"}': '_x120 1x120',
      'sluice_start_time_seconds{job="sluice",instance="a"}': '_x120 1790x120',
      // Others that are there tell that Prometheus scrapes.
      'sluice_build_info{job="sluice",instance="b"}': '1x240',
      ...everyEvent('_x120 1x120'),
    },
    Object.keys(EVENTS),
  ),
  when('nothing after Prometheus did not scrape for a while, for what happened before', '53m', {
    'up{job="sluice",instance="a"}': '1x120 _x80 1x40',
    'sluice_build_info{job="sluice",instance="a"}': '1x120 _x80 1x40',
    'sluice_build_info{job="sluice",instance="b"}': '1x240',
    'sluice_start_time_seconds{job="sluice",instance="a"}': '-900000x120 _x80 -900000x40',
    ...everyEvent('3x120 _x80 3x40'),
  }),
  when('nothing for what happened before Prometheus knew the gateway', '8m', {
    'up{job="sluice",instance="a"}': '_x20 1x120',
    'sluice_build_info{job="sluice",instance="a"}': '_x20 1x120',
    'sluice_build_info{job="sluice",instance="b"}': '1x240',
    'sluice_start_time_seconds{job="sluice",instance="a"}': '_x20 -900000x120',
    ...everyEvent('_x20 3x120'),
  }),
  when('SluiceUpstreamThrottledUnexplained for the second one, an hour later', '52m', {
    [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: '1x200 2x40',
  }),
  when('nothing a quarter of an hour after it', '36m', {
    [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: '_x80 1x160',
  }),
  when(
    'SluiceUpstreamThrottling too, when a tenth of the attempts is throttled without explanation',
    '20m',
    {
      [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: perSecond(1),
      [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(10),
    },
    ['SluiceUpstreamThrottledUnexplained', 'SluiceUpstreamThrottling'],
  ),
  when('SluiceUpstreamThrottledUnexplained only, while that has lasted four minutes', '4m', {
    [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: perSecond(1),
    [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(10),
  }),
  when(
    'SluiceUpstreamThrottling when nearly every attempt is throttled, though the smaller limit explains most of it',
    '20m',
    {
      [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: perSecond(0.02),
      [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="yes"}`]: perSecond(0.4),
      [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(0.45),
    },
    ['SluiceUpstreamThrottledUnexplained', 'SluiceUpstreamThrottling'],
  ),
  when(
    'SluiceUpstreamErrors when two fifths of the answers that callers get are 5xx',
    '8m',
    { [calls('delivered')]: perSecond(1), [delivered('500')]: perSecond(0.66) },
    ['SluiceUpstreamBurnFast', 'SluiceUpstreamErrors'],
  ),
  when(
    'only a ticket for a few of them among very many',
    '30m',
    { [calls('delivered')]: perSecond(10), [delivered('500')]: perSecond(0.5) },
    ['SluiceUpstreamBurnSlow'],
  ),
  when('SluiceUpstreamBurnFast for an hour in which a sixth of the calls fails, in whatever way', '5m', {
    [calls('delivered')]: perSecond(10),
    [delivered('502')]: perSecond(0.9),
    [calls('unreachable')]: perSecond(0.9),
  }),
  when(
    'only a ticket half an hour after the upstream answers again',
    '45m',
    { [calls('delivered')]: perSecond(10), [calls('unreachable')]: '0+60x20 1200x200' },
    ['SluiceUpstreamBurnSlow'],
  ),
  when('nothing for as large a share of few calls', '55m', {
    [calls('delivered')]: perSecond(0.05),
    [delivered('500')]: perSecond(0.01),
  }),
  when(
    'SluiceGatewayBurnFast when one call in thirty finds no credential, which is too few for SluiceHighRefusals',
    '10m',
    { [calls('delivered')]: perSecond(10), [calls('credential_unavailable')]: perSecond(0.33) },
  ),
  when('SluiceGatewayBurnSlow for a little that goes on, and nothing for what is refused for a quota', '30m', {
    [calls('delivered')]: perSecond(100),
    [calls('quota_exhausted')]: perSecond(5),
    [calls('draining')]: perSecond(0.3),
  }),
  when('SluiceQueueSlow when one in five of the calls that wait does so for six seconds or more', '20m', waits(0.8)),
  when('nothing when one in twenty does', '20m', waits(0.95)),
  when('nothing for a job that calls every two minutes, though it always gets 500', '30m', {
    [delivered('500')]: perSecond(1 / 120),
  }),
  when('SluiceRetryBudgetExhausted for the first retry left out', '22m', {
    [EVENTS.SluiceRetryBudgetExhausted]: '_x80 1x160',
  }),
  when('SluiceRetryBudgetExhausted for the next one, an hour later', '52m', {
    'sluice_retry_budget_exhausted_total{upstream="harness",job="sluice",instance="a"}': '1x200 2x40',
  }),
  when('SluiceQuotaNearlyUsed after five minutes near the limit', '11m', quota('100x20 950x40', '1000x240')),
  when('nothing for two environments whose gateways have a large and a small limit under one name', '40m', {
    ...quota('300x240', '1000x240'),
    ...quota('10x240', '100x240', '100x240', CLASS_LABELS.replace('"a"', '"staging"')),
    'sluice_team_budget_used{team="ads",window="day usd",job="sluice",instance="a"}': '300x240',
    'sluice_team_budget_limit{team="ads",window="day usd",job="sluice",instance="a"}': '1000x240',
    'sluice_team_budget_used{team="ads",window="day usd",instance="staging"}': '10x240',
    'sluice_team_budget_limit{team="ads",window="day usd",instance="staging"}': '100x240',
  }),
  when('SluiceQuotaNearlyUsed for the small limit of one environment beside a large one', '11m', {
    ...quota('300x240', '1000x240'),
    ...quota('95x240', '100x240', '100x240', CLASS_LABELS.replace('"a"', '"staging"')),
  }),
  when('SluiceBudgetNearlyUsed for the small budget of one environment beside a large one', '11m', {
    'sluice_client_budget_used{client="bot",window="1h",job="sluice",instance="a"}': '300x240',
    'sluice_client_budget_limit{client="bot",window="1h",job="sluice",instance="a"}': '1000x240',
    'sluice_client_budget_used{client="bot",window="1h",instance="staging"}': '95x240',
    'sluice_client_budget_limit{client="bot",window="1h",instance="staging"}': '100x240',
  }),
  when('SluiceQuotaNearlyUsed, and not that it is less, for the used share of a region', '20m', {
    ...quota('500x240', '1000x240', '500x240'),
    [`sluice_quota_region_share{${CLASS_LABELS},window="1m"}`]: '500x240',
  }),
  when('SluiceQuotaReduced for the share of a region of which the upstream lets half through', '20m', {
    ...quota('100x240', '1000x240', '250x240'),
    [`sluice_quota_region_share{${CLASS_LABELS},window="1m"}`]: '500x240',
  }),
  when(
    'SluiceQuotaNearlyUsed for what is left of a limit that the upstream made smaller, and that it is',
    '20m',
    quota('100x20 580x200', '1000x240', '1000x20 600x200'),
    ['SluiceQuotaNearlyUsed', 'SluiceQuotaReduced'],
  ),
  when(
    'nothing for a limit that was smaller for a few windows',
    '20m',
    quota('100x240', '1000x240', '1000x20 600x20 1000x200'),
  ),
  when(
    'only that the store is degraded, while Redis is away and what a gateway may not spend counts as used',
    '40m',
    {
      'sluice_store_degraded{job="sluice",instance="a"}': '0x20 1x180',
      ...quota('100x20 950x180', '1000x200'),
      'sluice_team_budget_used{team="ads",window="day usd",job="sluice",instance="a"}': '10x20 95x180',
      'sluice_team_budget_limit{team="ads",window="day usd",job="sluice",instance="a"}': '100x200',
    },
    ['SluiceStoreDegraded'],
  ),
  when('SluiceQuotaExhaustionAhead for a limit that will be used up within two hours', '40m', {
    [`sluice_quota_exhaustion_seconds{${CLASS_LABELS},window="24h"}`]: '9000-15x200',
    [`sluice_quota_burn_ratio{${CLASS_LABELS},window="24h"}`]: '3x200',
  }),
  when('nothing for one that will be later, has been, is not enforced, or is of a short window', '40m', {
    [`sluice_quota_exhaustion_seconds{${CLASS_LABELS},window="24h"}`]: '9000x200',
    [`sluice_quota_exhaustion_seconds{${CLASS_LABELS},window="1h"}`]: '0x200',
    [`sluice_quota_exhaustion_seconds{${CLASS_LABELS},window="24h shadow"}`]: '600x200',
    [`sluice_quota_exhaustion_seconds{${CLASS_LABELS},window="1m"}`]: '30 20 10 0 50 _x3 40 5x200',
  }),
  when(
    'SluiceBudgetNearlyUsed for teams, organisations and clients of whose budget little is left, and no others',
    '40m',
    {
      'sluice_team_budget_used{team="ads",window="day usd",job="sluice",instance="a"}': '95x200',
      'sluice_team_budget_limit{team="ads",window="day usd",job="sluice",instance="a"}': '100x200',
      'sluice_team_budget_used{team="research",window="day usd",job="sluice",instance="a"}': '85x200',
      'sluice_team_budget_limit{team="research",window="day usd",job="sluice",instance="a"}': '100x200',
      'sluice_team_budget_exhaustion_seconds{team="research",window="day usd",job="sluice",instance="a"}': '9000x200',
    },
  ),
  when('SluiceBudgetExhaustionAhead for an organisation whose budget will be used up within two hours', '40m', {
    'sluice_organisation_budget_exhaustion_seconds{organisation="acme",window="month",job="sluice",instance="a"}':
      '9000-15x200',
  }),
  when('SluiceQuotaLow for a limit of which little was left again and again', '45m', {
    [`sluice_quota_low_total{${CLASS_LABELS},window="1m"}`]: '0x20 1x20 2x20 3x20 4x20 5x20 6x20 7x20 8x100',
  }),
  when(
    'nothing for one that ran low once, as each of eight gateways saw it',
    '45m',
    Object.fromEntries(
      Array.from({ length: 8 }, (_, i) => [
        `sluice_quota_low_total{${CLASS_LABELS.replace('instance="a"', `instance="gateway-${i}"`)},window="1m"}`,
        '0x20 1x160',
      ]),
    ),
  ),
  when('nothing for one that ran low now and then', '55m', {
    [`sluice_quota_low_total{${CLASS_LABELS},window="1m"}`]: '0x60 1x60 2x60 3x60',
  }),
  when('nothing for a limit that is not enforced', '11m', {
    [`sluice_quota_limit{${CLASS_LABELS},window="1m shadow"}`]: '1000x240',
    [`sluice_quota_effective_limit{${CLASS_LABELS},window="1m shadow"}`]: '1000x240',
    [`sluice_quota_used{${CLASS_LABELS},window="1m shadow"}`]: '100x20 1950x40',
  }),
  when('nothing for a burst of two minutes', '7m', quota('100x20 1000x8 100x40', '1000x240')),
  when('SluiceGatewayOverheadHigh when calls spend more than 50 ms in the gateway itself', '20m', overhead(true)),
  when('nothing when that has lasted only eight minutes', '8m', overhead(true)),
  when('SluiceInternalErrors for the first bug', '22m', { [calls('internal')]: '_x80 1x160' }),
  when('SluiceInternalErrors for the next one, an hour later', '52m', { [calls('internal')]: '1x200 2x40' }),
  when('SluiceCredentialRolledBack for the first rollback', '22m', {
    [`sluice_credential_rollbacks_total{${ACCOUNT}}`]: '_x80 1x160',
  }),
  when('SluiceCredentialRolledBack for the next one, an hour later', '52m', {
    [`sluice_credential_rollbacks_total{${ACCOUNT}}`]: '0x100 1x100 2x40',
  }),
  when('SluiceCredentialExpires a week before', '5m', {
    [`sluice_credential_expires_seconds{${ACCOUNT},credential="harness/prod"}`]: '604900-15x240',
  }),
  when('nothing for a credential that lives longer', '30m', {
    [`sluice_credential_expires_seconds{${ACCOUNT},credential="harness/prod"}`]: '700000-15x240',
  }),
  when('SluiceCredentialExpired when it is too late', '5m', {
    [`sluice_credential_expires_seconds{${ACCOUNT},credential="harness/prod"}`]: '100-15x240',
  }),
  when('SluiceClientKeyExpires a week before, and no more once it has', '5m', {
    'sluice_client_key_expires_seconds{client="bot",key="CI",job="sluice",instance="a"}': '604900-15x240',
    'sluice_client_key_expires_seconds{client="old",key="CI",job="sluice",instance="a"}': '-5-15x240',
  }),
  when('SluiceClientKeyExpires for a key that has the name of one that has expired', '5m', {
    'sluice_client_key_expires_seconds{client="other",key="other",job="sluice",instance="a"}': '-5-15x240',
    'sluice_client_key_expires_seconds{client="other",key="other",job="sluice",instance="b"}': '604900-15x240',
  }),
  when('SluiceCertificateExpires a week before', '5m', {
    'sluice_certificate_expires_seconds{job="sluice",instance="a"}': '604900-15x240',
  }),
  when('SluiceCertificateExpired, which pages, in the last hours', '5m', {
    'sluice_certificate_expires_seconds{job="sluice",instance="a"}': '20000-15x240',
  }),
  when('SluiceCredentialRefused when most calls of an account get 401', '10m', {
    [`sluice_credential_refused_total{${ACCOUNT}}`]: perSecond(0.9),
    [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(1),
  }),
  when('nothing when some routes of a vendor answer 401', '20m', {
    [`sluice_credential_refused_total{${ACCOUNT}}`]: perSecond(0.2),
    [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(1),
  }),
  when('SluiceCredentialRefused when all calls of an account get 403', '10m', { [delivered('403')]: perSecond(1) }),
  when('nothing when many calls get 403, and others do not', '20m', {
    [delivered('403')]: perSecond(1),
    [delivered('200')]: perSecond(0.2),
  }),
  when('nothing when 403 is how the vendor throttles', '20m', {
    [delivered('403')]: perSecond(1),
    [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="yes"}`]: perSecond(1),
    [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(3),
  }),
  when('SluiceCredentialNotRenewed while a token endpoint fails, and only that', '20m', {
    [`sluice_credential_renewals_total{${ACCOUNT},result="failed"}`]: perSecond(0.02),
    [`sluice_credential_renewals_total{${ACCOUNT},result="ok"}`]: '3x240',
  }),
  when('nothing for a single failed renewal after which nobody called', '17m', {
    [`sluice_credential_renewals_total{${ACCOUNT},result="failed"}`]: '0x40 1x200',
    [`sluice_credential_renewals_total{${ACCOUNT},result="ok"}`]: '5x240',
  }),
  when('nothing for a single failed renewal of each of four gateways', '17m', {
    ...Object.fromEntries(
      ['a', 'b', 'c', 'd'].map((one) => [
        `sluice_credential_renewals_total{${ACCOUNT.replace('instance="a"', `instance="${one}"`)},result="failed"}`,
        '0x40 1x200',
      ]),
    ),
  }),
  when('nothing when a token could be had the second time', '15m', {
    [`sluice_credential_renewals_total{${ACCOUNT},result="failed"}`]: '0x40 1x200',
    [`sluice_credential_renewals_total{${ACCOUNT},result="ok"}`]: '3x41 4x200',
  }),
]
