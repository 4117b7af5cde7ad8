import { once } from 'node:events'
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  createSecureServer,
  createServer,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type SecureClientSessionOptions,
  type ServerHttp2Stream,
} from 'node:http2'
import { createServer as createHttpsServer, get } from 'node:https'
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import WebSocket, { WebSocketServer } from 'ws'
import { checkConfig } from '../../src/config/load.ts'
import { hashKey } from '../../src/clients/keys.ts'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { ACCOUNT, harnessConfig, startGateway, startServer, startUpstream, TOKEN } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'
import { PREFACE, resetRequest } from '../support/http2-frames.ts'
import { startProcess } from '../support/process.ts'
import { connectStuck } from '../support/stuck-client.ts'

const PATH = '/harness/ng/api/projects'
const HTTP2 = { server: { port: 0, http2: true } }

/** Fields that have one value, of which Node lets none in twice unless it is told to. */
const TWICE = 'age content-type date etag expires last-modified location retry-after server'.split(' ')

let certificates: Certificates
beforeAll(() => {
  certificates = makeCertificates(['localhost'])
})
afterAll(() => certificates.remove())

const withTls = (http2: boolean): object => ({
  server: {
    port: 0,
    http2,
    tls: { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') },
  },
})

describe('a port without TLS that may speak HTTP/2', () => {
  it('takes calls in HTTP/2 from who begins with it, and in HTTP/1.1 from all others', async () => {
    const upstream = await startUpstream(({ body }, response) => response.end(`got ${body}`))
    const gateway = await startGateway(harnessConfig(upstream.url, {}, HTTP2))
    const client = await session(gateway.url)
    const answer = await ask(
      client,
      { ':path': `${PATH}?a=%2F&b`, ':method': 'PUT', 'x-correlation-id': 'two' },
      'body',
    )
    expect(answer).toMatchObject({ status: 200, body: 'got body' })
    expect(answer.headers).toMatchObject({
      'x-correlation-id': 'two',
      via: '1.1 sluice',
      'x-ratelimit-remaining': '299',
    })
    for (const method of ['POST', 'PUT', 'PATCH'])
      expect((await call(gateway.url, PATH, { method, body: 'one' })).body).toBe('got one')
    expect(upstream.seen.map(({ url, method }) => `${method} ${url}`)[0]).toBe('PUT /ng/api/projects?a=%2F&b')
    expect(gateway.lines[0]).toMatchObject({ correlationId: 'two', status: '200', outcome: 'delivered' })
  })

  it('waits for the first bytes of a client that sends them one at a time', async () => {
    const upstream = await startUpstream((_, response) => response.end('whole'))
    const gateway = await startGateway(harnessConfig(upstream.url, {}, HTTP2))
    const client = await RawClient.connect(gateway.url)
    for (const byte of `PROPFIND ${PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`) {
      client.write(byte)
      await new Promise(setImmediate)
    }
    expect(await client.closed()).toMatch(/whole$/)
  })

  it('sends upstream what a call in HTTP/1.1 would have: host, cookies in one field, no key', async () => {
    const upstream = await startUpstream()
    const clients = { tool: { keys: [hashKey('slk_tool')] } }
    const gateway = await startGateway(
      harnessConfig(upstream.url, { hosts: ['harness.internal'], forward: ['client'] }, { ...HTTP2, clients }),
    )
    const client = await session(gateway.url)
    const headers = {
      ':path': '/ng/api/projects',
      ':authority': 'harness.internal',
      cookie: ['a=1', 'sluice_x=2', 'b=3'],
      'x-sluice-key': 'slk_tool',
      'x-api-key': 'slk_tool',
      te: 'trailers',
    }
    expect((await ask(client, headers)).status).toBe(200)
    const [seen] = upstream.seen
    expect(seen!.headers).toMatchObject({
      'x-api-key': TOKEN,
      'x-forwarded-host': 'harness.internal',
      cookie: 'a=1; b=3',
    })
    expect(seen!.rawHeaders.join('\n')).not.toMatch(/^:|slk_tool|^te$/m)
    expect(seen!.headers['content-length'] ?? seen!.headers['transfer-encoding']).toBeUndefined()
  })

  it('refuses in the same shape as ever, by calls that do not disturb the others', async () => {
    const upstream = await startUpstream(async ({ url }, response) => {
      if (url.includes('slow')) await new Promise((resolve) => void setTimeout(resolve, 100))
      response.end('ok')
    })
    const gateway = await startGateway(harnessConfig(upstream.url, { maxBody: 100_000 }, HTTP2))
    const client = await session(gateway.url)
    const slow = ask(client, { ':path': `${PATH}/slow` })
    const large = Buffer.alloc(1_000_000)
    const refusals: [OutgoingHttpHeaders, Buffer | undefined, number, string][] = [
      [{ ':path': '/nowhere' }, undefined, 404, 'unknown_upstream'],
      [{ ':path': `${PATH}?accountIdentifier=other` }, undefined, 403, 'account_mismatch'],
      [{ ':path': PATH, ':method': 'PUT', 'content-length': large.length }, large, 413, 'body_too_large'],
      [{ ':path': PATH, ':method': 'PUT' }, large, 413, 'body_too_large'],
      [{ ':path': PATH, ':authority': 'a', host: 'b' }, undefined, 400, 'invalid_request'],
      [{ ':path': '/harness/%zz' }, undefined, 400, 'invalid_request'],
      [{ ':path': PATH, ':method': 'TRACE' }, undefined, 400, 'invalid_request'],
      [{ ':path': PATH, expect: 'tea' }, undefined, 400, 'invalid_request'],
    ]
    for (const [headers, body, status, error] of refusals) {
      const answer = await ask(client, headers, body)
      expect({ headers, status: answer.status, error: answer.headers['x-sluice-error'] }).toEqual({
        headers,
        status,
        error,
      })
      expect(JSON.parse(answer.body)).toMatchObject({ status: 'ERROR' })
    }
    const tunnel = await ask(client, { ':method': 'CONNECT', ':authority': 'example.com:443' }, undefined, true)
    expect(tunnel.headers['x-sluice-error']).toBe('invalid_request')
    expect(await slow).toMatchObject({ status: 200, body: 'ok' })
    expect(client.destroyed).toBe(false)
  })

  it('streams in both directions, with 100 Continue, trailers and flow control', async () => {
    const url = await startServer((request, response) => {
      response.writeHead(200, { trailer: 'x-sum' })
      let bytes = 0
      request.on('data', (chunk: Buffer) => void (bytes += chunk.length))
      request.on('end', () => {
        response.write(Buffer.alloc(5_000_000, 'r'))
        response.addTrailers({ 'x-sum': String(bytes) })
        response.end()
      })
    })
    const gateway = await startGateway(harnessConfig(url, {}, HTTP2))
    const client = await session(gateway.url)
    const stream = client.request({ ':path': PATH, ':method': 'PUT', expect: '100-continue' })
    await once(stream, 'continue')
    Readable.from(Array.from({ length: 40 }, () => Buffer.alloc(100_000))).pipe(stream)
    const trailers = once(stream, 'trailers') as Promise<[IncomingHttpHeaders]>
    let received = 0
    for await (const chunk of stream) received += (chunk as Buffer).length
    expect(received).toBe(5_000_000)
    expect((await trailers)[0]['x-sum']).toBe('4000000')
  })

  it('passes a field of one value on that the upstream sent on two lines', async () => {
    const upstream = await startUpstream((_, response) => {
      response.writeInformation(103, ['etag', '"a"', 'etag', '"b"'])
      response.writeHead(503, [...TWICE.flatMap((name) => [name, 'x', name, 'y']), 'trailer', 'etag'])
      response.write('whole')
      response.addTrailers([
        ['etag', 'x'],
        ['etag', 'y'],
      ])
      response.end()
    })
    const gateway = await startGateway(harnessConfig(upstream.url, {}, HTTP2))
    const stream = (await session(gateway.url)).request({ ':path': PATH, 'x-sluice-retry': 'off' })
    const raw: string[][] = []
    for (const event of ['headers', 'response', 'trailers'])
      stream.on(event, (_headers, _flags, fields: string[]) => void raw.push(fields))
    expect((await stream.toArray()).join('')).toBe('whole')
    expect(valuesOf('etag', raw[0]!)).toEqual(['"a"', '"b"'])
    for (const name of TWICE) expect([name, ...valuesOf(name, raw[1]!)]).toEqual([name, 'x', 'y'])
    expect(valuesOf('etag', raw[2]!)).toEqual(['x', 'y'])
    expect(gateway.lines[0]).toMatchObject({ status: '503', outcome: 'delivered' })
  })

  it('answers 502 in the place of a status that HTTP/2 does not have', async () => {
    const upstream = await startUpstream((_, response) => response.writeHead(999).end('go away'))
    const gateway = await startGateway(harnessConfig(upstream.url, {}, HTTP2))
    expect((await call(gateway.url, PATH)).status).toBe(999)
    expect(await ask(await session(gateway.url), { ':path': PATH })).toMatchObject({ status: 502, body: 'go away' })
    expect(gateway.lines[1]).toMatchObject({ status: '502', outcome: 'delivered', tries: [{ status: 999 }] })
  })

  it('lives on, and leaves out what has no place behind a body', async () => {
    const upstream = createTcpServer((socket) => {
      const trailers =
        'Connection: x\r\nTransfer-Encoding: gzip\r\nKeep-Alive: x\r\nUpgrade: x\r\nX-Sluice-Error: x\r\nX-Sum: 1\r\n'
      const head = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n'
      socket.once('data', () => socket.end(`${head}5\r\nwhole\r\n0\r\n${trailers}\r\n`))
    })
    await once(upstream.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => void upstream.close())
    const url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`
    const gateway = await startGateway(harnessConfig(url, {}, HTTP2))
    const stream = (await session(gateway.url)).request({ ':path': PATH })
    const trailers = once(stream, 'trailers') as Promise<[IncomingHttpHeaders]>
    expect((await stream.toArray()).join('')).toBe('whole')
    expect(Object.entries((await trailers)[0])).toEqual([['x-sum', '1']])
    const inWords = await call(gateway.url, PATH)
    expect([inWords.body, inWords.trailers]).toEqual(['whole', { 'x-sum': '1' }])
  })

  it('passes interim responses on', async () => {
    const url = await startServer((_, response) => {
      response.writeEarlyHints({ link: ['</a.css>; rel=preload', '</b.js>; rel=preload'] })
      response.end('then this')
    })
    const gateway = await startGateway(harnessConfig(url, {}, HTTP2))
    const stream = (await session(gateway.url)).request({ ':path': PATH })
    const [hints] = (await once(stream, 'headers')) as [IncomingHttpHeaders]
    expect(hints).toMatchObject({ ':status': 103, link: '</harness/a.css>; rel=preload, </harness/b.js>; rel=preload' })
    expect(String((await once(stream, 'data'))[0])).toBe('then this')
  })

  it('ends a stream whose client does not take what is kept for it', async () => {
    const fields = { 'content-length': 200_000, 'cache-control': 'max-age=60' }
    const upstream = await startUpstream((_, response) => response.writeHead(200, fields).end(Buffer.alloc(200_000)))
    const routes = [{ method: 'GET', path: '/ng/api/projects', class: 'read', cache: true }]
    const gateway = await startGateway(harnessConfig(upstream.url, { routes, timeouts: { idle: '1s' } }, HTTP2))
    expect((await call(gateway.url, PATH)).body).toHaveLength(200_000)
    const stream = (await session(gateway.url)).request({ ':path': PATH })
    // The client reads nothing, and its window is smaller than the answer.
    const failed = once(stream, 'error')
    await once(stream, 'response')
    expect((await failed)[0]).toMatchObject({ message: expect.stringContaining('NGHTTP2_INTERNAL_ERROR') as string })
    expect(upstream.seen).toHaveLength(1)
  })

  it('ends a call whose client no longer reads from its connection, and says so once it reads again', async () => {
    const closed = Promise.withResolvers<void>()
    const body = Buffer.alloc(30_000_000)
    const url = await startServer((_, response) => {
      response.once('close', closed.resolve)
      response.writeHead(200, { 'content-length': body.length }).end(body)
    })
    const gateway = await startGateway(harnessConfig(url, { timeouts: { idle: '1s' } }, HTTP2))
    const client = await connectStuck(gateway.url)
    const stream = client.session.request({ ':path': PATH })
    stream.resume()
    const failed = once(stream, 'error')
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'client_gone' }])
    await closed.promise
    expect(await gateway.metrics()).toMatch(/^sluice_in_flight\{.*class="read"\} 0$/m)
    client.resume()
    expect((await failed)[0]).toMatchObject({ message: expect.stringContaining('NGHTTP2_INTERNAL_ERROR') as string })
  })

  it('takes a field for what it is, though its name means something in JavaScript', async () => {
    const upstream = await startUpstream(async (_, response) => {
      const hinted = Promise.withResolvers<void>()
      response.writeEarlyHints({ link: '</a.css>', constructor: 'hint' }, () => hinted.resolve())
      await hinted.promise
      response.writeHead(200, { constructor: 'head', trailer: 'constructor' }).write('body')
      response.addTrailers([['constructor', 'trailer']])
      response.end()
    })
    const other = { url: upstream.url, accounts: { main: { credential: { header: 'x-other-key', value: TOKEN } } } }
    const { upstreams, ...config } = harnessConfig(upstream.url, {}, HTTP2) as { upstreams: object }
    const clients = { tool: { keys: [hashKey('slk_tool')] } }
    const gateway = await startGateway({ ...config, upstreams: { ...upstreams, other }, clients })
    const stream = (await session(gateway.url)).request({
      ':path': PATH,
      'x-sluice-key': 'slk_tool',
      'x-other-key': 'of the client',
      constructor: 'request',
    })
    const [hints, head, trailers] = ['headers', 'response', 'trailers'].map((event) => once(stream, event))
    expect((await stream.toArray()).join('')).toBe('body')
    expect((await hints)![0]).toMatchObject({ ':status': 103, constructor: 'hint' })
    expect((await head)![0]).toMatchObject({ ':status': 200, constructor: 'head' })
    expect((await trailers)![0]).toMatchObject({ constructor: 'trailer' })
    expect(upstream.seen[0]!.headers).toMatchObject({ constructor: 'request', 'x-other-key': 'of the client' })
  })

  it('passes an event on while the upstream holds the response open', async () => {
    const answered = Promise.withResolvers<ServerResponse>()
    const url = await startServer((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n')
      answered.resolve(response)
    })
    const gateway = await startGateway(harnessConfig(url, {}, HTTP2))
    const stream = (await session(gateway.url)).request({ ':path': PATH })
    expect(String((await once(stream, 'data'))[0])).toBe('data: 1\n\n')
    const response = await answered.promise
    response.write('data: 2\n\n')
    expect(String((await once(stream, 'data'))[0])).toBe('data: 2\n\n')
    response.end()
    await once(stream, 'end')
  })

  it('ends a stream whose upstream breaks off with an error, and only that', async () => {
    const url = await startServer((request, response) => {
      if (request.url?.includes('broken') !== true) return void response.end('whole')
      response.writeHead(200).write('half of it')
      setTimeout(() => response.destroy(), 20)
    })
    const gateway = await startGateway(harnessConfig(url, {}, HTTP2))
    const client = await session(gateway.url)
    const stream = client.request({ ':path': `${PATH}/broken` })
    stream.resume()
    await expect(once(stream, 'end')).rejects.toThrow('NGHTTP2_INTERNAL_ERROR')
    expect(stream.rstCode).toBe(constants.NGHTTP2_INTERNAL_ERROR)
    expect(await ask(client, { ':path': PATH })).toMatchObject({ body: 'whole' })
    await expect.poll(() => gateway.lines.map(({ outcome }) => outcome)).toEqual(['broken_off', 'delivered'])
  })

  it('ends a call upstream at once when its client resets the stream, and leaves the others alone', async () => {
    const arrived = Promise.withResolvers<ServerResponse>()
    const url = await startServer((request, response) => {
      if (request.url?.includes('hang') === true) arrived.resolve(response)
      else response.end('ok')
    })
    const gateway = await startGateway(harnessConfig(url, {}, HTTP2))
    const client = await session(gateway.url)
    const stream = client.request({ ':path': `${PATH}/hang` })
    stream.on('error', () => undefined)
    const closed = once(await arrived.promise, 'close')
    stream.close(constants.NGHTTP2_CANCEL)
    await closed
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'client_gone', status: 'none' }])
    expect((await ask(client, { ':path': PATH })).body).toBe('ok')
  })

  it('ends a call whose client resets the stream before it could be asked for the body', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url, {}, HTTP2))
    const { socket } = await RawClient.connect(gateway.url)
    socket.write(PREFACE)
    await once(socket, 'data')
    socket.write(resetRequest({ ':path': PATH, expect: '100-continue', 'content-length': '5' }))
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'client_gone', status: 'none' }])
    socket.destroy()
  })

  it.each(['NGHTTP2_CANCEL', 'NGHTTP2_NO_ERROR'] as const)(
    'ends an upload that its client resets with %s, though the upstream does not read',
    async (code) => {
      const arrived = Promise.withResolvers<ServerResponse>()
      const url = await startServer((_, response) => arrived.resolve(response))
      const gateway = await startGateway(harnessConfig(url, {}, HTTP2))
      const client = await session(gateway.url)
      const upload = client.request({ ':path': PATH, ':method': 'PUT', 'content-length': 50_000_000 })
      upload.on('error', () => undefined).write(Buffer.alloc(10_000_000))
      await arrived.promise
      // It is full of what the upstream does not take.
      await new Promise((resolve) => void setTimeout(resolve, 100))
      upload.close(constants[code])
      await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'client_gone' }])
      expect(await gateway.metrics()).toMatch(/^sluice_in_flight\{.*class="write"\} 0$/m)
    },
  )

  it('ends all calls of a client that closes its connection', async () => {
    const responses: ServerResponse[] = []
    const url = await startServer((_, response) => void responses.push(response))
    const gateway = await startGateway(harnessConfig(url, {}, HTTP2))
    const client = await session(gateway.url)
    for (const path of ['/1', '/2']) client.request({ ':path': PATH + path }).on('error', () => undefined)
    const upload = client.request({ ':path': PATH, ':method': 'PUT', 'content-length': 5_000_000 })
    upload.on('error', () => undefined).write(Buffer.alloc(100_000))
    await expect.poll(() => responses.length).toBe(3)
    client.destroy()
    await expect.poll(() => gateway.lines.map(({ outcome }) => outcome)).toEqual(Array(3).fill('client_gone'))
    expect(await gateway.metrics()).toMatch(/^sluice_in_flight\{.*class="read"\} 0$/m)
    await expect.poll(() => gateway.metrics()).toMatch(/^sluice_client_connections 0$/m)
  })

  it('lets running calls finish when it drains, and takes no more on that connection', async () => {
    const arrived = Promise.withResolvers<ServerResponse>()
    const url = await startServer((_, response) => arrived.resolve(response))
    const gateway = await startProcess(harnessConfig(url, {}, HTTP2))
    const client = await session(gateway.url)
    const answer = ask(client, { ':path': PATH })
    const response = await arrived.promise
    const goaway = once(client, 'goaway')
    gateway.kill('SIGTERM')
    await goaway
    response.end('done')
    expect(await answer).toMatchObject({ status: 200, body: 'done' })
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
  })

  it('breaks off what does not end in the time that draining may take', async () => {
    const url = await startServer((_, response) => void response.writeHead(200).write('for ever'))
    const gateway = await startProcess({ ...harnessConfig(url), server: { port: 0, http2: true, drain: '200ms' } })
    const client = await session(gateway.url)
    const stream = client.request({ ':path': PATH })
    stream.on('error', () => undefined)
    await once(stream, 'data')
    gateway.kill('SIGTERM')
    await once(client, 'close')
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
  })

  it('speaks no HTTP/2 unless it is told to', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:9'))
    const client = connect(gateway.url)
    await expect(once(client, 'close')).rejects.toThrow('Protocol error')
  })
})

describe('a port with TLS', () => {
  it('speaks HTTP/2 and HTTP/1.1, by ALPN', async () => {
    const upstream = await startUpstream((_, response) => response.end('ok'))
    const gateway = await startGateway(harnessConfig(upstream.url, { forward: ['client'] }, withTls(true)))
    const url = gateway.url.replace('127.0.0.1', 'localhost')
    const client = await session(url, { ca: certificates.read('ca.pem') })
    expect(client.alpnProtocol).toBe('h2')
    expect(await ask(client, { ':path': PATH })).toMatchObject({ status: 200, body: 'ok' })
    expect(await getHttps(`${url}${PATH}`)).toMatchObject({ statusCode: 200, httpVersion: '1.1' })
    expect(upstream.seen.map(({ headers }) => headers['x-forwarded-proto'])).toEqual(['https', 'https'])
  })

  it('takes WebSockets', async () => {
    const http = createHttpServer()
    new WebSocketServer({ server: http }).on('connection', (peer) => peer.send('hello'))
    await once(http.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => http.closeAllConnections())
    onTestFinished(() => void http.close())
    const upstream = `http://127.0.0.1:${(http.address() as AddressInfo).port}`
    const gateway = await startGateway(harnessConfig(upstream, { http2: true }, withTls(true)))
    const url = gateway.url.replace('https://127.0.0.1', 'wss://localhost')
    const client = new WebSocket(`${url}${PATH}`, { ca: certificates.read('ca.pem') })
    expect(String((await once(client, 'message'))[0])).toBe('hello')
    client.terminate()
  })

  it('speaks HTTP/1.1 alone unless it is told to', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url, {}, withTls(false)))
    const url = gateway.url.replace('127.0.0.1', 'localhost')
    expect(await getHttps(`${url}${PATH}`)).toMatchObject({ statusCode: 200, httpVersion: '1.1' })
    const client = connect(url, { ca: certificates.read('ca.pem') })
    const [error] = (await once(client, 'error')) as [Error]
    expect(error.message).toMatch(/alpn|no application protocol|protocol/i)
  })

  it('shows a renewed certificate to who connects after the reload, and does without a restart for nothing else', async () => {
    const upstream = await startUpstream()
    const config = harnessConfig(upstream.url, {}, withTls(true)) as { server: { tls: object } }
    const gateway = await startGateway(config)
    const url = gateway.url.replace('127.0.0.1', 'localhost')
    const before = await session(url, { ca: certificates.read('ca.pem') })
    const other = makeCertificates(['localhost'])
    onTestFinished(() => other.remove())
    const tls = { cert: other.read('localhost.pem'), key: other.read('localhost.key') }
    const next = { ...config, server: { ...config.server, http2: false, tls } }
    expect(await gateway.reloadWith(next)).toEqual({
      result: 'applied',
      changed: ['server.tls.cert', 'server.tls.key'],
      needRestart: ['server.http2'],
    })
    const after = await session(url, { ca: other.read('ca.pem') })
    for (const client of [before, after]) expect((await ask(client, { ':path': PATH })).status).toBe(200)
  })

  it('is answered with nothing to a client that speaks none', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:9', {}, withTls(true)))
    const client = await RawClient.connect(gateway.url.replace('https', 'http'))
    client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    expect(await client.closed()).not.toContain('HTTP/1.1 200')
  })

  it('is not opened with a certificate and a key that do not belong together', () => {
    const tls = { cert: certificates.read('localhost.pem'), key: certificates.read('ca.key') }
    const config = harnessConfig('http://x', {}, { server: { port: 0, tls } })
    expect(() => checkConfig(config, 'test')).toThrow('server.tls.key: is not the key of the first certificate in cert')
  })
})

describe('an upstream with HTTP/2', () => {
  it.each(['http', 'https'] as const)('is spoken to in it over %s, several calls on one connection', async (scheme) => {
    const upstream = await startH2Upstream(scheme)
    const gateway = await startGateway(
      harnessConfig(upstream.url, {
        http2: true,
        connections: 1,
        ...(scheme === 'https' ? { tls: { ca: certificates.read('ca.pem') } } : {}),
      }),
    )
    // All of them are there before any is answered.
    const answers = Array.from({ length: 5 }, (_, i) =>
      call(gateway.url, `${PATH}?n=${i}`, {
        method: 'PUT',
        body: `body ${i}`,
        headers: { connection: 'x-hop', 'x-hop': '1' },
      }),
    )
    await expect.poll(() => upstream.streams.length).toBe(5)
    for (const stream of upstream.streams) stream.answer()
    for (const [i, answer] of (await Promise.all(answers)).entries()) {
      expect(answer).toMatchObject({ status: 200, body: `got body ${i}` })
      expect(answer.headers).toMatchObject({ 'x-kept': 'yes', via: '1.1 sluice' })
    }
    expect(upstream.sessions).toBe(1)
    const [{ headers }] = upstream.streams as [(typeof upstream.streams)[0]]
    expect(headers).toMatchObject({ 'x-api-key': TOKEN, 'harness-account': ACCOUNT })
    expect(headers['x-hop']).toBeUndefined()
  })

  it('gets a field on two lines that write its name in two ways, and no call on its connection breaks off', async () => {
    const upstream = await startH2Upstream('http')
    const gateway = await startGateway(harnessConfig(upstream.url, { http2: true, connections: 1 }))
    const post = call(gateway.url, PATH, { method: 'POST', body: 'x' })
    await expect.poll(() => upstream.streams.length).toBe(1)
    const client = await RawClient.connect(gateway.url)
    const twice = 'User-Agent: a\r\nuser-agent: b\r\nCookie: a=1\r\nCookie: b=2\r\n'
    client.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\n${twice}\r\n`)
    await expect.poll(() => upstream.streams.length).toBe(2)
    expect(upstream.sessions).toBe(1)
    expect(upstream.streams[1]!.headers).toMatchObject({ 'user-agent': 'a, b', cookie: 'a=1; b=2' })
    for (const stream of upstream.streams) stream.answer()
    expect(await post).toMatchObject({ status: 200, body: 'got x' })
    expect(await client.until(/x-kept|HTTP\S+ [45]/)).toContain('x-kept')
  })

  it('is not believed to have sent a whole body, for the cache, where it speaks HTTP/1.1 and gives no length', async () => {
    const keyed = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
    const server = createHttpsServer(keyed, (_, { socket }) => {
      socket!.end('HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\nhalf a bo')
    })
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    const gateway = await startGateway(
      harnessConfig(
        `https://localhost:${port}`,
        {
          http2: true,
          tls: { ca: certificates.read('ca.pem') },
          routes: [{ path: '/ng/api/projects', class: 'read', cache: true }],
        },
        { cache: { store: 'memory' } },
      ),
    )
    expect((await call(gateway.url, PATH)).headers['cache-status']).toBe('sluice; fwd=uri-miss; detail=no-length')
  })

  it.each([
    ['is asked once more', 1, 200],
    ['is asked no more than the configuration says', 0, 502],
  ])('%s where it refuses a stream, whatever the method', async (_, retries, status) => {
    const upstream = await startH2Upstream('http')
    const retry = { retries, baseDelay: '1ms', maxDelay: '1ms' }
    const gateway = await startGateway(harnessConfig(upstream.url, { http2: true, retry }))
    const post = call(gateway.url, PATH, { method: 'POST', body: 'x' })
    await expect.poll(() => upstream.streams.length).toBe(1)
    upstream.streams[0]!.stream.close(constants.NGHTTP2_REFUSED_STREAM)
    await expect.poll(() => upstream.streams.length + gateway.lines.length).toBe(2)
    upstream.streams[1]?.answer()
    expect(await post).toMatchObject({ status })
    if (status === 502)
      expect((await post).json().message).toBe('harness refused the call (REFUSED_STREAM); nothing of it was done')
    expect(upstream.streams).toHaveLength(1 + retries)
    await expect.poll(() => gateway.lines).toMatchObject([{ attempts: 1 + retries }])
  })

  it('has not answered whole where it resets a stream without an error', async () => {
    const upstream = await startH2Upstream('http')
    const gateway = await startGateway(harnessConfig(upstream.url, { http2: true }))
    const answer = call(gateway.url, PATH)
    await expect.poll(() => upstream.streams.length).toBe(1)
    const { stream } = upstream.streams[0]!
    // Node does not end a stream that waits for its trailers.
    stream.respond({ ':status': 200 }, { waitForTrailers: true })
    stream.write('half')
    stream.close(constants.NGHTTP2_NO_ERROR)
    await expect(answer).rejects.toThrow()
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'broken_off' }])
  })

  it('is asked once more where a stream was reset before its answer, but not for a POST', async () => {
    const upstream = await startH2Upstream('http')
    const gateway = await startGateway(
      harnessConfig(upstream.url, { http2: true, retry: { retries: 1, baseDelay: '1ms', maxDelay: '1ms' } }),
    )
    const [get, post] = [call(gateway.url, PATH), call(gateway.url, PATH, { method: 'POST', body: 'x' })]
    await expect.poll(() => upstream.streams.length).toBe(2)
    for (const { stream } of upstream.streams) stream.close(constants.NGHTTP2_INTERNAL_ERROR)
    await expect.poll(() => upstream.streams.length).toBe(3)
    upstream.streams[2]!.answer()
    expect((await get).status).toBe(200)
    expect((await post).headers['x-sluice-error']).toBe('interrupted')
  })
})

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

async function session(url: string, options: SecureClientSessionOptions = {}): Promise<ClientHttp2Session> {
  const client = connect(url, options)
  client.on('error', () => undefined)
  onTestFinished(() => client.destroy())
  await once(client, 'connect')
  return client
}

async function ask(
  client: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body?: string | Buffer,
  isTunnel = false,
): Promise<Answer> {
  const stream: ClientHttp2Stream = client.request(headers, { endStream: body === undefined && !isTunnel })
  // Who is refused need not send the rest.
  stream.on('error', () => undefined)
  const response = once(stream, 'response') as Promise<[IncomingHttpHeaders & { ':status'?: number }]>
  if (body !== undefined) stream.end(body)
  const [fields] = await response
  const pieces: Buffer[] = []
  stream.on('data', (chunk: Buffer) => void pieces.push(chunk))
  await once(stream, 'end')
  if (isTunnel) stream.close()
  return { status: fields[':status'] ?? 0, headers: fields, body: Buffer.concat(pieces).toString() }
}

/** What stands on the lines of a field, of names and values in turn. */
function valuesOf(name: string, fields: readonly string[]): string[] {
  return fields.filter((_, i) => i % 2 === 1 && fields[i - 1] === name)
}

async function getHttps(url: string): Promise<IncomingMessage> {
  const [response] = (await once(get(url, { ca: certificates.read('ca.pem'), agent: false }), 'response')) as [
    IncomingMessage,
  ]
  response.resume()
  return response
}

async function startH2Upstream(scheme: 'http' | 'https') {
  const tls = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
  const server = scheme === 'https' ? createSecureServer(tls) : createServer()
  const streams: { stream: ServerHttp2Stream; headers: IncomingHttpHeaders; answer(): void }[] = []
  let sessions = 0
  server.on('session', (one) => {
    sessions++
    onTestFinished(() => one.destroy())
  })
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    stream.on('error', () => undefined)
    const body = stream.toArray().catch(() => [])
    const answer = (): void =>
      void body.then((chunks) => {
        stream.respond({ ':status': 200, 'x-kept': 'yes' })
        stream.end(`got ${Buffer.concat(chunks as Buffer[]).toString()}`)
      })
    streams.push({ stream, headers, answer })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  return {
    url: `${scheme}://localhost:${port}`,
    streams,
    get sessions() {
      return sessions
    },
  }
}
