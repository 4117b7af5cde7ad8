import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Registry } from '@prometheus-io/client'
import { expect, it, onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { runAdmin, runWithoutAdmin } from '../../src/process/run.ts'
import { WebhookCounts } from '../../src/webhooks/counts.ts'
import { freePort } from '../support/find-redis.ts'
import { harnessConfig, newFolder } from '../support/gateway.ts'

it('leaves nothing behind of a start that fails after the store was opened', async () => {
  const dir = newFolder()
  const config = checkConfig({ ...harnessConfig('http://127.0.0.1:1'), store: { dir } }, 'test')
  const { harness } = config.upstreams
  // No check lets such a URL through. To build the upstream of it throws.
  const broken = { ...config, upstreams: { harness: { ...harness!, url: 'http://[' } } }
  const log = createLog({ level: 'silent', format: 'json' })
  await expect(runWithoutAdmin(broken, { log })).rejects.toThrow('Invalid URL')
  expect(existsSync(join(dir, 'lock'))).toBe(false)
})

it('leaves no admin port open of a start that fails after that was opened', async () => {
  const port = await freePort()
  const given = harnessConfig('http://127.0.0.1:1', {}, { admin: { port } })
  const config = checkConfig(given, 'test')
  const log = createLog({ level: 'silent', format: 'json' })
  const gateway = await runWithoutAdmin(config, { log })
  onTestFinished(() => gateway.stop())
  const registry = new Registry()
  // The name of the metric is taken, so that it throws to count messages.
  new WebhookCounts(registry)
  const parts = { ...gateway, registry, load: () => ({ config, source: 'test' }) }
  const controls = { breakers: async () => [], setBreaker: async () => false }
  await expect(runAdmin(config, { ...parts, ...controls })).rejects.toThrow('webhook_messages')
  await expect(fetch(`http://127.0.0.1:${port}/healthz`)).rejects.toThrow('fetch failed')
})
