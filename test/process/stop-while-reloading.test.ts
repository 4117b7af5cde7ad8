import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, it, vi } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { runWithoutAdmin } from '../../src/process/run.ts'
import { SecretFollower } from '../../src/secrets/follow.ts'
import { harnessConfig } from '../support/gateway.ts'

it('a gateway that is told to stop while it reloads closes what the reload opens', async () => {
  const started = vi.spyOn(SecretFollower.prototype, 'start')
  const closed = vi.spyOn(SecretFollower.prototype, 'close')
  const given = harnessConfig('http://127.0.0.1:1')
  const log = createLog({ level: 'silent', format: 'json' })
  const gateway = await runWithoutAdmin(checkConfig(given, 'test'), { log })
  const read = Promise.withResolvers<void>()
  started.mockImplementationOnce(() => read.promise)
  const upstream = { url: 'http://127.0.0.1:2', accounts: { main: { id: 'm' } } }
  const next = checkConfig({ ...given, upstreams: { other: upstream } }, 'test')
  const applied = gateway.apply({ config: next, source: 'test' })
  await expect.poll(() => started.mock.calls.length).toBe(2)
  const stopped = gateway.stop()
  // Time enough to close all parts, if it did not wait.
  for (let turn = 0; turn < 1_000 && closed.mock.calls.length === 0; turn++) await nextTurn()
  read.resolve()
  expect((await applied).result).toBe('applied')
  await stopped
  expect(new Set(closed.mock.contexts)).toEqual(new Set(started.mock.contexts))
})
