import { ACCOUNTS, bars, GATEWAYS, graph, heading, query, table, type Panel } from './parts.ts'
import { THRESHOLDS } from './thresholds.ts'

const ofProcess = (metric: string): string => `${metric} and on (instance, job) sluice_store_degraded{${GATEWAYS}}`

/** What the gateways themselves need, and what expires. */
export const gatewayPanels: readonly Panel[] = [
  heading('Gateways'),
  graph('CPU', 'Cores used, per instance, by all of its processes. One process can’t use more than about one.', [
    query(ofProcess(`rate(process_cpu_seconds_total{${GATEWAYS}}[$__rate_interval])`), '{{instance}}'),
  ]),
  graph(
    'Event loop',
    'How late a timer of 50 ms was (p99). An idle gateway is near 0. With workers it is that of the process that is latest. Above some 50 ms everything waits for the processor.',
    [query(ofProcess(`nodejs_eventloop_lag_p99_seconds{${GATEWAYS}}`), '{{instance}}')],
    { unit: 's' },
  ),
  graph(
    'Memory',
    'Resident memory per instance, of all of its processes, and what it may use: the limit of its container, or of the machine.',
    [
      query(ofProcess(`process_resident_memory_bytes{${GATEWAYS}}`), '{{instance}}'),
      query(`sluice_memory_limit_bytes{${GATEWAYS}}`, '{{instance}} may use'),
    ],
    { unit: 'bytes' },
  ),
  graph('Client connections', 'Connections of clients that are open, idle ones included.', [
    query(`sum by (instance) (sluice_client_connections{${GATEWAYS}})`, '{{instance}}'),
  ]),
  graph(
    'Workers missing, and log lines lost',
    'Workers that did not answer the scrape or are being replaced; and lines of the log that were dropped because nobody read standard output.',
    [
      query(`sum by (instance) (sluice_workers_missing{${GATEWAYS}})`, '{{instance}} lacks workers'),
      query(
        `sum by (instance) (increase(sluice_log_dropped_total{${GATEWAYS}}[$__rate_interval]))`,
        '{{instance}} dropped lines',
      ),
    ],
  ),
  graph(
    'Reloads',
    'Reloads of the configuration, by what became of them.',
    [query(`sum by (result) (increase(sluice_config_reload_total{${GATEWAYS}}[$__rate_interval]))`, '{{result}}')],
    { bars: true, colors: { rejected: 'red', applied: 'green' } },
  ),
  graph(
    'Webhook messages',
    'Messages to webhooks: sent, failed for good, or dropped because too many waited.',
    [
      query(
        `sum by (webhook, result) (increase(sluice_webhook_messages_total{${GATEWAYS}}[$__rate_interval]))`,
        '{{webhook}}: {{result}}',
      ),
    ],
    { bars: true, stacked: true },
  ),
  table(
    'Versions',
    'What runs where: version, and Node.js. Two versions at once are a rolling update, or one that got stuck.',
    `sluice_build_info{${GATEWAYS}}`,
  ),
  heading('What expires'),
  bars(
    'Credentials expire in',
    'Until a credential stops being valid, of those of which that is known.',
    query(
      `min by (upstream, account, credential) (sluice_credential_expires_seconds{${ACCOUNTS}})`,
      '{{credential}} of {{upstream}}/{{account}}',
    ),
    { unit: 's', thresholds: THRESHOLDS.expiry },
  ),
  bars(
    'Client keys expire in',
    'Until a key of a client is refused, of those that expire.',
    query(
      `min by (client, key) (sluice_client_key_expires_seconds{${GATEWAYS},client=~"$client"})`,
      '{{client}}: {{key}}',
    ),
    { unit: 's', thresholds: THRESHOLDS.expiry },
  ),
  bars(
    'Certificates expire in',
    'Until the certificate of server.tls stops being valid.',
    query(`min by (instance) (sluice_certificate_expires_seconds{${GATEWAYS}})`, '{{instance}}'),
    { unit: 's', thresholds: THRESHOLDS.expiry },
  ),
  graph(
    'Credentials out of use',
    'Credentials of pools that are left out for a while because the upstream refused them; and answers from which a credential was scrubbed.',
    [
      query(
        `max by (upstream, account) (sluice_credential_quarantined{${ACCOUNTS}})`,
        '{{upstream}}/{{account}} left out',
      ),
      query(
        `sum by (upstream, account) (increase(sluice_credentials_scrubbed_total{${ACCOUNTS}}[$__rate_interval]))`,
        '{{upstream}}/{{account}} scrubbed',
      ),
    ],
    { leadsBy: ['upstream', 'account'] },
  ),
]
