import { describe, expect, it, onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { warningsOf } from '../../src/config/warnings.ts'
import { makeCertificates } from '../support/certificates.ts'
import { harnessConfig } from '../support/gateway.ts'

const DAY_MS = 86_400_000
const ONE = { requests: 9, window: '1s' }

function warningsFor(rest: object, upstream: object = {}, now?: number): string[] {
  return warningsOf(checkConfig(harnessConfig('https://app.harness.io', upstream, rest), 'test'), now)
}

describe('a configuration is warned about', () => {
  it.each([
    { days: 2, before: 1, soon: 1.5 },
    { days: 90, before: 82, soon: 84 },
  ])('certificates of its own that have expired, or will soon: $days days', ({ days, before, soon }) => {
    const certificates = makeCertificates(['localhost'], days)
    onTestFinished(() => certificates.remove())
    const tls = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
    const redis = { kind: 'redis', url: 'rediss://h', tls }
    const rest = {
      server: { tls: { ...tls } },
      store: { ...redis, regions: { name: 'eu', weights: { eu: 1, us: 1 }, home: { url: 'rediss://i', tls } } },
      webhooks: { ops: { url: 'https://ops.example', tls } },
    }
    const places = ['server', 'store', 'store.regions.home', 'webhooks.ops', 'upstreams.harness']
    const at = (day: number): string[] => warningsFor(rest, { tls }, Date.now() + day * DAY_MS)
    expect(at(days + 1)).toEqual(places.map((place) => `${place}.tls.cert has expired`))
    expect(at(soon)).toEqual(places.map((place) => expect.stringContaining(`${place}.tls.cert expires 20`)))
    expect(at(before)).toEqual([])
  })

  it.each([
    [{ limits: { read: [ONE] } }, ['write']],
    [{ limits: { other: [ONE] }, routes: [{ path: '/x', class: 'other' }] }, ['read', 'write']],
    [{ limits: { read: [ONE], write: [] } }, []],
    [{ limits: { read: [ONE], all: [ONE] } }, []],
    [{ limits: { read: [] } }, []],
    [{ limits: { read: [ONE] }, routes: [{ path: '/*', class: 'read' }] }, []],
    [{ limits: { read: [ONE] }, routes: [{ path: '/*', method: 'GET', class: 'read' }] }, ['write']],
  ])('calls that no limit holds back, where others are: %o', (upstream, classes) => {
    const it = { url: 'https://x.example', accounts: { main: {} }, ...upstream }
    expect(warningsOf(checkConfig({ upstreams: { it } }, 'test'))).toEqual(
      classes.map((one) => expect.stringContaining(`upstreams.it.limits has none for ${one}, so such calls`)),
    )
  })

  it.each([
    [{ preset: 'github', limits: { serach: [ONE], search: [ONE], all: [ONE], none: [] } }, 'serach', 'search'],
    [{ preset: 'github', limits: { costly: [ONE] }, routes: [{ path: '/x', class: 'read', charges: ['costly'] }] }],
    [{ preset: 'harness', limitSet: 'published', limits: { templates: [ONE] } }, 'templates', 'template'],
    [{ limits: { raed: [ONE], read: [], write: [] } }, 'raed', 'read'],
  ])('limits of a class that no call has: %o', (upstream, name = '', meant = '') => {
    const it = { url: 'https://x.example', accounts: { main: { id: 'x' } }, ...upstream }
    const warning = `upstreams.it.limits.${name} does nothing: no call is of this class, as no route has it; did you mean "${meant}"?`
    expect(warningsOf(checkConfig({ upstreams: { it } }, 'test'))).toEqual(name === '' ? [] : [warning])
  })

  it('credentials that have expired, or will within a week', () => {
    const value = 'pat.AbCdEf.x.y'
    const accounts = {
      one: { id: 'AbCdEf', credential: { value, expires: '2024-01-01', next: { value, expires: '2026-06-01' } } },
      several: {
        id: 'Other',
        credentials: [
          { name: 'a', value: 'x' },
          { name: 'b', value: 'y', expires: '2026-05-30T12:00Z' },
          { name: 'c', value: 'z', expires: '2030-01-01' },
        ],
      },
    }
    expect(warningsFor({}, { accounts }, Date.parse('2026-05-30'))).toEqual([
      'upstreams.harness.accounts.one.credential has expired',
      'upstreams.harness.accounts.one.credential.next expires 2026-06-02T00:00:00.000Z',
      'upstreams.harness.accounts.several.credentials[1] expires 2026-05-30T12:00:00.000Z',
    ])
  })

  it.each([
    [{ token: 'all', tokens: { ci: 'other' }, metricsToken: 'all' }, 1],
    [{ token: 'other', tokens: { ci: 'all' }, metricsToken: 'all' }, 1],
    [{ token: 'all', tokens: { ci: 'other' }, metricsToken: 'metrics' }, 0],
    [{ metricsToken: 'metrics' }, 0],
  ])('a token for metrics that is an admin token, too: %o', (admin, count) => {
    const warning = 'admin.metricsToken is an admin token, too, so whoever reads metrics may do everything'
    expect(warningsFor({ admin })).toEqual(Array.from({ length: count }, () => warning))
  })

  it('a share of calls for a new credential where there can be none', () => {
    const credential = { value: 'pat.AbCdEf.x.y', canary: '10%' }
    const of = (more: object): string[] =>
      warningsFor({}, { accounts: { prod: { id: 'AbCdEf', credential: { ...credential, ...more } } } })
    expect(of({})).toEqual([
      'upstreams.harness.accounts.prod.credential.canary does nothing: there is no next, and no secret of the store that could be rotated',
    ])
    expect(of({ next: { value: 'pat.AbCdEf.x.z' } })).toEqual([])
  })

  it('routes that come behind others for the same calls', () => {
    const routes = [
      { path: '/a/{x}', class: 'read', method: ['GET', 'POST'] },
      { path: '/a/{x}', class: 'read' },
      { path: '/a/{y}/', class: 'write', method: 'POST' },
      { path: '/a/{y}', class: 'write', method: ['POST', 'PUT'] },
      { path: '/a/{z}', class: 'write' },
    ]
    const nothing = 'does nothing: earlier ones have its path and methods'
    expect(warningsFor({}, { routes })).toEqual([
      `upstreams.harness.routes[2] ${nothing}`,
      `upstreams.harness.routes[4] ${nothing}`,
    ])
  })

  it('token endpoints that are asked unencrypted, of any credential', () => {
    const oauth2 = { type: 'oauth2', tokenUrl: 'http://login.example/token', clientId: 'x', clientSecret: 'y' }
    const accounts = {
      one: { credential: { ...oauth2, tokenUrl: 'https://login.example/token', next: oauth2 } },
      several: { credentials: [{ name: 'a', ...oauth2 }] },
    }
    const url = 'https://vendor.example'
    const config = { upstreams: { vendor: { url, accounts, limits: { read: [], write: [] } } } }
    const warning = 'tokenUrl is http://, so what proves the client travels unencrypted'
    expect(warningsOf(checkConfig(config, 'test'))).toEqual([
      `upstreams.vendor.accounts.one.credential.next.${warning}`,
      `upstreams.vendor.accounts.several.credentials[0].${warning}`,
    ])
  })

  it.each([
    ['http://login.example/keys', ['tokenIssuers.corp.jwks is http://, so whoever is between']],
    ['http://127.0.0.1:8080/keys', []],
    ['https://login.example/keys', []],
  ])('keys of an issuer that come unencrypted from another machine: %s', (jwks, expected) => {
    const tokenIssuers = { corp: { issuer: 'https://login.example', audience: 'sluice', jwks } }
    expect(warningsFor({ tokenIssuers })).toEqual(expected.map((start) => expect.stringContaining(start)))
  })
})
