import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ADMIN_TOKEN, ask } from '../../support/admin.ts'
import { ACCOUNT, harnessConfig, newFolder, startGateway, TOKEN } from '../../support/gateway.ts'
import { call, RawClient } from '../../support/http.ts'

const admin = { port: 0, token: ADMIN_TOKEN }

describe('what stands in the configuration', () => {
  it('is listed with ids that stay, and no value of a credential', async () => {
    const config = harnessConfig(
      'http://127.0.0.1:1',
      { hosts: ['harness.internal'] },
      { admin, defaultUpstream: 'harness' },
    )
    const gateway = await startGateway(config)
    const listed: Record<string, object> = {
      upstreams: {
        name: 'harness',
        url: 'http://127.0.0.1:1',
        preset: 'harness',
        hosts: ['harness.internal'],
        is_default: true,
        classes: ['read', 'write', 'template', 'webhook'],
        accounts: ['harness/prod'],
      },
      accounts: { name: 'harness/prod', upstream: 'harness', vendor_id: ACCOUNT, credential: 'harness/prod' },
      credentials: { name: 'harness/prod', upstream: 'harness', account: 'harness/prod' },
    }
    for (const [sort, expected] of Object.entries(listed)) {
      const answer = await ask(gateway, 'GET', `/${sort}`)
      const [item, ...others] = answer.json().data
      expect(others).toEqual([])
      expect(item).toMatchObject({ ...expected, source: 'config', read_only: true })
      expect(item.id).toMatch(new RegExp(`^${sort.slice(0, -1)}_[0-9a-f]{32}$`))
      expect((await ask(gateway, 'GET', `/${sort}/${item.id}`)).json()).toEqual(item)
      expect((await ask(gateway, 'GET', `/${sort}/${sort}_0`)).status).toBe(404)
      expect((await ask(gateway, 'GET', `/${sort}?search=HARNESS`)).json().data).toEqual([item])
      expect((await ask(gateway, 'GET', `/${sort}?search=nothing`)).json().data).toEqual([])
      expect(answer.body).not.toContain(TOKEN)
      expect(answer.body).not.toContain('topsecret')
    }
  })
})

describe('presets', () => {
  it('are read-only, and can be copied; a copy can be taken away', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin }))
    const { data } = (await ask(gateway, 'GET', '/presets')).json()
    expect(data.map(({ name }: { name: string }) => name)).toContain('github')
    const github = data.find(({ name }: { name: string }) => name === 'github')
    expect(github).toMatchObject({ source: 'built-in', read_only: true, config: { url: 'https://api.github.com' } })
    expect((await ask(gateway, 'DELETE', `/presets/${github.id}`)).json().code).toBe('READ_ONLY')
    const copy = (await ask(gateway, 'POST', `/presets/${github.id}/copy`, { name: 'ours' })).json()
    expect(copy).toMatchObject({ source: 'api', read_only: false, based_on: 'github', config: github.config })
    expect(copy.id).toMatch(/^preset_[0-9a-f]{32}$/)
    expect((await ask(gateway, 'POST', `/presets/${github.id}/copy`, { name: 'ours' })).json().code).toBe('NAME_TAKEN')
    expect((await ask(gateway, 'POST', `/presets/${github.id}/copy`, { name: 'slack' })).json().code).toBe('NAME_TAKEN')
    expect((await ask(gateway, 'POST', `/presets/${github.id}/copy`, { name: 'constructor' })).status).toBe(201)
    expect((await ask(gateway, 'GET', '/presets?search=ours')).json().data).toEqual([copy])
    expect((await ask(gateway, 'DELETE', `/presets/${copy.id}`)).status).toBe(204)
    expect((await ask(gateway, 'GET', `/presets/${copy.id}`)).status).toBe(404)
    const audit = (await ask(gateway, 'GET', '/audit')).json().data
    expect(audit.map(({ action }: { action: string }) => action)).toEqual([
      'preset.delete',
      'preset.copy',
      'preset.copy',
    ])
  })
})

describe('a file of the store', () => {
  it.each([
    ['is damaged', (path: string) => writeFileSync(path, '{'), /presets\.json is damaged; put back a copy/],
    ['can not be read', (path: string) => mkdirSync(path), /^the store can’t be used: EISDIR/],
  ])('that %s is told of by each request that needs it', async (_, spoil, why) => {
    const dir = newFolder()
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin, store: { dir } }))
    spoil(join(dir, 'presets.json'))
    for (const [method, path, body] of [
      ['GET', '/presets', undefined],
      ['POST', '/presets/github/copy', { name: 'ours' }],
    ] as const) {
      const answer = await ask(gateway, method, path, body)
      expect(answer.json()).toMatchObject({
        status: 503,
        code: 'STORE_UNAVAILABLE',
        detail: expect.stringMatching(why),
      })
    }
  })
})

describe('an admin port without a token', () => {
  it('answers programs of this machine, and no web page that a browser of this machine shows', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    expect((await call(gateway.adminUrl, '/v1/clients')).status).toBe(200)
    const from = async (headers: Record<string, string>) => {
      const answer = await call(gateway.adminUrl, '/v1/clients', { headers })
      // Nobody else's scripts may read an answer, either.
      expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control-'))).toEqual([])
      return answer.status
    }
    expect(await from({ origin: 'https://evil.example' })).toBe(403)
    expect(await from({ origin: 'null' })).toBe(403)
    // A name of the page's own, which stands for 127.0.0.1 by now.
    expect(await from({ host: 'evil.example:9090' })).toBe(403)
    expect(await from({ host: 'localhost:9090' })).toBe(200)
    expect(await from({ host: '[::1]:9090' })).toBe(200)
    const nameless = await RawClient.connect(gateway.adminUrl)
    nameless.write('GET /v1/clients HTTP/1.0\r\n\r\n')
    expect(await nameless.closed()).toMatch(/^HTTP\/1\.1 403/)
  })
})

describe('the admin port', () => {
  it.each([
    ['/v1/requests/%zz', 400, 'the path is not well-formed'],
    ['/requests/%ff', 400, 'the path is not well-formed'],
    ['/%', 400, 'the path is not well-formed'],
    [`/v1/clients/${'secret'.repeat(100)}`, 414, 'a part of the path is longer than any id or name'],
    ['/v1/nothing', 404, 'there is no GET /v1/nothing'],
  ])('answers %s with a problem, and repeats nothing of an error of its framework', async (path, status, detail) => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin }))
    const client = await RawClient.connect(gateway.adminUrl)
    client.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${ADMIN_TOKEN}\r\nConnection: close\r\n\r\n`)
    const [head, body = ''] = (await client.closed()).split('\r\n\r\n')
    expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} [^]*content-type: application/problem\\+json`))
    expect(JSON.parse(body)).toMatchObject({ type: 'about:blank', status, detail: expect.stringContaining(detail) })
    expect(body).not.toMatch(/secret|FST_/)
  })

  it.each([
    ['what is no HTTP', 'nonsense\r\n\r\n', 400],
    ['a header that is too large', `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`, 431],
  ])('answers %s with a problem', async (_, text, status) => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin }))
    const client = await RawClient.connect(gateway.adminUrl)
    client.write(text)
    const [head, body = ''] = (await client.closed()).split('\r\n\r\n')
    expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} [^]*content-type: application/problem\\+json`, 'i'))
    expect(JSON.parse(body)).toMatchObject({ type: 'about:blank', status })
  })

  it('says nothing of what it is made of, and has no answer for other origins', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin }))
    for (const path of ['/healthz', '/metrics', '/v1/clients', '/v1/nothing', '/nothing']) {
      for (const method of ['GET', 'OPTIONS']) {
        const { headers } = await call(gateway.adminUrl, path, { method, headers: { origin: 'https://evil.example' } })
        const telling = /^(?:server|x-powered-by|access-control-.*)$/
        expect(
          Object.keys(headers).filter((name) => telling.test(name)),
          `${method} ${path}`,
        ).toEqual([])
      }
    }
  })
})
