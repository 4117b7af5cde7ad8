import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { startSandbox } from '../../../src/sandbox/sandbox.ts'
import { ACCOUNT, harnessConfig, newFolder } from '../../support/gateway.ts'
import { call } from '../../support/http.ts'
import { Program } from '../../support/process.ts'

const READ = '/harness/ng/api/projects'
const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url))
const NEXT_FORMAT = fileURLToPath(new URL('../../support/next-format.ts', import.meta.url))
const RELEASES = {
  this: [process.execPath, MAIN],
  next: [process.execPath, '--import', NEXT_FORMAT, MAIN],
}
const LIMIT = { requests: 20, windowMs: 600_000 }

async function setUp() {
  const sandbox = await startSandbox({ limits: { read: LIMIT } })
  onTestFinished(() => sandbox.stop())
  const config = harnessConfig(
    sandbox.url,
    {
      limits: { read: [{ requests: LIMIT.requests, window: `${LIMIT.windowMs}ms` }] },
      queue: { maxWait: '0s' },
      retry: { retries: 0 },
    },
    {
      server: { port: 0 },
      admin: { port: 0 },
      store: {
        kind: 'redis',
        url: inject('redisUrl'),
        prefix: `formats-${process.pid}-${Math.random()}`,
        commandTimeout: '2s',
      },
    },
  )
  const cwd = newFolder()
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
  const start = async (release: keyof typeof RELEASES) => {
    const program = new Program(['start'], { cwd, command: RELEASES[release] })
    const { url, admin } = JSON.parse(await program.line(/"msg":"listening"/)) as { url: string; admin: string }
    const read = async (times: number) => {
      const answers = await Promise.all(Array.from({ length: times }, () => call(url, READ)))
      return answers.filter(({ status }) => status === 200).length
    }
    const isReady = async () => (await fetch(`${admin}/readyz`)).ok
    const kill = async () => {
      program.kill('SIGKILL')
      await program.ended
    }
    return { program, url, admin, read, isReady, kill }
  }
  const counts = () => sandbox.counts().accounts[ACCOUNT]!.read!
  return { start, counts }
}

describe('two releases with different ledger formats on one Redis', () => {
  it('never grant a quota twice: not side by side, not one after the other, and not after the older one comes back', async () => {
    const { start, counts } = await setUp()
    const older = await start('this')
    expect(await older.read(12)).toBe(12)

    const newer = await start('next')
    expect(await newer.read(3)).toBe(0)
    const refused = await call(newer.url, READ)
    expect(refused.status).toBe(503)
    expect(refused.json()).toMatchObject({
      message: expect.stringMatching(
        /^gateways of a release with ledger format \d+ are running; this one \(format \d+\) sends nothing/,
      ),
    })
    const readiness = await fetch(`${newer.admin}/readyz`)
    expect(readiness.status).toBe(503)
    expect(await readiness.text()).toMatch(/ledger format/)
    expect(newer.program.stdout).toMatch(/docs\/upgrading\.md/)
    expect(await older.isReady()).toBe(true)
    expect(await older.read(3)).toBe(3)

    await older.kill()
    await expect.poll(newer.isReady).toBe(true)
    await expect.poll(async () => (await call(newer.url, READ)).status).toBe(200)
    expect(await newer.read(20)).toBe(4)

    await newer.kill()
    const back = await start('this')
    await expect.poll(back.isReady).toBe(true)
    expect(await back.read(20)).toBe(0)
    expect(counts()).toMatchObject({ worst: 20, accepted: 20, throttled: 0 })
  })
})
