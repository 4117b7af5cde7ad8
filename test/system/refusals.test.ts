import { once } from 'node:events'
import { createServer as createTcpServer } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { deadPort } from '../support/find-redis.ts'
import { type Answer, call, open, RawClient } from '../support/http.ts'
import { harnessConfig, startGateway, startServer, startUpstream } from '../support/gateway.ts'

describe('a refusal', () => {
  it('is read to its end by a client that is still sending, and nothing after it on that connection is served', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const client = await RawClient.connect(gateway.url)
    client.socket.pause()
    client.write('PUT /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n')
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'unknown_upstream' }])
    // To a connection that is closed already this would be answered by a reset, and the refusal be lost.
    for (let i = 0; i < 3; i++) {
      client.write('x'.repeat(100_000))
      await new Promise((resolve) => void setTimeout(resolve, 20))
    }
    client.write('GET /harness/ng/api/projects HTTP/1.1\r\nHost: x\r\n\r\n')
    await new Promise((resolve) => void setTimeout(resolve, 20))
    client.socket.resume()
    const answer = await client.closed()
    expect(answer).toMatch(/^HTTP\/1\.1 404 [^]*UNKNOWN_UPSTREAM/)
    expect(answer).not.toContain('200 OK')
    expect(upstream.seen).toEqual([])
  })
})

function expectRefusal(answer: Answer, status: number, kind: string, code: string): void {
  expect(answer.status).toBe(status)
  expect(answer.headers['x-sluice-error']).toBe(kind)
  expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
  const body = answer.json()
  expect(body).toMatchObject({ status: 'ERROR', code, correlationId: answer.headers['x-correlation-id'] })
  expect(body.responseMessages).toEqual([{ code, level: 'ERROR', message: body.message, failureTypes: [] }])
  expect(body.detailedMessage).toBe(body.message)
}

describe('a refusal', () => {
  it('has the shape that Harness clients parse, and is an RFC 9457 problem for those who prefer that', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const path = '/harness/ng/api/projects?accountIdentifier=other'
    expectRefusal(await call(gateway.url, path), 403, 'account_mismatch', 'ACCOUNT_MISMATCH')
    expectRefusal(
      await call(gateway.url, path, { headers: { accept: 'application/json, text/plain, */*' } }),
      403,
      'account_mismatch',
      'ACCOUNT_MISMATCH',
    )
    const problem = await call(gateway.url, path, {
      headers: { accept: 'application/problem+json, application/json;q=0.5' },
    })
    expect(problem.headers['content-type']).toBe('application/problem+json')
    expect(problem.json()).toMatchObject({
      status: 403,
      title: 'Forbidden',
      code: 'ACCOUNT_MISMATCH',
      type: 'about:blank',
    })
    expect(problem.json()).toMatchObject({ detail: expect.stringMatching(/: send acct1234 instead$/) })
    const head = await call(gateway.url, path, { method: 'HEAD' })
    expect(head).toMatchObject({ status: 403, body: '' })
    expect(upstream.seen).toEqual([])
  })

  it('is a problem by default for an upstream whose API speaks that dialect', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway({
      ...harnessConfig(upstream.url),
      upstreams: { everruns: { preset: 'everruns', url: upstream.url, accounts: { main: { id: 'org1' } } } },
    })
    const answer = await call(gateway.url, '/everruns/v1/agents', { headers: { 'x-org-id': 'org2' } })
    expect(answer).toMatchObject({ status: 403 })
    expect(answer.headers['content-type']).toBe('application/problem+json')
  })

  it('takes over the client’s correlation id if it is one, and makes one if it is not', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    const idOf = async (headers: Record<string, string>) =>
      (await call(gateway.url, '/nowhere', { headers })).headers['x-correlation-id']
    expect(await idOf({ 'x-correlation-id': 'abc-1' })).toBe('abc-1')
    expect(await idOf({ 'x-request-id': 'req-1' })).toBe('req-1')
    expect(await idOf({ 'x-correlation-id': 'c', 'x-request-id': 'r' })).toBe('c')
    expect(await idOf({ 'x-correlation-id': 'x'.repeat(128) })).toBe('x'.repeat(128))
    for (const bad of ['x'.repeat(129), 'a b', 'ü', '']) {
      expect(await idOf({ 'x-correlation-id': bad })).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-/)
    }
  })
})

describe('refused before anything is sent', () => {
  it('for an account that can’t be used, with those that can', async () => {
    const accounts = { prod: { id: 'acct1' }, stage: { id: 'acct2' }, test: { id: 'acct3' } }
    const clients = { bot: { keys: [hashKey('k')], accounts: ['harness/prod', 'harness/stage'] } }
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1', { accounts }, { clients }))
    const refusalOf = async (account: string): Promise<unknown> => {
      const headers = { 'x-sluice-key': 'k', 'x-sluice-account': account }
      return (await call(gateway.url, '/harness/ng/api/projects', { headers })).json().message
    }
    const instead = 'of harness: X-Sluice-Account may be prod (acct1), stage (acct2)'
    expect(await refusalOf('test')).toBe(`the client bot may not use the account "test" ${instead}`)
    expect(await refusalOf('nope')).toBe(`there is no account "nope" ${instead.replace('of', 'at')}`)
  })

  it.each([
    ['an unknown upstream', '/nowhere/x', {}, 404, 'unknown_upstream', 'UNKNOWN_UPSTREAM'],
    ['the root', '/', {}, 404, 'unknown_upstream', 'UNKNOWN_UPSTREAM'],
    [
      'a claim of another account in the path',
      '/harness/ng/api/accounts/other/x',
      {},
      403,
      'account_mismatch',
      'ACCOUNT_MISMATCH',
    ],
    ['a claim behind a parameter', '/harness/pkg;a=b/other/x', {}, 403, 'account_mismatch', 'ACCOUNT_MISMATCH'],
    [
      'a claim in a header',
      '/harness/ng/api/x',
      { 'x-tenant-id': 'other' },
      403,
      'account_mismatch',
      'ACCOUNT_MISMATCH',
    ],
    [
      'a claim behind a true one',
      '/harness/ng/api/x?accountId=acct1234&accountId=other',
      {},
      403,
      'account_mismatch',
      'ACCOUNT_MISMATCH',
    ],
    [
      'an unknown account',
      '/harness/ng/api/x',
      { 'x-sluice-account': 'nope' },
      400,
      'invalid_request',
      'INVALID_REQUEST',
    ],
    [
      'a wish that can’t be read',
      '/harness/ng/api/x',
      { 'x-sluice-max-wait': 'soon' },
      400,
      'invalid_request',
      'INVALID_REQUEST',
    ],
    ['dot segments', '/harness/ng/api/../../x', {}, 400, 'invalid_request', 'INVALID_REQUEST'],
    ['encoded dot segments', '/harness/ng/api/%2e%2E/x', {}, 400, 'invalid_request', 'INVALID_REQUEST'],
    [
      'dot segments between encoded slashes',
      '/harness/ng/api/x%2f..%2fy',
      {},
      400,
      'invalid_request',
      'INVALID_REQUEST',
    ],
    ['dot segments behind a backslash', '/harness/ng/api\\..\\x', {}, 400, 'invalid_request', 'INVALID_REQUEST'],
    ['dot segments with a parameter', '/harness/ng/api/..;/x', {}, 400, 'invalid_request', 'INVALID_REQUEST'],
    ['encoded ones with one', '/harness/ng/api/%2e%2E;a=b/x', {}, 400, 'invalid_request', 'INVALID_REQUEST'],
    ['dot segments before a NUL', '/harness/ng/api/..%00/x', {}, 400, 'invalid_request', 'INVALID_REQUEST'],
    ['a fragment', '/harness/ng/api/projects#/list', {}, 400, 'invalid_request', 'INVALID_REQUEST'],
    ['a fragment in the query', '/harness/ng/api/projects?a=b#c', {}, 400, 'invalid_request', 'INVALID_REQUEST'],
    ['a broken percent-encoding', '/harness/ng/%zz', {}, 400, 'invalid_request', 'INVALID_REQUEST'],
  ])('%s', async (_, path, headers, status, kind, code) => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    expectRefusal(await call(gateway.url, path, { headers: headers }), status, kind, code)
    expect(upstream.seen).toEqual([])
    expect(gateway.lines).toHaveLength(1)
    expect(gateway.lines[0]).toMatchObject({ outcome: kind, status: String(status), attempts: 0 })
  })

  it('shows in the metrics of calls, and in none of what it did not come to', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    await call(gateway.url, '/nowhere/x')
    await call(gateway.url, '/harness/ng/api/x?accountIdentifier=other')
    const names = (await gateway.metrics())
      .split('\n')
      .filter((line) => line.includes('account="unknown"'))
      .map((line) => line.replace(/(_total|_bucket|_sum|_count)?\{.*/, ''))
    expect([...new Set(names)].sort()).toEqual([
      'sluice_gateway_overhead_seconds',
      'sluice_request_bytes',
      'sluice_request_duration_seconds',
      'sluice_requests',
      'sluice_response_bytes',
    ])
  })

  it('a body that is declared, or turns out, too large', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url, { maxBody: 1_000 }))
    const path = '/harness/ng/api/projects/x'
    expectRefusal(
      await call(gateway.url, path, { method: 'PUT', body: 'x'.repeat(1_001) }),
      413,
      'body_too_large',
      'BODY_TOO_LARGE',
    )
    for (const method of ['PUT', 'POST']) {
      const chunked = await RawClient.connect(gateway.url)
      chunked.write(
        `${method} ${path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n${'x'.repeat(1_001)}\r\n0\r\n\r\n`,
      )
      expect(await chunked.until(/BODY_TOO_LARGE/)).toMatch(/^HTTP\/1\.1 413/)
      chunked.socket.destroy()
    }
    expect((await call(gateway.url, path, { method: 'PUT', body: 'x'.repeat(1_000) })).status).toBe(200)
    expect(upstream.seen).toHaveLength(1)
  })

  it.each([
    ['a head that is too large', `GET /harness/x HTTP/1.1\r\nHost: x\r\nX-Big: ${'x'.repeat(20_000)}\r\n\r\n`],
    ['a request line that is too large', `GET /harness/${'x'.repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`],
    ['no HTTP', 'HELO example\r\n\r\n'],
    [
      'a length and a transfer coding',
      'POST /harness/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['two lengths', 'POST /harness/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc'],
    ['a length that is no number', 'POST /harness/x HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc'],
    ['a broken field name', 'GET /harness/x HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n'],
    ['a folded field', 'GET /harness/x HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n 2\r\n\r\n'],
    ['bare line feeds', 'GET /harness/x HTTP/1.1\nHost: x\n\n'],
    ['no host', 'GET /harness/x HTTP/1.1\r\n\r\n'],
    ['two hosts', 'GET /harness/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nhost: y\r\n\r\n'],
    ['one host twice', 'GET /harness/x HTTP/1.1\r\nHost: x\r\nHost: x\r\nConnection: close\r\n\r\n'],
    ['an unknown method', 'FOO /harness/x HTTP/1.1\r\nHost: x\r\n\r\n'],
    [
      'a chunk size that is no number',
      'POST /harness/ng/api/projects/list HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    ],
  ])('%s', async (_, bytes) => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    const client = await RawClient.connect(gateway.url)
    client.write(bytes)
    const answer = await client.closed()
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    expect(upstream.seen).toEqual([])
  })

  it.each([
    ['an expectation that can’t be met', 'GET /harness/x HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n', 'Expect'],
    ['a target that is no path', 'OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n', 'neither a path nor an http URL'],
    ['a target without a host', 'GET http:///x HTTP/1.1\r\nHost: x\r\n\r\n', 'neither a path nor an http URL'],
    ['a broken percent-encoding', 'GET /harness/%zz HTTP/1.1\r\nHost: x\r\n\r\n', 'two hex digits'],
  ])('%s, with the reason, a log line and a count', async (_, bytes, reason) => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    const client = await RawClient.connect(gateway.url)
    client.write(bytes)
    const answer = await client.until(/INVALID_REQUEST/)
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\nX-Sluice-Error: invalid_request\r\n/)
    expect(answer).toContain(reason)
    expect(gateway.lines).toMatchObject([{ outcome: 'invalid_request', status: '400' }])
    expect(await gateway.metrics()).toContain('status="400",outcome="invalid_request"} 1')
    client.socket.destroy()
  })

  it('a head that is too large, in the gateway’s own words', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:1'))
    const client = await RawClient.connect(gateway.url)
    client.write(`GET /harness/x HTTP/1.1\r\nHost: x\r\nX-Big: ${'x'.repeat(20_000)}\r\n\r\n`)
    const [head = '', body = ''] = (await client.closed()).split('\r\n\r\n')
    expect(head).toMatch(/X-Sluice-Error: invalid_request\r\n/)
    expect(head).toMatch(/X-Correlation-Id: [0-9a-f-]{36}/)
    expect(head).toMatch(/Connection: close/)
    expect(JSON.parse(body)).toMatchObject({ code: 'INVALID_REQUEST', status: 'ERROR' })
  })
})

describe('client keys', () => {
  async function setUp(rest: object = {}) {
    const upstream = await startUpstream()
    const config = harnessConfig(upstream.url, {
      accounts: {
        prod: { id: 'acct1234', credential: { value: 'pat.acct1234.a.prodsecret' } },
        staging: { id: 'acct5678', credential: { value: 'pat.acct5678.a.stagingsecret' } },
      },
    })
    const gateway = await startGateway({
      ...config,
      ...rest,
      clients: {
        reader: { keys: [hashKey('reader-key')], accounts: ['harness/prod'], classes: ['read'] },
        admin: { keys: [hashKey('admin-key'), hashKey('admin-key-2')] },
        nowhere: { keys: [hashKey('nowhere-key')], networkAccess: { blocked: ['127.0.0.1'] } },
      },
    })
    const get = (headers: Record<string, string>, path = '/harness/ng/api/projects', method = 'GET') =>
      call(gateway.url, path, { headers, method })
    return { upstream, gateway, get }
  }

  it('are taken from X-Sluice-Key, Authorization or the header of the upstream’s own key', async () => {
    const { gateway, get, upstream } = await setUp()
    for (const headers of [
      { 'x-sluice-key': 'reader-key' },
      { authorization: 'Bearer reader-key' },
      { authorization: 'bearer  reader-key' },
      { 'x-api-key': 'reader-key' },
      { 'x-api-key': 'wrong', authorization: 'Bearer reader-key' },
      { 'x-sluice-key': 'reader-key', 'x-api-key': 'pat.something.of.theirs' },
    ]) {
      expect((await get(headers)).status, JSON.stringify(headers)).toBe(200)
    }
    expect(
      upstream.seen.every(
        ({ headers }) => headers['x-api-key'] === 'pat.acct1234.a.prodsecret' && headers.authorization === undefined,
      ),
    ).toBe(true)
    expect(gateway.lines.every(({ client }) => client === 'reader')).toBe(true)
    expect((await get({ 'x-sluice-key': 'admin-key-2', 'x-sluice-account': 'prod' })).status).toBe(200)
  })

  it.each([
    ['none', {}],
    ['a wrong one', { 'x-api-key': 'wrong' }],
    ['the upstream’s own', { 'x-api-key': 'pat.acct1234.a.prodsecret' }],
    ['the hash', { 'x-sluice-key': hashKey('reader-key') }],
    ['a wrong one beside a right one', { 'x-sluice-key': 'wrong', 'x-api-key': 'reader-key' }],
  ])('are wanted: %s is refused', async (_, headers) => {
    const { get, upstream } = await setUp()
    const answer = await get(headers)
    expectRefusal(answer, 401, 'unauthenticated', 'INVALID_TOKEN')
    expect(answer.headers['www-authenticate']).toBe('Bearer realm="sluice"')
    expectRefusal(await get(headers, '/nowhere'), 401, 'unauthenticated', 'INVALID_TOKEN')
    expect(upstream.seen).toEqual([])
  })

  it.each([
    ['no key', {}, /^no client key: /],
    ['an unknown key', { 'x-api-key': 'wrong' }, /^unknown client key in x-api-key: /],
  ])('can be traced by the log where a call has %s', async (_, headers, reason) => {
    const { get, gateway } = await setUp({ defaultUpstream: 'harness' })
    const paths = [
      ['/harness/ng/api/projects?a=b', '/harness/ng/api/projects'],
      ['/ng/api/projects', '/ng/api/projects'],
      ['/gateway/pipeline/api/webhook/custom/tok/v3', '/pipeline/api/webhook/custom/[redacted]/v3'],
    ]
    for (const [path] of paths) expect((await get(headers, path, 'POST')).json().message).toMatch(reason)
    expect(gateway.lines.map(({ path }) => path)).toEqual(paths.map(([, logged]) => logged))
    for (const line of gateway.lines) {
      expect(line).toMatchObject({ address: '127.0.0.1', client: 'unknown', reason: expect.stringMatching(reason) })
    }
  })

  it('limit a client to its accounts, classes and addresses', async () => {
    const { get, upstream } = await setUp()
    const reader = { 'x-sluice-key': 'reader-key' }
    expectRefusal(await get(reader, '/harness/ng/api/projects', 'POST'), 403, 'forbidden', 'ACCESS_DENIED')
    expectRefusal(await get({ ...reader, 'x-sluice-account': 'staging' }), 403, 'forbidden', 'ACCESS_DENIED')
    expectRefusal(
      await get(reader, '/harness/ng/api/projects?accountIdentifier=acct5678'),
      403,
      'account_mismatch',
      'ACCOUNT_MISMATCH',
    )
    expectRefusal(
      await get({ 'x-sluice-key': 'nowhere-key', 'x-sluice-account': 'prod' }),
      403,
      'forbidden',
      'ACCESS_DENIED',
    )
    expect(upstream.seen).toEqual([])
  })

  it('keep a client from a blocked address, however it writes it', async () => {
    const upstream = await startUpstream()
    const networkAccess = { blocked: [`${upstream.url}/ng/api/secrets`] }
    const clients = { bot: { keys: [hashKey('bot-key')], networkAccess } }
    const gateway = await startGateway(harnessConfig(upstream.url, {}, { clients }))
    const get = (path: string) => call(gateway.url, path, { headers: { 'x-sluice-key': 'bot-key' } })
    for (const path of ['/ng/api/secrets', '/ng/api/%73ecrets/x', '/ng//api/./secrets', '/gateway/ng/api/secrets']) {
      expectRefusal(await get(`/harness${path}`), 403, 'forbidden', 'ACCESS_DENIED')
    }
    expect((await get('/harness/ng/api/secretsettings')).status).toBe(200)
    expect(upstream.seen).toHaveLength(1)
  })

  it('let a client of several accounts choose one by name or by a claim, and not guess', async () => {
    const { get, upstream } = await setUp()
    const admin = { 'x-sluice-key': 'admin-key' }
    expectRefusal(await get(admin), 400, 'invalid_request', 'INVALID_REQUEST')
    expect((await get({ ...admin, 'x-sluice-account': 'staging' })).status).toBe(200)
    expect((await get(admin, '/harness/ng/api/projects?accountIdentifier=acct5678')).status).toBe(200)
    const mistaken = await get(admin, '/harness/ng/api/projects?accountIdentifier=Zzz')
    expectRefusal(mistaken, 403, 'account_mismatch', 'ACCOUNT_MISMATCH')
    expect(mistaken.json().message).toContain('names account Zzz, which is none of prod (acct1234), staging (acct5678)')
    expectRefusal(await get(admin, '/nowhere'), 404, 'unknown_upstream', 'UNKNOWN_UPSTREAM')
    expect(upstream.seen.map(({ headers }) => headers['harness-account'])).toEqual(['acct5678', 'acct5678'])
  })
})

describe('an upstream that fails', () => {
  it('is unreachable: nothing was sent', async () => {
    const gateway = await startGateway(harnessConfig(`http://127.0.0.1:${await deadPort()}`, { retry: { retries: 0 } }))
    expectRefusal(await call(gateway.url, '/harness/ng/api/projects'), 502, 'unreachable', 'UPSTREAM_UNREACHABLE')
  })

  it('breaks the connection before it answers', async () => {
    const url = await startServer((request) => request.socket.resetAndDestroy())
    const gateway = await startGateway(harnessConfig(url, { retry: { retries: 0 } }))
    expectRefusal(await call(gateway.url, '/harness/ng/api/projects'), 502, 'interrupted', 'UPSTREAM_RESET')
  })

  it('answers nonsense', async () => {
    const server = createTcpServer((socket) =>
      socket.once('data', () => socket.end('what?\r\n\r\n')).on('error', () => undefined),
    )
    await once(server.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => void server.close())
    const url = `http://127.0.0.1:${(server.address() as { port: number }).port}`
    const gateway = await startGateway(harnessConfig(url, { retry: { retries: 0 } }))
    expectRefusal(await call(gateway.url, '/harness/ng/api/projects'), 502, 'interrupted', 'UPSTREAM_RESET')
  })

  it('does not answer in time', async () => {
    let gone: Promise<unknown> | undefined
    const url = await startServer((_, response) => void (gone = once(response, 'close')))
    const gateway = await startGateway(harnessConfig(url, { timeouts: { headers: '150ms' } }))
    expectRefusal(await call(gateway.url, '/harness/ng/api/projects'), 504, 'timeout', 'UPSTREAM_TIMEOUT')
    await gone
  })

  it('stops in the middle of the body', async () => {
    const url = await startServer(
      (_, response) => void response.writeHead(200, { 'content-length': '100' }).write('start'),
    )
    const gateway = await startGateway(harnessConfig(url, { timeouts: { idle: '200ms' } }))
    const incoming = await open(gateway.url, '/harness/ng/api/projects')
    await expect(incoming.toArray()).rejects.toThrow(/aborted/)
    expect(gateway.lines[0]).toMatchObject({ outcome: 'broken_off' })
  })

  it('is not waited for when the client’s body does not come', async () => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url, { timeouts: { idle: '150ms' } }))
    for (const [path, length] of [
      ['projects/list', 10],
      ['file-store', 5_000_000],
    ]) {
      const client = await RawClient.connect(gateway.url)
      client.write(`POST /harness/ng/api/${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\nabc`)
      expect(await client.until(/INVALID_REQUEST/)).toMatch(/^HTTP\/1\.1 400/)
      client.socket.destroy()
    }
  })
})
