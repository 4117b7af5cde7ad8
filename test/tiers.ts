/**
 * Files that are no unit tests: they need a Redis or another server, start processes of the program, or simulate for long. What
 * is not listed runs with `npm run test:unit`, too, which has no Redis for it.
 */
export const BEYOND_UNITS = [
  'test/cli/**',
  'test/clients-tried/**',
  'test/deploy/**',
  'test/fuzz/**',
  'test/simulation/**',
  'test/soak/**',
  'test/system/**',
  'test/layers.test.ts',
  'test/cache/coalescing.test.ts',
  'test/cache/isolation.test.ts',
  'test/cache/reads.test.ts',
  'test/cache/reasons.test.ts',
  'test/cache/store.test.ts',
  'test/credentials/tokens.test.ts',
  'test/ledger/ledger.test.ts',
  'test/ledger/learning.test.ts',
  'test/ledger/redis/formats.test.ts',
  'test/process/open-ledger.test.ts',
  // what it tests happens once a process
  'test/process/warm-up.test.ts',
  'test/records/redis-*.test.ts',
  'test/secrets/store.test.ts',
  'test/secrets/vault.test.ts',
  'test/secrets/files.test.ts',
  'test/server/admin/audit.test.ts',
  'test/server/admin/clients.test.ts',
  'test/server/admin/page.test.ts',
  'test/server/metrics.test.ts',
  'test/support/fault-proxy.test.ts',
]

/** Where all tests are. */
export const EVERYTHING = ['test/**/*.test.ts']

/** The files that take longest, which therefore begin first: otherwise the last of them would run alone. */
export const LONGEST = [
  'test/system/workers.test.ts',
  'test/system/redis/outage.test.ts',
  'test/system/redis/processes.test.ts',
  'test/simulation/guarantee.test.ts',
  'test/system/mistakes.test.ts',
  'test/deploy/package.test.ts',
  'test/cli/cli.test.ts',
  'test/server/admin/page.test.ts',
  'test/system/queue.test.ts',
  'test/system/quota.test.ts',
  'test/deploy/alerts-fired.test.ts',
  'test/deploy/package.test.ts',
  'test/system/redis/fairness.test.ts',
  'test/system/redis/token-limited.test.ts',
  'test/system/faults/store.test.ts',
  'test/system/stalled-log.test.ts',
  'test/system/redis/refusals.test.ts',
  'test/system/redis/topologies.test.ts',
  'test/soak/soak.test.ts',
  'test/system/redis/second-consumer.test.ts',
  'test/system/drain.test.ts',
  'test/clients-tried/clients.test.ts',
  'test/system/leaks.test.ts',
  'test/system/linear-time.test.ts',
  'test/deploy/prometheus.test.ts',
  'test/simulation/random-cases.test.ts',
  'test/simulation/fairness.test.ts',
]
