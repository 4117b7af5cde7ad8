import { once } from 'node:events'
import { METHODS, type ServerResponse } from 'node:http'
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2'
import { connect, createServer as createTcpServer, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { connect as tlsConnect } from 'node:tls'
import { describe, expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { makeCertificates } from '../support/certificates.ts'
import { call, open, RawClient } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { ACCOUNT, harnessConfig, startGateway, startServer, startUpstream, TOKEN } from '../support/gateway.ts'

describe('a forwarded request', () => {
  const long = `/ng/api/projects?q=${'x'.repeat(8_000)}`
  it.each([
    '/ng/api/projects',
    '/ng/api/projects?b=2&a=1&a=%2F&empty=&flag&plus=a+b&enc=%E2%82%AC',
    `/code/api/v1/repos/${ACCOUNT}%2Fb%2Fc/+/content/x%20y?path=/a//b`,
    '/ng/api//projects///x/',
    '/ng/api/./projects',
    '//ng/api/projects',
    '/',
    '/ng/api/projects?',
    long,
    "/ng/api/%7Bx%7D;v=1:2@3!$&'()*,=~",
  ])('keeps path and query byte for byte: %.60s', async (path) => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    expect((await call(gateway.url, `/harness${path}`)).status).toBe(200)
    expect(upstream.seen.map(({ url }) => url)).toEqual([path])
  })

  it('goes to the default upstream without a prefix, to the owner of a host, and below the base path', async () => {
    const [one, two] = [await startUpstream(), await startUpstream()]
    const config = harnessConfig(one.url, {}, { defaultUpstream: 'harness' }) as { upstreams: Record<string, object> }
    config.upstreams['tickets'] = {
      url: `${two.url}/base/v2/`,
      hosts: ['tickets.internal'],
      accounts: { main: {} },
      limits: { read: [] },
    }
    const gateway = await startGateway(config)
    await call(gateway.url, '/ng/api/projects')
    await call(gateway.url, '//ng/api/projects')
    await call(gateway.url, '/tickets/items?x=1')
    await call(gateway.url, '/tickets')
    await call(gateway.url, '/items/tickets/7', { headers: { host: 'Tickets.Internal:8080' } })
    expect(one.seen.map(({ url }) => url)).toEqual(['/ng/api/projects', '//ng/api/projects'])
    expect(two.seen.map(({ url }) => url)).toEqual(['/base/v2/items?x=1', '/base/v2/', '/base/v2/items/tickets/7'])
  })

  it('may have any method but CONNECT and TRACE', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const methods = METHODS.filter((method) => method !== 'CONNECT' && method !== 'TRACE')
    for (const method of methods) {
      const { status } = await call(gateway.url, '/harness/ng/api/projects', {
        method,
        body: 'x',
        headers: { 'content-length': '1' },
      })
      expect(status, method).toBe(200)
    }
    expect(upstream.seen.map(({ method }) => method)).toEqual(methods)
    expect(upstream.seen.every(({ body }) => body === 'x')).toBe(true)
    const trace = await call(gateway.url, '/harness/ng/api/projects', { method: 'TRACE' })
    expect(trace.headers['x-sluice-error']).toBe('invalid_request')
  })

  it('with OPTIONS is forwarded no further than Max-Forwards says', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const ask = (method: string, hops: string) =>
      call(gateway.url, '/harness/ng/api/projects', { method, headers: { 'max-forwards': hops } })
    expect(await ask('OPTIONS', '0')).toMatchObject({
      status: 204,
      body: '',
      headers: { 'x-correlation-id': expect.any(String) as string },
    })
    expect(upstream.seen).toEqual([])
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'delivered', status: '204', attempts: 0 }])
    for (const hops of ['1', '10', '99999999999999999999', 'none']) await ask('OPTIONS', hops)
    await ask('GET', '0')
    const seen = upstream.seen.map(({ headers }) => headers['max-forwards'])
    expect(seen).toEqual(['0', '9', String(Number.MAX_SAFE_INTEGER - 1), 'none', '0'])
  })

  it('carries the credential and the account, and nothing that was meant for the gateway', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    await call(gateway.url, '/harness/ng/api/projects', {
      headers: {
        'x-api-key': 'client-key',
        authorization: 'Bearer client-key',
        'x-sluice-key': 'client-key',
        'x-sluice-max-wait': '1s',
        'harness-account': ACCOUNT,
        cookie: 'a=1; sluice_x=2',
        'x-correlation-id': 'corr-1',
        'content-type': 'text/weird; x',
      },
    })
    const [{ headers, rawHeaders }] = upstream.seen as [(typeof upstream.seen)[0]]
    expect(headers).toMatchObject({
      'x-api-key': TOKEN,
      'harness-account': ACCOUNT,
      'x-correlation-id': 'corr-1',
      via: '1.1 sluice',
      cookie: 'a=1',
      'content-type': 'text/weird; x',
      host: new URL(upstream.url).host,
    })
    expect(rawHeaders.join('\n')).not.toContain('client-key')
    expect(Object.keys(headers).filter((name) => name.startsWith('x-sluice') || name === 'authorization')).toEqual([])
  })

  it('tells nothing of traces, the client and its way, but what upstreams.*.forward says', async () => {
    const upstream = await startUpstream()
    const sent = {
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      tracestate: 'congo=t61rcWkgMzE',
      baggage: 'userId=alice',
      forwarded: 'for=10.1.2.3',
      'x-real-ip': '10.1.2.3',
      'x-forwarded-for': '10.1.2.3',
      'x-forwarded-user': 'alice',
      'x-forwarded-host': 'tool.internal',
    }
    const made = { 'x-forwarded-for': '10.1.2.3, 127.0.0.1', 'x-forwarded-proto': 'http' }
    const [trace, client] = [
      ['traceparent', 'tracestate', 'baggage'],
      ['forwarded', 'x-real-ip', 'x-forwarded-'],
    ]
    for (const forward of [undefined, [], ['trace'], ['client'], ['trace', 'client']]) {
      const gateway = await startGateway(harnessConfig(upstream.url, forward === undefined ? {} : { forward }))
      await call(gateway.url, '/harness/ng/api/projects', { headers: sent })
      const { headers } = upstream.seen.at(-1)!
      const names = [
        ...(forward?.includes('trace') === true ? trace : []),
        ...(forward?.includes('client') === true ? client : []),
      ]
      const expected = Object.entries({ ...sent, ...made }).filter(([name]) =>
        names.some((one) => name.startsWith(one)),
      )
      const seen = Object.entries(headers).filter(([name]) => name in sent || name in made)
      expect(Object.fromEntries(seen), String(forward)).toEqual(Object.fromEntries(expected))
      expect(headers).toMatchObject({ via: '1.1 sluice', 'x-correlation-id': expect.any(String) as string })
    }
  })

  it('names to the upstream the host that the client called, which a whole URL tells better than Host', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url, { hosts: ['own.example'], forward: ['client'] }))
    await call(gateway.url, 'http://own.example:81/ng/api/projects', { headers: { host: 'other.example' } })
    await call(gateway.url, '/ng/api/projects', { headers: { host: 'own.example' } })
    expect(upstream.seen.map(({ headers }) => headers['x-forwarded-host'])).toEqual(['own.example:81', 'own.example'])
  })

  it('carries no client key to a vendor in the header of another, but any other value of it', async () => {
    const upstream = await startUpstream()
    const harness = harnessConfig(upstream.url) as { upstreams: object }
    const gateway = await startGateway({
      ...harness,
      upstreams: {
        ...harness.upstreams,
        tickets: { url: upstream.url, accounts: { main: {} }, limits: { read: [] } },
      },
      clients: { a: { keys: [hashKey('slk_a')] }, b: { keys: [hashKey('slk_b')] } },
    })
    for (const value of ['slk_a', 'slk_b', ['theirs', 'slk_a'], 'theirs']) {
      const headers = { 'x-sluice-key': 'slk_a', 'x-api-key': value }
      expect((await call(gateway.url, '/tickets/x', { headers })).status).toBe(200)
    }
    expect(upstream.seen.map(({ headers }) => headers['x-api-key'])).toEqual([
      undefined,
      undefined,
      undefined,
      'theirs',
    ])
  })

  it('gets the account added to its query where its family wants it there, and only if it is missing', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    for (const path of [
      '/pipeline/api/x',
      '/gateway/cf/admin/x?a=1',
      `/audit/api/x?accountIdentifier=${ACCOUNT}`,
      '/ng/api/x',
      '/pipeline/apis',
    ]) {
      await call(gateway.url, `/harness${path}`)
    }
    await call(gateway.url, '/harness/pipeline/api/webhook/custom/t/v3', { method: 'POST' })
    expect(upstream.seen.map(({ url }) => url)).toEqual([
      `/pipeline/api/x?accountIdentifier=${ACCOUNT}`,
      `/gateway/cf/admin/x?a=1&accountIdentifier=${ACCOUNT}`,
      `/audit/api/x?accountIdentifier=${ACCOUNT}`,
      '/ng/api/x',
      '/pipeline/apis',
      '/pipeline/api/webhook/custom/t/v3',
    ])
  })

  it.each([
    ['/', `/x?org=${ACCOUNT}`, `/x/y?org=${ACCOUNT}`],
    ['/x/', `/x?org=${ACCOUNT}`, `/x/y?org=${ACCOUNT}`],
    ['/x/y', '/x', `/x/y?org=${ACCOUNT}`],
    ['/xx/', '/x', '/x/y'],
  ])('gets the account added to its query below %s', async (prefix, ...expected) => {
    const upstream = await startUpstream()
    const accountQuery = { name: 'org', paths: [prefix] }
    const gateway = await startGateway(harnessConfig(upstream.url, { accountQuery }))
    for (const path of ['/x', '/x/y']) await call(gateway.url, `/harness${path}`)
    expect(upstream.seen.map(({ url }) => url)).toEqual(expected)
  })

  it('injects nothing on webhook routes, and a bearer token for SCIM', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const headers = { 'x-hub-signature-256': 'sha256=abc', 'x-github-event': 'push' }
    await call(gateway.url, '/harness/ng/api/webhook', { method: 'POST', headers, body: '{"a": 1 }' })
    await call(gateway.url, `/harness/ng/api/scim/account/${ACCOUNT}/Users`)
    const [webhook, scim] = upstream.seen
    expect(webhook).toMatchObject({ body: '{"a": 1 }', headers })
    expect(webhook!.headers['x-api-key']).toBeUndefined()
    expect(webhook!.headers['authorization']).toBeUndefined()
    expect(scim!.headers).toMatchObject({ authorization: `Bearer ${TOKEN}` })
    expect(scim!.headers['x-api-key']).toBeUndefined()
  })

  it('streams an upload with the upstream’s back-pressure, whatever its length', async () => {
    let received = 0
    const upstreamUrl = await startServer((request, response) => {
      request.on('data', (chunk: Buffer) => void (received += chunk.length))
      request.on('end', () => response.end(String(received)))
    })
    const gateway = await startGateway(harnessConfig(upstreamUrl))
    const piece = Buffer.alloc(65_536, 'x')
    const pieces = 6_400 // 400 MiB
    const before = process.memoryUsage().arrayBuffers
    const answer = await call(gateway.url, '/harness/ng/api/file-store', {
      method: 'PUT',
      body: Readable.from(
        (function* () {
          for (let i = 0; i < pieces; i++) yield piece
        })(),
      ),
    })
    expect(answer.body).toBe(String(pieces * piece.length))
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(150 * 1_048_576)
  })

  it('is sent on while the client is still sending it, and the answer comes back meanwhile', async () => {
    const upstreamUrl = await startServer((request, response) => {
      response.writeHead(200)
      request.on('data', (chunk: Buffer) => response.write(`got ${chunk.toString()};`))
      request.on('end', () => response.end('end'))
    })
    const gateway = await startGateway(harnessConfig(upstreamUrl))
    const client = await RawClient.connect(gateway.url)
    client.write('POST /harness/ng/api/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n')
    await client.until(/got one;/)
    client.write('3\r\ntwo\r\n')
    await client.until(/got two;/)
    client.write('0\r\n\r\n')
    expect(await client.until(/end\r\n0\r\n\r\n/)).toContain('got two;')
    client.socket.destroy()
  })

  it('that is answered before its end leaves the connection to the next one, once the rest has come', async () => {
    const upstreamUrl = await startServer((request, response) => {
      if (request.url === '/ng/api/early') response.writeHead(401, { 'content-length': 2 }).end('no')
      // Longer than a client that is still sending would have to read the answer.
      else setTimeout(() => response.end('next'), 1_500)
    })
    const gateway = await startGateway(harnessConfig(upstreamUrl, { retry: { retries: 0 } }))
    const client = await RawClient.connect(gateway.url)
    onTestFinished(() => void client.socket.destroy())
    client.write('POST /harness/ng/api/early HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\nstart')
    expect(await client.until(/no$/)).toMatch(/^HTTP\/1\.1 401 /)
    expect(client.received).not.toMatch(/^Connection: close/im)
    client.write('x'.repeat(3_000_000 - 'start'.length))
    client.write('POST /harness/ng/api/next HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n')
    expect(await client.until(/next$/)).toMatch(/HTTP\/1\.1 200 OK/)
  })

  it('gets 100 Continue when its body is wanted, and not when it is refused', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const client = await RawClient.connect(gateway.url)
    const head = (path: string): string =>
      `PUT ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n`
    client.write(head('/harness/ng/api/projects/x'))
    expect(await client.until(/\r\n\r\n/)).toBe('HTTP/1.1 100 Continue\r\n\r\n')
    client.write('body')
    expect(await client.until(/HTTP\/1.1 200/)).toContain('HTTP/1.1 200 OK')
    expect(upstream.seen[0]).toMatchObject({ body: 'body' })
    expect(upstream.seen[0]!.headers.expect).toBeUndefined()
    client.socket.destroy()

    const refused = await RawClient.connect(gateway.url)
    refused.write(head('/harness/ng/api/projects/x?accountIdentifier=other'))
    const answer = await refused.until(/\r\n\r\n/)
    expect(answer).toMatch(/^HTTP\/1\.1 403/)
    refused.socket.destroy()
  })

  it('gets no 100 Continue in HTTP/1.0, which knows none', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    for (const length of [4, 40_000]) {
      const client = await RawClient.connect(gateway.url)
      const head = `PUT /harness/ng/api/projects/x HTTP/1.0\r\nContent-Length: ${length}\r\nExpect: 100-continue\r\n\r\n`
      client.write(head + 'x'.repeat(length))
      expect(await client.closed()).toMatch(/^HTTP\/1\.1 200 OK/)
    }
    expect(upstream.seen.map(({ body }) => body.length)).toEqual([4, 40_000])
  })

  it('is ended upstream at once when its client leaves', async () => {
    const { promise: reached, resolve: reach } = Promise.withResolvers<ServerResponse>()
    const url = await startServer((_, response) => reach(response))
    const gateway = await startGateway(harnessConfig(url))
    const client = await RawClient.connect(gateway.url)
    client.write('GET /harness/ng/api/projects HTTP/1.1\r\nHost: x\r\n\r\n')
    const ended = once(await reached, 'close')
    client.socket.destroy()
    await ended
    await expect.poll(() => gateway.lines.at(-1)).toMatchObject({ outcome: 'client_gone', status: 'none', attempts: 1 })
  })
})

describe('a response', () => {
  it('comes back with its status, fields and body, less what belongs to one connection', async () => {
    const upstream = await startUpstream((_, response) => {
      response.writeHead(207, 'Multi-Status', [
        ...['Content-Type', 'text/plain', 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'X-Custom', 'x'],
        ...['Connection', 'keep-alive, x-hop', 'X-Hop', 'h', 'X-RateLimit-Remaining', '5', 'X-Sluice-Error', 'forged'],
      ])
      response.end('hello')
    })
    const gateway = await startGateway(harnessConfig(upstream.url))
    const answer = await call(gateway.url, '/harness/ng/api/projects')
    expect(answer).toMatchObject({ status: 207, body: 'hello' })
    expect(answer.headers).toMatchObject({
      'content-type': 'text/plain',
      'x-custom': 'x',
      via: '1.1 sluice',
      'x-ratelimit-remaining': '999',
    })
    expect(answer.headers['set-cookie']).toEqual(['a=1', 'b=2'])
    expect(answer.headers['x-hop']).toBeUndefined()
    expect(answer.headers['x-sluice-error']).toBeUndefined()
  })

  it.each([
    ['keeps none', []],
    ['enforces none', [{ requests: 100, window: '1m', enforce: false }]],
    ['only bounds calls in flight', [{ concurrent: 5 }]],
  ])('tells the upstream’s own quota where the gateway %s', async (_, read) => {
    const upstream = await startUpstream((_, response) =>
      response.writeHead(200, { 'x-ratelimit-limit': '10', 'x-ratelimit-remaining': '7' }).end(),
    )
    const gateway = await startGateway(harnessConfig(upstream.url, { limits: { read } }))
    const { headers } = await call(gateway.url, '/harness/ng/api/projects')
    expect(headers).toMatchObject({ 'x-ratelimit-limit': '10', 'x-ratelimit-remaining': '7' })
    expect(headers['ratelimit']).toBeUndefined()
  })

  it.each([204, 304, 404, 500])('%i is passed on untouched', async (status) => {
    const upstream = await startUpstream((_, response) =>
      response.writeHead(status, { etag: '"x"' }).end(status >= 400 ? '{"code":"X"}' : undefined),
    )
    const gateway = await startGateway(harnessConfig(upstream.url, { retry: { retries: 0 } }))
    const answer = await call(gateway.url, '/harness/ng/api/projects')
    expect(answer).toMatchObject({ status, body: status >= 400 ? '{"code":"X"}' : '' })
    expect(answer.headers.etag).toBe('"x"')
  })

  it('204 has no length, whatever the upstream says', async () => {
    const url = await startRaw('HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX-Kept: yes\r\n\r\n')
    const gateway = await startGateway(harnessConfig(url))
    const { status, headers } = await call(gateway.url, '/harness/ng/api/projects')
    expect({ status, length: headers['content-length'], kept: headers['x-kept'] }).toEqual({ status: 204, kept: 'yes' })
  })

  it.each(['', 'body'])('205 has no content, whatever the upstream sends: %j', async (body) => {
    const url = await startRaw(`HTTP/1.1 205 Reset Content\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    const gateway = await startGateway(harnessConfig(url, {}, { server: { port: 0, http2: true } }))
    const path = '/harness/ng/api/projects'
    expect(await call(gateway.url, path)).toMatchObject({ status: 205, body: '' })
    const session = connectHttp2(gateway.url)
    const stream = session.request({ ':path': path })
    const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders]
    expect(headers[':status']).toBe(205)
    expect(await stream.toArray()).toEqual([])
    expect(stream.rstCode).toBe(0)
    session.destroy()
    expect(gateway.lines).toMatchObject([{ outcome: 'delivered' }, { outcome: 'delivered' }])
  })

  it('in a transfer coding that nobody asked for is no answer, rather than bytes that nobody can read', async () => {
    for (const [coding, isUnderstood] of [
      ['gzip, chunked', false],
      ['Chunked', true],
    ] as const) {
      const url = await startRaw(`HTTP/1.1 200 OK\r\nTransfer-Encoding: ${coding}\r\n\r\n5\r\nhello\r\n0\r\n\r\n`)
      const gateway = await startGateway(harnessConfig(url, { retry: { retries: 0 } }))
      const answer = await call(gateway.url, '/harness/ng/api/projects')
      expect(answer.headers['x-sluice-error']).toBe(isUnderstood ? undefined : 'interrupted')
      expect(answer.body).toContain(isUnderstood ? 'hello' : 'UNASKED_TRANSFER_CODING')
    }
  })

  it('to a HEAD has the length but no body', async () => {
    const upstream = await startUpstream((_, response) => response.writeHead(200, { 'content-length': '5' }).end())
    const gateway = await startGateway(harnessConfig(upstream.url))
    const answer = await call(gateway.url, '/harness/ng/api/projects', { method: 'HEAD' })
    expect(answer).toMatchObject({ status: 200, body: '', headers: { 'content-length': '5' } })
  })

  it.each(['000', '099'])('with %s for a status is none, and the fault is the upstream’s', async (status) => {
    const url = await startRaw(`HTTP/1.1 ${status} What\r\nContent-Length: 2\r\n\r\nok`)
    const gateway = await startGateway(harnessConfig(url, { retry: { retries: 0 } }))
    const answer = await call(gateway.url, '/harness/ng/api/projects')
    expect(answer).toMatchObject({ status: 502, headers: { 'x-sluice-error': 'interrupted' } })
    expect(answer.body).toContain('INVALID_STATUS')
  })

  it.each([
    ['a status below 100', 'HTTP/1.1 099 What\r\nContent-Length: 2\r\n\r\nok', 'INVALID_STATUS'],
    [
      'a coding that nobody asked for',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n',
      'UNASKED_TRANSFER_CODING',
    ],
    [
      'two lengths',
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok',
      'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
    ],
    [
      'a folded field',
      'HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok',
      'Unexpected whitespace after header value',
    ],
    ['another protocol', 'SSH-2.0-OpenSSH_9.9\r\n', 'Expected HTTP/, RTSP/ or ICE/'],
    ['a switch that nobody asked for', 'HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n', 'INVALID_SWITCH'],
  ])('with %s is refused as what it is: the connection did not break', async (_, answered, code) => {
    const url = await startRaw(answered)
    const gateway = await startGateway(harnessConfig(url, { retry: { retries: 0 } }))
    const answer = await call(gateway.url, '/harness/ng/api/projects')
    expect(answer).toMatchObject({ status: 502, headers: { 'x-sluice-error': 'interrupted' } })
    expect(answer.json().message).toBe(
      `harness sent an answer that is no well-formed HTTP (${code}); the call has reached it, and a write may have been done`,
    )
    expect(gateway.lines[0]).toMatchObject({ tries: [{ error: `interrupted (${code})` }] })
  })

  it('keeps its trailers', async () => {
    const upstream = await startUpstream((_, response) => {
      response.writeHead(200, { trailer: 'x-checksum' })
      response.write('data')
      response.addTrailers({ 'x-checksum': 'abc' })
      response.end()
    })
    const gateway = await startGateway(harnessConfig(upstream.url))
    expect((await call(gateway.url, '/harness/ng/api/projects')).trailers).toEqual({ 'x-checksum': 'abc' })
  })

  it('reaches the client piece by piece, its head first', async () => {
    const { promise: reached, resolve: reach } = Promise.withResolvers<ServerResponse>()
    const url = await startServer((_, response) =>
      reach(response.writeHead(200, { 'content-type': 'text/event-stream' })),
    )
    const gateway = await startGateway(harnessConfig(url))
    const opening = open(gateway.url, '/harness/ng/api/events')
    const response = await reached
    response.flushHeaders()
    const incoming = await opening
    for (const text of ['data: 1\n\n', 'data: 2\n\n']) {
      response.write(text)
      const [piece] = (await once(incoming, 'data')) as [Buffer]
      expect(piece.toString()).toBe(text)
    }
    response.end()
    await once(incoming, 'end')
  })

  it('is not read faster than its client takes it, and not for ever', async () => {
    const clock = new SimulatedClock()
    const flood = await startFlood(200 * 1_048_576)
    const gateway = await startGateway(harnessConfig(flood.url), { clock })
    const ownTimers = clock.timers
    const [leaver, sleeper] = await Promise.all([RawClient.connect(gateway.url), RawClient.connect(gateway.url)])
    for (const client of [leaver, sleeper]) {
      client.socket.pause()
      client.write('GET /harness/ng/api/file HTTP/1.1\r\nHost: x\r\n\r\n')
    }
    // Both are paused: what else is sent, only the system's buffers take.
    await expect.poll(() => idle(clock)).toHaveLength(2)
    expect(flood.sent).toBeLessThan(64 * 1_048_576)
    leaver.socket.destroy()
    await expect.poll(() => idle(clock)).toHaveLength(1)
    await clock.advance(300_000)
    await expect.poll(() => gateway.lines.length).toBe(2)
    expect(gateway.lines.map(({ outcome }) => outcome)).toEqual(['client_gone', 'client_gone'])
    expect(clock.timers).toBe(ownTimers)
    sleeper.socket.destroy()
  })

  it.each(['upstream', 'cache'])(
    'from the %s of which the client does not take the rest is broken off',
    async (kind) => {
      const url = await startServer((_, response) => {
        const fields = { 'content-length': 60_000, ...(kind === 'cache' ? { 'cache-control': 'max-age=60' } : {}) }
        response.writeHead(200, fields).end(Buffer.alloc(60_000))
      })
      const gateway = await startGateway({
        server: { port: 0 },
        admin: { port: 0 },
        upstreams: {
          api: {
            url,
            accounts: { main: {} },
            limits: { read: [], write: [] },
            timeouts: { idle: '1s' },
            routes: [{ method: 'GET', path: '/*', class: 'read', cache: kind === 'cache' }],
          },
        },
      })
      await call(gateway.url, '/api/x')
      const client = await RawClient.connect(gateway.url)
      client.socket.pause()
      // More than the system's buffers take, of answers each of which is whole before its client has to take any of it.
      client.write('GET /api/x HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(500))
      await expect.poll(() => gateway.lines.length).toBe(501)
      await expect.poll(() => gateway.metrics()).toMatch(/^sluice_client_connections 0$/m)
      client.socket.destroy()
    },
  )

  it('leaves no bound for the rest of it to the next one on its connection', async () => {
    const { promise: asked, resolve: ask } = Promise.withResolvers<ServerResponse>()
    const fields = { 'content-length': 8_000_000, 'cache-control': 'max-age=60' }
    const upstream = await startUpstream(({ url }, response) =>
      url === '/kept' ? response.writeHead(200, fields).end(Buffer.alloc(8_000_000)) : ask(response),
    )
    const routes = [{ method: 'GET', path: '/kept', class: 'read', cache: true }]
    const cache = { maxEntryBytes: 8_000_000 }
    const gateway = await startGateway(harnessConfig(upstream.url, { routes, timeouts: { idle: '1s' } }, { cache }))
    expect((await call(gateway.url, '/harness/kept')).body).toHaveLength(8_000_000)
    const client = await RawClient.connect(gateway.url)
    for (const path of ['kept', 'slow']) client.write(`GET /harness/${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await expect.poll(() => client.received.length).toBeGreaterThan(8_000_000)
    setTimeout(() => void asked.then((response) => response.end('the next')), 2_000)
    expect((await client.until(/the next/)).slice(-8)).toBe('the next')
    client.socket.destroy()
  })

  it('comes to its end for a client that was slow for a while', async () => {
    const clock = new SimulatedClock()
    const flood = await startFlood(50 * 1_048_576)
    const gateway = await startGateway(harnessConfig(flood.url), { clock })
    const ownTimers = clock.timers
    const incoming = await open(gateway.url, '/harness/ng/api/file')
    await expect.poll(() => idle(clock)).toHaveLength(1)
    await clock.advance(299_000)
    let received = 0
    for await (const piece of incoming) received += (piece as Buffer).length
    expect(received).toBe(50 * 1_048_576)
    expect(clock.timers).toBe(ownTimers)
  })

  it('that breaks off breaks the client’s connection, rather than looking whole', async () => {
    for (const head of ['Content-Length: 100', 'Transfer-Encoding: chunked']) {
      const { promise: answered, resolve: answer } = Promise.withResolvers<Socket>()
      const server = createTcpServer((socket) => {
        socket.on('error', () => undefined)
        socket.once('data', () => {
          socket.write(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n${head.startsWith('T') ? '5\r\nhello\r\n' : 'hello'}`)
          answer(socket)
        })
      })
      await once(server.listen(0, '127.0.0.1'), 'listening')
      onTestFinished(() => void server.close())
      const gateway = await startGateway(
        harnessConfig(`http://127.0.0.1:${(server.address() as { port: number }).port}`),
      )
      const incoming = await open(gateway.url, '/harness/ng/api/projects')
      const socket = await answered
      const rest = incoming.once('data', () => socket.resetAndDestroy()).toArray()
      await expect(rest, head).rejects.toThrow(/aborted|ECONNRESET/)
      await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'broken_off', status: '200', attempts: 1 }])
    }
  })

  it.each(['TCP', 'TLS'])(
    'that breaks off over %s is reset for HTTP/1.0, where an end would look whole',
    async (kind) => {
      const { promise: answered, resolve: answer } = Promise.withResolvers<ServerResponse>()
      const url = await startServer((_, response) => (response.write('half'), answer(response)))
      const certificates = makeCertificates(['localhost'])
      onTestFinished(() => certificates.remove())
      const tls = { cert: certificates.read('localhost.pem'), key: certificates.read('localhost.key') }
      const gateway = await startGateway(
        harnessConfig(url, {}, { server: { port: 0, ...(kind === 'TLS' ? { tls } : {}) } }),
      )
      const port = Number(new URL(gateway.url).port)
      const client = kind === 'TLS' ? tlsConnect({ port, ca: certificates.read('ca.pem') }) : connect(port)
      const failed = once(client, 'error')
      client.write('GET /harness/ng/api/projects HTTP/1.0\r\n\r\n')
      client.on(
        'data',
        (piece: Buffer) => piece.toString().includes('half') && void answered.then(({ socket }) => socket?.destroy()),
      )
      client.on('end', () => client.destroy(new Error('it looks whole')))
      expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
      await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'broken_off' }])
    },
  )

  it('with Connection twice, and with a reason phrase that is no ASCII, goes back whole', async () => {
    const server = createTcpServer((socket) => {
      socket.on('error', () => undefined)
      const head = 'HTTP/1.1 200 gr\xfc\xdf\r\nConnection: keep-alive\r\nConnection: keep-alive\r\nContent-Length: 5'
      socket.on('data', () => socket.write(Buffer.from(`${head}\r\n\r\nhello`, 'latin1')))
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => void server.close())
    const gateway = await startGateway(harnessConfig(`http://127.0.0.1:${(server.address() as { port: number }).port}`))
    expect(await call(gateway.url, '/harness/ng/api/projects')).toMatchObject({ status: 200, body: 'hello' })
  })

  it('is broken off, not continued with a refusal, when its client sends what is no HTTP', async () => {
    const url = await startServer((_, response) => response.writeHead(200, { 'content-length': '300' }).write('start'))
    const gateway = await startGateway(harnessConfig(url))
    const client = await RawClient.connect(gateway.url)
    client.write('GET /harness/ng/api/file HTTP/1.1\r\nHost: x\r\n\r\n')
    await client.until(/start/)
    client.write('garbage\r\n\r\n')
    await client.closed()
    expect(client.received).not.toContain('HTTP/1.1 400')
  })

  it('that comes before the whole request was sent is delivered, and the connection closed', async () => {
    const url = await startServer((_, response) => response.writeHead(413).end('too much'))
    const gateway = await startGateway(harnessConfig(url))
    const client = await RawClient.connect(gateway.url)
    client.write('PUT /harness/ng/api/file HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nstart')
    expect(await client.until(/too much/)).toMatch(/^HTTP\/1\.1 413/)
    await client.closed()
  })
})

describe('a response over a connection that the client keeps', () => {
  it('leaves the connection usable, many calls long', async () => {
    const upstream = await startUpstream(({ body }, response) => response.end(body))
    const gateway = await startGateway(harnessConfig(upstream.url))
    const client = await RawClient.connect(gateway.url)
    for (let i = 0; i < 50; i++) {
      const text = `body-${i}`
      client.write(
        `POST /harness/ng/api/projects/list HTTP/1.1\r\nHost: x\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
      )
      await client.until(new RegExp(`${text}$`))
    }
    expect(upstream.seen).toHaveLength(50)
    client.socket.destroy()
  })
})

describe('requests that a client sends without waiting for the answers before', () => {
  const send = (method: string, fields = ''): string =>
    `${method} /harness/ng/api/projects HTTP/1.1\r\nHost: x\r\n${fields}Content-Length: 1\r\n\r\nx`

  /** A gateway whose upstream answers when it is told to, and a connection to it. */
  async function start() {
    const methods: string[] = []
    const responses: ServerResponse[] = []
    const upstream = await startUpstream(({ url, method }, response) => {
      if (url.endsWith('/later')) return void response.end()
      methods.push(method)
      responses.push(response)
    })
    const gateway = await startGateway(harnessConfig(upstream.url))
    const client = await RawClient.connect(gateway.url)
    onTestFinished(() => void client.socket.destroy())
    /** What did not wait has come upstream before a later call over another connection has. */
    const settle = async (): Promise<void> => void (await call(gateway.url, '/harness/ng/api/later'))
    return { gateway, client, methods, responses, settle }
  }

  it('go upstream at once where all of them read', async () => {
    const { client, methods, responses } = await start()
    client.write(send('GET') + send('HEAD') + send('GET'))
    await expect.poll(() => methods.toSorted()).toEqual(['GET', 'GET', 'HEAD'])
    for (const response of responses.toReversed()) response.end()
    await client.until(/(?:HTTP\/1\.1 200[^]*){3}/)
  })

  it('go upstream one by one from the first that changes something', async () => {
    const { client, methods, responses, settle } = await start()
    const all = ['GET', 'PUT', 'GET', 'DELETE', 'GET']
    client.write(all.map((method) => send(method)).join(''))
    for (let count = 1; count <= all.length; count++) {
      await expect.poll(() => methods).toEqual(all.slice(0, count))
      await settle()
      expect(methods).toHaveLength(count)
      responses.at(-1)!.end()
    }
    await client.until(/(?:HTTP\/1\.1 200[^]*){5}/)
    client.write(send('POST'))
    await expect.poll(() => methods).toHaveLength(6)
  })

  it('are not taken for the one before where their bytes are no HTTP', async () => {
    const { client, gateway, methods } = await start()
    client.write(send('PUT'))
    await expect.poll(() => methods).toEqual(['PUT'])
    client.write(`${send('POST').split('Content-Length')[0]}Transfer-Encoding: chunked\r\n\r\nzz\r\n`)
    expect(await client.closed()).toBe('')
    await expect.poll(() => gateway.lines).toMatchObject([{ method: 'PUT', outcome: 'client_gone' }])
  })

  it('are not sent where their client leaves before their turn', async () => {
    const { client, gateway, methods, settle } = await start()
    client.write(send('PUT') + send('POST'))
    await expect.poll(() => methods).toEqual(['PUT'])
    client.socket.destroy()
    await expect.poll(() => gateway.lines).toMatchObject([{ method: 'PUT', outcome: 'client_gone' }])
    await settle()
    expect(methods).toEqual(['PUT'])
  })
})

/** An upstream that answers every request with these bytes. */
async function startRaw(answer: string): Promise<string> {
  const server = createTcpServer((socket) => {
    socket.on('error', () => undefined)
    socket.on('data', () => socket.write(answer))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void server.close())
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`
}

/** An upstream that answers with so many bytes, as fast as they are taken. */
async function startFlood(total: number): Promise<{ readonly url: string; readonly sent: number }> {
  const piece = Buffer.alloc(1_048_576)
  let sent = 0
  const url = await startServer((_, response) => {
    let left = total
    const push = (): void => {
      while (left > 0) {
        left -= piece.length
        sent += piece.length
        if (!response.write(piece)) return void response.once('drain', push)
      }
      response.end()
    }
    push()
  })
  return {
    url,
    get sent() {
      return sent
    },
  }
}

/** The waits for a client that takes nothing; the ledger's renewals are shorter. */
function idle(clock: SimulatedClock): readonly number[] {
  return clock.waits.filter((ms) => ms === 300_000)
}

describe('interim responses', () => {
  const receivedFor = (request: string): Promise<string> =>
    startUpstream((_, response) =>
      response.writeEarlyHints({ link: '</style.css>; rel=preload', 'x-hint': 'one' }, () => response.end('done')),
    ).then(async ({ url }) => {
      const gateway = await startGateway(harnessConfig(url))
      const client = await RawClient.connect(gateway.url)
      client.write(request)
      return client.until(/done/)
    })

  it('are passed on before the response', async () => {
    const received = await receivedFor(`GET /harness/ng/api/projects HTTP/1.1\r\nHost: x\r\n\r\n`)
    expect(received).toMatch(/^HTTP\/1\.1 103 Early Hints\r\n[^]*x-hint: one\r\n[^]*\r\n\r\nHTTP\/1\.1 200 OK/)
  })

  it('are kept from clients that do not know them', async () => {
    expect(await receivedFor(`GET /harness/ng/api/projects HTTP/1.0\r\nHost: x\r\n\r\n`)).toMatch(/^HTTP\/1\.1 200 OK/)
  })
})

describe('an upstream that leads back to the gateway', () => {
  it('gets a call a few times and not for ever', async () => {
    const configFor = (url: string) => harnessConfig(url, { limits: { read: [] }, retry: { retries: 0 } })
    const gateway = await startGateway(configFor('http://127.0.0.1:1'))
    await gateway.reloadWith(configFor(`${gateway.url}/harness`))
    const { status, body } = await call(gateway.url, '/harness/ng/api/projects')
    expect(status).toBe(400)
    expect(body).toContain('leads back to this gateway')
    expect(gateway.lines.length).toBeLessThan(20)
  })

  it('is not taken for a chain of gateways and balancers', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const via = Array.from({ length: 8 }, () => '1.1 sluice').join(', ')
    expect((await call(gateway.url, '/harness/ng/api/projects', { headers: { via } })).status).toBe(200)
  })
})
