import { once } from 'node:events'
import { connect, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http2'
import { describe, expect, it, onTestFinished } from 'vitest'
import { makeCertificates } from '../support/certificates.ts'
import { harnessConfig, startGateway, startServer, startUpstream, type TestGateway } from '../support/gateway.ts'
import { RawClient } from '../support/http.ts'

const PATH = '/harness/ng/api/projects'
const POST = `POST ${PATH} HTTP/1.1\r\nHost: x\r\n`
const SETTINGS = '\0\0\0\x04\0\0\0\0\0'

/** Requests of which no call is made: what is sent, and what the reason says. */
const unreadable: readonly (readonly [string, string, RegExp])[] = [
  ['a method that is none', `JEFF ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n`, /none of the methods/],
  ['a line that is no request', 'hello\r\n\r\n', /none of the methods|well-formed/],
  ['a target with bytes that are no ASCII', `GET ${PATH}/\xe9 HTTP/1.1\r\nHost: x\r\n\r\n`, /well-formed/],
  [
    'a head that is too large',
    `GET ${PATH} HTTP/1.1\r\nHost: x\r\nX-A: ${'a'.repeat(20_000)}\r\n\r\n`,
    /maxHeaderBytes/,
  ],
  ['a head that is far too large', `GET ${PATH}${'a'.repeat(5_000_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, /maxHeaderBytes/],
  ['a field without a colon', `GET ${PATH} HTTP/1.1\r\nHost\r\n\r\n`, /well-formed/],
  ['two lengths', `${POST}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab`, /well-formed/],
  ['the greeting of TLS', '\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03', /none of the methods|well-formed/],
  ['the greeting of SSH', 'SSH-2.0-OpenSSH_9.2\r\n', /none of the methods|well-formed/],
]
/** Those that come from a client that speaks HTTP/2 only. */
const preface: typeof unreadable = [
  ['a client that begins with HTTP/2', `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${SETTINGS}`, /server\.http2: true/],
]
/** Calls whose body is no HTTP. */
const broken: typeof unreadable = [
  ['a size of a chunk that is no number', `${POST}Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n`, /well-formed/],
  ['a second chunk that is none', `${POST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nhello`, /well-formed/],
  ['a chunk that is longer than it says', `${POST}Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n`, /well-formed/],
  ['a request with garbage behind it', `GET ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n{"a":1}`, /methods|well-formed/],
  ['a transfer coding that is none', `${POST}Transfer-Encoding: gzip\r\n\r\nabc`, /chunked/],
]

describe.each([false, true])('where server.http2 is %s, a refusal', (http2) => {
  const cases = http2 ? [...unreadable, ...broken] : [...unreadable, ...preface, ...broken]
  it.each(cases)('has an id that leads to its one log line, and is counted: %s', async (_, sent, reason) => {
    // It never answers: what is wrong with a request must not have to wait for it.
    const url = await startServer((request) => void request.resume())
    const gateway = await startGateway(harnessConfig(url, {}, { server: { port: 0, http2 } }))
    const client = await RawClient.connect(gateway.url)
    client.write(sent)
    await client.closed()
    await expectOneLine(gateway, client.received, reason)
  })

  it.each([
    ['of which nothing comes', ''],
    ['that stops in the middle of its method', 'P'],
    ['that stops in the middle of its head', `GET ${PATH} HTTP/1.1\r\nHost: x\r\n`],
  ])('has such an id where it is of a head %s', async (_, sent) => {
    const gateway = await startGateway(
      harnessConfig('http://127.0.0.1:9', {}, { server: { port: 0, http2, headTimeout: '200ms' } }),
    )
    const client = await RawClient.connect(gateway.url)
    client.write(sent)
    await client.closed()
    await expectOneLine(gateway, client.received, /server\.headTimeout/)
  })

  it('has such an id where the client ends its half in the middle of a head, and there is none where it said nothing', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:9', {}, { server: { port: 0, http2 } }))
    const silent = await RawClient.connect(gateway.url)
    silent.socket.end()
    expect(await silent.closed()).toBe('')
    for (const sent of ['P', `GET ${PATH} HTTP/1.1\r\n`]) {
      const before = gateway.lines.length
      const client = await RawClient.connect(gateway.url)
      client.socket.end(sent)
      await client.closed()
      await expectOneLine(gateway, client.received, /ended before it was complete/, before)
    }
  })
})

it('tells a client that ends its half in the middle of a body the id of its call, which it has left', async () => {
  const url = await startServer((request) => void request.resume().on('error', () => undefined))
  const gateway = await startGateway(harnessConfig(url))
  const client = await RawClient.connect(gateway.url)
  client.socket.end(`${POST}X-Correlation-Id: mine\r\nContent-Length: 10\r\n\r\nabc`)
  expect(await client.closed()).toMatch(/^HTTP\/1\.1 400 [^]*X-Correlation-Id: mine\r\n/)
  await expect.poll(() => gateway.lines).toMatchObject([{ correlationId: 'mine', outcome: 'client_gone' }])
})

it('answers a call first whose response was whole before garbage came behind it', async () => {
  const upstream = await startUpstream((_, response) => response.end('answer'))
  const gateway = await startGateway(harnessConfig(upstream.url))
  const client = await RawClient.connect(gateway.url)
  client.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n`)
  await client.until(/answer/)
  client.write('garbage\r\n\r\n')
  const [, refusal = ''] = (await client.closed()).split('answer')
  await expectOneLine(gateway, refusal, /methods|well-formed/, 1)
  expect(gateway.lines[0]).toMatchObject({ outcome: 'delivered' })
})

it.each<[string, OutgoingHttpHeaders, RegExp]>([
  ['a method that is none', { ':method': 'JEFF' }, /method is none/],
  ['a head that is too large', { 'x-a': 'a'.repeat(20_000) }, /maxHeaderBytes/],
  ['too large a head of many fields', fieldsOf(500), /maxHeaderBytes/],
  ['a path that is too long', { ':path': `${PATH}&a=${'a'.repeat(20_000)}` }, /maxHeaderBytes/],
  ['too many fields', fieldsOf(1_001), /at most 1000 header fields/],
])('has an id that leads to its one log line in HTTP/2, too: %s', async (_, headers, reason) => {
  const gateway = await startGateway(harnessConfig('http://127.0.0.1:9', {}, { server: { port: 0, http2: true } }))
  const client = connect(gateway.url)
  onTestFinished(() => client.destroy())
  const stream = client.request({ ':path': PATH, ...headers })
  const [answer] = (await once(stream, 'response')) as [IncomingHttpHeaders & { ':status': number }]
  const id = answer['x-correlation-id']
  expect(answer[':status']).toBe(400)
  expect(JSON.parse((await stream.toArray()).join(''))).toMatchObject({ correlationId: id })
  await expect.poll(() => gateway.lines).toMatchObject([{ correlationId: id, outcome: 'invalid_request' }])
  expect(gateway.lines[0]!.reason).toMatch(reason)
})

it('takes as many fields in HTTP/2 as in HTTP/1.1', async () => {
  const upstream = await startUpstream()
  const server = { port: 0, http2: true, maxHeaderBytes: 100_000 }
  const gateway = await startGateway(harnessConfig(upstream.url, {}, { server }))
  const client = connect(gateway.url)
  onTestFinished(() => client.destroy())
  const stream = client.request({ ':path': PATH, ...fieldsOf(900) })
  const [answer] = (await once(stream, 'response')) as [IncomingHttpHeaders]
  expect(answer[':status']).toBe(200)
})

function fieldsOf(count: number): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, i) => [`x-${i}`, 'a']))
}

it('logs and counts a connection of HTTP/2 that breaks its rules, which can be told nothing', async () => {
  const gateway = await startGateway(harnessConfig('http://127.0.0.1:9', {}, { server: { port: 0, http2: true } }))
  const client = await RawClient.connect(gateway.url)
  client.write(`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${SETTINGS}\0\0\x01\0\0\0\0\0\0x`)
  await client.closed()
  await expectLost(gateway, /was no HTTP\/2/)
})

it('logs and counts a client that speaks no TLS to a port with TLS, which can be told nothing', async () => {
  const certificates = makeCertificates(['localhost'])
  onTestFinished(() => certificates.remove())
  const tls = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
  const gateway = await startGateway(harnessConfig('http://127.0.0.1:9', {}, { server: { port: 0, tls } }))
  const client = await RawClient.connect(gateway.url)
  client.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n`)
  await client.closed()
  await expectLost(gateway, /no TLS \(ERR_SSL_HTTP_REQUEST\)/)
})

async function expectLost(gateway: TestGateway, reason: RegExp): Promise<void> {
  await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'invalid_request', status: 'none' }])
  expect(gateway.lines[0]!.reason).toMatch(reason)
  expect(await gateway.metrics()).toMatch(/^sluice_requests_total\{.*status="none",outcome="invalid_request"\} 1/m)
}

/** The refusal’s id is in its header and body and on one log line, the only one; and the metric counts one. */
async function expectOneLine(gateway: TestGateway, received: string, reason: RegExp, before = 0): Promise<void> {
  const [head = '', body = ''] = received.split('\r\n\r\n')
  expect(head).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
  const id = /^x-correlation-id: (\S+)$/im.exec(head)?.[1]
  expect(JSON.parse(body)).toMatchObject({ correlationId: id, code: 'INVALID_REQUEST' })
  await expect
    .poll(() => gateway.lines.slice(before))
    .toMatchObject([{ correlationId: id, outcome: 'invalid_request', status: '400', address: '127.0.0.1' }])
  expect(gateway.lines.at(-1)!.reason).toMatch(reason)
  expect(JSON.parse(body).message).toBe(gateway.lines.at(-1)!.reason)
  const counted = (await gateway.metrics())
    .split('\n')
    .filter((line) => /^sluice_requests_total\{.*status="400",outcome="invalid_request"\}/.test(line))
    .map((line) => Number(/\} (\d+)/.exec(line)?.[1]))
  expect(counted.reduce((sum, one) => sum + one, 0)).toBe(gateway.lines.filter(({ status }) => status === '400').length)
}
