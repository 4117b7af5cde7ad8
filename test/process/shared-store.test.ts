import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { Logger } from '../../src/observe/log.ts'
import { SharedStore } from '../../src/process/shared-store.ts'
import { checkConfig } from '../../src/config/load.ts'
import type { FileDays } from '../../src/usage/file-days.ts'
import { newFolder } from '../support/gateway.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

it('is opened although the quota can not be written yet, and says so', async () => {
  const dir = newFolder()
  for (const folder of ['quota', 'quota.behind']) mkdirSync(join(dir, folder))
  // The folder can not get its name back.
  writeFileSync(join(dir, 'quota', 'in the way'), '')
  const upstreams = { x: { url: 'http://127.0.0.1:9', accounts: { main: {} } } }
  const { store } = checkConfig({ store: { dir }, upstreams }, 'test')
  const lines: string[] = []
  const log = (_: unknown, line: string): void => void lines.push(line)
  const logger = { error: log, warn: log, info: log } as unknown as Logger
  const days = { close: () => Promise.resolve() } as FileDays
  const shared = new SharedStore(store, days, { clock: new SimulatedClock(), logger })
  expect(lines).toEqual([expect.stringContaining('the quota can not be written to disk')])
  await shared.close()
})
