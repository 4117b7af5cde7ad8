import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import type { Observed } from '../../src/observe/gauges.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { NOTHING_OBSERVED } from '../support/observed.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'

async function samplesOf(observed: Partial<Observed>): Promise<ReturnType<typeof parseMetrics>> {
  const metrics = new Metrics()
  metrics.observe({ ...NOTHING_OBSERVED, ...observed })
  return parseMetrics(await text(Readable.from(metrics.exposition())))
}

describe('the gauges of a limit', () => {
  it('show what of the share of a region can be used, whether the upstream lets less through or not', async () => {
    const usage = (account: string, effective: number) => ({
      labels: { upstream: 'u', account, class: 'read' },
      window: '1m',
      limit: 1_000,
      share: 500,
      effective,
      used: 100,
      exhaustionInMs: null,
      burnRatio: null,
    })
    const samples = await samplesOf({ usage: async () => [usage('whole', 500), usage('less', 300)] })
    expect(valuesOf(samples, 'sluice_quota_effective_limit', 'account')).toEqual({ whole: 500, less: 300 })
    expect(valuesOf(samples, 'sluice_quota_region_share', 'account')).toEqual({ whole: 500, less: 500 })
    expect(valuesOf(samples, 'sluice_quota_limit', 'account')).toEqual({ whole: 1_000, less: 1_000 })
  })
})

describe('the gauge of keys that expire', () => {
  it('shows the next one, and none that has expired already', async () => {
    const keys = [
      { client: 'bot', key: 'old', inMs: -60_000 },
      { client: 'bot', key: 'new', inMs: 3_600_000 },
      { client: 'bot', key: 'ci', inMs: 7_200_000 },
      { client: 'bot', key: 'ci', inMs: -1 },
    ]
    const samples = await samplesOf({ clientKeys: () => keys })
    const shown = valuesOf(samples, 'sluice_client_key_expires_seconds', 'client', 'key')
    expect(shown).toEqual({ 'bot new': 3_600, 'bot ci': 7_200 })
  })
})
