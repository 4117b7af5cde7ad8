import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { call, type CallOptions } from '../support/http.ts'
import { harnessConfig, startGateway, startUpstream, stores } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const READ = '/harness/ng/api/projects'
const TEMPLATE = '/harness/template/api/templates/template_1'

const NOW = { headers: { 'x-sluice-max-wait': '0' } }

/** An upstream that refuses for too many calls as long as it is told to. */
async function throttling(headers: Record<string, string> = {}) {
  let refusals = 0
  const upstream = await startUpstream((_, response) => {
    response.writeHead(refusals-- > 0 ? 429 : 200, refusals >= 0 ? headers : {}).end()
  })
  return { ...upstream, refuse: (count: number) => void (refusals = count) }
}

describe('a call that the upstream refuses for too many', () => {
  it('waits for its turn again, whatever it has waited already, and its client sees nothing of it', async () => {
    const clock = new SimulatedClock()
    const upstream = await throttling({ 'retry-after': '30' })
    const gateway = await startGateway(harnessConfig(upstream.url, { queue: { maxWait: '10s' } }), { clock })
    upstream.refuse(1)
    const answer = call(gateway.url, READ)
    await expect.poll(() => upstream.seen.length).toBe(1)
    await expect.poll(() => clock.waits.some((ms) => Math.abs(ms - 30_000) < 1)).toBe(true)
    await clock.advance(30_001)
    expect(await answer).toMatchObject({ status: 200, headers: { 'x-sluice-attempts': '2' } })
  })

  it('goes on when the upstream says that there is quota again, with all of it', async () => {
    const clock = new SimulatedClock()
    let isRefusing = true
    const upstream = await startUpstream((_, response) => {
      const remaining = isRefusing ? 0 : 100 - upstream.seen.length
      const reset = isRefusing ? 5 : 60
      const quota = { 'x-ratelimit-limit': 100, 'x-ratelimit-remaining': remaining, 'x-ratelimit-reset': reset }
      response.writeHead(isRefusing ? 429 : 200, quota).end()
    })
    const limits = { limits: { read: [{ requests: 100, window: '60s' }] } }
    const gateway = await startGateway(harnessConfig(upstream.url, limits), { clock })
    const answer = call(gateway.url, READ, { headers: { 'x-sluice-max-wait': '1s' } })
    await expect.poll(() => upstream.seen.length).toBe(1)
    await expect.poll(() => clock.waits.some((ms) => ms > 4_900 && ms < 5_100)).toBe(true)
    isRefusing = false
    await clock.advance(5_300)
    expect(await answer).toMatchObject({ status: 200, headers: { 'x-sluice-attempts': '2' } })
    await clock.advance(20)
    const statuses = []
    for (let i = 0; i < 90; i++) statuses.push((await call(gateway.url, READ, NOW)).status)
    expect(new Set(statuses)).toEqual(new Set([200]))
  })

  it.each([
    ['a body', '{"name":"x"}'],
    ['a long body', 'x'.repeat(200_000)],
    ['a body of unknown length', Readable.from(['{"name"', ':"x"}'])],
    ['no body', ''],
  ])(
    'goes back into its queue whatever its method, with %s, where the vendor refuses before it acts',
    async (_, body) => {
      const upstream = await throttling({ 'retry-after': '0' })
      const gateway = await startGateway(harnessConfig(upstream.url, { throttle: { pause: '0s' } }))
      upstream.refuse(2)
      const answer = await call(gateway.url, READ, { method: 'POST', body })
      expect(answer).toMatchObject({ status: 200, headers: { 'x-sluice-attempts': '3' } })
      expect(new Set(upstream.seen.map((seen) => seen.body)).size).toBe(1)
      expect(upstream.seen).toHaveLength(3)
    },
  )

  it.each<[string, object, CallOptions, number]>([
    ['the configuration', { throttle: { retry: 'safe' } }, {}, 1],
    ['its client', {}, { headers: { 'x-sluice-retry': 'off' } }, 1],
    ['the size of its body', { retry: { bodyLimit: 10 } }, {}, 1],
    ['the number of retries', { retry: { retries: 2 } }, {}, 3],
  ])('with POST is passed on if %s forbids a retry', async (_, upstreamConfig, options, attempts) => {
    const upstream = await throttling({ 'retry-after': '0' })
    const { throttle } = upstreamConfig as { throttle?: object }
    const config = { ...upstreamConfig, throttle: { pause: '0s', ...throttle } }
    const gateway = await startGateway(harnessConfig(upstream.url, config))
    upstream.refuse(10)
    const body = 'x'.repeat(100)
    expect((await call(gateway.url, READ, { method: 'POST', body, ...options })).status).toBe(429)
    expect(upstream.seen).toHaveLength(attempts)
  })

  it('with POST is passed on by an upstream of one’s own, unless it is said to refuse before it acts', async () => {
    for (const [throttle, status] of [
      [{}, 429],
      [{ retry: 'any' }, 200],
    ] as const) {
      const upstream = await throttling({ 'retry-after': '0' })
      const own = { url: upstream.url, accounts: { main: {} }, throttle }
      const config = { ...harnessConfig(upstream.url), upstreams: { own } }
      const gateway = await startGateway(config)
      upstream.refuse(1)
      expect((await call(gateway.url, '/own/x', { method: 'POST', body: '{}' })).status).toBe(status)
    }
  })

  it.each<[string, Record<string, string>]>([
    ['at once', { 'retry-after': '0' }],
    ['at a moment that is over', { 'retry-after': 'Sat, 21 Nov 2020 10:00:00 GMT' }],
    ['after 0 ms', { 'retry-after-ms': '0' }],
  ])('waits for throttle.pause where it is told to come back %s', async (_, headers) => {
    const clock = new SimulatedClock()
    const upstream = await throttling(headers)
    const limits = { limits: { read: [], write: [] }, throttle: { pause: '30s' } }
    const gateway = await startGateway(harnessConfig(upstream.url, limits), { clock })
    upstream.refuse(1)
    const answer = call(gateway.url, READ, { method: 'POST', body: '{}' })
    await expect.poll(() => clock.waits.some((ms) => Math.abs(ms - 30_000) < 1)).toBe(true)
    expect(upstream.seen).toHaveLength(1)
    await clock.advance(30_001)
    expect(await answer).toMatchObject({ status: 200, headers: { 'x-sluice-attempts': '2' } })
  })

  it('is passed on as it is if it can’t be repeated', async () => {
    const upstream = await throttling({ 'retry-after': '1' })
    const gateway = await startGateway(harnessConfig(upstream.url, { throttle: { retry: 'safe' } }))
    upstream.refuse(1)
    const answer = await call(gateway.url, READ, { method: 'POST', body: '{}' })
    expect(answer).toMatchObject({ status: 429, headers: { 'retry-after': '1' } })
    expect(answer.headers['x-sluice-error']).toBeUndefined()
  })

  it('takes nothing from the budget of retries', async () => {
    const upstream = await throttling()
    // Without a limit that would be made smaller by that.
    const rest = { limits: { read: [] }, throttle: { pause: '0s' }, retry: { retries: 5, budget: '0%' } }
    const gateway = await startGateway(harnessConfig(upstream.url, rest))
    for (let i = 0; i < 15; i++) {
      upstream.refuse(1)
      expect((await call(gateway.url, READ)).status).toBe(200)
    }
  })
})

describe.each(Object.entries(stores))('gateways with %s', (name, store) => {
  it('hold back all classes of an account that was told to wait', async () => {
    const upstream = await throttling({ 'retry-after': '20' })
    const config = { ...harnessConfig(upstream.url), store: store() }
    const one = await startGateway(config)
    const two = name === 'Redis' ? await startGateway(config) : one
    upstream.refuse(1)
    const off = { headers: { 'x-sluice-retry': 'off' } }
    expect((await call(one.url, READ, off)).status).toBe(429)
    const refused = async () => {
      const answer = await call(two.url, TEMPLATE, { headers: { 'x-sluice-max-wait': '0' } })
      return [answer.headers['x-sluice-error'], Number(answer.headers['retry-after'] ?? 0) > 10]
    }
    await expect.poll(refused).toEqual(['quota_exhausted', true])
    expect(upstream.seen.length).toBeLessThanOrEqual(3)
  })

  it('tell clients of a reset of GitHub what it says itself', async () => {
    const upstream = await startUpstream((_, response) => {
      const reset = Math.ceil(Date.now() / 1_000) + 1_800
      const quota = { 'x-ratelimit-limit': 5_000, 'x-ratelimit-remaining': 0, 'x-ratelimit-reset': reset }
      response.writeHead(403, quota).end('of GitHub')
    })
    const github = { preset: 'github', url: upstream.url, accounts: { main: { credential: { value: 'x' } } } }
    const config = { server: { port: 0 }, admin: { port: 0 }, store: store(), upstreams: { github } }
    const gateway = await startGateway(config)
    expect(await call(gateway.url, '/github/user', NOW)).toMatchObject({ status: 403, body: 'of GitHub' })
    await expect
      .poll(async () => {
        const { headers } = await call(gateway.url, '/github/user', NOW)
        const seconds = Number(headers['retry-after'])
        return [headers['x-sluice-error'], seconds > 1_700 && seconds <= 1_801 ? 'about 1,800' : seconds]
      })
      .toEqual(['quota_exhausted', 'about 1,800'])
  })
})
