import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { harnessConfig, startApp, startGateway, startServer, startUpstream, stores } from '../support/gateway.ts'
import { call, open } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

async function gatewayWith(clients: object) {
  const upstream = await startUpstream()
  const gateway = await startGateway(harnessConfig(upstream.url, {}, { clients }))
  const ask = async (key: string, path: string, method = 'GET') => {
    const answer = await call(gateway.url, `/harness${path}`, { method, headers: { 'x-sluice-key': key } })
    return answer.status === 200
      ? 'ok'
      : `${answer.status} ${String(answer.headers['x-sluice-error'])}: ${answer.json().message}`
  }
  return { upstream, gateway, ask }
}

describe('the keys of a client', () => {
  it('are refused once they have expired, and the others go on', async () => {
    const keys = [{ hash: hashKey('old'), label: 'laptop', expires: '2020-01-31' }, hashKey('new')]
    const { upstream, ask } = await gatewayWith({ bot: { keys } })
    expect(await ask('old', '/ng/api/projects')).toBe('401 unauthenticated: the client key in x-sluice-key has expired')
    expect(await ask('new', '/ng/api/projects')).toBe('ok')
    expect(upstream.seen).toHaveLength(1)
  })
})

describe('the scope of a client', () => {
  it('keeps it to its upstreams, methods and paths', async () => {
    const { upstream, ask } = await gatewayWith({
      elsewhere: { keys: [hashKey('one')], upstreams: ['harness'], methods: ['GET'], paths: ['/ng/api/*'] },
    })
    expect(await ask('one', '/ng/api/projects')).toBe('ok')
    expect(await ask('one', '/gateway/ng/api/projects', 'HEAD')).toBe('ok')
    expect(await ask('one', '/ng/api/projects', 'POST')).toMatch(
      /^403 forbidden: .*elsewhere may not make POST calls, only GET$/,
    )
    expect(await ask('one', '/pipeline/api/x')).toMatch(/^403 forbidden: .*may not call this path$/)
    expect(upstream.seen).toHaveLength(2)
  })

  it('tells it nothing of the accounts of an upstream that it may not use', async () => {
    const upstream = await startUpstream()
    const accounts = { prod: { id: 'ACCT-PROD' }, stage: { id: 'ACCT-STAGE' } }
    const clients = { bot: { keys: [hashKey('one')], upstreams: ['open'] } }
    const upstreams = { open: { url: upstream.url, accounts: { main: {} } }, secret: { url: upstream.url, accounts } }
    const gateway = await startGateway({ server: { port: 0 }, admin: { port: 0 }, clients, upstreams })
    for (const account of [{}, { 'x-sluice-account': 'guessed' }, { 'x-sluice-account': 'prod' }]) {
      const answer = await call(gateway.url, '/secret/x', { headers: { 'x-sluice-key': 'one', ...account } })
      expect(answer.headers['x-sluice-error']).toBe('forbidden')
      expect(answer.json().message).toBe('the client bot may not use secret, only open')
    }
  })
})

describe.each(Object.entries(stores))('the budget of a client, with %s', (name, store) => {
  const budget = [
    { requests: 3, window: '1h' },
    { requests: 100, window: '24h' },
  ]
  const monthly = {
    keys: [hashKey('monthly')],
    budget: [{ requests: 1, window: 'month', timezone: 'Pacific/Auckland' }],
  }
  const clients = { bot: { keys: [hashKey('bot')], budget }, other: { keys: [hashKey('other')] }, monthly }
  const bot = { 'x-sluice-key': 'bot' }

  async function setUp(instances: number, upstream: object = {}) {
    const vendor = await startUpstream()
    const shared = store()
    const second = { url: vendor.url, limits: { read: [], write: [] }, accounts: { main: {} } }
    const config = harnessConfig(vendor.url, upstream, { store: shared, clients }) as { upstreams: object }
    const whole = { ...config, upstreams: { ...config.upstreams, second } }
    const gateways = await Promise.all(Array.from({ length: instances }, () => startGateway(whole)))
    return { vendor, gateways, url: gateways[0]!.url }
  }

  it('counts its calls to all upstreams, and refuses the rest with the time to come back', async () => {
    const { vendor, gateways, url } = await setUp(1)
    for (const path of ['/harness/ng/api/a', '/second/b', '/harness/ng/api/c']) {
      const answer = await call(url, path, { headers: bot })
      expect(answer.status).toBe(200)
      // The budget is the tightest of the limits.
      expect(answer.headers['x-ratelimit-limit']).toBe('3')
    }
    const refused = await call(url, '/second/d', { headers: bot })
    expect(refused.status).toBe(429)
    expect(refused.headers['x-sluice-error']).toBe('share_exceeded')
    expect(refused.json()).toMatchObject({
      code: 'CLIENT_SHARE_EXCEEDED',
      message: expect.stringMatching(
        /^the client bot has used its budget of 3 requests in 1h; more comes back in 6\d min$/,
      ),
    })
    expect(refused.headers).toMatchObject({
      'x-ratelimit-limit': '3',
      'x-ratelimit-remaining': '0',
      'ratelimit-policy': '"budget 1h";q=3;w=3600',
    })
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(3_500)
    expect(Number(refused.headers['retry-after'])).toBeLessThanOrEqual(3_700)
    const problem = await call(url, '/second/d', { headers: { ...bot, accept: 'application/problem+json' } })
    expect(problem.json()).toMatchObject({
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      'violated-policies': ['budget 1h'],
    })
    expect((await call(url, '/second/e', { headers: { 'x-sluice-key': 'other' } })).status).toBe(200)
    expect(vendor.seen).toHaveLength(4)
    expect(gateways[0]!.lines.at(-2)).toMatchObject({ client: 'bot', outcome: 'share_exceeded' })
  })

  it('by the month says how long this one is, and when it ends', async () => {
    const { url } = await setUp(1)
    const headers = { 'x-sluice-key': 'monthly' }
    const begin = Temporal.Now.zonedDateTimeISO('Pacific/Auckland').with({ day: 1 }).startOfDay()
    const end = begin.add({ months: 1 })
    const seconds = (end.epochMilliseconds - begin.epochMilliseconds) / 1_000
    const answer = await call(url, '/second/a', { headers })
    expect(answer.headers['ratelimit-policy']).toBe(`"budget";q=1;w=${seconds}`)
    expect(Math.abs(Number(answer.headers['x-ratelimit-reset']) - end.epochMilliseconds / 1_000)).toBeLessThan(60)
    const refused = await call(url, '/second/a', { headers })
    expect(refused.json()).toMatchObject({
      message: expect.stringMatching(
        /^the client monthly has used its budget of 1 requests in this month; more comes back in /,
      ) as string,
    })
    const leftMs = end.epochMilliseconds - Date.now()
    expect(Math.abs(Number(refused.headers['retry-after']) - leftMs / 1_000)).toBeLessThan(60)
  })

  it('is not charged with calls that were refused before they were sent', async () => {
    const { url } = await setUp(1, { limits: { read: [{ requests: 1, window: '60s' }] } })
    const headers = { ...bot, 'x-sluice-max-wait': '0' }
    const ask = async () => (await call(url, '/harness/ng/api/a', { headers })).headers['x-sluice-error'] ?? 'ok'
    expect([await ask(), await ask(), await ask(), await ask()]).toEqual(['ok', ...Array(3).fill('quota_exhausted')])
    expect((await call(url, '/second/b', { headers: bot })).status).toBe(200)
    expect((await call(url, '/second/c', { headers: bot })).status).toBe(200)
    expect((await call(url, '/second/d', { headers: bot })).headers['x-sluice-error']).toBe('share_exceeded')
  })

  it('counts a WebSocket once it was sent, and not one that was refused before', async () => {
    const { vendor, url } = await setUp(1, { limits: { read: [{ requests: 2, window: '60s' }] } })
    const headers = { ...bot, 'x-sluice-max-wait': '0', connection: 'Upgrade', upgrade: 'websocket' }
    const handshake = { ...headers, 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==', 'sec-websocket-version': '13' }
    const ask = async () =>
      (await call(url, '/harness/ng/api/a', { headers: handshake })).headers['x-sluice-error'] ?? 'sent'
    const answers = [await ask(), await ask(), await ask(), await ask()]
    expect(answers).toEqual(['sent', 'sent', 'quota_exhausted', 'quota_exhausted'])
    expect((await call(url, '/second/b', { headers: bot })).status).toBe(200)
    expect((await call(url, '/second/c', { headers: bot })).headers['x-sluice-error']).toBe('share_exceeded')
    expect(vendor.seen).toHaveLength(3)
  })

  // Embedded stores are not shared.
  if (name !== 'Redis') return

  it('is one over all gateways', async () => {
    const { vendor, gateways } = await setUp(3)
    const granted = async () => {
      const asked = gateways.flatMap(({ url }) => [0, 1].map(() => call(url, '/second/x', { headers: bot })))
      return (await Promise.all(asked)).filter(({ status }) => status === 200).length
    }
    let sum = 0
    // What a gateway has set aside for a loss of Redis is refused to the others for a moment.
    await expect.poll(async () => (sum += await granted())).toBe(3)
    expect(await granted()).toBe(0)
    expect(vendor.seen).toHaveLength(3)
  })
})

describe('the budget of a client', () => {
  it('counts a call as of the beginning of its response, however long that lasts', async () => {
    const url = await startServer((_, response) => void response.write('and so on'))
    const clock = new SimulatedClock()
    const clients = { bot: { keys: [hashKey('bot')], budget: [{ requests: 1, window: '1h' }] } }
    const app = await startApp(harnessConfig(url, {}, { clients }), { clock })
    const ask = () => open(app.url, '/harness/ng/api/a', { headers: { 'x-sluice-key': 'bot' } })
    expect((await ask()).statusCode).toBe(200)
    expect((await ask()).statusCode).toBe(429)
    await clock.advance(3_700_000)
    expect((await ask()).statusCode).toBe(200)
  })
})
