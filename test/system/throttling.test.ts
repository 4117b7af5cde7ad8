import { describe, expect, it } from 'vitest'
import { call } from '../support/http.ts'
import { harnessConfig, startGateway, startUpstream, stores } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const READ = '/harness/ng/api/projects'
const TEMPLATE = '/harness/template/api/templates/one'

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

  it('is passed on as it is if it can’t be repeated', async () => {
    const upstream = await throttling({ 'retry-after': '1' })
    const gateway = await startGateway(harnessConfig(upstream.url))
    upstream.refuse(1)
    const answer = await call(gateway.url, READ, { method: 'POST', body: '{}' })
    expect(answer).toMatchObject({ status: 429, headers: { 'retry-after': '1' } })
    expect(answer.headers['x-sluice-error']).toBeUndefined()
  })

  it('takes nothing from the budget of repeats', async () => {
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
})
