import { beforeAll, afterAll, describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { harnessConfig, startGateway, startUpstream, stores } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'

const scrape = async (gateway: { metrics(): Promise<string> }) => parseMetrics(await gateway.metrics())

describe('/metrics', () => {
  it('is compressed for a scraper that accepts it, and says the same', async () => {
    const { adminUrl } = await startGateway(harnessConfig('http://127.0.0.1:1'))
    const response = await fetch(`${adminUrl}/metrics`, { headers: { 'accept-encoding': 'identity' } })
    expect(response.headers.get('content-encoding')).toBeNull()
    expect(response.headers.get('vary')).toBe('accept, accept-encoding')
    const zipped = await call(adminUrl, '/metrics', { headers: { 'accept-encoding': 'deflate, gzip;q=0.5' } })
    expect(zipped.headers['content-encoding']).toBe('gzip')
    expect(zipped.headers['content-type']).toBe(response.headers.get('content-type'))
    const raw = await fetch(`${adminUrl}/metrics`)
    expect(raw.headers.get('content-encoding')).toBe('gzip')
    // Its metadata, since a family may get its first sample between the two: of a collection of garbage, of a request in flight.
    const families = (text: string) => text.match(/^# (?:TYPE|HELP) .*$/gm)
    const unpacked = families(await raw.text())
    expect(unpacked).toEqual(families(await response.text()))
    expect(unpacked).toContain('# TYPE sluice_build_info gauge')
  })

  it('wants the token for metrics, or one for everything, where there is one', async () => {
    const admin = { port: 0, token: 'all', metricsToken: 'only-metrics' }
    const { adminUrl } = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin }))
    const statusWith = async (path: string, token?: string) => {
      const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
      return (await call(adminUrl, path, { headers })).status
    }
    expect(await statusWith('/metrics')).toBe(401)
    expect(await statusWith('/metrics', 'wrong')).toBe(401)
    expect(await statusWith('/metrics', 'only-metrics')).toBe(200)
    expect(await statusWith('/metrics', 'all')).toBe(200)
    expect(await statusWith('/v1/quota', 'only-metrics')).toBe(401)
    expect(await statusWith('/healthz')).toBe(200)
  })

  it('says what runs, and when its configuration was last read', async () => {
    const before = Date.now() / 1_000
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    const at = async () => {
      const samples = await scrape(gateway)
      const [[isGood] = [], [time = 0] = []] = ['successful', 'success_timestamp_seconds'].map((name) =>
        Object.values(valuesOf(samples, `sluice_config_last_reload_${name}`)),
      )
      return { isGood, time }
    }
    const samples = await scrape(gateway)
    expect(samples.find(({ name }) => name === 'sluice_build_info')).toMatchObject({
      value: 1,
      labels: { version: expect.stringMatching(/^\d+\.\d+\.\d+/), node: process.versions.node },
    })
    const start = await at()
    expect(start.isGood).toBe(1)
    expect(start.time).toBeGreaterThanOrEqual(before)
    await gateway.reloadWith({ upstreams: 'wrong' })
    expect(await at()).toEqual({ isGood: 0, time: start.time })
    await gateway.reloadWith(harnessConfig('http://127.0.0.1:2'))
    const after = await at()
    expect(after.isGood).toBe(1)
    expect(after.time).toBeGreaterThanOrEqual(start.time)
  })

  it('says what each client was charged, in units and by the class of the limit', async () => {
    const upstream = await startUpstream()
    const clients = { a: { keys: [hashKey('key-a')] }, b: { keys: [hashKey('key-b')] } }
    const gateway = await startGateway(
      harnessConfig(
        upstream.url,
        {
          routes: [
            { path: '/heavy', class: 'read', cost: 5 },
            { path: '/both', class: 'read', charges: ['template', 'read'] },
          ],
          limits: {
            read: [
              { requests: 100, window: '60s', cost: 'route' },
              { requests: 50, window: '10s' },
            ],
          },
        },
        { clients },
      ),
    )
    const get = (path: string, key: string) =>
      call(gateway.url, `/harness${path}`, { headers: { 'x-sluice-key': key } })
    expect((await get('/heavy', 'key-a')).status).toBe(200)
    expect((await get('/heavy', 'key-a')).status).toBe(200)
    expect((await get('/both', 'key-b')).status).toBe(200)
    const samples = await scrape(gateway)
    expect(valuesOf(samples, 'sluice_quota_charged_total', 'client', 'class')).toEqual({
      'a read': 10,
      'b read': 1,
      'b template': 1,
    })
  })
})

describe('bytes and Redis', () => {
  it('are counted: bodies both ways, by account and class', async () => {
    const upstream = await startUpstream((_, response) => response.end('x'.repeat(1_000)))
    const gateway = await startGateway(harnessConfig(upstream.url))
    await call(gateway.url, '/harness/ng/api/projects')
    await call(gateway.url, '/harness/ng/api/projects', { method: 'POST', body: 'y'.repeat(70_000) })
    await expect
      .poll(async () => valuesOf(await scrape(gateway), 'sluice_request_bytes_total', 'account', 'class'))
      .toEqual({ 'prod read': 0, 'prod write': 70_000 })
    expect(valuesOf(await scrape(gateway), 'sluice_response_bytes_total', 'account', 'class')).toEqual({
      'prod read': 1_000,
      'prod write': 1_000,
    })
  })

  it('says how long Redis takes to answer', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway({ ...harnessConfig(upstream.url), store: stores.Redis() })
    for (let i = 0; i < 3; i++) expect((await call(gateway.url, '/harness/ng/api/projects')).status).toBe(200)
    const samples = await scrape(gateway)
    const [count = 0] = Object.values(valuesOf(samples, 'sluice_store_duration_seconds_count'))
    const [sum = 0] = Object.values(valuesOf(samples, 'sluice_store_duration_seconds_sum'))
    expect(count).toBeGreaterThan(0)
    expect(sum).toBeGreaterThan(0)
  })
})

describe('what expires', () => {
  let certificates: Certificates
  beforeAll(() => {
    certificates = makeCertificates(['localhost'])
  })
  afterAll(() => certificates.remove())

  it('is shown ahead of time: keys of clients by label or hash, and the certificate of the port', async () => {
    const expires = new Date(Date.now() + 3_600_000).toISOString()
    const clients = {
      bot: {
        keys: [{ hash: hashKey('one'), label: 'CI', expires }, { hash: hashKey('two'), expires }, hashKey('three')],
      },
    }
    const tls = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { clients, server: { port: 0, tls } }))
    const samples = await scrape(gateway)
    const keys = valuesOf(samples, 'sluice_client_key_expires_seconds', 'client', 'key')
    expect(Object.keys(keys)).toEqual(['bot CI', `bot ${hashKey('two').slice(0, 15)}`])
    for (const inSeconds of Object.values(keys)) expect(inSeconds).toSatisfy((s: number) => s > 3_000 && s <= 3_600)
    const [left] = Object.values(valuesOf(samples, 'sluice_certificate_expires_seconds'))
    expect(left).toBeGreaterThan(0)
  })
})
