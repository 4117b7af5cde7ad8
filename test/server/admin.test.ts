import { describe, expect, it, onTestFinished } from 'vitest'
import { Secret } from '../../src/schema/secret.ts'
import { buildAdmin } from '../../src/server/admin/admin.ts'
import { harnessConfig, startGateway } from '../support/gateway.ts'
import { call } from '../support/http.ts'

describe('the admin API', () => {
  it.each(['/v1/quota', '/%761/quota', '/v%31/usage?limit=1', '/v1/nothing', '/v1'])(
    'is not had without the token, however its path is written: %s',
    async (path) => {
      const gateway = await startGateway(
        harnessConfig('http://127.0.0.1:1', {}, { admin: { port: 0, token: 'secret' } }),
      )
      for (const headers of [{}, { authorization: 'Bearer wrong' }]) {
        const answer = await call(gateway.adminUrl, path, { headers })
        expect(answer.status).toBe(401)
        expect(answer.json()).toMatchObject({ status: 401, code: 'INVALID_TOKEN' })
        expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8')
        expect(answer.headers['www-authenticate']).toBe('Bearer realm="sluice-admin"')
      }
      const allowed = await call(gateway.adminUrl, path, { headers: { authorization: 'Bearer secret' } })
      expect(allowed.status).toBe(/quota|usage/.test(path) ? 200 : 404)
    },
  )

  it.each<[method: string, path: string, detail: RegExp]>([
    [
      'GET',
      '/ng/api',
      /^there is no GET \/ng\/api on the admin port; it has the live page .*clients call the other port$/,
    ],
    ['POST', '/metrics', /^there is no POST \/metrics on the admin port/],
    ['PUT', '/v1/clients/x?y=1', /^there is no PUT \/v1\/clients\/x on the admin port/],
    ['PATCH', '/v1/clients/nobody', /^there is no client "nobody"$/],
    ['GET', '/v1/accounts/harness%2Fprd', /^there is no account "harness\/prd"$/],
    ['GET', '/v1/audit?form=now', /^unknown query parameter "form"; known are search, /],
  ])('names what %s %s did not find', async (method, path, detail) => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin: { port: 0 } }))
    const headers = method === 'PATCH' ? { 'content-type': 'application/json' } : {}
    const answer = await call(gateway.adminUrl, path, { method, headers, ...(method === 'PATCH' && { body: '{}' }) })
    expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8')
    expect(answer.json()).toMatchObject({ detail: expect.stringMatching(detail) })
  })

  it.each([
    ['without a token', {}],
    ['with one for /v1', { token: 'secret' }],
  ])('gives metrics to no web page %s', async (_, admin) => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin: { port: 0, ...admin } }))
    const statusOf = async (headers: Record<string, string>) =>
      (await call(gateway.adminUrl, '/metrics', { headers })).status
    expect(await statusOf({})).toBe(200)
    expect(await statusOf({ 'sec-fetch-site': 'none', 'sec-fetch-mode': 'navigate' })).toBe(200)
    expect(await statusOf({ origin: 'http://evil.example' })).toBe(403)
    expect(await statusOf({ 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' })).toBe(403)
    // A page whose own name resolves to this machine sends nothing else.
    expect(await statusOf({ host: 'evil.example' })).toBe(403)
  })

  it('gives metrics to a scraper of another machine, which knows the port by any name', async () => {
    const status = { async *metrics() {} }
    const management = { clients: { all: [] }, config: () => ({}) }
    const admin = { host: '0.0.0.0', port: 0, token: new Secret('secret'), tokens: {} }
    const app = buildAdmin(admin, { status, management, controls: {} } as unknown as Parameters<typeof buildAdmin>[1])
    onTestFinished(() => app.close())
    const ask = (headers: object) => app.inject({ url: '/metrics', headers: { ...headers } })
    expect((await ask({ host: 'gateway.internal:9090' })).statusCode).toBe(200)
    expect((await ask({ host: 'gateway.internal:9090', origin: 'http://evil.example' })).statusCode).toBe(403)
  })

  it('leaves health, readiness and metrics open', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', {}, { admin: { port: 0, token: 'secret' } }))
    for (const path of ['/healthz', '/readyz', '/metrics']) {
      expect((await call(gateway.adminUrl, path)).status, path).toBe(200)
    }
  })
})
