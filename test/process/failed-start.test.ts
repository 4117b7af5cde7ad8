import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { createLog } from '../../src/observe/log.ts'
import { runWithoutAdmin } from '../../src/process/run.ts'
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
