import { Registry } from '@prometheus-io/client'
import pino from 'pino'
import { expect, it } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { Claims } from '../../src/webhooks/claims.ts'
import { WebhookCounts } from '../../src/webhooks/counts.ts'
import { Webhooks, type WebhooksOptions } from '../../src/webhooks/webhooks.ts'
import { harnessConfig } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('a gateway that stops while it looks claims nothing that it can not tell any more', async () => {
  const clock = new SimulatedClock()
  const webhooks = { ops: { url: 'http://127.0.0.1:1/hook', events: ['store'] } }
  const config = checkConfig(harnessConfig('http://127.0.0.1:1', {}, { webhooks }), 'test')
  const looked = Promise.withResolvers<string>()
  const nothing = async () => []
  const status = {
    notReady: () => looked.promise,
    degraded: nothing,
    requests: async () => ({ found: [], away: [] }),
    quota: nothing,
    queue: nothing,
    credentials: nothing,
    budgets: nothing,
  }
  const controls = { breakers: nothing, lastReload: () => undefined }
  const claims = new Claims(clock)
  const options = {
    status,
    controls,
    management: { clock, logger: pino({ level: 'silent' }), config: () => config },
    claims,
    counts: new WebhookCounts(new Registry()),
  }
  const telling = new Webhooks(options as unknown as WebhooksOptions)
  await clock.advance(10_000)
  const closed = telling.close()
  looked.resolve('the store is away')
  await closed
  expect(await claims.take('ops:store not ready')).toBe(true)
})
