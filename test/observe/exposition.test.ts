import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import type { Gauge } from '@prometheus-io/client'
import { describe, expect, it } from 'vitest'
import { UNKNOWN_BURN } from '../../src/gateway/burn.ts'
import { gaugesOf, gaugesOfAll } from '../../src/observe/gauges-of-all.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { NOTHING_OBSERVED } from '../support/observed.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'

const LABELS = { upstream: 'u', account: 'a', class: 'read' }

it('says what the library would say of the same metrics', async () => {
  const metrics = new Metrics()
  const strange = { ...LABELS, client: 'a "quoted" \\ name\nof two lines' }
  metrics.requests.of({ ...strange, status: '200', outcome: 'delivered' }).increment('an "id"')
  metrics.requests.of({ ...LABELS, client: 'b', status: '429', outcome: 'queue_full' }).increment()
  metrics.requestDuration.of(LABELS).observeMs(7, 'x')
  metrics.requestDuration.of(LABELS).observeMs(700_000, 'y')
  const own = (all: string) => all.split('\n').filter((line) => line.includes('sluice_'))
  const shown = own(await text(Readable.from(metrics.exposition())))
  expect(shown.toSorted()).toEqual(own(await metrics.registry.metrics()).toSorted())
})

it('writes many series in many turns of the event loop, and each of them whole', async () => {
  const metrics = new Metrics({ maxClients: 10_000, maxAccounts: 10_000 })
  for (let i = 0; i < 5_000; i++) {
    metrics.requests.of({ ...LABELS, client: `c${i}`, status: '200', outcome: 'delivered' }).increment('id')
    if (i % 5 === 0) metrics.requestDuration.of({ ...LABELS, account: `a${i}` }).observeMs(1, 'id')
  }
  const turns = countTurns()
  let most = 0
  let all = ''
  for await (const piece of metrics.exposition()) {
    all += piece
    if (!piece.includes('process_') && !piece.includes('nodejs_')) most = Math.max(most, piece.split('\n').length)
  }
  expect(parseMetrics(all).length).toBeGreaterThan(24_000)
  expect(most).toBeLessThan(500)
  expect(turns()).toBeGreaterThan(50)
})

it('shows how late a timer of the event loop was, and not the time that it was set for', async () => {
  const { registry } = new Metrics()
  const lag = registry.getSingleMetric('nodejs_eventloop_lag_p99_seconds') as Gauge<string>
  const shown = async () => (await lag.get()).values[0]?.value
  lag.set({}, 0.057)
  expect(await shown()).toBeCloseTo(0.007)
  lag.set({}, 0.049)
  expect(await shown()).toBe(0)
  lag.set({}, 0.06)
  // It did not run between two scrapes.
  for (const nothing of [NaN, 2 ** 63 / 1e9]) lag.set({}, nothing)
  expect(await shown()).toBeCloseTo(0.01)
})

it('shows of several processes how late the latest was, so that others do not hide one that stands still', async () => {
  const gauges = await Array.fromAsync(gaugesOf(new Metrics().registry))
  const p99 = gauges.find(({ name }) => name === 'nodejs_eventloop_lag_p99_seconds')!
  const lag = (value: number) => ({ ...p99, values: [{ labels: {}, value }] })
  const merged = (await Array.fromAsync(gaugesOfAll([lag(0.001), lag(0.9), lag(0.002)]))).join('')
  expect(merged).toMatch(/^nodejs_eventloop_lag_p99_seconds 0\.9$/m)
})

describe('gauges of many accounts', () => {
  const ACCOUNTS = 5_000
  const labelsOf = (i: number) => ({ upstream: 'u', account: `a${i}`, class: 'read' })
  const all = <T>(row: (i: number) => T): T[] => Array.from({ length: ACCOUNTS }, (_, i) => row(i))
  const observe = (metrics: Metrics) => {
    const asked = { usage: 0 }
    metrics.observe({
      ...NOTHING_OBSERVED,
      queues: () => all((i) => ({ labels: labelsOf(i), waiting: 1, inFlight: 2, adapted: undefined })),
      usage() {
        asked.usage++
        return Promise.resolve(
          all((i) => ({ labels: labelsOf(i), window: '1m', limit: 9, effective: 8, used: i % 9, ...UNKNOWN_BURN })),
        )
      },
      credentials: () =>
        all((i) => {
          const { upstream, account } = labelsOf(i)
          return { upstream, account, quarantined: 0, expiries: [{ credential: account, inMs: 1_000 }] }
        }),
    })
    return asked
  }

  it('let calls go on, whether accounts have their names or share one', async () => {
    for (const maxAccounts of [100, ACCOUNTS]) {
      const metrics = new Metrics({ maxClients: 0, maxAccounts })
      observe(metrics)
      const turns = countTurns()
      const pieces = await Array.fromAsync(metrics.exposition())
      expect(turns()).toBeGreaterThan(20)
      expect(Math.max(...pieces.map(({ length }) => length))).toBeLessThan(40_000)
      const depths = valuesOf(parseMetrics(pieces.join('')), 'sluice_queue_depth', 'account')
      expect(Object.keys(depths)).toHaveLength(Math.min(maxAccounts + 1, ACCOUNTS))
      expect(Object.values(depths).reduce((sum, depth) => sum + depth)).toBe(ACCOUNTS)
    }
  })

  it('ask the quota store once in a scrape, and again in the next', async () => {
    const metrics = new Metrics()
    const asked = observe(metrics)
    await Array.fromAsync(metrics.exposition())
    expect(asked.usage).toBe(1)
    await Array.fromAsync(gaugesOf(metrics.registry))
    expect(asked.usage).toBe(2)
  })

  it('are told to another process in small pieces, that together say the same', async () => {
    const metrics = new Metrics({ maxClients: 0, maxAccounts: 1_000 })
    observe(metrics)
    const pieces = await Array.fromAsync(gaugesOf(metrics.registry))
    for (const { values } of pieces) expect(values?.length ?? 0).toBeLessThanOrEqual(200)
    const merged = (await Array.fromAsync(gaugesOfAll(pieces))).join('')
    const quota = (text: string) => text.split('\n').filter((line) => line.startsWith('sluice_quota_used{'))
    expect(quota(merged)).toHaveLength(1_001)
    expect(quota(merged)).toEqual(quota((await Array.fromAsync(metrics.exposition())).join('')))
  })
})

/** Counts turns of the event loop, in which calls could have gone on. */
function countTurns(): () => number {
  let turns = 0
  const next = (): void => {
    turns++
    immediate = setImmediate(next)
  }
  let immediate = setImmediate(next)
  return () => {
    clearImmediate(immediate)
    return turns
  }
}
