import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { Metrics } from '../../src/observe/metrics.ts'
import { NOTHING_OBSERVED } from '../support/observed.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'

const samplesOf = async (metrics: Metrics) => parseMetrics(await text(Readable.from(metrics.exposition())))

function count(metrics: Metrics, account: string, client: string): void {
  metrics.requests
    .of({ upstream: 'u', account, class: 'read', client, status: '200', outcome: 'delivered' })
    .increment('id')
}

/** A process of which nothing is known but these budgets. */
function observeBudgets(metrics: Metrics, budgets: readonly (readonly [string, number, number, string?])[]): void {
  metrics.observe({
    ...NOTHING_OBSERVED,
    budgets: async () =>
      budgets.map(([name, used, limit, window = '1h']) => {
        return { level: 'client', name, used, limit, window, exhaustionInMs: null, burnRatio: null }
      }),
  })
}

describe('the names of clients in metrics of budgets', () => {
  const shown = async (metrics: Metrics) => {
    const samples = await samplesOf(metrics)
    const of = (name: string) => valuesOf(samples, `sluice_client_budget_${name}`, 'client', 'window')
    return { used: of('used'), limit: of('limit') }
  }

  it('are those with the fullest budgets, whoever called first', async () => {
    const metrics = new Metrics({ maxClients: 1, maxAccounts: 1 })
    count(metrics, 'a', 'aa')
    const idle = Array.from({ length: 500 }, (_, i) => [`idle-${i}`, 0, 1_000] as const)
    observeBudgets(metrics, [['aa', 0, 10], ...idle, ['bot', 10, 10], ['bot', 10, 900, 'day'], ['half', 5, 10]])
    // What others have used and may use is of one budget: else half of ten would be five of a thousand.
    expect(await shown(metrics)).toEqual({
      used: { 'bot 1h': 10, 'bot day': 10, 'other 1h': 5 },
      limit: { 'bot 1h': 10, 'bot day': 900, 'other 1h': 10 },
    })
  })

  it('are left out with all names, and the fullest budget is shown', async () => {
    const metrics = new Metrics({ maxClients: 0, maxAccounts: 1 })
    observeBudgets(metrics, [
      ['aa', 0, 10],
      ['bot', 9, 10],
    ])
    const samples = (await samplesOf(metrics)).filter(({ name }) => name === 'sluice_client_budget_used')
    expect(samples).toMatchObject([{ labels: { window: '1h' }, value: 9 }])
    expect(samples[0]!.labels).not.toHaveProperty('client')
  })
})

describe('the names of clients and accounts in metrics', () => {
  it('are those of the first ones; all later ones share one name, and the sum stays true', async () => {
    const metrics = new Metrics({ maxClients: 2, maxAccounts: 3 })
    for (let client = 0; client < 20; client++) {
      for (let account = 0; account < 10; account++) count(metrics, `a${account}`, `c${client}`)
    }
    const samples = await samplesOf(metrics)
    expect(valuesOf(samples, 'sluice_requests_total', 'client')).toEqual({ c0: 10, c1: 10, other: 180 })
    expect(valuesOf(samples, 'sluice_requests_total', 'account')).toEqual({ a0: 20, a1: 20, a2: 20, other: 140 })
    expect(samples.filter(({ name }) => name === 'sluice_requests_total')).toHaveLength(12)
  })

  it('take no place for calls without a client or an account', async () => {
    const metrics = new Metrics({ maxClients: 1, maxAccounts: 1 })
    count(metrics, 'unknown', 'unknown')
    count(metrics, 'a', 'anonymous')
    count(metrics, 'a', 'bot')
    const samples = await samplesOf(metrics)
    expect(valuesOf(samples, 'sluice_requests_total', 'account', 'client')).toEqual({
      'unknown unknown': 1,
      'a anonymous': 1,
      'a bot': 1,
    })
  })

  it('tell accounts of the same name at different upstreams apart', async () => {
    const metrics = new Metrics({ maxClients: 1, maxAccounts: 1 })
    for (const upstream of ['u', 'v']) metrics.credentialRollbacks.of({ upstream, account: 'prod' }).increment()
    const samples = await samplesOf(metrics)
    expect(valuesOf(samples, 'sluice_credential_rollbacks_total', 'upstream', 'account')).toEqual({
      'u prod': 1,
      'v other': 1,
    })
  })

  it('can be left out for clients', async () => {
    const metrics = new Metrics({ maxClients: 0, maxAccounts: 10 })
    for (const client of ['a', 'b', 'unknown']) count(metrics, 'prod', client)
    const [sample, ...more] = (await samplesOf(metrics)).filter(({ name }) => name === 'sluice_requests_total')
    expect(sample).toMatchObject({ value: 3, labels: { account: 'prod' } })
    expect(sample!.labels).not.toHaveProperty('client')
    expect(more).toEqual([])
  })
})
