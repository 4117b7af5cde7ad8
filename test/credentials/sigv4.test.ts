import { createHmac, hash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Secret } from '../../src/schema/secret.ts'
import { canonicalPath, canonicalQuery } from '../../src/credentials/sigv4-canonical.ts'
import { SigV4Credential } from '../../src/credentials/sigv4.ts'
import { newFolder, type Seen, startGateway, startUpstream } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

/** The examples of https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html */
describe('a request is signed as AWS documents it', () => {
  it.each([
    ['/?lifecycle', 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543'],
    ['/?max-keys=2&prefix=J', '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7'],
  ])('GET %s', (path, signature) => {
    const credential = new SigV4Credential('s3/main', {
      accessKeyId: new Secret('AKIAIOSFODNN7EXAMPLE'),
      secretAccessKey: new Secret('wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'),
      sessionToken: undefined,
      region: 'us-east-1',
      service: 's3',
      host: 'examplebucket.s3.amazonaws.com',
      clock: new SimulatedClock(Date.UTC(2013, 4, 24)),
    })
    const headers = ['Accept', '*/*']
    credential.addTo({ method: 'GET', path, headers, body: null, upgrade: null })
    expect(headers.at(-1)).toBe(
      'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, ' +
        `SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=${signature}`,
    )
  })
})

/** Cases of the test suite that AWS publishes for signers (awslabs/aws-c-auth, tests/aws-signing-test-suite/v4). */
describe('the canonical form is that of AWS’s own test suite', () => {
  const utf8 = (text: string): string => Buffer.from(text).toString('latin1')
  it.each([
    ['get-vanilla', '/', '/'],
    ['get-utf8', utf8('/ሴ'), '/%E1%88%B4'],
    ['get-space-normalized', '/example space/', '/example%20space/'],
    ['get-unreserved', '/-._~0aA', '/-._~0aA'],
    ['get-slash-normalized', '//', '/'],
    ['get-slashes-normalized', '//example//', '/example/'],
    ['get-slash-dot-slash-normalized', '/./', '/'],
    ['get-slash-pointless-dot-normalized', '/./example', '/example'],
    ['get-relative-normalized', '/example/..', '/'],
    ['get-relative-relative-normalized', '/example1/example2/../..', '/'],
    ['double encoding', '/a%20b/%e1', '/a%2520b/%25e1'],
    ['what is left of other bytes', "/a:b'(c)*+\xE9", '/a%3Ab%27%28c%29%2A%2B%E9'],
  ])('of a path: %s', (_, path, canonical) => {
    expect(canonicalPath(path, 'service')).toBe(canonical)
  })

  it.each([
    ['get-slash-unnormalized', '//', '//'],
    ['get-slashes-unnormalized', '//example//', '//example//'],
    ['get-slash-pointless-dot-unnormalized', '/./example', '/./example'],
    ['get-space-unnormalized', '/example space/', '/example%20space/'],
    ['single encoding', '/a%20b/%e1%88%b4', '/a%20b/%E1%88%B4'],
    ['escapes that need not be', '/%41%7e%2Fb', '/A~/b'],
    ['bytes that are no UTF-8', '/%E9\xE9', '/%E9%E9'],
  ])('of a path of S3: %s', (_, path, canonical) => {
    expect(canonicalPath(path, 's3')).toBe(canonical)
  })

  it.each([
    [
      'get-vanilla-query-order-encoded',
      'Param-3=Value3&Param=Value2&%E1%88%B4=Value1',
      '%E1%88%B4=Value1&Param=Value2&Param-3=Value3',
    ],
    ['get-vanilla-query-order-key-case', 'Param2=value2&Param1=value1', 'Param1=value1&Param2=value2'],
    ['get-vanilla-utf8-query', utf8('ሴ=bar'), '%E1%88%B4=bar'],
    ['get-vanilla-query-unreserved', '-._~0aA=-._~0aA', '-._~0aA=-._~0aA'],
    ['post-vanilla-empty-query-value', 'Param1=', 'Param1='],
    ['a name without a value', 'acl&b', 'acl=&b='],
    ['a name twice', 'a=2&b=&a=10&a=1', 'a=1&a=10&a=2&b='],
    ['an escape that is no UTF-8', 'a[]=%E9', 'a%5B%5D=%E9'],
    ['a space', 'a=b+c%20d%2Be', 'a=b%20c%20d%2Be'],
    ['values with "="', 'a=b=c', 'a=b%3Dc'],
    ['empty pairs', '&a=1&&', 'a=1'],
  ])('of a query: %s', (_, query, canonical) => {
    expect(canonicalQuery(query)).toBe(canonical)
  })
})

describe('a signed request that arrived', () => {
  const SECRET = 'signing-secret'

  async function startSigned(service: string, rest: object = {}) {
    const upstream = await startUpstream(({ body }, response) => response.end(body))
    const credential = {
      type: 'sigv4',
      accessKeyId: 'AKIDEXAMPLE12345',
      secretAccessKey: SECRET,
      sessionToken: 'session',
      region: 'eu-west-1',
      service,
    }
    const gateway = await startGateway({
      server: { port: 0 },
      admin: { port: 0 },
      store: { dir: newFolder() },
      upstreams: { aws: { url: upstream.url, accounts: { main: { credential } }, ...rest } },
    })
    return { upstream, gateway }
  }

  it.each([
    ['s3', '/bucket/a%20b/ü'.replace('ü', '%C3%BC')],
    ['s3', '/bucket/x?list-type=2&prefix=a%2Fb&marker'],
    ['execute-api', '/stage/items?b=2&a=1&a=0&empty='],
  ])('is the one that was signed, with what the client sent: %s %s', async (service, path) => {
    const { upstream, gateway } = await startSigned(service)
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const body = method === 'PUT' ? 'some body' : ''
      const headers = { 'X-Amz-Meta-Color': ' blue ', 'X-Amz-Date': '19700101T000000Z', Authorization: 'of the client' }
      await call(gateway.url, `/aws${path}`, { method, headers, body })
      const seen = upstream.seen.at(-1)!
      expect(seen.url).toBe(path)
      expect(seen.headers).toMatchObject({ 'x-amz-security-token': 'session', 'x-amz-meta-color': 'blue' })
      expect(seen.headers['x-amz-content-sha256']).toBe(hash('sha256', body, 'hex'))
      expect(seen.headers['authorization']).toContain(`Signature=${expectedSignature(seen, service, SECRET)}`)
      expect(seen.headers['authorization']).toMatch(/SignedHeaders=host;[^,]*x-amz-meta-color/)
    }
  })

  it.each([
    ['s3', '/bucket/caf%C3%A9%2Fx?prefix=%E9&%e9=%ff%00'],
    ['s3', "/bucket//./a!'()*;:@&=$,b?list-type=2&prefix=%E9&a[]=x+y"],
    ['execute-api', '/stage/a//b/./c+d:e?a[]=%E9&a[]=%C3%A9&a[]&%FF="|{}\\^`<>'],
    ['execute-api', '/stage/?'],
  ])('is the one that was signed, whatever bytes its target has: %s %s', async (service, path) => {
    const { upstream, gateway } = await startSigned(service)
    const client = await RawClient.connect(gateway.url)
    client.socket.write(`GET /aws${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`, 'latin1')
    expect(await client.closed()).toMatch(/^HTTP\/1\.1 200/)
    const seen = upstream.seen.at(-1)!
    expect(seen.url).toBe(path)
    expect(seen.headers['authorization']).toContain(`Signature=${expectedSignature(seen, service, SECRET)}`)
  })

  it.each(['/aws/caf\xE9', '/aws/k?a=\xE9', '/aws/caf%E9', '/aws/%zz'])(
    'is none where it is refused: %s',
    async (path) => {
      const { upstream, gateway } = await startSigned('s3')
      const client = await RawClient.connect(gateway.url)
      client.socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`, 'latin1')
      expect(await client.closed()).toMatch(/^HTTP\/1\.1 400[^]*X-Sluice-Error: invalid_request/)
      expect(upstream.seen).toEqual([])
    },
  )

  it('has its x-amz headers signed as the bytes that are sent', async () => {
    const { upstream, gateway } = await startSigned('s3')
    const client = await RawClient.connect(gateway.url)
    const head = 'X-Amz-Meta-City: à la carte à\r\nx-amz-meta-city:  São   Paulo\t \r\nX-Amz-Meta-Raw: \xE9\xA0\r\n'
    const bytes = Buffer.concat([
      Buffer.from('PUT /aws/b/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n'),
      Buffer.from(head.slice(0, head.indexOf('X-Amz-Meta-Raw'))),
      Buffer.from(head.slice(head.indexOf('X-Amz-Meta-Raw')), 'latin1'),
      Buffer.from('Content-Length: 4\r\n\r\nbody'),
    ])
    client.socket.write(bytes)
    expect(await client.closed()).toMatch(/^HTTP\/1\.1 200/)
    const seen = upstream.seen.at(-1)!
    expect(Buffer.from(seen.headers['x-amz-meta-city'] as string, 'latin1').toString()).toBe(
      'à la carte à, São   Paulo',
    )
    expect(seen.headers['x-amz-meta-raw']).toBe('\xE9\xA0')
    const joined = { ...seen.headers, 'x-amz-meta-city': Buffer.from('à la carte à,São Paulo').toString('latin1') }
    const signature = expectedSignature({ ...seen, headers: joined }, 's3', SECRET)
    expect(seen.headers['authorization']).toContain(`Signature=${signature}`)
  })

  const FRAMES = '4\r\nWiki\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n'
  it.each([
    ['STREAMING-UNSIGNED-PAYLOAD-TRAILER', FRAMES],
    ['STREAMING-UNSIGNED-PAYLOAD-TRAILER', FRAMES + 'x'.repeat(2_000_000)],
    ['UNSIGNED-PAYLOAD', 'some body'],
    ['UNSIGNED-PAYLOAD', ''],
    [hash('sha256', 'some body', 'hex'), 'some body'],
    [hash('sha256', 'x'.repeat(2_000_000), 'hex'), 'x'.repeat(2_000_000)],
    // That it is not the body's is for AWS to say.
    [hash('sha256', 'another', 'hex'), 'some body'],
  ])('says of its body what its client says: %s', async (payload, body) => {
    const { upstream, gateway } = await startSigned('s3')
    const headers = {
      'Content-Encoding': 'aws-chunked',
      'X-Amz-Decoded-Content-Length': '4',
      'X-Amz-Trailer': 'x-amz-checksum-crc32',
      'X-Amz-Content-Sha256': payload,
    }
    const { status } = await call(gateway.url, '/aws/bucket/key', { method: 'PUT', headers, body })
    expect(status).toBe(200)
    const seen = upstream.seen.at(-1)!
    expect(seen.body).toBe(body)
    expect(seen.headers).toMatchObject({ 'x-amz-content-sha256': payload, 'content-encoding': 'aws-chunked' })
    expect(seen.headers['authorization']).toContain(`Signature=${expectedSignature(seen, 's3', SECRET)}`)
    expect(seen.headers['authorization']).toMatch(/x-amz-decoded-content-length;[^,]*x-amz-trailer/)
  })

  const SIGNED = '/aws/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=fea454ca'
  it.each([
    [
      's3',
      '/aws/k',
      'STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
      /signed piece by piece .*STREAMING-UNSIGNED-PAYLOAD-TRAILER/,
    ],
    ['s3', '/aws/k', 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER', /signed piece by piece/],
    ['s3', '/aws/k', 'STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD', /signed piece by piece/],
    ['s3', '/aws/k', 'STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER', /signed piece by piece/],
    ['transcribe', '/aws/k', 'STREAMING-AWS4-HMAC-SHA256-EVENTS', /signed piece by piece/],
    ['s3', '/aws/k', 'abc', /must be the SHA-256/],
    ['s3', '/aws/k', ['UNSIGNED-PAYLOAD', 'UNSIGNED-PAYLOAD'], /must be the SHA-256/],
    ['s3', SIGNED, 'UNSIGNED-PAYLOAD', /presigned/],
    ['s3', '/aws/a+b', 'UNSIGNED-PAYLOAD', /%2B/],
    ['s3', '/aws/k?a=1&%61=2', 'UNSIGNED-PAYLOAD', /twice/],
    ['execute-api', '/aws/k?a=100%', 'UNSIGNED-PAYLOAD', /well-formed/],
    ['execute-api', '/aws/k?a=%E', 'UNSIGNED-PAYLOAD', /well-formed/],
  ] as const)('is none, and nothing is charged, where it can’t be signed: %s %s %s', async (...row) => {
    const [service, path, payload, why] = row
    const { upstream, gateway } = await startSigned(service, { limits: { write: [{ requests: 1, window: '1h' }] } })
    const headers = { 'X-Amz-Content-Sha256': payload as string, 'X-Sluice-Max-Wait': '0' }
    for (let i = 0; i < 2; i++) {
      const answer = await call(gateway.url, path, { method: 'PUT', headers, body: FRAMES })
      expect(answer).toMatchObject({ status: 400, headers: { 'x-sluice-error': 'invalid_request' } })
      expect(answer.json().message).toMatch(why)
    }
    expect(upstream.seen).toEqual([])
    expect((await call(gateway.url, '/aws/k', { method: 'PUT', body: 'x' })).status).toBe(200)
  })

  it('has an unsigned body where that is streamed', async () => {
    const { upstream, gateway } = await startSigned('s3')
    await call(gateway.url, '/aws/bucket/big', { method: 'PUT', body: 'x'.repeat(2_000_000) })
    const seen = upstream.seen.at(-1)!
    expect(seen.headers['x-amz-content-sha256']).toBe('UNSIGNED-PAYLOAD')
    expect(seen.headers['authorization']).toContain(expectedSignature(seen, 's3', SECRET))
    expect(seen.body).toHaveLength(2_000_000)
  })
})

/** By the steps of AWS's description, from what is on the wire. */
function expectedSignature({ method, url, headers }: Seen, service: string, secret: string): string {
  const [, scope = '', names = ''] =
    /Credential=[^/]+\/([^,]+), SignedHeaders=([^,]+)/.exec(headers.authorization!) ?? []
  const queryAt = url.indexOf('?')
  const path = Buffer.from(queryAt < 0 ? url : url.slice(0, queryAt), 'latin1')
  const query = queryAt < 0 ? '' : url.slice(queryAt + 1)
  const isS3 = service === 's3'
  const keepSlashes = (text: string): string => text.replaceAll('%2F', '/')
  // Every service but S3 resolves the path, and encodes what is encoded once more.
  const simple = Buffer.from(path.toString('latin1').replaceAll('/./', '/').replaceAll(/\/+/g, '/'), 'latin1')
  const canonicalUri = keepSlashes(isS3 ? encodeBytes(decodeBytes(path)) : encodeBytes(simple))
  const pairs = query
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair) => [pair, ''].slice(0, pair.includes('=') ? 1 : 2).join('='))
    .map((pair) => pair.replaceAll('+', '%20'))
    .map((pair) => /^(.*?)=(.*)$/s.exec(pair)!.slice(1))
    .map((parts) => parts.map((part) => encodeBytes(decodeBytes(Buffer.from(part, 'latin1')))))
    .toSorted(([a, x], [b, y]) => (a === b ? (x! < y! ? -1 : 1) : a! < b! ? -1 : 1))
  const lines = names.split(';').map((name) => `${name}:${String(headers[name]).replaceAll(/^[ \t]+|[ \t]+$/g, '')}`)
  const payload = String(headers['x-amz-content-sha256'])
  const canonicalQuery = pairs.map((pair) => pair.join('=')).join('&')
  const canonical = [method, canonicalUri, canonicalQuery, ...lines, '', names, payload].join('\n')
  const digest = hash('sha256', Buffer.from(canonical, 'latin1'), 'hex')
  const toSign = ['AWS4-HMAC-SHA256', headers['x-amz-date'], scope, digest].join('\n')
  let key: Buffer = Buffer.from(`AWS4${secret}`)
  for (const part of scope.split('/')) key = createHmac('sha256', key).update(part).digest()
  return createHmac('sha256', key).update(toSign).digest('hex')
}

function decodeBytes(bytes: Buffer): Buffer {
  const out: number[] = []
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] !== 0x25) out.push(bytes[i]!)
    else {
      out.push(Number.parseInt(bytes.toString('latin1', i + 1, i + 3), 16))
      i += 2
    }
  }
  return Buffer.from(out)
}

function encodeBytes(bytes: Buffer): string {
  const unreserved = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~'
  return [...bytes]
    .map((byte) => {
      const char = String.fromCharCode(byte)
      return unreserved.includes(char) ? char : `%${byte.toString(16).padStart(2, '0').toUpperCase()}`
    })
    .join('')
}
