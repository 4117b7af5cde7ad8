import { writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { describe, expect, inject, it } from 'vitest'
import { stringify } from 'yaml'
import { hashKey } from '../../src/clients/keys.ts'
import { harnessConfig, newFolder, startGateway, startServer, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { Program, startProcess } from '../support/process.ts'

const WEBHOOK = 'pipeline/api/webhook/custom'

describe('the path on a log line', () => {
  it.each([
    `/harness/${WEBHOOK}/tok3n/v3`,
    `/harness/gateway/${WEBHOOK}/tok3n/v3`,
    `/harness//gateway/${WEBHOOK}/tok3n/v3`,
    `/harness/./gateway//${WEBHOOK}/tok3n/v3`,
    `/harness/%67ateway/pipeline/api/web%68ook/custom/tok3n/v3`,
    `/harness/pipeline/api/webhook;a=b/custom;c/tok3n;d/v3`,
    `http://gateway.internal/harness/${WEBHOOK}/tok3n/v3`,
    `/${WEBHOOK}/tok3n/v3`,
    `//gateway/${WEBHOOK}/tok3n/v3`,
    `/harness/${WEBHOOK}/tok3n/v3?secret=tok3n`,
  ])('has no webhook token in it, however it was sent: %s', async (path) => {
    const upstream = await startUpstream()
    const server = { port: 0, hosts: ['gateway.internal'] }
    const gateway = await startGateway(harnessConfig(upstream.url, {}, { server, defaultUpstream: 'harness' }))
    expect((await call(gateway.url, path, { method: 'POST' })).status).toBe(200)
    expect(gateway.lines).toMatchObject([{ class: 'webhook', upstream: 'harness' }])
    expect(gateway.lines[0]!.path.replace(/^\/harness/, '')).toBe(`/${WEBHOOK}/[redacted]/v3`)
    expect(upstream.seen[0]!.url).toMatch(/\/tok3n(;d)?\/v3/)
  })

  it.each(['GET', 'HEAD', 'PUT'])(
    'has no webhook token in it, although %s is the wrong method for it',
    async (method) => {
      const upstream = await startUpstream()
      const gateway = await startGateway(harnessConfig(upstream.url))
      await call(gateway.url, `/harness/${WEBHOOK}/tok3n/v3`, { method })
      expect(gateway.lines).toMatchObject([{ path: `/harness/${WEBHOOK}/[redacted]/v3` }])
    },
  )

  it('has nothing in it of a target that is refused for its host', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:9', {}, { defaultUpstream: 'harness' }))
    for (const authority of ['user:tok3n@gateway.internal', 'tok3n.example']) {
      const path = `http://${authority}/${WEBHOOK}/tok3n/v3?secret=tok3n`
      expect((await call(gateway.url, path, { method: 'POST' })).headers['x-sluice-error']).toBeTypeOf('string')
    }
    expect(gateway.lines.map(({ path }) => path)).toEqual(['/', '/'])
  })

  it('is as it was sent, up to the query, where it holds no secret', async () => {
    const upstream = await startUpstream()
    const server = { port: 0, hosts: ['gateway.internal'] }
    const gateway = await startGateway(harnessConfig(upstream.url, {}, { server }))
    for (const path of ['/harness//ng/./api/x%20y?a=1', '/harness', 'http://gateway.internal/harness/ng/api/x?a=1']) {
      await call(gateway.url, path)
    }
    expect(gateway.lines.map(({ path }) => path)).toEqual([
      '/harness//ng/./api/x%20y',
      '/harness/',
      '/harness/ng/api/x',
    ])
  })

  it('says no more than how it begins while nobody knows what is in it', async () => {
    const clients = { bot: { keys: [hashKey('slk_x')] } }
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { clients }))
    await call(gateway.url, '/nowhere/tok3n?tok3n')
    await call(gateway.url, '/harness/%zz/tok3n')
    expect(gateway.lines.map(({ path }) => path)).toEqual(['/nowhere', '/harness'])
  })
})

describe('the line of a call', () => {
  it('tells of route, sizes, and of each attempt its status, credential and the id that the vendor gave it', async () => {
    let count = 0
    const upstream = await startUpstream((_, response) => {
      response.setHeader('X-GitHub-Request-Id', `gh-${++count}`)
      response.statusCode = count === 1 ? 503 : 200
      response.end('twelve bytes')
    })
    const credentials = [{ name: 'blue', value: 'secret-of-blue' }]
    const api = { preset: 'github', url: upstream.url, accounts: { main: { credentials } } }
    const config = { ...harnessConfig(upstream.url), upstreams: { api: { ...api, retry: { baseDelay: '1ms' } } } }
    const gateway = await startGateway(config)
    const body = '# hello'
    expect((await call(gateway.url, '/api/markdown', { method: 'POST', body })).status).toBe(200)
    const credential = 'api/main#blue'
    expect(gateway.lines).toMatchObject([
      {
        route: '/markdown',
        requestBytes: body.length,
        responseBytes: 12,
        credential,
        upstreamRequestId: 'gh-2',
        attempts: 2,
        tries: [
          { status: 503, credential, requestId: 'gh-1', ms: expect.any(Number) },
          { status: 200, credential, requestId: 'gh-2', ms: expect.any(Number) },
        ],
      },
    ])
    expect(JSON.stringify(gateway.lines)).not.toContain('secret-of-blue')
  })

  it('says of an attempt that had no answer why', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', { retry: { retries: 0 } }))
    expect((await call(gateway.url, '/harness/ng/api/projects')).status).toBe(502)
    const [line] = gateway.lines
    expect(line).toMatchObject({ tries: [{ error: 'unreachable (ECONNREFUSED)' }], credential: 'harness/prod' })
    expect(line!.responseBytes).toBeGreaterThan(0)
  })

  it('says of a wrong key the beginning of its hash, and what sent it, but not the key', async () => {
    const clients = { bot: { keys: [hashKey('slk_right')] } }
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { clients }))
    const headers = { 'x-sluice-key': 'slk_wrong-secret', 'user-agent': `curl/8 ${'x'.repeat(500)}` }
    expect((await call(gateway.url, '/harness/ng/api/projects', { headers })).status).toBe(401)
    const [line] = gateway.lines
    expect(line).toMatchObject({ keyHash: hashKey('slk_wrong-secret').slice(0, 'sha256:'.length + 8) })
    expect(line!.userAgent).toMatch(/^curl\/8 x+$/)
    expect(line!.userAgent!.length).toBeLessThanOrEqual(200)
    expect(JSON.stringify(gateway.lines)).not.toContain('wrong-secret')
    await call(gateway.url, '/harness/ng/api/projects', { headers: { 'x-sluice-key': 'slk_right' } })
    expect(gateway.lines[1]).toMatchObject({ keyHash: undefined, userAgent: undefined })
  })

  it('is left out of a call that went well where log.sample says so, and never of another', async () => {
    const upstream = await startUpstream(({ url }, response) => response.writeHead(Number(url.slice(-3))).end())
    const config = harnessConfig(upstream.url, { retry: { retries: 0 } }, { log: { sample: '0%' } })
    const gateway = await startProcess(config)
    for (const status of ['200', '404', '304', '500', '204', '429'])
      await call(gateway.url, `/harness/ng/api/projects/${status}`)
    gateway.kill('SIGTERM')
    await gateway.ended
    const statuses = [...gateway.stdout.matchAll(/"status":"(\d+)".*"msg":"call"/g)].map(([, status]) => status)
    expect(statuses).toEqual(['404', '500', '429'])
  })

  it('has no vendor’s id in it that is no plain text', async () => {
    const url = await startServer((_, response) => response.setHeader('X-Request-Id', 'a b\tc').end())
    const gateway = await startGateway(harnessConfig(url))
    await call(gateway.url, '/harness/ng/api/projects')
    expect(gateway.lines).toMatchObject([{ upstreamRequestId: undefined, status: '200' }])
  })

  it('names the gateway: as configured, or by its host and process', async () => {
    const one = await startProcess(harnessConfig('http://127.0.0.1:1', {}, { log: { instance: 'blue' } }))
    expect(JSON.parse(await one.line(/listening/))).toMatchObject({ instance: 'blue' })
    const other = await startProcess(harnessConfig('http://127.0.0.1:1', { retry: { retries: 0 } }))
    await call(other.url, '/harness/ng/api/projects')
    const instance = `${hostname()}:${other.child.pid}`
    expect(JSON.parse(await other.line(/"msg":"call"/))).toMatchObject({ instance })
    expect(JSON.parse(await other.line(/listening/))).toMatchObject({ instance })
  })
})

it('says in its last line which mistake ended the gateway, behind those of all calls before', async () => {
  const upstream = await startUpstream()
  const mistake = `process.on('SIGUSR2', () => { throw new TypeError('a mistake') })`
  const cwd = newFolder()
  writeFileSync(join(cwd, 'sluice.yaml'), stringify(harnessConfig(upstream.url)))
  const command = [process.execPath, '--import', `data:text/javascript,${mistake}`, inject('program')]
  const gateway = new Program(['start'], { cwd, command })
  const { url } = JSON.parse(await gateway.line(/"msg":"listening"/)) as { url: string }
  await call(url, '/harness/ng/api/projects')
  gateway.kill('SIGUSR2')
  expect((await gateway.ended).code).toBe(1)
  const lines = gateway.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as object)
  expect(lines.at(-1)).toMatchObject({
    level: 60,
    err: { type: 'TypeError', message: 'a mistake' },
    origin: 'uncaughtException',
    msg: 'the gateway made a mistake, and ends',
  })
  expect(lines).toContainEqual(expect.objectContaining({ msg: 'call', status: '200' }))
  expect(gateway.stderr).toContain('TypeError: a mistake')
})
