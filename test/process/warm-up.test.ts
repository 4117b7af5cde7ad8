import { channel } from 'node:diagnostics_channel'
import { expect, it, onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { warmUp } from '../../src/process/warm-up.ts'
import { harnessConfig, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { parseMetrics, valuesOf } from '../support/openmetrics.ts'
import { startProcess } from '../support/process.ts'

const READ = '/harness/ng/api/projects'

it('the path of a call is run before there is one, once a process, and leaves nothing open', async () => {
  const sent: string[] = []
  const note = (message: unknown): void => {
    const { request } = message as { request: { origin: string; path: string } }
    sent.push(`${new URL(request.origin).hostname}${request.path}`)
  }
  channel('undici:request:create').subscribe(note)
  onTestFinished(() => {
    channel('undici:request:create').unsubscribe(note)
  })
  const listening = () => process.getActiveResourcesInfo().filter((name) => name === 'TCPServerWrap').length
  const before = listening()
  const config = checkConfig({ upstreams: { x: { url: 'https://vendor.example', accounts: { a: {} } } } }, 'test')
  // Longer than a busy machine takes.
  await warmUp(config, 120_000)
  // Each goes to the private gateway, and from there to the private upstream.
  expect([...new Set(sent)].toSorted()).toEqual(['127.0.0.1/any/path?any=query', '127.0.0.1/path?any=query'])
  // Eight calls, and eight of the gateway.
  const count = sent.length
  expect(count).toBeGreaterThanOrEqual(16)
  await expect.poll(listening).toBe(before)
  await warmUp(config)
  expect(sent).toHaveLength(count)
})

it('no upstream, quota, metric or log line knows of it', async () => {
  const upstream = await startUpstream()
  const gateway = await startProcess(harnessConfig(upstream.url))
  const metrics = async () => parseMetrics(await (await fetch(`${gateway.adminUrl}/metrics`)).text())
  const before = await metrics()
  expect(valuesOf(before, 'sluice_requests_total')).toEqual({})
  expect(valuesOf(before, 'sluice_attempts_total')).toEqual({})
  expect(valuesOf(before, 'sluice_quota_used', 'class')).toEqual({ read: 0, template: 0, webhook: 0, write: 0 })
  expect(upstream.seen).toEqual([])
  expect((await call(gateway.url, READ)).status).toBe(200)
  await gateway.line(/"msg":"call"/)
  expect(gateway.stdout.match(/"msg":"call"/g)).toHaveLength(1)
  expect(upstream.seen).toHaveLength(1)
})
