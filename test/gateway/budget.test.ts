import { Redis } from 'ioredis'
import { expect, inject, it, onTestFinished } from 'vitest'
import type { Budget } from '../../src/clients/budget.ts'
import { clientOf } from '../../src/clients/client.ts'
import { hashKey } from '../../src/clients/keys.ts'
import {
  harnessConfig,
  newFolder,
  startApp,
  startGateway,
  startUpstream,
  stores,
  type TestGateway,
} from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { newPrefix, steppedLedger } from '../support/stepped-ledger.ts'

const HOUR_MS = 3_600_000
/** Ten calls; it is warned of from the eighth on, and again once less than 7.2 count. */
const client = (name: string, window: string, rest: object = {}) => ({
  [name]: { keys: [hashKey(name)], budget: [{ requests: 10, window, ...rest }] },
})
const clients = { ...client('rolling', '1h'), ...client('calendar', 'hour') }

async function send(gateway: TestGateway, client: string, calls: number): Promise<void> {
  for (let i = 0; i < calls; i++)
    await call(gateway.url, '/harness/ng/api/a', { headers: { 'x-sluice-key': client, 'x-sluice-max-wait': '0' } })
}

/** How often it was warned of a budget, by the name of its client. */
async function warned(gateway: TestGateway): Promise<Readonly<Record<string, number>>> {
  return valuesOf(parseMetrics(await gateway.metrics()), 'sluice_budget_low_total', 'name')
}

it('a budget is warned of once an episode: not while it stays full, and anew after it fell, in a new window, and after a restart', async () => {
  const upstream = await startUpstream()
  const config = harnessConfig(upstream.url, {}, { clients, store: { dir: newFolder() } })
  const clock = new SimulatedClock(1_700_000_000_000 - (1_700_000_000_000 % HOUR_MS) + 60_000)
  const first = await startGateway(config, { clock })
  // The series is there before, or Prometheus would see no increase.
  expect(await warned(first)).toEqual({ rolling: 0, calendar: 0 })
  await send(first, 'rolling', 3)
  await clock.advance(HOUR_MS / 2)
  await send(first, 'rolling', 4)
  await send(first, 'calendar', 7)
  expect(await warned(first)).toEqual({ rolling: 0, calendar: 0 })
  for (const name of ['rolling', 'calendar']) await send(first, name, 4) // one of which is refused
  expect(await warned(first)).toEqual({ rolling: 1, calendar: 1 })
  // Three of ten have left the window, and the eighth call is of the same episode. The calendar's window is new.
  await clock.advance(HOUR_MS / 2 + 40_000)
  await send(first, 'rolling', 1)
  await send(first, 'calendar', 7)
  expect(await warned(first)).toEqual({ rolling: 1, calendar: 1 })
  await send(first, 'calendar', 1)
  expect(await warned(first)).toEqual({ rolling: 1, calendar: 2 })
  // All but one have left it.
  await clock.advance(HOUR_MS / 2)
  await send(first, 'rolling', 6)
  expect(await warned(first)).toEqual({ rolling: 1, calendar: 2 })
  await send(first, 'rolling', 1)
  expect(await warned(first)).toEqual({ rolling: 2, calendar: 2 })
  await first.reloadWith({ ...config, log: { level: 'warn' } })
  await send(first, 'rolling', 1)
  expect(await warned(first)).toEqual({ rolling: 2, calendar: 2 })
  await first.stop()
  const second = await startGateway(config, { clock })
  await send(second, 'rolling', 1)
  expect(await warned(second)).toMatchObject({ rolling: 1 })
})

it('a refusal just after a window tells that the next one begins in a moment, by the clock of everybody', async () => {
  const upstream = await startUpstream()
  const clock = new SimulatedClock(1_700_000_000_000 - (1_700_000_000_000 % HOUR_MS) + 60_000)
  const gateway = await startGateway(harnessConfig(upstream.url, {}, { clients }), { clock })
  await send(gateway, 'calendar', 10)
  await clock.advance(HOUR_MS - 60_000 + 300)
  const ask = () => call(gateway.url, '/harness/ng/api/a', { headers: { 'x-sluice-key': 'calendar' } })
  const refused = await ask()
  expect(refused.headers['retry-after']).toBe('1')
  expect((refused.json() as { message: string }).message).toBe(
    'the client calendar has used 0 requests of its budget of 10 requests in this hour, and may use the rest once the hour before is surely over; more comes back in 700 ms',
  )
  await clock.advance(701)
  expect((await ask()).status).toBe(200)
})

it('each of two gateways warns once of a budget that they share', async () => {
  const upstream = await startUpstream()
  const config = harnessConfig(upstream.url, {}, { clients, store: stores.Redis() })
  const [one, two] = [await startGateway(config), await startGateway(config)]
  await send(one, 'rolling', 4)
  await send(two, 'rolling', 3)
  expect([await warned(one), await warned(two)]).toMatchObject([{ rolling: 0 }, { rolling: 0 }])
  await send(one, 'rolling', 2)
  expect([await warned(one), await warned(two)]).toMatchObject([{ rolling: 1 }, { rolling: 0 }])
  await send(two, 'rolling', 2)
  await send(one, 'rolling', 1)
  expect([await warned(one), await warned(two)]).toMatchObject([{ rolling: 1 }, { rolling: 1 }])
})

it('a refusal tells what is used from what is set aside for a gateway that was killed', async () => {
  const upstream = await startUpstream()
  const redis = new Redis(inject('redisUrl'))
  onTestFinished(() => redis.disconnect())
  const prefix = newPrefix()
  const [clock, stopped] = [new SimulatedClock(1_700_000_000_000), new SimulatedClock(1_700_000_000_000)]
  const budget = [{ requests: 40, window: HOUR_MS }]
  const killed = steppedLedger(redis, { clock: stopped, prefix })
  const chargeSet = (clientOf('bot', { budget }).budget as Budget).chargeSetFor(0)
  killed.commit(await killed.charge(chargeSet, 1))
  // It leases a quarter of what is free, and never ticks again.
  await stopped.advance(300)
  await clock.advance(300)
  await redis.ping()
  const clients = { bot: { keys: [hashKey('bot')], budget: [{ requests: 40, window: '1h' }] } }
  const app = await startApp(harnessConfig(upstream.url, {}, { clients }), {
    clock,
    ledger: steppedLedger(redis, { clock, prefix }),
  })
  const ask = () => call(app.url, '/harness/ng/api/a', { headers: { 'x-sluice-key': 'bot' } })
  let refused = await ask()
  for (let i = 0; i < 40 && refused.status === 200; i++) refused = await ask()
  expect((refused.json() as { message: string }).message).toBe(
    'the client bot has used 31 requests of its budget of 40 requests in 1h, and 9 requests are set aside for other gateways; more comes back in 250 ms',
  )
  expect(upstream.seen).toHaveLength(30)
  await clock.advance(4_000)
  expect((await ask()).status).toBe(200)
})
