import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { Metrics } from '../../src/observe/metrics.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'

const samplesOf = async (metrics: Metrics) => parseMetrics(await text(Readable.from(metrics.exposition())))

function count(metrics: Metrics, account: string, client: string): void {
  metrics.requests
    .of({ upstream: 'u', account, class: 'read', client, status: '200', outcome: 'delivered' })
    .increment('id')
}

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
