import { expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { type FailureKind, FAILURES } from '../../src/gateway/failure.ts'
import {
  newFolder,
  type Seen,
  startGateway,
  startUpstream,
  type TestGateway,
  type TestUpstream,
} from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'

const KEY = 'slk_of-a-client'
const CREDENTIAL = 'credential-of-the-vendor'
const OWN = `Host: gateway\r\nX-Sluice-Key: ${KEY}\r\n`

/** What the upstream saw of it: undefined stands for a field that must not be there. */
interface Neutral {
  readonly method?: string
  readonly url?: string
  readonly headers?: Record<string, string | undefined>
  readonly body?: string
}
/** The kind of refusal, with nothing seen upstream; or what each request looked like there. */
type Expected = FailureKind | readonly Neutral[]

const get = (target: string, fields = '', version = 'HTTP/1.1'): string =>
  `GET ${target} ${version}\r\n${OWN}${fields}\r\n`
const post = (fields: string, body = '', target = '/api/x'): string =>
  `POST ${target} HTTP/1.1\r\n${OWN}${fields}\r\n${body}`
/** A request of an attacker, as the body of another: it must come out nowhere. */
const POISON = `GET /api/poison HTTP/1.1\r\n${OWN}\r\n`
const chunked = 'Transfer-Encoding: chunked\r\n'
const untouched = (url: string): readonly Neutral[] => [{ method: 'GET', url }]

const cases: readonly (readonly [string, string, Expected])[] = [
  // Where one message ends and the next begins (RFC 9112 §6, §11.2).
  ['a length beside chunks', post(`Content-Length: 4\r\n${chunked}`, `0\r\n\r\n${POISON}`), 'invalid_request'],
  ['chunks beside a length', post(`${chunked}Content-Length: 4\r\n`, `0\r\n\r\n${POISON}`), 'invalid_request'],
  ['a coding that is not chunked', post('Transfer-Encoding: identity\r\n', POISON), 'invalid_request'],
  ['a coding that is almost chunked', post('Transfer-Encoding: xchunked\r\n', `0\r\n\r\n${POISON}`), 'invalid_request'],
  [
    'a coding behind chunked',
    post('Transfer-Encoding: chunked, identity\r\n', `0\r\n\r\n${POISON}`),
    'invalid_request',
  ],
  ['chunked in quotes', post('Transfer-Encoding: "chunked"\r\n', `0\r\n\r\n${POISON}`), 'invalid_request'],
  ['a coding behind a vertical tab', post('Transfer-Encoding: \vchunked\r\n', `0\r\n\r\n${POISON}`), 'invalid_request'],
  [
    'a coding with a space before its colon',
    post('Transfer-Encoding : chunked\r\n', `0\r\n\r\n${POISON}`),
    'invalid_request',
  ],
  [
    'a coding in a folded field',
    post('X-A: b\r\n Transfer-Encoding: chunked\r\n', `0\r\n\r\n${POISON}`),
    'invalid_request',
  ],
  ['a coding that is folded', post('Transfer-Encoding:\r\n chunked\r\n', `0\r\n\r\n${POISON}`), 'invalid_request'],
  [
    'a coding behind a bare line feed',
    post('X-A: b\nTransfer-Encoding: chunked\r\n', `0\r\n\r\n${POISON}`),
    'invalid_request',
  ],
  ['two codings', post(`${chunked}Transfer-Encoding: identity\r\n`, `0\r\n\r\n${POISON}`), 'invalid_request'],
  ['a coding below the chunks', post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'), 'invalid_request'],
  [
    'a coding below the chunks, without a space',
    post('Transfer-Encoding: GZIP,Chunked\r\n', '0\r\n\r\n'),
    'invalid_request',
  ],
  [
    'a coding below the chunks, on a line of its own',
    post(`Transfer-Encoding: gzip\r\n${chunked}`, '0\r\n\r\n'),
    'invalid_request',
  ],
  [
    'no coding below the chunks, said so',
    post('Transfer-Encoding: identity, chunked\r\n', '0\r\n\r\n'),
    'invalid_request',
  ],
  [
    'a coding that is nothing below the chunks',
    post('Transfer-Encoding: , chunked\r\n', '0\r\n\r\n'),
    'invalid_request',
  ],
  ['chunks in chunks', post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n'), 'invalid_request'],
  ['chunks in chunks, on two lines', post(chunked + chunked, '0\r\n\r\n'), 'invalid_request'],
  ['chunks with a parameter', post('Transfer-Encoding: chunked;a=b\r\n', '0\r\n\r\n'), 'invalid_request'],
  ['only a coding that is not chunked', post('Transfer-Encoding: gzip\r\n', POISON), 'invalid_request'],
  ['an empty coding', post('Transfer-Encoding: \r\n', POISON), 'invalid_request'],
  [
    'chunks in upper case',
    post('Transfer-Encoding: CHUNKED \r\n', '3\r\nabc\r\n0\r\n\r\n'),
    [{ body: 'abc', headers: { 'transfer-encoding': 'chunked' } }],
  ],
  ['a coding in HTTP/1.0', post(chunked, '0\r\n\r\n').replace('1.1', '1.0'), 'invalid_request'],
  [
    'a coding in HTTP/1.0 beside a length',
    post(`Content-Length: 5\r\n${chunked}`, '0\r\n\r\n').replace('1.1', '1.0'),
    'invalid_request',
  ],
  ['two lengths that differ', post('Content-Length: 3\r\nContent-Length: 0\r\n', 'abc'), 'invalid_request'],
  ['the same length twice', post('Content-Length: 3\r\nContent-Length: 3\r\n', 'abc'), 'invalid_request'],
  ['a list of lengths', post('Content-Length: 3, 3\r\n', 'abc'), 'invalid_request'],
  ['a negative length', post('Content-Length: -1\r\n', POISON), 'invalid_request'],
  ['a length with a sign', post('Content-Length: +3\r\n', 'abc'), 'invalid_request'],
  ['a hexadecimal length', post('Content-Length: 0x3\r\n', 'abc'), 'invalid_request'],
  ['a length with an exponent', post('Content-Length: 3e0\r\n', 'abc'), 'invalid_request'],
  ['a length with a fraction', post('Content-Length: 3.0\r\n', 'abc'), 'invalid_request'],
  ['an empty length', post('Content-Length: \r\n', 'abc'), 'invalid_request'],
  ['a length beyond 64 bits', post('Content-Length: 18446744073709551619\r\n', 'abc'), 'invalid_request'],
  ['a length with a space inside', post('Content-Length: 1 3\r\n', 'abc'), 'invalid_request'],
  [
    'a length behind zeros',
    post('Content-Length: 0003\r\n', 'abc'),
    [{ body: 'abc', headers: { 'content-length': '3' } }],
  ],
  ['a chunk size beyond 64 bits', post(chunked, `10000000000000003\r\nabc\r\n0\r\n\r\n`), 'invalid_request'],
  ['a chunk size that is no number', post(chunked, `zz\r\nabc\r\n0\r\n\r\n`), 'invalid_request'],
  ['a negative chunk size', post(chunked, `-3\r\nabc\r\n0\r\n\r\n`), 'invalid_request'],
  ['a chunk size with 0x', post(chunked, `0x3\r\nabc\r\n0\r\n\r\n`), 'invalid_request'],
  ['a chunk that is longer than it says', post(chunked, `3\r\nabcdef\r\n0\r\n\r\n`), 'invalid_request'],
  ['a chunk size before a bare line feed', post(chunked, `3\nabc\r\n0\r\n\r\n`), 'invalid_request'],
  ['a chunk before a bare line feed', post(chunked, `3\r\nabc\n0\r\n\r\n`), 'invalid_request'],
  ['an extension with a bare line feed', post(chunked, `3;a\nb\r\nabc\r\n0\r\n\r\n`), 'invalid_request'],
  ['an extension that is too long', post(chunked, `3;${'a'.repeat(20_000)}\r\nabc\r\n0\r\n\r\n`), 'invalid_request'],
  [
    'an extension of a chunk',
    post(chunked, `3;a=b\r\nabc\r\n0\r\n\r\n`),
    [{ body: 'abc', headers: { 'transfer-encoding': 'chunked' } }],
  ],
  ['a trailer that frames', post(chunked, '3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n'), 'invalid_request'],
  [
    'trailers that were fields',
    post(chunked, '3\r\nabc\r\n0\r\nX-Sluice-Key: other\r\nX-Api-Key: other\r\n\r\n'),
    [{ body: 'abc' }],
  ],
  [
    'a request in the body of another',
    post(`Content-Length: ${POISON.length}\r\n`, POISON),
    [{ method: 'POST', url: '/x', body: POISON }],
  ],
  [
    'a GET with a request as its body',
    get('/api/x', `Content-Length: ${POISON.length}\r\n`) + POISON,
    [{ method: 'GET', url: '/x', body: POISON }],
  ],
  [
    'a request behind one of length 0',
    post('Content-Length: 0\r\n', get('/api/next')),
    [
      { url: '/x', body: '' },
      { url: '/next', body: '' },
    ],
  ],
  ['a request behind a broken one', `GET /api/x\r\n${OWN}\r\n${POISON}`, 'invalid_request'],
  // Lines and fields (RFC 9112 §2.2, §5).
  ['only line feeds', get('/api/x').replaceAll('\r\n', '\n'), 'invalid_request'],
  ['a bare carriage return in a value', get('/api/x', 'X-A: b\rX-C: d\r\n'), 'invalid_request'],
  ['a line feed in a value', get('/api/x', `X-A: b\nX-Sluice-Account: other\r\n`), 'invalid_request'],
  ['a NUL in a value', get('/api/x', 'X-A: b\0c\r\n'), 'invalid_request'],
  ['a NUL in a name', get('/api/x', 'X\0A: b\r\n'), 'invalid_request'],
  ['a name with a space', get('/api/x', 'X A: b\r\n'), 'invalid_request'],
  ['a space before the colon', get('/api/x', 'X-A : b\r\n'), 'invalid_request'],
  ['an empty name', get('/api/x', ': b\r\n'), 'invalid_request'],
  ['a field without a colon', get('/api/x', 'X-A\r\n'), 'invalid_request'],
  ['a name with a bracket', get('/api/x', 'X(A): b\r\n'), 'invalid_request'],
  ['a name beyond ASCII', get('/api/x', 'X-\xe4: b\r\n'), 'invalid_request'],
  ['a name with a colon before it', get('/api/x', ':authority: other\r\n'), 'invalid_request'],
  ['a folded field', get('/api/x', 'X-A: b\r\n\tc\r\n'), 'invalid_request'],
  ['a space before the first field', `GET /api/x HTTP/1.1\r\n ${OWN}\r\n`, 'invalid_request'],
  ['a line feed in the target, encoded', get('/api/x%0d%0aX-A:%20b'), untouched('/x%0d%0aX-A:%20b')],
  ['a control character in the target', get('/api/x\x01y'), 'invalid_request'],
  ['a space in the target', get('/api/x y'), 'invalid_request'],
  // Who and where (RFC 9112 §3.2).
  ['no Host', `GET /api/x HTTP/1.1\r\nX-Sluice-Key: ${KEY}\r\n\r\n`, 'invalid_request'],
  ...['a b', 'a@b', 'a/b', '[::1', '::1', 'g:99999', 'g:80:80', 'g:-1', 'g:80a', 'g%zz', '\xe4.example', '"g"'].map(
    (host) =>
      [`${host} as its Host`, get('/api/x').replace('Host: gateway', `Host: ${host}`), 'invalid_request'] as const,
  ),
  ...['', 'g', 'my_service', 'g.', 'g:', 'G:00080', 'g:65535', '[::1]:80', "a!b,c;d=e'f", '%61', '127.0.0.1:1'].map(
    (host) => [`${host} as its Host, which is one`, get('/api/x').replace('gateway', host), untouched('/x')] as const,
  ),
  ['two Hosts', get('/api/x', 'Host: other\r\n'), 'invalid_request'],
  ['another Host behind a space', `GET /api/x HTTP/1.1\r\nHost: gateway\r\n Host: other\r\n\r\n`, 'invalid_request'],
  [
    'the host of a vendor, of an upstream of the same gateway',
    get('/api/x').replace('Host: gateway', 'Host: vendor.example'),
    [{ url: '/x', headers: { 'x-forwarded-host': undefined } }],
  ],
  ['an absolute target', get('http://other.example/api/x'), 'unknown_upstream'],
  [
    'an absolute target of the host that Host names, which anybody may write',
    get('http://gateway/api/x'),
    'unknown_upstream',
  ],
  ['an absolute target with a user', get('http://closed.example@other.example/api/x'), 'invalid_request'],
  [
    'an absolute target with a user before an own host',
    get('http://other.example@closed.example/x'),
    'invalid_request',
  ],
  ['an absolute target with a backslash', get(String.raw`http://closed.example\@other.example/x`), 'invalid_request'],
  ['an absolute target with an escape in its host', get('http://closed%2eexample/x'), 'invalid_request'],
  ['an absolute target of an upstream that the client may not use', get('http://closed.example/x'), 'forbidden'],
  ['an absolute target of another scheme', get('ftp://gateway/api/x'), 'invalid_request'],
  ['an absolute target of a file', get('file:///etc/passwd'), 'invalid_request'],
  ['an absolute target without a host', get('http:///api/x'), 'invalid_request'],
  ['an authority in place of a path', get('gateway:80'), 'invalid_request'],
  ['two slashes before a host', get('//other.example/api/x'), 'unknown_upstream'],
  ['a backslash before a host', get(String.raw`/\other.example/api/x`), 'unknown_upstream'],
  ['an upstream that is none', get('/constructor/x'), 'unknown_upstream'],
  ['an upstream that is a prototype', get('/__proto__/x'), 'unknown_upstream'],
  ['".." to another upstream', get('/api/../closed/x'), 'invalid_request'],
  ['".." at the end', get('/api/x/..'), 'invalid_request'],
  ['".." encoded', get('/api/%2e%2e/x'), 'invalid_request'],
  ['".." half encoded', get('/api/.%2E/x'), 'invalid_request'],
  ['".." between encoded slashes', get('/api/x%2f..%2fy'), 'invalid_request'],
  ['".." between backslashes', get(String.raw`/api/x\..\y`), 'invalid_request'],
  ['".." between encoded backslashes', get('/api/x%5c..%5cy'), 'invalid_request'],
  ['".." with a parameter', get('/api/..;a=b/x'), 'invalid_request'],
  ['".." before a NUL', get('/api/..%00/x'), 'invalid_request'],
  ['".." encoded twice, which is another name', get('/api/%252e%252e/x'), untouched('/%252e%252e/x')],
  ['three points, which are a name', get('/api/.../x'), untouched('/.../x')],
  ['an overlong encoding of a slash', get('/api/x%c0%af..'), 'invalid_request'],
  ['a broken encoding', get('/api/%zz'), 'invalid_request'],
  ['a fragment', get('/api/x#/../y'), 'invalid_request'],
  // Sizes.
  ['a target that is too long', get(`/api/${'x'.repeat(20_000)}`), 'invalid_request'],
  ['a field that is too long', get('/api/x', `X-A: ${'x'.repeat(20_000)}\r\n`), 'invalid_request'],
  ['a name that is too long', get('/api/x', `${'x'.repeat(20_000)}: a\r\n`), 'invalid_request'],
  ['very many fields', get('/api/x', 'a:b\r\n'.repeat(2_500)), 'invalid_request'],
  ['a body that says that it is too large', post('Content-Length: 99999999\r\n'), 'body_too_large'],
  [
    'a body that turns out too large',
    post(chunked, `400\r\n${'x'.repeat(1_024)}\r\n400\r\n${'x'.repeat(1_024)}\r\n0\r\n\r\n`),
    'body_too_large',
  ],
  [
    'very many cookies',
    get('/api/x', `Cookie: ${'a=b; '.repeat(1_000)}sluice_session=s\r\n`),
    [{ headers: { cookie: 'a=b; '.repeat(1_000).slice(0, -2) } }],
  ],
  [
    'very many ranges, which are the vendor’s to judge',
    get('/api/x', `Range: bytes=${'0-,'.repeat(1_000)}0-\r\n`),
    [{ headers: { range: `bytes=${'0-,'.repeat(1_000)}0-` } }],
  ],
  // Methods and protocols.
  ['an unknown method', get('/api/x').replace('GET', 'JEFF'), 'invalid_request'],
  ['a method in lower case', get('/api/x').replace('GET', 'get'), 'invalid_request'],
  ['a method behind a space', ` ${get('/api/x')}`, 'invalid_request'],
  ['TRACE, which would tell the credential', get('/api/x').replace('GET', 'TRACE'), 'invalid_request'],
  ['CONNECT', get('other.example:443').replace('GET', 'CONNECT'), 'invalid_request'],
  ['OPTIONS for the server', get('*').replace('GET', 'OPTIONS'), 'invalid_request'],
  ['HTTP/0.9', 'GET /api/x\r\n\r\n', 'invalid_request'],
  ['HTTP/2.0 in words', get('/api/x', '', 'HTTP/2.0'), 'invalid_request'],
  [
    'a long body in HTTP/2.0 in words',
    post('Content-Length: 300000\r\n').replace('HTTP/1.1', 'HTTP/2.0'),
    'invalid_request',
  ],
  ['HTTP/1.2', get('/api/x', '', 'HTTP/1.2'), 'invalid_request'],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'invalid_request'],
  ['a greeting of TLS', '\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03', 'invalid_request'],
  [
    'an upgrade to HTTP/2',
    get('/api/x', 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n'),
    [{ url: '/x', headers: { connection: 'keep-alive', upgrade: undefined, 'http2-settings': undefined } }],
  ],
  [
    'an upgrade to something else, with a request behind it, which has to come over another connection',
    get('/api/x', 'Connection: Upgrade\r\nUpgrade: tunnel\r\n') + POISON,
    untouched('/x'),
  ],
  ['an expectation that is none', post('Expect: 200-ok\r\nContent-Length: 3\r\n', 'abc'), 'invalid_request'],
  [
    'an expectation, with the body sent at once',
    post('Expect: 100-continue\r\nContent-Length: 3\r\n', 'abc'),
    [{ body: 'abc', headers: { expect: undefined } }],
  ],
  ['a method to override another', post('X-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n'), 'invalid_request'],
  ['the same by a shorter name', post('X-Method-Override: DELETE\r\nContent-Length: 0\r\n'), 'invalid_request'],
  ['the same in OData', post('X-HTTP-Method: MERGE\r\nContent-Length: 0\r\n'), 'invalid_request'],
  ['a method to override that of a read', get('/api/x', 'x-http-method-OVERRIDE: DELETE\r\n'), 'invalid_request'],
  // What is not the client's to say.
  ['no key', `GET /api/x HTTP/1.1\r\nHost: gateway\r\n\r\n`, 'unauthenticated'],
  [
    'a key that is taken off the request by another field',
    get('/api/x', 'Connection: X-Sluice-Key\r\n'),
    [{ headers: { 'x-sluice-key': undefined, 'x-api-key': CREDENTIAL } }],
  ],
  [
    'the credential taken off by Connection',
    get('/api/x', 'Connection: x-api-key\r\nX-Api-Key: mine\r\n'),
    [{ headers: { 'x-api-key': CREDENTIAL } }],
  ],
  [
    'the gateway’s own fields taken off by Connection',
    get('/api/x', 'Connection: via, x-correlation-id, x-forwarded-for\r\n'),
    [{ headers: { via: '1.1 sluice', 'x-forwarded-for': undefined } }],
  ],
  [
    'a length taken off by Connection',
    post('Connection: content-length\r\nContent-Length: 3\r\n', 'abc'),
    [{ body: 'abc', headers: { 'content-length': '3' } }],
  ],
  [
    'fields of one hop',
    get(
      '/api/x',
      'Proxy-Authorization: Basic eA==\r\nTE: trailers\r\nKeep-Alive: timeout=9\r\nProxy-Connection: x\r\nTrailer: x\r\n',
    ),
    [
      {
        headers: {
          'proxy-authorization': undefined,
          te: undefined,
          'keep-alive': undefined,
          'proxy-connection': undefined,
          trailer: undefined,
        },
      },
    ],
  ],
  [
    'a field of ours that does not exist',
    get('/api/x', 'X-Sluice-Internal: yes\r\nx-sLuIcE-Admin: 1\r\n'),
    [{ headers: { 'x-sluice-internal': undefined, 'x-sluice-admin': undefined } }],
  ],
  ['another account', get('/api/x', 'X-Sluice-Account: closed\r\n'), 'invalid_request'],
  ['an account that is a prototype', get('/api/x', 'X-Sluice-Account: __proto__\r\n'), 'invalid_request'],
  ['an upstream that the client may not use', get('/closed/x'), 'forbidden'],
  ['a wish that is no time', get('/api/x', 'X-Sluice-Max-Wait: -1\r\n'), 'invalid_request'],
  [
    'its key as the vendor’s',
    get('/api/x', `X-Api-Key: ${KEY}\r\nAuthorization: Bearer ${KEY}\r\n`),
    [{ headers: { 'x-api-key': CREDENTIAL, authorization: undefined } }],
  ],
  [
    'a correlation id with another field in it',
    get('/api/x', 'X-Correlation-Id: a b: c\r\n'),
    [{ headers: { 'x-correlation-id': expect.not.stringContaining(' ') as string } }],
  ],
  [
    'an address that it does not have',
    get('/api/x', 'X-Forwarded-For: 10.0.0.1\r\n'),
    [{ headers: { 'x-forwarded-for': undefined } }],
  ],
]

/** One gateway for all of them, which so has to survive each. */
async function setUp() {
  const upstream = await startUpstream((_, response) => response.end('answer'))
  const account = (id: string) => ({ credential: { header: 'x-api-key', value: CREDENTIAL }, id })
  const gateway = await startGateway({
    server: { port: 0, wrongKeys: { perAddress: 1_000 } },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: {
      api: { url: upstream.url, maxBody: 1_500, accounts: { main: account('a') } },
      closed: { url: upstream.url, hosts: ['closed.example'], accounts: { closed: account('b') } },
    },
    clients: { tool: { keys: [hashKey(KEY)], accounts: ['api/main'] } },
  })
  return { gateway, upstream }
}

it(`refuses or neutralises every one of ${cases.length} hostile requests, and the next one is served`, async () => {
  const { gateway, upstream } = await setUp()
  expect(new Set(cases.map(([name]) => name)).size).toBe(cases.length)
  const failed: unknown[] = []
  for (const [name, request, expected] of cases) {
    const { answers, seen } = await send(gateway, upstream, request, typeof expected === 'string' ? 1 : expected.length)
    try {
      if (typeof expected === 'string') {
        expect(seen, name).toEqual([])
        expect(answers, name).toEqual([`${FAILURES[expected].status} ${expected}`])
      } else {
        expect(answers, name).toEqual(expected.map(() => '200'))
        expect(seen, name).toHaveLength(expected.length)
        for (const [i, neutral] of expected.entries()) expectNeutral(name, seen[i]!, neutral)
      }
    } catch (error) {
      failed.push((error as Error).message.slice(0, 600))
    }
  }
  expect(failed).toEqual([])
  expect(gateway.lines.filter(({ outcome }) => outcome === 'internal')).toEqual([])
})

/** Sends it over a connection of its own; then a good one over another, before which whatever it led to has happened. */
async function send(gateway: TestGateway, upstream: TestUpstream, request: string, count: number) {
  const before = upstream.seen.length
  const client = await RawClient.connect(gateway.url)
  client.write(request)
  const received = await client.until(new RegExp(`(?:HTTP/1\\.1 (?!100)\\d[^]*?\r\n\r\n[^]*?){${count}}`))
  const good = await call(gateway.url, '/api/good', { headers: { 'x-sluice-key': KEY } })
  expect(good.status).toBe(200)
  const text = client.received.length > received.length ? client.received : received
  client.socket.destroy()
  expect(text).not.toMatch(/^(?:server|x-powered-by|access-control-[a-z-]+):/im)
  const answers = [...text.matchAll(/HTTP\/1\.1 (\d+) [^]*?\r\n\r\n/g)]
    .filter(([, status]) => status !== '100')
    .map(([head, status]) => [status, /x-sluice-error: (\w+)/i.exec(head)?.[1]].filter(Boolean).join(' '))
  const seen = upstream.seen.slice(before)
  expect(seen.pop()?.url).toBe('/good')
  return { answers, seen }
}

function expectNeutral(name: string, seen: Seen, { headers = {}, ...rest }: Neutral): void {
  expect(seen, name).toMatchObject(rest)
  const always = { 'x-sluice-key': undefined, 'x-api-key': CREDENTIAL }
  for (const [field, value] of Object.entries({ ...always, ...headers }))
    expect(seen.headers[field], `${name}: ${field}`).toEqual(value)
}
