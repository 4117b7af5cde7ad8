import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { describe, expect, it, onTestFinished } from 'vitest'
import { stringify } from 'yaml'
import { everyOutcome, SECRET } from '../support/every-outcome.ts'
import { startRedisServer } from '../support/find-redis.ts'
import { ACCOUNT, harnessConfig, newFolder, startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { hasProgram } from '../support/packages.ts'
import { run, startProcess } from '../support/process.ts'

describe('what a gateway says', () => {
  it('never has a secret in it, however a call ends: of its configuration, its clients or its vendors', async () => {
    const { answers, metrics, output } = await everyOutcome()
    expect(output).not.toContain(SECRET)
    expect(metrics).not.toContain(SECRET)
    for (const { status, rawHeaders, body } of answers)
      expect(`${status} ${rawHeaders.join(' ')} ${body}`).not.toContain(SECRET)
  })

  it('of a configuration with mistakes has no secret in it, wherever it was put', async () => {
    const value = 'pat.other.tokenid.credential-secret'
    const config = {
      admin: { token: ['admin-secret'] },
      store: {
        kind: 'redis',
        url: 'http://user:redis-secret@redis',
        password: 1,
        sentinel: 'user:sentinel-secret@redis',
      },
      log: { level: 'level-secret' },
      upstreams: {
        harness: {
          preset: 'harness',
          url: 'https://user:url-secret@app.harness.io',
          accounts: {
            prod: { id: ACCOUNT, credential: { value } },
            staging: { id: 'acct5678', credential: { value: 'two\nlines-secret' } },
            test: { id: 'acct9', credential: { vallue: 'misspelt-secret' } },
            other: { id: 'acct10', credential: 'short-secret' },
          },
        },
      },
      clients: { tool: { keys: ['slk_plain-secret'] } },
    }
    const cwd = newFolder()
    writeFileSync(join(cwd, 'sluice.yaml'), stringify(config))
    for (const command of ['check', 'start', 'explain']) {
      const { code, stdout, stderr } = await run([command], { cwd })
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
      expect(stderr.trim().split('\n')).toHaveLength(11)
      expect(stderr).not.toContain(SECRET)
    }
  })
})

describe('the token of a webhook', () => {
  const path = '/pipeline/api/webhook/custom/hook-secret/v3'

  it.each([
    ['behind the upstream’s name', 'harness', `/harness${path}`],
    ['without a name', 'harness', path],
    ['behind the vendor’s own prefix', 'harness', `/harness/gateway${path}`],
    ['behind empty segments', 'harness', `//gateway/${path}`],
    ['behind "." segments', 'harness', `/harness/./gateway/.${path}`],
    ['in an absolute-form target', 'harness', `http://gateway.example/harness${path}`],
    ['at a host that the upstream owns', 'harness', `http://vendor.internal${path}`],
    ['at a host whose upstream is named like the path', 'pipeline', `http://vendor.internal${path}`],
  ])('is neither in the log nor in the metrics: %s', async (_, name, target) => {
    const upstream = await startUpstream()
    const { upstreams, ...config } = harnessConfig(upstream.url, { hosts: ['vendor.internal'] }) as {
      upstreams: { harness: object }
    }
    const server = { port: 0, hosts: ['gateway.example'] }
    const ofName = { upstreams: { [name]: upstreams.harness }, defaultUpstream: name }
    const gateway = await startGateway({ ...config, server, ...ofName })
    for (const method of ['POST', 'PUT', 'GET']) await call(gateway.url, target, { method })
    expect(upstream.seen.map(({ url }) => url)).toEqual(Array(3).fill(expect.stringContaining('hook-secret')))
    const logged = path.replace('hook-secret', '[redacted]')
    for (const line of gateway.lines) expect([logged, `/harness${logged}`]).toContain(line.path)
    expect(gateway.lines).toHaveLength(3)
    expect(await gateway.metrics()).not.toContain('hook-secret')
  })
})

describe.skipIf(!hasProgram('redis-server'))('the password of Redis', () => {
  it('is not in the log when Redis refuses it', async () => {
    const redis = await startRedisServer()
    onTestFinished(() => redis.stop())
    const owner = new Redis(redis.url)
    await owner.config('SET', 'requirepass', 'another')
    owner.disconnect()
    const url = redis.url.replace('//', '//user:redis-secret@')
    const gateway = await startProcess({ ...harnessConfig('http://127.0.0.1:9'), store: { kind: 'redis', url } })
    expect(await gateway.line(/"level":50/)).toContain('WRONGPASS')
    gateway.kill('SIGTERM')
    await gateway.ended
    expect(gateway.stdout + gateway.stderr).not.toContain('redis-secret')
  })
})
