import { expect, it } from 'vitest'
import { call } from '../support/http.ts'
import { harnessConfig, startGateway, startUpstream } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('the response tells by the gateway’s own clock when the oldest call stops counting', async () => {
  const start = Date.UTC(2026, 0, 1)
  const upstream = await startUpstream()
  const gateway = await startGateway(harnessConfig(upstream.url), { clock: new SimulatedClock(start) })
  const { headers } = await call(gateway.url, '/harness/ng/api/projects')
  const inSeconds = Number(/;t=(\d+)$/.exec(headers['ratelimit'] as string)?.[1])
  expect(inSeconds).toBeGreaterThanOrEqual(60)
  expect(headers['x-ratelimit-reset']).toBe(String(start / 1_000 + inSeconds))
})
