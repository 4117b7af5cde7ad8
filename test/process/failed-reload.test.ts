import { afterEach, expect, it, onTestFinished, vi } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { runWithoutAdmin } from '../../src/process/run.ts'
import { SecretFollower } from '../../src/secrets/follow.ts'
import { harnessConfig } from '../support/gateway.ts'

afterEach(() => void vi.restoreAllMocks())

async function startFollowed() {
  const started = vi.spyOn(SecretFollower.prototype, 'start')
  const served = vi.spyOn(SecretFollower.prototype, 'serve')
  const closed = vi.spyOn(SecretFollower.prototype, 'close')
  const log = createLog({ level: 'silent', format: 'json' })
  const gateway = await runWithoutAdmin(checkConfig(harnessConfig('http://127.0.0.1:1'), 'test'), { log })
  onTestFinished(() => gateway.stop())
  const upstream = { url: 'http://127.0.0.1:2', accounts: { main: { id: 'm' } } }
  const next = checkConfig({ ...harnessConfig('http://127.0.0.1:1'), upstreams: { other: upstream } }, 'test')
  const upstreams = () => Object.keys(gateway.management.config().upstreams)
  return { gateway, next, upstreams, started, served, closed }
}

it('a reload whose secrets can not be followed changes nothing, and leaves nothing open', async () => {
  const { gateway, next, upstreams, started, closed } = await startFollowed()
  started.mockRejectedValueOnce(new Error('too many open files'))
  await expect(gateway.apply({ config: next, source: 'test' })).rejects.toThrow('too many open files')
  expect(upstreams()).toEqual(['harness'])
  expect(closed.mock.contexts).toEqual([started.mock.contexts[1]])
  expect((await gateway.apply({ config: next, source: 'test' })).result).toBe('applied')
  expect(upstreams()).toEqual(['other'])
  expect(closed.mock.contexts).toEqual([started.mock.contexts[1], started.mock.contexts[0]])
})

it('a reload whose upstreams can not be built leaves the secrets to whatever followed them before', async () => {
  const { gateway, next, upstreams, started, served, closed } = await startFollowed()
  // No check lets such a URL through. To build the upstream of it throws.
  const broken = { ...next, upstreams: { other: { ...next.upstreams['other']!, url: 'http://[' } } }
  await expect(gateway.apply({ config: broken, source: 'test' })).rejects.toThrow('Invalid URL')
  expect(upstreams()).toEqual(['harness'])
  expect(served.mock.contexts).toEqual([started.mock.contexts[0]])
  expect(closed.mock.contexts).toEqual([started.mock.contexts[1]])
})
