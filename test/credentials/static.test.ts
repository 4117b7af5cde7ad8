import { describe, expect, it } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { buildCredential } from '../../src/credentials/build.ts'
import { Metrics } from '../../src/observe/metrics.ts'
import { secretsIn } from '../../src/schema/secret.ts'
import { systemClock } from '../../src/time/clock.ts'
import { harnessConfig, newFolder, startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'

function plainConfig(url: string, credential: object): object {
  return {
    server: { port: 0 },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: { tickets: { url, accounts: { main: { credential } } } },
  }
}

describe('a credential is added', () => {
  it.each([
    ['of no type, in the upstream’s own header', { value: 'token-x' }, { authorization: 'token-x' }],
    ['in a header, with text around it', { header: 'X-Key', value: 'Key token-x!' }, { 'x-key': 'Key token-x!' }],
    ['as a bearer token', { type: 'bearer', value: 'token-x' }, { authorization: 'Bearer token-x' }],
    [
      'as user and password, in UTF-8',
      { type: 'basic', username: 'me', password: 'pässword' },
      { authorization: `Basic ${Buffer.from('me:pässword').toString('base64')}` },
    ],
  ])('%s', async (_, credential, expected) => {
    const upstream = await startUpstream()
    const gateway = await startGateway(plainConfig(upstream.url, credential))
    const headers = { authorization: 'Bearer of-the-client', 'x-key': 'of-the-client' }
    await call(gateway.url, '/tickets/x?a=1', { headers })
    expect(upstream.seen[0]).toMatchObject({ url: '/x?a=1', headers: expected })
    const [name] = Object.keys(expected)
    const sent = upstream.seen[0]!.rawHeaders.filter((one) => one.toLowerCase() === name)
    expect(sent).toHaveLength(1)
  })

  it.each([
    ['/x', '/x?key=a%26b'],
    ['/x?', '/x?&key=a%26b'],
    ['/x?a=1&b=2', '/x?a=1&b=2&key=a%26b'],
    ['/x?key=client&a=%2F', '/x?a=%2F&key=a%26b'],
    ['/x?k%65y=client&key', '/x?key=a%26b'],
  ])('as a parameter of the URL, in place of the client’s own: %s', async (path, expected) => {
    const upstream = await startUpstream()
    const credential = { type: 'query', parameter: 'key', value: 'a&b' }
    const gateway = await startGateway(plainConfig(upstream.url, credential))
    await call(gateway.url, `/tickets${path}`)
    expect(upstream.seen.map(({ url }) => url)).toEqual([expected])
    expect(JSON.stringify(gateway.lines)).not.toContain('a%26b')
  })
})

it.each([
  [{ type: 'bearer' }, 'credential.value: the key "value" is missing'],
  [{ type: 'basic', username: 'x' }, 'credential.password: the key "password" is missing'],
  [{ value: 'x', password: 'y' }, 'credential.password: password does not belong to a credential of type header'],
  [{ type: 'bearer', value: 'x', header: 'y' }, 'credential.header: header does not belong to'],
  [{ type: 'bearer', value: 'x\ny' }, 'credential.value: holds a control character'],
  [{ type: 'basic', username: 'x', password: 'a\nb' }, 'credential.password: holds a control character'],
  [
    {
      ...{ type: 'sigv4', accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'x', sessionToken: 'a\nb' },
      region: 'a',
      service: 's3',
    },
    'credential.sessionToken: holds a control character',
  ],
  [{ value: 'x', expires: 'soon' }, 'credential.expires: must be a day such as 2027-01-31, or a time such'],
  [{ value: 'x', expires: '90' }, 'credential.expires: must be a day such as 2027-01-31, or a time such'],
  [{ value: 'x', expires: '2027-01-31T18:00' }, 'credential.expires: must be a day such as 2027-01-31, or a time such'],
  [{ value: 'x', expires: '2027-13-40' }, 'credential.expires: must be a day or a time that exists'],
  [{ value: 'x', expires: '2027-02-31' }, 'credential.expires: must be a day or a time that exists'],
  [{ value: 'x', expires: '2027-02-31T18:00Z' }, 'credential.expires: must be a day or a time that exists'],
  [{ type: 'query', value: 'x', parameter: 'a b' }, 'credential.parameter: must be a name of letters'],
])('a credential that is not complete, or too much, is an error: %j', (credential, expected) => {
  expect(() => checkConfig(plainConfig('http://127.0.0.1', credential), 'test')).toThrow(expected)
})

describe('a credential goes to its upstream only', () => {
  it('and not to where the upstream redirects to', async () => {
    const other = await startUpstream()
    const upstream = await startUpstream((_, response) => {
      response.writeHead(307, { location: `${other.url}/stolen` }).end()
    })
    const gateway = await startGateway(harnessConfig(upstream.url))
    const answer = await call(gateway.url, '/harness/ng/api/projects')
    expect(answer).toMatchObject({ status: 307, headers: { location: `${other.url}/stolen` } })
    expect(other.seen).toEqual([])
  })

  it('whatever host the request names', async () => {
    const other = await startUpstream()
    const upstream = await startUpstream()
    const gateway = await startGateway({
      ...harnessConfig(upstream.url),
      defaultUpstream: 'harness',
    })
    const host = new URL(other.url).host
    const foreign = await call(gateway.url, `${other.url}/ng/api/projects`)
    expect(foreign.headers['x-sluice-error']).toBe('unknown_upstream')
    await call(gateway.url, '/ng/api/projects', { headers: { host, 'x-forwarded-host': host } })
    expect(upstream.seen.map(({ headers }) => headers['x-api-key'])).toHaveLength(1)
    for (const { headers } of upstream.seen) expect(headers.host).toBe(new URL(upstream.url).host)
    expect(other.seen).toEqual([])
  })
})

it.each([
  { type: 'query', parameter: 'key', value: 'x' },
  { type: 'basic', username: 'x', password: 'x' },
  { type: 'oauth2', tokenUrl: 'https://h/', clientId: 'x', clientSecret: 'x' },
  { type: 'sigv4', accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'x', region: 'a', service: 's3' },
])('no secret of a credential takes a new value with a line end: %j', (credential) => {
  const config = checkConfig(plainConfig('http://127.0.0.1', credential), 'test')
  const own = config.upstreams['tickets']!.accounts['main']!.credential!
  const place = { upstream: 'tickets', account: 'main', header: 'authorization', host: 'h' }
  buildCredential(place, own, { clock: systemClock, random: Math.random, metrics: new Metrics() })
  for (const secret of secretsIn(own)) expect(secret.whyNot('secret\n')).toMatch(/^the new value /)
})
