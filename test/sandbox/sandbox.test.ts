import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { type EpochMs, systemClock } from '../../src/time/clock.ts'
import { type Sandbox, type SandboxOptions, startSandbox } from '../../src/sandbox/sandbox.ts'
import { ask, begin, TOKEN } from './ask.ts'

const running: Sandbox[] = []

async function start(options?: SandboxOptions): Promise<Sandbox> {
  const sandbox = await startSandbox(options)
  running.push(sandbox)
  return sandbox
}

afterEach(async () => {
  await Promise.all(running.splice(0).map((sandbox) => sandbox.stop()))
})

describe('the rolling limits', () => {
  test('never let more than 20 into any 300 ms, and refuse nothing for which there is room', async () => {
    let now = 1_000
    const clock = { ...systemClock, now: () => now }
    const sandbox = await start({ clock, limits: { read: { requests: 20, windowMs: 300 } } })
    await hammer(sandbox.url, 240, () => (now += 5))

    const seen = sandbox.seen()
    const accepted = seen.filter(({ status }) => status === 200).map(({ at }) => at)
    expect(accepted.length).toBeGreaterThan(20)
    expect(Math.max(...accepted.map((at) => countUpTo(accepted, at)))).toBe(20)
    const refused = seen.filter(({ status }) => status === 429)
    expect(refused.length).toBeGreaterThan(0)
    expect(new Set(refused.map(({ at }) => countUpTo(accepted, at)))).toEqual(new Set([20]))

    const all = seen.map(({ at }) => at)
    expect(sandbox.counts().accounts['acct1']!.read).toEqual({
      accepted: accepted.length,
      throttled: refused.length,
      worst: Math.max(...all.map((at) => countUpTo(all, at))),
      limit: 20,
      windowMs: 300,
    })
  })

  test('charge a template request to template and to read', async () => {
    const sandbox = await start()
    await ask(sandbox.url, { path: '/gateway/template/api/templates/t1' })
    expect(sandbox.seen()).toMatchObject([{ class: 'template', charges: ['template', 'read'] }])
    expect(sandbox.counts().accounts['acct1']).toMatchObject({
      template: { accepted: 1, worst: 1, limit: 100 },
      read: { accepted: 1, worst: 1, limit: 1_000 },
    })
  })

  test('refuse as Harness does, without Retry-After', async () => {
    const sandbox = await start({ limits: { read: { requests: 1, windowMs: 60_000 } } })
    await ask(sandbox.url)
    const refusal = await ask(sandbox.url)
    expect(refusal.status).toBe(429)
    expect(refusal.headers).not.toHaveProperty('retry-after')
    expect(refusal.json).toMatchObject({ status: 'ERROR', code: 'TOO_MANY_REQUESTS', message: 'Too many requests' })
  })

  test('say when to come back in the dialect that was chosen', async () => {
    let now = Date.UTC(2026, 0, 1, 12)
    const clock = { ...systemClock, now: () => now - 1_000_000, wall: () => now as EpochMs }
    const sandbox = await start({ clock, retryAfter: 'seconds', limits: { read: { requests: 1, windowMs: 60_000 } } })
    await ask(sandbox.url)
    now += 100
    expect((await ask(sandbox.url)).headers['retry-after']).toBe('60')
    sandbox.setRetryAfter('date')
    expect((await ask(sandbox.url)).headers['retry-after']).toBe('Thu, 01 Jan 2026 12:01:00 GMT')
    now += 59_900
    expect((await ask(sandbox.url)).status).toBe(200)
  })
})

describe('accounts', () => {
  test.each<[string, string, Record<string, string>, string]>([
    ['the token', '/ng/api/projects?accountIdentifier=other', { 'x-api-key': 'sat.acct2.id.secret' }, 'acct2'],
    ['the bearer token of SCIM', '/ng/api/scim/account/a/Users', { authorization: `Bearer ${TOKEN}` }, 'acct1'],
    ['the header', '/ng/api/webhook?accountIdentifier=other', { 'Harness-Account': 'acct3' }, 'acct3'],
    ['the query', '/ng/api/webhook?accountIdentifier=acct%34', {}, 'acct4'],
    ['nothing', '/ng/api/webhook', {}, 'unknown'],
  ])('are told by %s', async (_, path, headers, account) => {
    const sandbox = await start()
    const method = path.startsWith('/ng/api/webhook') ? 'POST' : 'GET'
    expect((await ask(sandbox.url, { method, path, headers })).status).toBe(200)
    expect(sandbox.seen()).toMatchObject([{ account }])
  })

  test.each<[string, string, Record<string, string>]>([
    ['without a token', '/ng/api/projects', {}],
    ['with a token of another form', '/ng/api/projects', { 'x-api-key': 'pat.id.secret' }],
    ['with a token where it does not belong', '/ng/api/projects', { authorization: `Bearer ${TOKEN}` }],
    ['for SCIM without a bearer token', '/ng/api/scim/account/a/Users', { 'x-api-key': TOKEN }],
  ])('are not charged for requests %s, which get a 401', async (_, path, headers) => {
    const sandbox = await start()
    const { status, json } = await ask(sandbox.url, { path, headers: { 'Harness-Account': 'acct1', ...headers } })
    expect(status).toBe(401)
    expect(json).toEqual({
      status: 'ERROR',
      code: 'INVALID_TOKEN',
      message: expect.any(String),
      correlationId: expect.any(String),
      detailedMessage: null,
      responseMessages: [expect.objectContaining({ code: 'INVALID_TOKEN', level: 'ERROR' })],
      metadata: null,
    })
    expect(sandbox.counts()).toMatchObject({ totals: { requests: 1, unauthenticated: 1, accepted: 0 }, accounts: {} })
  })

  test('are answered under the correlation id that they came with', async () => {
    const sandbox = await start()
    const headers = { 'x-api-key': TOKEN, 'x-correlation-id': 'c-1' }
    const { json } = await ask(sandbox.url, { path: '/ng/api/projects', headers })
    expect(json).toMatchObject({ status: 'SUCCESS', correlationId: 'c-1' })
    sandbox.setFaults({ status: 503 })
    const failed = await ask(sandbox.url, { path: '/ng/api/projects', headers })
    expect(failed.json).toMatchObject({ status: 'ERROR', correlationId: 'c-1' })
  })

  test('need no token for webhooks, which have a limit of their own', async () => {
    const sandbox = await start()
    const path = '/pipeline/api/webhook/custom/token/v3?accountIdentifier=acct1'
    expect((await ask(sandbox.url, { method: 'POST', path, headers: {} })).status).toBe(200)
    expect(sandbox.counts().accounts).toMatchObject({ acct1: { webhook: { accepted: 1, limit: 500 } } })
  })
})

describe('answers', () => {
  const project = expect.objectContaining({ project: expect.objectContaining({ identifier: expect.any(String) }) })

  test.each<[string, string, string, number, unknown]>([
    [
      'GET',
      '/ng/api/projects',
      '',
      200,
      expect.objectContaining({ totalItems: 3, pageIndex: 0, content: expect.arrayContaining([project]) }),
    ],
    ['GET', '/ng/api/projects?pageIndex=1', '', 200, expect.objectContaining({ pageIndex: 1, content: [] })],
    [
      'POST',
      '/pipeline/api/pipelines/list',
      '',
      200,
      expect.objectContaining({
        totalPages: 1,
        content: expect.arrayContaining([expect.objectContaining({ identifier: 'pipeline_1', name: 'pipeline_1' })]),
      }),
    ],
    ['GET', '/pipeline/api/pipelines/summary/pipeline_1', '', 200, expect.objectContaining({ name: 'pipeline_1' })],
    ...['/', '/v2/'].map((infix): [string, string, string, number, unknown] => [
      'GET',
      `/pipeline/api/pipelines${infix}pipeline_1`,
      '',
      200,
      {
        yamlPipeline: expect.stringContaining('identifier: "pipeline_1"'),
        pipeline: expect.objectContaining({ identifier: 'pipeline_1', name: 'pipeline_1' }),
      },
    ]),
    [
      'POST',
      '/pipeline/api/pipelines/v2',
      'pipeline:\n  name: Build it\n  identifier: build\n',
      200,
      expect.objectContaining({ identifier: 'build', name: 'Build it' }),
    ],
    [
      'POST',
      '/pipeline/api/pipelines/execution/summary',
      '',
      200,
      expect.objectContaining({ content: expect.arrayContaining([expect.objectContaining({ status: 'Success' })]) }),
    ],
    ...['/v2/', '/'].map((infix): [string, string, string, number, unknown] => [
      'GET',
      `/pipeline/api/pipelines/execution${infix}execution_1`,
      '',
      200,
      expect.objectContaining({
        pipelineExecutionSummary: expect.objectContaining({ planExecutionId: 'execution_1', status: 'Success' }),
      }),
    ]),
    ['GET', '/template/api/templates/template_1', '', 200, expect.objectContaining({ identifier: 'template_1' })],
    [
      'GET',
      '/ng/api/servicesV2/service_1',
      '',
      200,
      expect.objectContaining({ service: expect.objectContaining({ name: 'service_1' }) }),
    ],
    [
      'GET',
      '/ng/api/projects/p1',
      '',
      200,
      expect.objectContaining({ project: expect.objectContaining({ identifier: 'p1' }) }),
    ],
    ['POST', '/ng/api/connectors/listV2', '{}', 200, expect.objectContaining({ totalPages: 1 })],
    [
      'POST',
      '/ng/api/projects',
      '{"project":{"identifier":"p2"}}',
      200,
      expect.objectContaining({ project: { identifier: 'p2', name: 'p2' } }),
    ],
    [
      'PUT',
      '/ng/api/projects/p2',
      '{"project":{"name":"P"}}',
      200,
      expect.objectContaining({ project: { identifier: 'p2', name: 'P' } }),
    ],
    [
      'POST',
      '/ng/api/servicesV2',
      '{"identifier":"s1","name":"S"}',
      200,
      expect.objectContaining({ service: { identifier: 's1', name: 'S' } }),
    ],
    ['DELETE', '/ng/api/projects/p2', '', 200, true],
    [
      'POST',
      '/pipeline/api/pipeline/execute/pipeline_1',
      'a: 1',
      200,
      { planExecution: expect.objectContaining({ uuid: expect.any(String) }) },
    ],
    ['POST', '/ng/api/file-store', 'not json', 200, null],
  ])('%s %s %s has the shape of Harness’s', async (method, path, body, status, data) => {
    const { url } = await start()
    const answer = await ask(url, { method, path, body })
    expect(answer.status).toBe(status)
    expect(answer.json).toEqual({
      status: 'SUCCESS',
      data,
      metaData: null,
      correlationId: answer.headers['x-request-id'],
    })
  })

  const times = { created: expect.any(Number), updated: expect.any(Number) }
  const org = { org: expect.objectContaining({ identifier: 'org_1', name: 'org_1' }), ...times }
  const PIPELINES = '/v1/orgs/o/projects/p/pipelines'

  test.each<[string, string, string, number, unknown]>([
    ['GET', '/v1/orgs', '', 200, expect.arrayContaining([org])],
    ['GET', '/v1/orgs?page=1', '', 200, []],
    ['GET', '/v1/orgs/org_1', '', 200, org],
    ['POST', '/v1/orgs', '{"org":{"identifier":"o"}}', 201, { org: { identifier: 'o', name: 'o' }, ...times }],
    ['PUT', '/v1/orgs/o', '{"org":{"name":"O"}}', 200, { org: { identifier: 'o', name: 'O' }, ...times }],
    ['DELETE', '/v1/orgs/org_1', '', 200, org],
    ['GET', '/v1/roles/r', '', 200, expect.objectContaining({ identifier: 'r', name: 'r', ...times })],
    ['GET', PIPELINES, '', 200, expect.arrayContaining([expect.objectContaining({ identifier: 'pipeline_1' })])],
    [
      'GET',
      `${PIPELINES}/pipeline_1`,
      '',
      200,
      expect.objectContaining({
        identifier: 'pipeline_1',
        name: 'pipeline_1',
        pipeline_yaml: expect.stringContaining('identifier: "pipeline_1"'),
      }),
    ],
    [
      'POST',
      PIPELINES,
      '{"identifier":"b","name":"B","pipeline_yaml":"pipeline: {}"}',
      201,
      expect.objectContaining({ identifier: 'b', name: 'B' }),
    ],
    ['DELETE', `${PIPELINES}/pipeline_1`, '', 204, undefined],
    [
      'POST',
      `${PIPELINES}/pipeline_1/execute`,
      '{}',
      200,
      { execution_details: { execution_id: expect.any(String), status: 'RUNNING' } },
    ],
  ])('%s %s %s has no envelope, as in the vendor’s v1', async (method, path, body, status, content) => {
    const { url } = await start()
    const answer = await ask(url, { method, path, body })
    expect([answer.status, answer.json]).toEqual([status, content])
    if (!Array.isArray(answer.json)) return
    expect(answer.headers).toMatchObject({ 'x-total-elements': '3', 'x-page-size': '30' })
  })

  test.each(['/ng/api/projects', '/v1/orgs'])('say to broken JSON for %s that it is broken', async (path) => {
    const { url } = await start()
    const { status, json } = await ask(url, { method: 'POST', path, body: '{"project":{"identifier":"p"' })
    expect(status).toBe(400)
    expect(json).toMatchObject({ status: 'ERROR', code: 'INVALID_REQUEST', message: expect.stringContaining('JSON') })
  })

  test.each([
    ['YAML that holds itself', 'pipeline: &a\n  identifier: x\n  self: *a\n'],
    [
      'JSON that is nested too deeply',
      `{"pipeline":{"identifier":"x","a":${'['.repeat(30_000)}${']'.repeat(30_000)}}}`,
    ],
  ])('refuse %s, keep nothing of it, and go on', async (_, body) => {
    const { url } = await start()
    const scope = 'orgIdentifier=o&projectIdentifier=p'
    const refused = await ask(url, { method: 'POST', path: `/pipeline/api/pipelines/v2?${scope}`, body })
    expect(refused).toMatchObject({ status: 400, json: { code: 'INVALID_REQUEST' } })
    expect((await ask(url, { path: `/pipeline/api/pipelines/x?${scope}` })).status).toBe(404)
    expect((await ask(url, { method: 'POST', path: `/pipeline/api/pipelines/list?${scope}` })).status).toBe(200)
  })

  test('take JSON that is too long to be kept', async () => {
    const { url } = await start()
    const body = JSON.stringify({ project: { identifier: 'p', description: 'x'.repeat(70_000) } })
    expect((await ask(url, { method: 'POST', path: '/ng/api/projects', body })).status).toBe(200)
  })

  test('have to HEAD the head of the GET and no body', async () => {
    const { url } = await start()
    const get = await ask(url, { path: '/ng/api/projects' })
    const head = await ask(url, { method: 'HEAD', path: '/ng/api/projects' })
    expect(head).toMatchObject({ status: 200, body: '' })
    expect(head.headers['content-length']).toBe(get.headers['content-length'])
  })
})

describe('what was seen', () => {
  test('is the request target byte for byte, and the headers as sent', async () => {
    const sandbox = await start()
    const path = '/gateway//ng/api/projects/a%2Fb%2fc/./x+y/?b=2&a=1+1&b=%20&&='
    await ask(sandbox.url, { path, headers: { 'X-API-Key': TOKEN, 'x-Odd-CASE': ' a  b ' } })
    const [seen] = sandbox.seen()
    expect(seen).toMatchObject({ method: 'GET', url: path, class: 'read', account: 'acct1', status: 200 })
    expect(seen!.headers['x-odd-case']).toBe('a  b')
    expect(seen!.rawHeaders.slice(0, 4)).toEqual(['X-API-Key', TOKEN, 'x-Odd-CASE', 'a  b'])
  })

  test('has length and hash of the body, however it was sent', async () => {
    const sandbox = await start()
    const sha256 = '916f0027a575074ce72a331777c3478d6513f786a591bd892da1a577bf2335f9' // of "test data"
    await ask(sandbox.url, { method: 'POST', body: 'test data' })
    await ask(sandbox.url, {
      method: 'POST',
      body: 'test data',
      headers: { 'x-api-key': TOKEN, 'transfer-encoding': 'chunked' },
    })
    await ask(sandbox.url)
    expect(sandbox.seen().map(({ bodyBytes, bodySha256 }) => [bodyBytes, bodySha256])).toEqual([
      [9, sha256],
      [9, sha256],
      [0, 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
    ])
  })

  test('shows what came of a body whose sender left', async () => {
    const sandbox = await start()
    const { hostname, port } = new URL(sandbox.url)
    const sent = request({
      hostname,
      port,
      method: 'POST',
      path: '/ng/api/projects',
      headers: { 'x-api-key': TOKEN, 'content-length': '100' },
    })
    sent.on('error', () => undefined)
    sent.write('half')
    await until(() => sandbox.seen()[0]?.bodyBytes === 4)
    sent.destroy()
    await ask(sandbox.url)
    expect(sandbox.seen(2)[0]).toMatchObject({ bodyBytes: 4, bodySha256: null, status: null })
  })

  test('is in the order of arrival, at most as many as asked for, and the latest 10,000', async () => {
    const sandbox = await start()
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    for (let i = 0; i < 10_003; i++) await ask(sandbox.url, { path: `/${i}` }, agent)
    agent.destroy()
    const urls = sandbox.seen().map(({ url }) => url)
    expect([urls.length, urls[0], urls.at(-1)]).toEqual([10_000, '/3', '/10002'])
    expect(sandbox.seen(2).map(({ url }) => url)).toEqual(['/10001', '/10002'])
    expect(sandbox.seen(0)).toEqual([])
  })

  test('is forgotten at a reset, with the counts and the windows', async () => {
    const sandbox = await start({ limits: { read: { requests: 1, windowMs: 60_000 } } })
    await ask(sandbox.url)
    expect((await ask(sandbox.url)).status).toBe(429)
    sandbox.reset()
    expect(sandbox.seen()).toEqual([])
    expect(sandbox.counts()).toMatchObject({ totals: { requests: 0, throttled: 0 }, accounts: {} })
    expect((await ask(sandbox.url)).status).toBe(200)
    expect(sandbox.counts().accounts['acct1']!.read).toMatchObject({ accepted: 1, throttled: 0, worst: 1 })
  })
})

describe('faults', () => {
  test('hold the answer back for as long as told', async () => {
    const delaysMs: number[] = []
    const schedule: typeof systemClock.schedule = (delayMs, wake) => {
      delaysMs.push(delayMs)
      return systemClock.schedule(0, wake)
    }
    const sandbox = await start({ clock: { ...systemClock, schedule }, random: () => 0.25 })
    sandbox.setFaults({ latencyMs: 70, times: 1 })
    await ask(sandbox.url)
    sandbox.setFaults({ latencyMs: { min: 100, max: 200 } })
    expect((await ask(sandbox.url)).status).toBe(200)
    expect(delaysMs).toEqual([70, 125])
  })

  test('answer with another status, which is charged like any', async () => {
    const sandbox = await start()
    sandbox.setFaults({ status: 502, times: 1 })
    const { status, json } = await ask(sandbox.url)
    expect(status).toBe(502)
    expect(json).toMatchObject({ status: 'ERROR', code: 'BAD_GATEWAY', correlationId: expect.any(String) })
    expect((await ask(sandbox.url)).status).toBe(200)
    expect(sandbox.counts().accounts['acct1']!.read).toMatchObject({ accepted: 2 })
  })

  test.each([
    [{ status: 503, retryAfter: 7 }, /^7$/],
    [{ status: 429, retryAfter: 'date' }, / GMT$/],
    [{ status: 503, retryAfter: 'none' }, undefined],
    [{ status: 429 }, /^1$/],
    [{ status: 500, retryAfter: 7 }, undefined],
  ] as const)('say with %j when to come back', async (fault, expected) => {
    const sandbox = await start({ retryAfter: 'seconds' })
    sandbox.setFaults(fault)
    const value = (await ask(sandbox.url)).headers['retry-after']
    if (expected === undefined) expect(value).toBeUndefined()
    else expect(value).toMatch(expected)
  })

  test('leave the status of a refusal alone, but not its Retry-After', async () => {
    const sandbox = await start({ limits: { read: { requests: 1, windowMs: 60_000 } } })
    sandbox.setFaults({ status: 500, retryAfter: 9 })
    expect((await ask(sandbox.url)).status).toBe(500)
    expect(await ask(sandbox.url)).toMatchObject({ status: 429, headers: { 'retry-after': '9' } })
    expect((await ask(sandbox.url, { headers: {} })).status).toBe(401)
  })

  test('reset the connection before the headers, with the request received in full', async () => {
    const sandbox = await start()
    sandbox.setFaults({ reset: 'before-headers' })
    expect(await exchange(sandbox.url, 'abc')).toEqual({ head: '', body: undefined, error: RESET })
    expect(sandbox.seen()).toMatchObject([{ bodyBytes: 3, bodySha256: expect.any(String), status: null }])
  })

  test('reset the connection after the headers', async () => {
    const sandbox = await start()
    sandbox.setFaults({ reset: 'after-headers' })
    const { head, body, error } = await exchange(sandbox.url)
    expect(head).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect([body, error]).toEqual(['', RESET])
    expect(sandbox.seen()).toMatchObject([{ status: 200 }])
  })

  test('reset the connection in the middle of the body', async () => {
    const sandbox = await start()
    sandbox.setFaults({ reset: 'mid-body' })
    const { head, body, error } = await exchange(sandbox.url)
    expect(body).toMatch(/^\{"status":"SUCCESS"/)
    expect(body!.length).toBeLessThan(Number(/content-length: (\d+)/i.exec(head)?.[1]))
    expect(error).toEqual(RESET)
  })

  test('never answer, and keep the connection', async () => {
    const sandbox = await start()
    sandbox.setFaults({ stall: 'headers', times: 1 })
    const stalled = begin(sandbox.url, {})
    await until(() => sandbox.seen().length === 1)
    await ask(sandbox.url)
    expect(sandbox.seen().map(({ status }) => status)).toEqual([null, 200])
    await sandbox.stop()
    await expect(stalled).rejects.toMatchObject({ code: 'ECONNRESET' })
  })

  test('stop in the middle of the body, and keep the connection', async () => {
    const sandbox = await start()
    sandbox.setFaults({ stall: 'body', times: 1 })
    const response = await begin(sandbox.url, { path: '/ng/api/projects' })
    const [piece] = (await once(response, 'data')) as [Buffer]
    expect(piece.length).toBeLessThan(Number(response.headers['content-length']))
    await ask(sandbox.url)
    expect(response.destroyed).toBe(false)
    response.on('error', () => undefined).destroy()
  })

  test('do not answer a client that left while it waited', async () => {
    const wakes: (() => void)[] = []
    const clock = {
      ...systemClock,
      schedule: (_: number, wake: () => void) => (wakes.push(wake), { cancel: () => undefined }),
    }
    const sandbox = await start({ clock })
    sandbox.setFaults({ latencyMs: 1_000, times: 1 })
    const socket = connect(Number(new URL(sandbox.url).port), '127.0.0.1')
    socket.write(`GET /ng/api/projects HTTP/1.1\r\nHost: x\r\nX-Api-Key: ${TOKEN}\r\n\r\n`)
    await until(() => wakes.length === 1)
    socket.destroy()
    await ask(sandbox.url)
    wakes[0]!()
    await ask(sandbox.url)
    expect(sandbox.seen().map(({ status }) => status)).toEqual([null, 200, 200])
  })
})

describe('stopping', () => {
  test('ends what is on its way at once, and the port with it', async () => {
    const sandbox = await start()
    sandbox.setFaults({ latencyMs: 3_600_000 })
    const waiting = ask(sandbox.url)
    await until(() => sandbox.seen().length === 1)
    const stopped = Promise.all([sandbox.stop(), sandbox.stop()])
    await expect(waiting).rejects.toMatchObject({ code: 'ECONNRESET' })
    await stopped
    await expect(ask(sandbox.url)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    await expect(ask(sandbox.controlUrl)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('leaves nothing that keeps the process', async () => {
    const module = new URL('../../src/sandbox/sandbox.ts', import.meta.url).href
    const script = `
      const { startSandbox } = await import(${JSON.stringify(module)})
      const sandbox = await startSandbox()
      sandbox.setFaults({ latencyMs: 3_600_000 })
      const waiting = fetch(sandbox.url).catch(() => undefined)
      while (sandbox.seen().length === 0) await new Promise((resolve) => setImmediate(resolve))
      await sandbox.stop()
      await waiting`
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    expect(await once(child, 'exit')).toEqual([0, null])
  })

  test('lets go of the first port if the second can not be had', async () => {
    const { controlUrl } = await start()
    const controlPort = Number(new URL(controlUrl).port)
    await expect(startSandbox({ controlPort })).rejects.toMatchObject({ code: 'EADDRINUSE' })
  })
})

test('options that make no sense are refused by name', async () => {
  await expect(startSandbox({ limits: { read: { requests: 0, windowMs: 1 } } })).rejects.toThrow(
    'read.requests: must be',
  )
  await expect(startSandbox({ retryAfter: 'never' as 'none' })).rejects.toThrow('retryAfter: must be one of')
})

/** How many of `times` are in the 300 ms up to `end`. */
function countUpTo(times: readonly number[], end: number): number {
  return times.filter((at) => at > end - 300 && at <= end).length
}

/** Four connections, one request after the other on each; fewer in all than the sandbox remembers. */
async function hammer(url: string, requests: number, beforeEach: () => void): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 4 })
  let left = requests
  const worker = async (): Promise<void> => {
    while (left-- > 0) {
      beforeEach()
      await ask(url, {}, agent)
    }
  }
  await Promise.all([worker(), worker(), worker(), worker()])
  agent.destroy()
}

// What a socket reports for an RST; a connection that is merely closed has no error.
const RESET = expect.objectContaining({ code: 'ECONNRESET', syscall: 'read' })

/** A POST over a bare socket, until its end: what came, parted behind the head, and how it ended. */
function exchange(url: string, body = ''): Promise<{ head: string; body: string | undefined; error: unknown }> {
  return new Promise((resolve) => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1')
    let text = ''
    let error: unknown
    socket.on('data', (piece) => (text += String(piece)))
    socket.on('error', (cause) => (error = cause))
    socket.on('close', () => {
      const [head = '', body] = text.split('\r\n\r\n')
      resolve({ head, body, error })
    })
    socket.write(`POST /ng/api/projects/list HTTP/1.1\r\nHost: x\r\nX-Api-Key: ${TOKEN}\r\n`)
    socket.write(`Content-Length: ${body.length}\r\n\r\n${body}`)
  })
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => void setImmediate(resolve))
}
