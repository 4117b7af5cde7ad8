import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { harnessConfig, newFolder, startGateway, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'

const KEY = 'slk_key-of-the-bot'
const OTHER = 'slk_key-of-another'
const SECRET = 'the-secret-of-the-vendor'

function basic(pair: string): string {
  return `Basic ${Buffer.from(pair).toString('base64')}`
}

/** Upstreams that take their own credential in each way there is. */
const CREDENTIALS = {
  bearer: { type: 'bearer', value: SECRET },
  basic: { type: 'basic', username: 'me@example.com', password: SECRET },
  token: { header: 'authorization', value: `Token token=${SECRET}` },
  own: { header: 'x-vendor-key', value: SECRET },
}

async function setUp(upstreams: Record<string, object> = {}, options: object = {}) {
  const upstream = await startUpstream()
  const plain = Object.entries(CREDENTIALS).map(([name, credential]) => {
    return [name, { url: upstream.url, accounts: { main: { credential } }, limits: { read: [], write: [] } }]
  })
  const gateway = await startGateway({
    server: { port: 0, ...options },
    admin: { port: 0 },
    store: { dir: newFolder() },
    upstreams: { ...Object.fromEntries(plain), ...upstreams },
    clients: { bot: { keys: [hashKey(KEY)] }, other: { keys: [hashKey(OTHER)] } },
  })
  const get = (path: string, headers: Record<string, string | string[]>) => call(gateway.url, path, { headers })
  return { upstream, gateway, get }
}

describe('a key is known as SDKs send it', () => {
  it.each([
    ['bare', { authorization: KEY }],
    ['as a bearer token', { authorization: `Bearer ${KEY}` }],
    ['in any case', { authorization: `bEARER ${KEY}` }],
    ['as Octokit and PyGithub do', { authorization: `token ${KEY}` }],
    ['as PagerDuty’s clients do', { authorization: `Token token=${KEY}` }],
    ['the same in quotes', { authorization: `Token token="${KEY}"` }],
    ['as Jira’s clients do', { authorization: basic(`me@example.com:${KEY}`) }],
    ['as the user without a password', { authorization: basic(`${KEY}:`) }],
    ['behind another scheme', { authorization: `GenieKey ${KEY}` }],
    ['in our own header', { 'x-sluice-key': KEY }],
    ['in our own header behind a scheme', { 'x-sluice-key': `Bearer ${KEY}` }],
    ['beside a header without one', { 'x-sluice-key': '', authorization: `Bearer ${KEY}` }],
  ])('%s', async (_, headers) => {
    const { upstream, gateway, get } = await setUp()
    for (const name of Object.keys(CREDENTIALS)) expect((await get(`/${name}/x`, headers)).status, name).toBe(200)
    for (const value of [KEY, `token ${KEY}`, basic(`${KEY}:x`)]) {
      expect((await get('/own/x', { 'X-Vendor-Key': value })).status).toBe(200)
    }
    const sent = JSON.stringify(upstream.seen.map(({ rawHeaders, url }) => [rawHeaders, url]))
    for (const text of [KEY, basic(`${KEY}:`), basic(`${KEY}:x`), basic(`me@example.com:${KEY}`)]) {
      expect(sent).not.toContain(text)
    }
    expect(upstream.seen.map((seen) => seen.headers['x-vendor-key'] ?? seen.headers.authorization)).toEqual([
      `Bearer ${SECRET}`,
      basic(`me@example.com:${SECRET}`),
      `Token token=${SECRET}`,
      ...Array<string>(4).fill(SECRET),
    ])
    expect(gateway.lines.every(({ client }) => client === 'bot')).toBe(true)
  })

  it.each(['bot', 'Key', 'token', 'Digest'])('may be the name of a scheme: %s', async (key) => {
    const clients = { tool: { keys: [hashKey(key)] }, other: { keys: [hashKey('slk_other')] } }
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url, {}, { clients }))
    for (const name of ['x-sluice-key', 'authorization', 'x-api-key'])
      expect((await call(gateway.url, '/harness/ng/api/projects', { headers: { [name]: key } })).status).toBe(200)
    const both = { authorization: key, 'x-api-key': 'slk_other' }
    expect((await call(gateway.url, '/harness/ng/api/projects', { headers: both })).status).toBe(401)
    for (const { rawHeaders } of upstream.seen) expect(rawHeaders).not.toContain(key)
  })

  it('and goes to no vendor in the header of another', async () => {
    const { upstream, get } = await setUp()
    const headers = { 'x-sluice-key': KEY, 'x-vendor-key': basic(`x:${OTHER}`) }
    expect((await get('/bearer/x', headers)).status).toBe(200)
    expect(upstream.seen[0]?.headers['x-vendor-key']).toBeUndefined()
  })
})

describe('a key that is not taken', () => {
  it.each<[string, Record<string, string>, RegExp]>([
    [
      'unknown',
      { authorization: 'token wrong' },
      /^unknown client key in authorization behind Token: no client has it; use/,
    ],
    ['unknown in Basic', { authorization: basic('me:wrong') }, /^unknown client key in authorization behind Basic: /],
    ['behind a word that may be secret', { authorization: 'hush wrong' }, /^unknown client key in authorization: /],
    [
      'unknown in our header',
      { 'x-sluice-key': 'wrong', authorization: KEY },
      /authorization is not looked at beside it/,
    ],
    [
      'none that a scheme shows',
      { authorization: 'Digest username="a"' },
      /^no client key: authorization has the scheme Digest/,
    ],
    ['empty', { authorization: 'Bearer ' }, /^the client key in authorization is empty behind Bearer: /],
    ['empty in our header', { 'x-sluice-key': '' }, /^the client key in x-sluice-key is empty: /],
    ['empty in Basic', { authorization: basic(':') }, /^the client key in authorization is empty behind Basic: /],
    [
      'of two clients',
      { 'x-vendor-key': KEY, authorization: `Bearer ${OTHER}` },
      /hold keys of two clients, other and bot/,
    ],
    ['of two clients in Basic', { authorization: basic(`${KEY}:${OTHER}`) }, /hold keys of two clients, other and bot/],
  ])('is told how it is wrong: %s', async (_, headers, message) => {
    const { upstream, gateway, get } = await setUp()
    const answer = await get('/own/x', headers)
    expect(answer.status).toBe(401)
    expect(answer.json().message).toMatch(message)
    expect(answer.body).not.toMatch(/wrong\b|hush|hash|slk_/)
    expect(JSON.stringify(gateway.lines)).not.toMatch(/wrong\b|hush|slk_/)
    expect(upstream.seen).toEqual([])
  })

  it('of several lines of which none counts, says so', async () => {
    const { get } = await setUp()
    const answer = await get('/own/x', { 'x-vendor-key': ['a', 'b'] })
    expect(answer.json().message).toMatch(/^unknown client key in x-vendor-key: it came several times/)
  })

  it('counts as a guess with everything that was tried at once, and an empty one does not', async () => {
    const { get } = await setUp({}, { wrongKeys: { perAddress: 3 } })
    for (let i = 0; i < 10; i++) expect((await get('/own/x', { authorization: 'Bearer ' })).status).toBe(401)
    const statuses: number[] = []
    for (let i = 0; i < 5; i++) statuses.push((await get('/own/x', { authorization: basic(`same:${i}`) })).status)
    expect(statuses).toEqual([401, 401, 401, 429, 429])
  })
})

describe('a refusal has what the SDK of the vendor prints', () => {
  const KEYS = { message: expect.stringMatching(/^no client key/) as string, code: 'INVALID_TOKEN' }
  const { message } = KEYS
  it.each<[string, object]>([
    ['harness', { status: 'ERROR', ...KEYS, responseMessages: [{ code: 'INVALID_TOKEN', message }] }],
    ['github', { ...KEYS, status: '401' }],
    [
      'slack',
      {
        ok: false,
        error: 'invalid_auth',
        ...KEYS,
        response_metadata: { messages: [expect.stringMatching(/^\[ERROR\] no client key/)] },
      },
    ],
    ['jira', { errorMessages: [message], errors: {}, ...KEYS }],
    ['pagerduty', { error: { code: 401, message, errors: [message] } }],
    ['openai', { error: { message, type: 'invalid_request_error', param: null, code: 'unauthenticated' } }],
    ['anthropic', { type: 'error', error: { type: 'authentication_error', message } }],
    ['azure-openai', { error: { message, type: 'invalid_request_error', param: null, code: 'unauthenticated' } }],
    ['cloudflare', { success: false, errors: [{ code: 401, message }], messages: [], result: null }],
    ['confluence', { statusCode: 401, message }],
    ['gitlab', { message }],
    ['shopify', { errors: message }],
    ['hubspot', { status: 'error', category: 'INVALID_TOKEN', message }],
    ['datadog', { errors: [message] }],
  ])('%s', async (preset, expected) => {
    const vendor = await startUpstream()
    const accounts = { main: { id: 'a', credential: { value: SECRET } } }
    const { get } = await setUp({ vendor: { preset, url: vendor.url, accounts } })
    const answer = await get('/vendor/x', {})
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
    const body = answer.json() as Record<string, unknown>
    expect(body).toMatchObject(expected)
    expect(body['correlationId']).toBe(answer.headers['x-correlation-id'])
    // Slack's SDK would try again for half an hour, without a word, at any other status than Slack's own.
    expect(answer.status).toBe(preset === 'slack' ? 200 : 401)
    expect(answer.headers['x-sluice-error']).toBe('unauthenticated')
    expect(answer.headers['www-authenticate'] === undefined).toBe(answer.status === 200)
    const problem = await get('/vendor/x', { accept: 'application/problem+json' })
    expect(problem.status).toBe(401)
    expect(problem.json()).toMatchObject({ status: 401, detail: message, kind: 'unauthenticated' })
  })
})

describe('what Slack’s SDK would take for a passing trouble', () => {
  it.each([
    ['a method that the client may not use', 'GET', '/vendor/x', {}, 200, 'forbidden'],
    [
      'more calls than its quota has',
      'POST',
      '/vendor/chat.postMessage',
      { 'x-sluice-max-wait': '0' },
      429,
      'quota_exhausted',
    ],
  ])('keeps its status only if it may pass: %s', async (_, method, path, headers, status, kind) => {
    const vendor = await startUpstream()
    const gateway = await startGateway({
      server: { port: 0 },
      admin: { port: 0 },
      store: { dir: newFolder() },
      upstreams: {
        vendor: {
          preset: 'slack',
          url: vendor.url,
          accounts: { main: { credential: { type: 'bearer', value: SECRET } } },
        },
      },
      clients: { bot: { keys: [hashKey(KEY)], methods: ['POST'] } },
    })
    const ask = () => call(gateway.url, path, { method, headers: { authorization: `Bearer ${KEY}`, ...headers } })
    await ask()
    const answer = await ask()
    expect(answer.status).toBe(status)
    expect(answer.headers['x-sluice-error']).toBe(kind)
    expect(answer.json()).toMatchObject({ ok: false })
    // The log and the metrics say what it means.
    expect(gateway.lines.at(-1)?.outcome).toBe(kind)
  })
})
