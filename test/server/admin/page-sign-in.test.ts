import { describe, expect, it } from 'vitest'
import { harnessConfig, startGateway, startUpstream, type TestGateway } from '../../support/gateway.ts'
import { call } from '../../support/http.ts'

const TOKEN = 'the admin token'
const SIGNED_IN = { admin: { port: 0, token: TOKEN, tokens: { alice: 'the token of alice' } } }

const getPage = async (gateway: TestGateway, path = '/'): Promise<string> => (await call(gateway.adminUrl, path)).body

function signIn(gateway: TestGateway, token: string, more: Record<string, string> = {}) {
  return call(gateway.adminUrl, '/sign-in', {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ token, ...more }).toString(),
  })
}

describe('signing in to the live page', () => {
  const start = async () => startGateway(harnessConfig((await startUpstream()).url, {}, { ...SIGNED_IN, clients: {} }))

  it('takes an admin token, and gives a cookie that no script can use, and other sites for links only', async () => {
    const gateway = await start()
    const before = await call(gateway.adminUrl, '/')
    expect([before.status, before.headers['location']]).toEqual([303, '/sign-in'])
    const answer = await signIn(gateway, 'the token of alice')
    expect([answer.status, answer.headers['location']]).toEqual([303, '/'])
    const [cookie = ''] = answer.headers['set-cookie'] ?? []
    expect(cookie).toMatch(/^sluice_session=[\w.-]+; Path=\/; Max-Age=43200; HttpOnly; SameSite=Lax$/)
    expect(cookie).not.toContain('token')
    const page = await call(gateway.adminUrl, '/', { headers: { cookie: cookie.split(';')[0]! } })
    expect(page.status).toBe(200)
    expect(page.body).toContain('<span>alice</span>')
    expect(page.headers['content-security-policy']).toBe(
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    )
    expect(page.headers['cache-control']).toBe('no-store')
    const out = await call(gateway.adminUrl, '/sign-out', { method: 'POST' })
    expect(out.headers['set-cookie']).toEqual(['sluice_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax'])
  })

  it('goes on to the call that a link led to, and to no other place', async () => {
    const gateway = await start()
    const path = '/requests/a%22%3E%3Cb?x=1&y=2'
    const { location = '' } = (await call(gateway.adminUrl, path)).headers
    const form = await getPage(gateway, location)
    const [, next = ''] = /name="next" type="hidden" value="([^"]*)"/.exec(form)!
    expect(next.replaceAll('&amp;', '&')).toBe(path)
    const wrong = await signIn(gateway, 'wrong', { next: path })
    expect(wrong.body).toContain(`value="${next}"`)
    expect((await signIn(gateway, TOKEN, { next: path })).headers['location']).toBe(path)
    for (const foreign of [
      'https://evil.example/',
      '//evil.example',
      '/\\evil.example',
      '/requestsx',
      '/requests.evil.example',
      '/requests/\r\nset-cookie: a=b',
      'javascript:alert(1)',
    ]) {
      expect((await signIn(gateway, TOKEN, { next: foreign })).headers['location'], foreign).toBe('/')
      expect(await getPage(gateway, `/sign-in?next=${encodeURIComponent(foreign)}`)).toContain('value="/"')
    }
  })

  it.each([
    ['/', ''],
    ['/events', ''],
    ['/requests/any', '?next=%2Frequests%2Fany'],
    ['/requests?client=bot', '?next=%2Frequests%3Fclient%3Dbot'],
  ])('guards %s', async (path, next) => {
    const gateway = await start()
    const value = (await signIn(gateway, TOKEN)).headers['set-cookie']![0]!.split(';')[0]!
    const [label, until, signature] = value.replace('sluice_session=', '').split('.')
    const forged = [
      '',
      'sluice_session=',
      `sluice_session=${label}.${Number(until) + 1}.${signature}`,
      `sluice_session=${Buffer.from('alice').toString('base64url')}.${until}.${signature}`,
      `sluice_session=${label}.1.${signature}`,
      `sluice_session=${label}.${until}.`,
    ]
    for (const cookie of forged) {
      const { status, headers, body } = await call(gateway.adminUrl, path, { headers: { cookie } })
      if (path === '/events') expect([status, body]).toEqual([200, 'event: signed-out\ndata: {}\n\n'])
      else expect([status, headers['location']]).toEqual([303, `/sign-in${next}`])
    }
  })

  it('refuses a wrong token, and after ten of them any', async () => {
    const gateway = await start()
    for (let i = 0; i < 10; i++) expect((await signIn(gateway, `wrong ${i}`)).status).toBe(401)
    await signIn(gateway, 'wrong again')
    const blocked = await signIn(gateway, TOKEN)
    expect(blocked.status).toBe(429)
    expect(blocked.headers['set-cookie']).toBeUndefined()
  })

  it('is for browsers of this machine only where there is no token', async () => {
    const gateway = await startGateway(harnessConfig((await startUpstream()).url))
    expect((await call(gateway.adminUrl, '/', { headers: { host: 'evil.example' } })).status).toBe(403)
    expect((await call(gateway.adminUrl, '/events', { headers: { origin: 'https://evil.example' } })).status).toBe(403)
  })
})
