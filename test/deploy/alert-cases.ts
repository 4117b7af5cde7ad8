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

const ACCOUNT = 'upstream="harness",account="prod",instance="a"'
const CLASS_LABELS = 'upstream="harness",account="prod",class="read",instance="a"'

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

export const ALERT_CASES: readonly AlertCase[] = [
  {
    name: 'nothing while all is well',
    series: {
      [calls('delivered')]: perSecond(10),
      [calls('quota_exhausted')]: perSecond(0.2),
      [calls('client_gone')]: perSecond(5),
      [`sluice_breaker_state{upstream="harness",instance="a"}`]: '0x240',
      [`sluice_store_errors_total{instance="a"}`]: '0x240',
      [`sluice_store_degraded{instance="a"}`]: '0x240',
      [`sluice_workers_missing{instance="a"}`]: '0x240',
      [`sluice_log_dropped_total{instance="a"}`]: '7x240',
      [`sluice_quota_limit{${CLASS_LABELS},window="1m"}`]: '1000x240',
      [`sluice_quota_effective_limit{${CLASS_LABELS},window="1m"}`]: '1000x240',
      [`sluice_quota_low_total{${CLASS_LABELS},window="1m"}`]: '0x100 1x140',
      [`sluice_quota_used{${CLASS_LABELS},window="1m"}`]: '850x240',
      [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(10),
      [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="yes"}`]: perSecond(2),
      ...overhead(false),
    },
    at: '30m',
    firing: [],
  },
  {
    name: 'SluiceDown for an instance that does not answer',
    series: {
      'up{job="sluice",instance="a"}': '1x20 0x20',
      'up{job="sluice",instance="b"}': '1x240',
      'sluice_build_info{job="sluice",instance="a"}': '1x20',
      'sluice_build_info{job="sluice",instance="b"}': '1x240',
    },
    at: '7m',
    firing: ['SluiceDown'],
  },
  {
    name: 'SluiceDown for a gateway whose job has another name, and not for other programs of that job',
    series: {
      'up{job="egress",instance="a"}': '1x20 0x20',
      'sluice_build_info{job="egress",instance="a"}': '1x20',
      'up{job="egress",instance="redis"}': '0x40',
      'up{job="egress",instance="b"}': '1x240',
      'sluice_build_info{job="egress",instance="b"}': '1x240',
    },
    at: '7m',
    firing: ['SluiceDown'],
  },
  {
    name: 'nothing for gateways whose job is not called sluice',
    series: { 'up{job="egress",instance="b"}': '1x240', 'sluice_build_info{job="egress",instance="b"}': '1x240' },
    at: '30m',
    firing: [],
  },
  {
    name: 'nothing for a scrape that failed',
    series: { 'up{job="sluice",instance="a"}': '1x20 0x1 1x20' },
    at: '5m15s',
    firing: [],
  },
  {
    name: 'SluiceDown where Prometheus knows of no gateway at all',
    series: { 'up{job="sluice",instance="a"}': '_x240', 'sluice_build_info{job="sluice",instance="a"}': '_x240' },
    at: '8m',
    firing: ['SluiceDown'],
  },
  {
    name: 'SluiceRestarts for a process that does not stay up',
    series: { 'sluice_start_time_seconds{job="sluice",instance="a"}': '1x20 100x20 200x20 300x20' },
    at: '20m',
    firing: ['SluiceRestarts'],
  },
  {
    name: 'nothing for two restarts of a rolling update',
    series: { 'sluice_start_time_seconds{job="sluice",instance="a"}': '1x20 100x20 200x200' },
    at: '20m',
    firing: [],
  },
  {
    name: 'SluiceWorkersMissing for a worker that does not come back',
    series: { 'sluice_workers_missing{job="sluice",instance="a"}': '0x20 1x220' },
    at: '20m',
    firing: ['SluiceWorkersMissing'],
  },
  {
    name: 'SluiceWorkersMissing for workers that die as soon as they are back',
    series: { 'sluice_workers_missing{job="sluice",instance="a"}': `0x20 ${'1 0 0 0 '.repeat(50)}` },
    at: '20m',
    firing: ['SluiceWorkersMissing'],
  },
  {
    name: 'nothing for a worker that is replaced',
    series: { 'sluice_workers_missing{job="sluice",instance="a"}': '0x60 1 1 0x180' },
    at: '18m',
    firing: [],
  },
  {
    name: 'SluiceLogDropped where nobody reads the log',
    series: { 'sluice_log_dropped_total{job="sluice",instance="a"}': '0x60 5x180' },
    at: '20m',
    firing: ['SluiceLogDropped'],
  },
  {
    name: 'nothing when the log has been read again for a while',
    series: { 'sluice_log_dropped_total{job="sluice",instance="a"}': '0x20 5x220' },
    at: '20m',
    firing: [],
  },
  {
    name: 'SluiceSpansDropped while the collector takes none',
    series: { 'sluice_trace_spans_dropped_total{job="sluice",instance="a"}': '0x60 5+5x180' },
    at: '30m',
    firing: ['SluiceSpansDropped'],
  },
  {
    name: 'nothing for spans that were lost once',
    series: { 'sluice_trace_spans_dropped_total{job="sluice",instance="a"}': '0x60 5x180' },
    at: '30m',
    firing: [],
  },
  {
    name: 'SluiceUsageUnwritten while the store does not take it',
    series: { 'sluice_usage_unwritten_total{job="sluice",instance="a"}': '0x60 1+1x180' },
    at: '30m',
    firing: ['SluiceUsageUnwritten'],
  },
  {
    name: 'nothing for usage that was written the next time',
    series: { 'sluice_usage_unwritten_total{job="sluice",instance="a"}': '0x60 1x180' },
    at: '30m',
    firing: [],
  },
  {
    name: 'SluiceMemoryHigh for a process that is near its limit',
    series: {
      'process_resident_memory_bytes{job="sluice",instance="a"}': '100x20 190x200',
      'sluice_memory_limit_bytes{job="sluice",instance="a"}': '200x240',
    },
    at: '20m',
    firing: ['SluiceMemoryHigh'],
  },
  {
    name: 'nothing for one that was so for a few minutes',
    series: {
      'process_resident_memory_bytes{job="sluice",instance="a"}': '100x20 190x20 100x200',
      'sluice_memory_limit_bytes{job="sluice",instance="a"}': '200x240',
    },
    at: '20m',
    firing: [],
  },
  {
    name: 'SluiceReloadRejected while a wrong configuration waits to be corrected',
    series: { 'sluice_config_last_reload_successful{job="sluice",instance="a"}': '1x20 0x100' },
    at: '12m',
    firing: ['SluiceReloadRejected'],
  },
  {
    name: 'nothing once it was',
    series: { 'sluice_config_last_reload_successful{job="sluice",instance="a"}': '1x20 0x12 1x200' },
    at: '12m',
    firing: [],
  },
  {
    name: 'nothing for a breaker that opened once and closed after its probe',
    series: { 'sluice_breaker_state{upstream="harness",instance="a"}': '0x4 2x4 1x1 0x200' },
    at: '4m',
    firing: [],
  },
  {
    name: 'SluiceBreakerOpen for one that opens again after every probe',
    series: { 'sluice_breaker_state{upstream="harness",instance="a"}': '0x4 2x4 1x1 2x4 1x1 2x4 1x1 2x4 1x1 2x200' },
    at: '8m',
    firing: ['SluiceBreakerOpen'],
  },
  {
    name: 'nothing for a half-open breaker that no call probes',
    series: { 'sluice_breaker_state{upstream="harness",instance="a"}': '0x4 2x4 1x200' },
    at: '20m',
    firing: [],
  },
  {
    name: 'SluiceStoreErrors while calls are refused for want of the store',
    series: { 'sluice_store_errors_total{instance="a"}': '0x20 0+2x40' },
    at: '9m',
    firing: ['SluiceStoreErrors'],
  },
  {
    name: 'nothing for a Redis that was away for a moment',
    series: {
      'sluice_store_errors_total{instance="a"}': '0x20 7x40',
      'sluice_store_degraded{instance="a"}': '0x20 1x1 0x40',
    },
    at: '5m30s',
    firing: [],
  },
  {
    name: 'SluiceStoreDegraded for an instance without a connection to its store, though nobody calls',
    series: { 'sluice_store_degraded{instance="a"}': '0x20 1x40' },
    at: '8m',
    firing: ['SluiceStoreDegraded'],
  },
  {
    name: 'SluiceStoreLostData when one of two gateways found that clients were lost',
    series: {
      'sluice_store_losses_total{instance="a",records="clients"}': '0x20 1x40',
      'sluice_store_losses_total{instance="b",records="clients"}': '0x60',
      'sluice_store_losses_total{instance="a",records="secrets"}': '0x60',
    },
    at: '6m',
    firing: ['SluiceStoreLostData'],
  },
  {
    name: 'nothing for what was lost before',
    series: {
      'sluice_store_losses_total{instance="a",records="clients"}': '3x240',
      'sluice_store_losses_total{instance="a",records="secrets"}': '0x240',
    },
    at: '30m',
    firing: [],
  },
  {
    name: 'SluiceHighRefusals when a fifth of the calls finds no quota',
    series: { [calls('delivered')]: perSecond(8), [calls('quota_exhausted')]: perSecond(2) },
    at: '15m',
    firing: ['SluiceHighRefusals'],
  },
  {
    name: 'nothing when that has lasted only four minutes',
    series: { [calls('delivered')]: perSecond(8), [calls('quota_exhausted')]: perSecond(2) },
    at: '4m',
    firing: [],
  },
  {
    name: 'nothing for a job that calls every two minutes, though it is always refused',
    series: { [calls('timeout')]: perSecond(1 / 120) },
    at: '40m',
    firing: [],
  },
  {
    name: 'SluiceCallersRejected, which wakes nobody, when a tool comes with a revoked key',
    series: { [calls('delivered')]: perSecond(1), [calls('unauthenticated')]: perSecond(1) },
    at: '30m',
    firing: ['SluiceCallersRejected'],
  },
  {
    name: 'nothing when that has lasted only ten minutes',
    series: { [calls('delivered')]: perSecond(1), [calls('unauthenticated')]: perSecond(1) },
    at: '10m',
    firing: [],
  },
  {
    name: 'nothing for somebody who tries a wrong key now and then',
    series: { [calls('unauthenticated')]: perSecond(1 / 120) },
    at: '40m',
    firing: [],
  },
  {
    name: 'SluiceUpstreamThrottledUnexplained for the first such 429, whose series did not exist before',
    series: { [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: '_x80 1x160' },
    at: '22m',
    firing: ['SluiceUpstreamThrottledUnexplained'],
  },
  {
    name: 'SluiceUpstreamThrottledUnexplained for the second one, an hour later',
    series: { [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: '1x200 2x40' },
    at: '52m',
    firing: ['SluiceUpstreamThrottledUnexplained'],
  },
  {
    name: 'nothing a quarter of an hour after it',
    series: { [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: '_x80 1x160' },
    at: '36m',
    firing: [],
  },
  {
    name: 'SluiceUpstreamThrottling too, when a tenth of the attempts is throttled without explanation',
    series: {
      [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: perSecond(1),
      [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(10),
    },
    at: '20m',
    firing: ['SluiceUpstreamThrottledUnexplained', 'SluiceUpstreamThrottling'],
  },
  {
    name: 'SluiceUpstreamThrottledUnexplained only, while that has lasted four minutes',
    series: {
      [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: perSecond(1),
      [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(10),
    },
    at: '4m',
    firing: ['SluiceUpstreamThrottledUnexplained'],
  },
  {
    name: 'SluiceUpstreamThrottling when nearly every attempt is throttled, though the smaller limit explains most of it',
    series: {
      [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="no"}`]: perSecond(0.02),
      [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="yes"}`]: perSecond(0.4),
      [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(0.45),
    },
    at: '20m',
    firing: ['SluiceUpstreamThrottledUnexplained', 'SluiceUpstreamThrottling'],
  },
  {
    name: 'SluiceUpstreamErrors when two fifths of the answers that callers get are 5xx',
    series: { [calls('delivered')]: perSecond(1), [delivered('500')]: perSecond(0.66) },
    at: '8m',
    firing: ['SluiceUpstreamBurnFast', 'SluiceUpstreamErrors'],
  },
  {
    name: 'only a ticket for a few of them among very many',
    series: { [calls('delivered')]: perSecond(10), [delivered('500')]: perSecond(0.5) },
    at: '30m',
    firing: ['SluiceUpstreamBurnSlow'],
  },
  {
    name: 'SluiceUpstreamBurnFast for an hour in which a sixth of the calls fails, in whatever way',
    series: {
      [calls('delivered')]: perSecond(10),
      [delivered('502')]: perSecond(0.9),
      [calls('unreachable')]: perSecond(0.9),
    },
    at: '5m',
    firing: ['SluiceUpstreamBurnFast'],
  },
  {
    name: 'only a ticket half an hour after the upstream answers again',
    series: { [calls('delivered')]: perSecond(10), [calls('unreachable')]: '0+60x20 1200x200' },
    at: '45m',
    firing: ['SluiceUpstreamBurnSlow'],
  },
  {
    name: 'nothing for as large a share of few calls',
    series: { [calls('delivered')]: perSecond(0.05), [delivered('500')]: perSecond(0.01) },
    at: '55m',
    firing: [],
  },
  {
    name: 'SluiceGatewayBurnFast when one call in thirty finds no credential, which is too few for SluiceHighRefusals',
    series: { [calls('delivered')]: perSecond(10), [calls('credential_unavailable')]: perSecond(0.33) },
    at: '10m',
    firing: ['SluiceGatewayBurnFast'],
  },
  {
    name: 'SluiceGatewayBurnSlow for a little that goes on, and nothing for what is refused for a quota',
    series: {
      [calls('delivered')]: perSecond(100),
      [calls('quota_exhausted')]: perSecond(5),
      [calls('draining')]: perSecond(0.3),
    },
    at: '30m',
    firing: ['SluiceGatewayBurnSlow'],
  },
  {
    name: 'SluiceQueueSlow when one in five of the calls that wait does so for six seconds or more',
    series: waits(0.8),
    at: '20m',
    firing: ['SluiceQueueSlow'],
  },
  {
    name: 'nothing when one in twenty does',
    series: waits(0.95),
    at: '20m',
    firing: [],
  },
  {
    name: 'nothing for a job that calls every two minutes, though it always gets 500',
    series: { [delivered('500')]: perSecond(1 / 120) },
    at: '30m',
    firing: [],
  },
  {
    name: 'SluiceRetryBudgetExhausted for the first retry left out',
    series: { 'sluice_retry_budget_exhausted_total{upstream="harness",instance="a"}': '_x80 1x160' },
    at: '22m',
    firing: ['SluiceRetryBudgetExhausted'],
  },
  {
    name: 'SluiceRetryBudgetExhausted for the next one, an hour later',
    series: { 'sluice_retry_budget_exhausted_total{upstream="harness",instance="a"}': '1x200 2x40' },
    at: '52m',
    firing: ['SluiceRetryBudgetExhausted'],
  },
  {
    name: 'SluiceQuotaNearlyUsed after five minutes near the limit',
    series: {
      [`sluice_quota_limit{${CLASS_LABELS},window="1m"}`]: '1000x240',
      [`sluice_quota_used{${CLASS_LABELS},window="1m"}`]: '100x20 950x40',
    },
    at: '11m',
    firing: ['SluiceQuotaNearlyUsed'],
  },
  {
    name: 'SluiceQuotaNearlyUsed for what is left of a limit that the upstream made smaller, and that it is',
    series: {
      [`sluice_quota_limit{${CLASS_LABELS},window="1m"}`]: '1000x240',
      [`sluice_quota_effective_limit{${CLASS_LABELS},window="1m"}`]: '1000x20 600x200',
      [`sluice_quota_used{${CLASS_LABELS},window="1m"}`]: '100x20 580x200',
    },
    at: '20m',
    firing: ['SluiceQuotaNearlyUsed', 'SluiceQuotaReduced'],
  },
  {
    name: 'nothing for a limit that was smaller for a few windows',
    series: {
      [`sluice_quota_limit{${CLASS_LABELS},window="1m"}`]: '1000x240',
      [`sluice_quota_effective_limit{${CLASS_LABELS},window="1m"}`]: '1000x20 600x20 1000x200',
      [`sluice_quota_used{${CLASS_LABELS},window="1m"}`]: '100x240',
    },
    at: '20m',
    firing: [],
  },
  {
    name: 'SluiceQuotaExhaustionAhead for a limit that will be used up within two hours',
    series: {
      [`sluice_quota_exhaustion_seconds{${CLASS_LABELS},window="24h"}`]: '9000-15x200',
      [`sluice_quota_burn_ratio{${CLASS_LABELS},window="24h"}`]: '3x200',
    },
    at: '40m',
    firing: ['SluiceQuotaExhaustionAhead'],
  },
  {
    name: 'nothing for one that will be later, has been, is not enforced, or is of a short window',
    series: {
      [`sluice_quota_exhaustion_seconds{${CLASS_LABELS},window="24h"}`]: '9000x200',
      [`sluice_quota_exhaustion_seconds{${CLASS_LABELS},window="1h"}`]: '0x200',
      [`sluice_quota_exhaustion_seconds{${CLASS_LABELS},window="24h shadow"}`]: '600x200',
      [`sluice_quota_exhaustion_seconds{${CLASS_LABELS},window="1m"}`]: '30 20 10 0 50 _x3 40 5x200',
    },
    at: '40m',
    firing: [],
  },
  {
    name: 'SluiceQuotaLow for a limit of which little was left again and again',
    series: {
      [`sluice_quota_low_total{${CLASS_LABELS},window="1m"}`]: '0x20 1x20 2x20 3x20 4x20 5x20 6x20 7x20 8x100',
    },
    at: '45m',
    firing: ['SluiceQuotaLow'],
  },
  {
    name: 'nothing for one that ran low now and then',
    series: { [`sluice_quota_low_total{${CLASS_LABELS},window="1m"}`]: '0x60 1x60 2x60 3x60' },
    at: '55m',
    firing: [],
  },
  {
    name: 'nothing for a limit that is not enforced',
    series: {
      [`sluice_quota_limit{${CLASS_LABELS},window="1m shadow"}`]: '1000x240',
      [`sluice_quota_used{${CLASS_LABELS},window="1m shadow"}`]: '100x20 1950x40',
    },
    at: '11m',
    firing: [],
  },
  {
    name: 'nothing for a burst of two minutes',
    series: {
      [`sluice_quota_limit{${CLASS_LABELS},window="1m"}`]: '1000x240',
      [`sluice_quota_used{${CLASS_LABELS},window="1m"}`]: '100x20 1000x8 100x40',
    },
    at: '7m',
    firing: [],
  },
  {
    name: 'SluiceGatewayOverheadHigh when calls spend more than 50 ms in the gateway itself',
    series: overhead(true),
    at: '20m',
    firing: ['SluiceGatewayOverheadHigh'],
  },
  {
    name: 'nothing when that has lasted only eight minutes',
    series: overhead(true),
    at: '8m',
    firing: [],
  },
  {
    name: 'SluiceInternalErrors for the first bug',
    series: { [calls('internal')]: '_x80 1x160' },
    at: '22m',
    firing: ['SluiceInternalErrors'],
  },
  {
    name: 'SluiceInternalErrors for the next one, an hour later',
    series: { [calls('internal')]: '1x200 2x40' },
    at: '52m',
    firing: ['SluiceInternalErrors'],
  },
  {
    name: 'SluiceCredentialRolledBack for the first rollback',
    series: { [`sluice_credential_rollbacks_total{${ACCOUNT}}`]: '_x80 1x160' },
    at: '22m',
    firing: ['SluiceCredentialRolledBack'],
  },
  {
    name: 'SluiceCredentialRolledBack for the next one, an hour later',
    series: { [`sluice_credential_rollbacks_total{${ACCOUNT}}`]: '0x100 1x100 2x40' },
    at: '52m',
    firing: ['SluiceCredentialRolledBack'],
  },
  {
    name: 'SluiceCredentialExpires a week before',
    series: { [`sluice_credential_expires_seconds{${ACCOUNT},credential="harness/prod"}`]: '604900-15x240' },
    at: '5m',
    firing: ['SluiceCredentialExpires'],
  },
  {
    name: 'nothing for a credential that lives longer',
    series: { [`sluice_credential_expires_seconds{${ACCOUNT},credential="harness/prod"}`]: '700000-15x240' },
    at: '30m',
    firing: [],
  },
  {
    name: 'SluiceCredentialExpired when it is too late',
    series: { [`sluice_credential_expires_seconds{${ACCOUNT},credential="harness/prod"}`]: '100-15x240' },
    at: '5m',
    firing: ['SluiceCredentialExpired'],
  },
  {
    name: 'SluiceClientKeyExpires a week before, and no more once it has',
    series: {
      'sluice_client_key_expires_seconds{client="bot",key="CI",instance="a"}': '604900-15x240',
      'sluice_client_key_expires_seconds{client="old",key="CI",instance="a"}': '-5-15x240',
    },
    at: '5m',
    firing: ['SluiceClientKeyExpires'],
  },
  {
    name: 'SluiceCertificateExpires a week before',
    series: { 'sluice_certificate_expires_seconds{job="sluice",instance="a"}': '604900-15x240' },
    at: '5m',
    firing: ['SluiceCertificateExpires'],
  },
  {
    name: 'SluiceCertificateExpired, which pages, in the last hours',
    series: { 'sluice_certificate_expires_seconds{job="sluice",instance="a"}': '20000-15x240' },
    at: '5m',
    firing: ['SluiceCertificateExpired'],
  },
  {
    name: 'SluiceCredentialRefused when most calls of an account get 401',
    series: {
      [`sluice_credential_refused_total{${ACCOUNT}}`]: perSecond(0.9),
      [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(1),
    },
    at: '10m',
    firing: ['SluiceCredentialRefused'],
  },
  {
    name: 'nothing when some routes of a vendor answer 401',
    series: {
      [`sluice_credential_refused_total{${ACCOUNT}}`]: perSecond(0.2),
      [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(1),
    },
    at: '20m',
    firing: [],
  },
  {
    name: 'SluiceCredentialRefused when all calls of an account get 403',
    series: { [delivered('403')]: perSecond(1) },
    at: '10m',
    firing: ['SluiceCredentialRefused'],
  },
  {
    name: 'nothing when many calls get 403, and others do not',
    series: { [delivered('403')]: perSecond(1), [delivered('200')]: perSecond(0.2) },
    at: '20m',
    firing: [],
  },
  {
    name: 'nothing when 403 is how the vendor throttles',
    series: {
      [delivered('403')]: perSecond(1),
      [`sluice_upstream_throttled_total{${CLASS_LABELS},explained="yes"}`]: perSecond(1),
      [`sluice_attempts_total{${CLASS_LABELS},reason="first"}`]: perSecond(3),
    },
    at: '20m',
    firing: [],
  },
  {
    name: 'SluiceCredentialNotRenewed while a token endpoint fails, and only that',
    series: {
      [`sluice_credential_renewals_total{${ACCOUNT},result="failed"}`]: perSecond(0.02),
      [`sluice_credential_renewals_total{${ACCOUNT},result="ok"}`]: '3x240',
    },
    at: '20m',
    firing: ['SluiceCredentialNotRenewed'],
  },
  {
    name: 'nothing when a token could be had the second time',
    series: {
      [`sluice_credential_renewals_total{${ACCOUNT},result="failed"}`]: '0x40 1x200',
      [`sluice_credential_renewals_total{${ACCOUNT},result="ok"}`]: '3x41 4x200',
    },
    at: '15m',
    firing: [],
  },
]
