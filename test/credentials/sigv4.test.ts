import { createHmac, hash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Secret } from '../../src/credentials/secret.ts'
import { SigV4Credential } from '../../src/credentials/sigv4.ts'
import { newFolder, type Seen, startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

/** The examples of https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html */
describe('a request is signed as AWS documents it', () => {
  it.each([
    ['/?lifecycle', 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543'],
    ['/?max-keys=2&prefix=J', '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7'],
  ])('GET %s', (path, signature) => {
    const credential = new SigV4Credential('s3/main', {
      accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
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

describe('a signed request that arrived', () => {
  const SECRET = 'signing-secret'

  async function startSigned(service: string) {
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
      upstreams: { aws: { url: upstream.url, accounts: { main: { credential } } } },
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
  const [path = '', query = ''] = url.split('?')
  // Every service but S3 encodes what is encoded once more.
  const canonicalPath = service === 's3' ? path : path.split('/').map(encodeURIComponent).join('/')
  const pairs = query.split('&').filter((pair) => pair !== '')
  const canonicalQuery = pairs
    .map((pair) => (pair.includes('=') ? pair : `${pair}=`))
    .toSorted((a, b) => (a < b ? -1 : 1))
  const lines = names.split(';').map((name) => `${name}:${String(headers[name]).trim()}`)
  const payload = String(headers['x-amz-content-sha256'])
  const canonical = [method, canonicalPath, canonicalQuery.join('&'), ...lines, '', names, payload].join('\n')
  const toSign = ['AWS4-HMAC-SHA256', headers['x-amz-date'], scope, hash('sha256', canonical, 'hex')].join('\n')
  let key: Buffer = Buffer.from(`AWS4${secret}`)
  for (const part of scope.split('/')) key = createHmac('sha256', key).update(part).digest()
  return createHmac('sha256', key).update(toSign).digest('hex')
}
