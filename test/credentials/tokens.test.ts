import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { jwtVerify } from 'jose'
import { Redis } from 'ioredis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { checkConfig } from '../../src/config/load.ts'
import { startGateway, startUpstream, stores, type TestGateway } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { bearerOf, startTokenServer, type TokenServer } from '../support/token-server.ts'

const SECOND = 1_000
const embedded = stores['the embedded store']

function oauthConfig(url: string, tokens: TokenServer, store: object, change: object = {}): object {
  const credential = { type: 'oauth2', tokenUrl: tokens.url, clientId: 'me', clientSecret: 'client-secret', ...change }
  return {
    server: { port: 0 },
    admin: { port: 0 },
    store,
    upstreams: { api: { url, accounts: { main: { credential } }, retry: { retries: 0 } } },
  }
}

/** An upstream that takes some tokens only. */
function startProtected(isValid: (token: string | undefined) => boolean) {
  return startUpstream(({ headers, body }, response) => {
    response.writeHead(isValid(bearerOf(headers)) ? 200 : 401).end(body)
  })
}

describe('client credentials', () => {
  it.each([
    ['in the header', {}, `Basic ${Buffer.from('me:client-secret').toString('base64')}`, {}],
    [
      'in the body',
      { clientAuth: 'post', scopes: ['read', 'write'], audience: 'https://api', parameters: { resource: 'x' } },
      undefined,
      {
        client_id: 'me',
        client_secret: 'client-secret',
        scope: 'read write',
        audience: 'https://api',
        resource: 'x',
      },
    ],
  ])('are sent %s, and the token they get to the upstream', async (_, change, authorization, expected) => {
    const tokens = await startTokenServer()
    const upstream = await startUpstream()
    const gateway = await startGateway(oauthConfig(upstream.url, tokens, embedded(), change))
    await call(gateway.url, '/api/x', { headers: { authorization: 'Bearer of-the-client' } })
    await call(gateway.url, '/api/x')
    expect(tokens.requests).toHaveLength(1)
    expect(tokens.requests[0]!.authorization).toBe(authorization)
    const parameters = Object.fromEntries(tokens.requests[0]!.parameters)
    expect(parameters).toMatchObject({ grant_type: 'client_credentials', ...expected })
    expect(upstream.seen.map(({ headers }) => headers.authorization)).toEqual(Array(2).fill('Bearer token-1-secret'))
  })

  it('can be an assertion that a private key signs', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const tokens = await startTokenServer()
    const upstream = await startUpstream()
    const key = privateKey.export({ type: 'sec1', format: 'pem' })
    const change = { clientSecret: undefined, key, keyId: 'key-1' }
    const config = oauthConfig(upstream.url, tokens, embedded(), change)
    const gateway = await startGateway(JSON.parse(JSON.stringify(config)) as object)
    expect((await call(gateway.url, '/api/x')).status).toBe(200)
    const { parameters } = tokens.requests[0]!
    expect(parameters.get('client_assertion_type')).toBe('urn:ietf:params:oauth:client-assertion-type:jwt-bearer')
    const { payload, protectedHeader } = await jwtVerify(parameters.get('client_assertion')!, publicKey)
    expect(payload).toMatchObject({ iss: 'me', sub: 'me', aud: tokens.url })
    expect(protectedHeader).toMatchObject({ alg: 'ES256', kid: 'key-1' })
  })

  it('that the endpoint refuses make a call fail with 503, and no call is charged or retried for it', async () => {
    const tokens = await startTokenServer()
    const upstream = await startUpstream()
    tokens.isUp = false
    const clock = new SimulatedClock()
    const gateway = await startGateway(oauthConfig(upstream.url, tokens, embedded()), { clock, random: () => 0 })
    const answers = await Promise.all(Array.from({ length: 20 }, () => call(gateway.url, '/api/x')))
    for (const { status, headers, body } of answers) {
      expect({ status, kind: headers['x-sluice-error'] }).toEqual({ status: 503, kind: 'credential_unavailable' })
      expect(body).toContain('answered 503')
      expect(body).not.toContain('client-secret')
    }
    expect(upstream.seen).toEqual([])
    // Not asked again at every call, but with back-off: half a second, a second, two.
    for (const waitMs of [500, 1_000, 2_000]) {
      const before = tokens.requests.length
      await clock.advance(waitMs - 1)
      await call(gateway.url, '/api/x')
      expect(tokens.requests).toHaveLength(before)
      await clock.advance(1)
      await call(gateway.url, '/api/x')
      expect(tokens.requests).toHaveLength(before + 1)
    }
    tokens.isUp = true
    await clock.advance(60 * SECOND)
    expect((await call(gateway.url, '/api/x')).status).toBe(200)
    expect(await gateway.metrics()).toMatch(/sluice_credential_renewals_total\{.*result="failed"\} 4/)
  })

  it('go to no other address that the endpoint redirects to', async () => {
    const other = await startUpstream()
    const { url } = await startUpstream((_, response) => response.writeHead(307, { location: other.url }).end())
    const upstream = await startUpstream()
    const tokens = { ...(await startTokenServer()), url }
    const gateway = await startGateway(oauthConfig(upstream.url, tokens, embedded()))
    expect((await call(gateway.url, '/api/x')).status).toBe(503)
    expect(other.seen).toEqual([])
  })
})

describe.each([
  ['the embedded store', embedded, 3],
  ['Redis', stores.Redis, 1],
] as const)('a token that expires under 1,000 callers on three instances with %s', (_, newStore, renewals) => {
  const INSTANCES = 3

  async function startAll(clock: SimulatedClock, tokens: TokenServer, url: string): Promise<TestGateway[]> {
    const store = newStore()
    const configs = Array.from({ length: INSTANCES }, () =>
      oauthConfig(url, tokens, store.kind === 'redis' ? store : newStore()),
    )
    let areStarted = false
    const starting = Promise.all(configs.map((config) => startGateway(config, { clock })))
    void starting.finally(() => (areStarted = true)).catch(() => undefined)
    // With Redis, who starts right behind another waits a moment, by this clock.
    const isStepped = async () => {
      if (!areStarted) await clock.advance(100)
      return areStarted
    }
    await expect.poll(isStepped).toBe(true)
    return starting
  }

  async function callAll(gateways: readonly TestGateway[], calls: number): Promise<Record<number, number>> {
    const byStatus: Record<number, number> = {}
    const one = async (i: number) => {
      const { status } = await call(gateways[i % INSTANCES]!.url, '/api/x')
      byStatus[status] = (byStatus[status] ?? 0) + 1
    }
    await Promise.all(Array.from({ length: calls }, (_, i) => one(i)))
    return byStatus
  }

  it('is renewed once per instance, or once in all where it is shared, and no call fails', async () => {
    const clock = new SimulatedClock(Date.now())
    const tokens = await startTokenServer(60)
    const upstream = await startProtected(
      (token) => token !== undefined && tokens.issued.slice(-INSTANCES).includes(token),
    )
    const gateways = await startAll(clock, tokens, upstream.url)
    // Nobody has one: everybody waits for the first.
    expect(await callAll(gateways, 1_000)).toEqual({ 200: 1_000 })
    expect(tokens.requests).toHaveLength(renewals)
    // In the last half minute of its life the old one serves while the new one is got: nobody waits for that.
    await clock.advance(40 * SECOND)
    const held = Promise.withResolvers<void>()
    tokens.hold = held.promise
    expect(await callAll(gateways, 1_000)).toEqual({ 200: 1_000 })
    expect(tokens.issued).toHaveLength(renewals)
    tokens.hold = undefined
    held.resolve()
    const areRenewed = async () => {
      const all = await Promise.all(gateways.map((gateway) => gateway.metrics()))
      return all.every((text) => /sluice_credential_renewals_total\{.*result="ok"\} 2/.test(text))
    }
    await expect.poll(areRenewed).toBe(true)
    expect(tokens.requests).toHaveLength(2 * renewals)
    // Nobody called while it expired: again everybody waits.
    await clock.advance(120 * SECOND)
    expect(await callAll(gateways, 1_000)).toEqual({ 200: 1_000 })
    expect(tokens.requests).toHaveLength(3 * renewals)
  })

  it('is renewed once, too, when the upstream stops taking it, and the calls are sent again', async () => {
    const clock = new SimulatedClock(Date.now())
    const tokens = await startTokenServer()
    const revoked = new Set<string>()
    const upstream = await startProtected((token) => token !== undefined && !revoked.has(token))
    const gateways = await startAll(clock, tokens, upstream.url)
    await callAll(gateways, INSTANCES)
    for (const token of tokens.issued) revoked.add(token)
    expect(await callAll(gateways, 300)).toEqual({ 200: 300 })
    expect(tokens.requests).toHaveLength(2 * renewals)
  })
})

describe('a 401', () => {
  async function startRevocable(change: object = {}) {
    const clock = new SimulatedClock()
    const tokens = await startTokenServer()
    const valid = { token: 'token-1-secret' }
    const upstream = await startProtected((token) => token === valid.token)
    const gateway = await startGateway(oauthConfig(upstream.url, tokens, embedded(), change), { clock })
    return { clock, tokens, valid, upstream, gateway }
  }

  it('renews the token once and retries the call once, whatever its method, with its body', async () => {
    const { tokens, valid, upstream, gateway } = await startRevocable()
    await call(gateway.url, '/api/x')
    valid.token = 'token-2-secret'
    const answer = await call(gateway.url, '/api/x', { method: 'POST', body: 'x'.repeat(100_000) })
    expect(answer).toMatchObject({ status: 200, body: 'x'.repeat(100_000), headers: { 'x-sluice-attempts': '2' } })
    expect(tokens.requests).toHaveLength(2)
    expect(upstream.seen.map(({ headers }) => bearerOf(headers))).toEqual([
      'token-1-secret',
      'token-1-secret',
      'token-2-secret',
    ])
    expect(await gateway.metrics()).toMatch(/sluice_attempts_total\{.*reason="credential"\} 1/)
  })

  it('that stays is the answer, and for a while no more tokens are asked for because of it', async () => {
    const { clock, tokens, valid, upstream, gateway } = await startRevocable()
    valid.token = 'none'
    expect(await call(gateway.url, '/api/x')).toMatchObject({ status: 401, headers: { 'x-sluice-attempts': '2' } })
    for (let i = 0; i < 10; i++) expect((await call(gateway.url, '/api/x')).status).toBe(401)
    expect(tokens.requests).toHaveLength(2)
    expect(upstream.seen).toHaveLength(12)
    await clock.advance(2 * SECOND)
    await call(gateway.url, '/api/x')
    expect(tokens.requests).toHaveLength(3)
  })

  it('while no new token can be had is answered with the old one, as long as that is valid', async () => {
    const { clock, tokens, valid, gateway } = await startRevocable()
    await call(gateway.url, '/api/x')
    tokens.isUp = false
    valid.token = 'another'
    expect((await call(gateway.url, '/api/x')).status).toBe(401)
    valid.token = 'token-1-secret'
    expect((await call(gateway.url, '/api/x')).status).toBe(200)
    await clock.advance(61 * SECOND)
    expect((await call(gateway.url, '/api/x')).status).toBe(503)
  })

  it.each([
    ['the client wants it sent once', { headers: { 'x-sluice-retry': 'off' } }],
    ['its body was streamed', { method: 'PUT', body: 'x'.repeat(2_000_000) }],
  ])('is not retried where %s', async (_, options) => {
    const { valid, upstream, gateway } = await startRevocable()
    await call(gateway.url, '/api/x')
    valid.token = 'token-2-secret'
    expect((await call(gateway.url, '/api/x', options)).status).toBe(401)
    expect(upstream.seen).toHaveLength(2)
  })

  it('to a client that does not wait for the token is nothing to anybody', async () => {
    const { tokens, upstream, gateway } = await startRevocable()
    const held = Promise.withResolvers<void>()
    tokens.hold = held.promise
    const controller = new AbortController()
    const left = fetch(`${gateway.url}/api/x`, { signal: controller.signal })
    await expect.poll(() => tokens.requests.length).toBe(1)
    controller.abort()
    await expect(left).rejects.toThrow('aborted')
    await expect.poll(() => gateway.lines.map(({ outcome }) => outcome)).toEqual(['client_gone'])
    held.resolve()
    expect(upstream.seen).toEqual([])
  })
})

describe('a token that ends while a call waits for its turn', () => {
  const QUEUED = /sluice_queue_depth\{[^}]*class="write"\} 1/

  /** A gateway with one call each six seconds and tokens of four, where one call was made and another waits for its turn. */
  async function startWaiting(headers: Record<string, string> = {}) {
    const clock = new SimulatedClock()
    const tokens = await startTokenServer(4)
    const upstream = await startProtected((token) => token === undefined || token === tokens.issued.at(-1))
    const credential = { type: 'oauth2', tokenUrl: tokens.url, clientId: 'me', clientSecret: 'client-secret' }
    const api = {
      url: upstream.url,
      accounts: { main: { credential } },
      limits: { write: [{ requests: 1, window: '6s' }] },
      queue: { maxWait: '60s' },
      retry: { retries: 0, bodyLimit: 1_000 },
      routes: [{ path: '/open', class: 'write', credential: 'none' }],
    }
    const config = { server: { port: 0 }, admin: { port: 0 }, store: embedded(), upstreams: { api } }
    const gateway = await startGateway(config, { clock })
    expect((await call(gateway.url, '/api/x', { method: 'POST', body: 'x' })).status).toBe(200)
    const waiting = call(gateway.url, '/api/x', { method: 'POST', body: 'x'.repeat(5_000), headers })
    await expect.poll(() => gateway.metrics()).toMatch(QUEUED)
    const turn = () => clock.advance(7 * SECOND)
    const isTurnFree = async () => {
      const options = { method: 'POST', headers: { 'x-sluice-max-wait': '0' } }
      return (await call(gateway.url, '/api/open', options)).status === 200
    }
    return { clock, tokens, upstream, gateway, waiting, turn, isTurnFree }
  }

  it('is renewed before the call goes out', async () => {
    const { tokens, upstream, waiting, turn } = await startWaiting()
    await turn()
    expect((await waiting).status).toBe(200)
    expect(upstream.seen.map(({ headers }) => bearerOf(headers))).toEqual(['token-1-secret', 'token-2-secret'])
    expect(tokens.requests).toHaveLength(2)
  })

  it('and whose endpoint fails takes no turn', async () => {
    const { tokens, upstream, waiting, turn, isTurnFree } = await startWaiting()
    tokens.isUp = false
    await turn()
    expect(await waiting).toMatchObject({ status: 503, headers: { 'x-sluice-error': 'credential_unavailable' } })
    expect(upstream.seen).toHaveLength(1)
    expect(await isTurnFree()).toBe(true)
  })

  it('and whose endpoint takes long gives the turn back, and the call goes out at the next', async () => {
    const { clock, tokens, upstream, gateway, waiting, turn, isTurnFree } = await startWaiting()
    const held = Promise.withResolvers<void>()
    tokens.hold = held.promise
    await turn()
    await expect.poll(() => tokens.requests.length).toBe(2)
    expect(await isTurnFree()).toBe(false)
    await clock.advance(2 * SECOND)
    await expect.poll(isTurnFree).toBe(true)
    held.resolve()
    await expect.poll(() => gateway.metrics()).toMatch(QUEUED)
    expect(upstream.seen).toHaveLength(2)
    await turn()
    // Its token has ended once more by then.
    expect((await waiting).status).toBe(200)
    expect(upstream.seen).toHaveLength(3)
  })

  it('and whose endpoint takes long is waited for no longer than X-Sluice-Timeout', async () => {
    const { clock, tokens, upstream, waiting, turn } = await startWaiting({ 'x-sluice-timeout': '7500ms' })
    const held = Promise.withResolvers<void>()
    tokens.hold = held.promise
    await turn()
    await expect.poll(() => tokens.requests.length).toBe(2)
    await clock.advance(SECOND)
    expect(await waiting).toMatchObject({ status: 504, headers: { 'x-sluice-error': 'timeout' } })
    held.resolve()
    expect(upstream.seen).toHaveLength(1)
  })
})

describe('the answer of a token endpoint', () => {
  async function callWith(extra: object, status = 200) {
    const tokens = await startTokenServer()
    Object.assign(tokens, { extra, status })
    const upstream = await startUpstream()
    const clock = new SimulatedClock()
    const gateway = await startGateway(oauthConfig(upstream.url, tokens, embedded()), { clock })
    const send = () => call(gateway.url, '/api/x')
    return { tokens, clock, send, answer: await send() }
  }

  it.each([
    ['no type of token', { token_type: undefined }],
    ['a type of token that is null', { token_type: null }],
    ['a type of token that one gateway calls BearerToken', { token_type: 'BearerToken' }],
    ['a type of token in capitals', { token_type: 'BEARER' }],
    ['a refresh token that is null', { refresh_token: null }],
    ['a refresh token that is a number', { refresh_token: 7 }],
    ['a scope that is empty', { scope: '' }],
    ['a scope that is null', { scope: null }],
    ['scopes as a list', { scope: ['read', 'write'] }],
    ['no expiry', { expires_in: undefined }],
    ['an expiry that is null', { expires_in: null }],
    ['an expiry that is empty', { expires_in: '' }],
    ['an expiry as a text', { expires_in: '3600' }],
    ['an expiry with a fraction', { expires_in: 3599.5 }],
    ['an expiry that is negative', { expires_in: -1 }],
    ['an expiry that is no number', { expires_in: 'soon' }],
    ['an expiry without end', { expires_in: 1e20 }],
    ['an id token that is none', { id_token: 'no.jwt' }],
    ['an id token of another issuer', { id_token: `${btoa('{"alg":"RS256"}')}.${btoa('{"iss":"x"}')}.c2ln` }],
    ['an id token that is null', { id_token: null }],
  ])('may have %s', async (_, extra) => {
    expect((await callWith(extra)).answer.status).toBe(200)
  })

  it.each([401, 400, 403])('that refuses the client with %i and a challenge is told by its error', async (status) => {
    const tokens = await startTokenServer()
    const headers = { 'www-authenticate': 'Basic realm="client-secret"' }
    Object.assign(tokens, { extra: { error: 'invalid_client' }, status, headers })
    const gateway = await startGateway(oauthConfig('http://127.0.0.1:9', tokens, embedded()))
    const answer = await call(gateway.url, '/api/x')
    expect(answer.json().message).toContain(`the token endpoint answered ${status} invalid_client`)
    expect(answer.body).not.toContain('client-secret')
  })

  it('that is no well-formed HTTP is told as that: the endpoint was reached', async () => {
    const server = createServer((socket) => socket.once('data', () => socket.end('SSH-2.0-OpenSSH_9.9\r\n')))
    await once(server.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => void server.close())
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const tokens = { ...(await startTokenServer()), url }
    const gateway = await startGateway(oauthConfig('http://127.0.0.1:9', tokens, embedded()))
    const { message } = (await call(gateway.url, '/api/x')).json()
    expect(message).toContain('the token endpoint gave an answer that is no well-formed HTTP (Expected HTTP/')
  })

  it('may come with 201', async () => {
    expect((await callWith({}, 201)).answer.status).toBe(200)
  })

  it('is kept for as long as it says, also in a text, and five minutes if it does not say', async () => {
    for (const [extra, seconds] of [
      [{ expires_in: '100' }, 70],
      [{ expires_in: 100.5 }, 70.5],
      [{ expires_in: null }, 270],
    ] as const) {
      const { tokens, clock, send } = await callWith(extra)
      await clock.advance(seconds * SECOND - 1)
      await send()
      expect(tokens.requests, JSON.stringify(extra)).toHaveLength(1)
      await clock.advance(1)
      await send()
      await expect.poll(() => tokens.requests.length).toBe(2)
    }
  })

  it('that repeats its token until the end costs no call, also in the last second', async () => {
    const { tokens, clock, send } = await callWith({ access_token: 'the-same', expires_in: 3 })
    for (let leftMs = 2_900; leftMs > -2_000; leftMs -= 100) {
      await clock.advance(100)
      tokens.extra = {
        access_token: leftMs > 0 ? 'the-same' : 'another',
        expires_in: Math.max(0, Math.floor(leftMs / SECOND)),
      }
      expect((await send()).status).toBe(200)
    }
  })

  it.each([
    ['a token of another type', { token_type: 'mac' }, 200, 'answered with a token of another type than Bearer'],
    ['no token', { access_token: undefined }, 200, 'answered 200 and no token'],
    ['a token that is empty', { access_token: '' }, 200, 'answered 200 and no token'],
    ['a token with a line end', { access_token: 'a\r\nX-Evil: b' }, 200, 'answered 200 and no token'],
    ['an error with 200', { access_token: undefined, error: 'invalid_client' }, 200, 'answered 200 invalid_client'],
    ['an error', { error: 'invalid_scope' }, 400, 'answered 400 invalid_scope'],
  ])('that is %s makes the call fail, and says so', async (_, extra, status, message) => {
    const { answer } = await callWith(extra, status)
    expect(answer).toMatchObject({ status: 503, headers: { 'x-sluice-error': 'credential_unavailable' } })
    expect(answer.json().message).toContain(message)
    expect(answer.body).not.toContain('secret')
  })
})

it('tokens that instances share are in Redis, and not in clear', async () => {
  const tokens = await startTokenServer()
  const upstream = await startUpstream()
  const store = stores.Redis()
  const gateway = await startGateway(oauthConfig(upstream.url, tokens, store))
  await call(gateway.url, '/api/x')
  const redis = new Redis(inject('redisUrl'))
  onTestFinished(() => redis.disconnect())
  const names = await redis.keys(`${store.prefix}:token:*`)
  const values = await redis.mget(names)
  expect(values).toHaveLength(1)
  expect(JSON.stringify([names, values])).not.toContain('secret')
})

it('a token that is signed here tells the upstream who the account is', async () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const upstream = await startUpstream()
  const clock = new SimulatedClock(Date.now())
  const key = privateKey.export({ type: 'pkcs1', format: 'pem' })
  const credential = { type: 'jwt', key, keyId: 'k', issuer: 'app-1', audience: 'api', claims: { role: 'x' } }
  const accounts = { main: { credential: { ...credential, lifetime: '60s' } } }
  const config = {
    server: { port: 0 },
    admin: { port: 0 },
    store: embedded(),
    upstreams: { api: { url: upstream.url, accounts } },
  }
  const gateway = await startGateway(config, { clock })
  await call(gateway.url, '/api/x')
  await call(gateway.url, '/api/x')
  await clock.advance(61 * SECOND)
  await call(gateway.url, '/api/x')
  const [first, second, third] = upstream.seen.map(({ headers }) => bearerOf(headers)!)
  expect(second).toBe(first)
  expect(third).not.toBe(first)
  const { payload, protectedHeader } = await jwtVerify(third!, createPublicKey(privateKey), {
    currentDate: new Date(clock.now()),
  })
  const issuedAt = Math.floor(clock.now() / 1_000) - 30
  expect(payload).toMatchObject({ iss: 'app-1', aud: 'api', role: 'x', iat: issuedAt, exp: issuedAt + 60 })
  expect(protectedHeader).toEqual({ alg: 'RS256', typ: 'JWT', kid: 'k' })
})

it.each([
  ['10s', 10],
  ['59500ms', 59],
  ['10m', 600],
  ['20m', 1_200],
  ['24h', 86_400],
])(
  'a token that is signed here lasts from iat to exp exactly as long as is configured: %s',
  async (lifetime, seconds) => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const upstream = await startUpstream()
    const key = privateKey.export({ type: 'pkcs8', format: 'pem' })
    const accounts = { main: { credential: { type: 'jwt', key, issuer: 'app', lifetime } } }
    const upstreams = { api: { url: upstream.url, accounts } }
    const gateway = await startGateway({ server: { port: 0 }, admin: { port: 0 }, store: embedded(), upstreams })
    const before = Math.floor(Date.now() / 1_000)
    expect((await call(gateway.url, '/api/x')).status).toBe(200)
    const { payload } = await jwtVerify(bearerOf(upstream.seen[0]!.headers)!, createPublicKey(privateKey))
    expect(payload.exp! - payload.iat!).toBe(seconds)
    expect(payload.iat).toBeLessThanOrEqual(before)
    expect(payload.exp).toBeGreaterThan(before)
  },
)

it.each([
  [{ clientSecret: undefined }, 'either clientSecret or key proves the client'],
  [{ key: 'no-key-secret' }, 'either clientSecret or key proves the client'],
  [{ clientSecret: undefined, key: 'no-key-secret' }, 'key: is no PEM of a private key'],
  [{ keyId: 'x' }, 'keyId: keyId belongs to key'],
  [{ tokenUrl: 'ftp://x' }, 'tokenUrl: must be an http:// or https:// URL'],
])('what an oauth2 credential can not be is an error: %j', (change, expected) => {
  const config = oauthConfig('http://127.0.0.1', { url: 'http://127.0.0.1/t' } as TokenServer, embedded(), change)
  const raw = JSON.parse(JSON.stringify(config)) as object
  expect(() => checkConfig(raw, 'test')).toThrow(expected)
  expect(() => checkConfig(raw, 'test')).not.toThrow('no-key-secret')
})

it.each([
  ['an RSA key of 1024 bits', () => generateKeyPairSync('rsa', { modulusLength: 1024 })],
  ['an RSA key for PSS alone', () => generateKeyPairSync('rsa-pss', { modulusLength: 2048 })],
  ['a key of a curve of Bitcoin', () => generateKeyPairSync('ec', { namedCurve: 'secp256k1' })],
  ['a key of Ed448', () => generateKeyPairSync('ed448')],
  ['a key that signs nothing', () => generateKeyPairSync('x25519')],
])('%s, by which no token can be signed, is an error', (_, generate) => {
  const key = generate().privateKey.export({ type: 'pkcs8', format: 'pem' })
  const upstreams = { api: { url: 'http://127.0.0.1', accounts: { main: { credential: { type: 'jwt', key } } } } }
  expect(() => checkConfig({ upstreams }, 'test')).toThrow('credential.key: can sign no token: it must be RSA')
})
