import { createPublicKey } from 'node:crypto'
import type { JWK } from 'jose'
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { ADMIN_TOKEN, ask } from '../support/admin.ts'
import { startDnsServer } from '../support/dns-server.ts'
import { harnessConfig, startApp, startGateway, startServer, startUpstream } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const ISSUER = 'https://login.example'
const NOW_S = Math.floor(Date.now() / 1_000)

type KeyPair = Awaited<ReturnType<typeof generateKeyPair>>
const pairs = new Map<string, Promise<KeyPair>>()
const pairOf = (kid: string, alg = 'RS256') =>
  pairs.getOrInsertComputed(kid + alg, () => generateKeyPair(alg, { extractable: true }))

/** An issuer's server of public keys, which counts how often it is asked. */
async function startIssuer(kids: string[]) {
  const state = { kids, asked: 0, isAway: false }
  const url = await startServer((_, response) => {
    state.asked++
    if (state.isAway) return void response.writeHead(503).end()
    void Promise.all(
      state.kids.map(async (kid): Promise<JWK> => ({ ...(await exportJWK((await pairOf(kid)).publicKey)), kid })),
    ).then((keys) => response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys })))
  })
  return Object.assign(state, { url: `${url}/keys` })
}

interface Wish {
  /** Undefined for none. */
  readonly kid?: string | undefined
  readonly signedBy?: string
  readonly claims?: Record<string, unknown>
}

async function tokenOf(wish: Wish = {}): Promise<string> {
  const { kid, signedBy = kid ?? '', claims = {} } = { kid: 'one', ...wish }
  const payload = { iss: ISSUER, aud: 'sluice', sub: 'ci', exp: NOW_S + 600, ...claims }
  const { privateKey } = await pairOf(signedBy)
  return new SignJWT(payload).setProtectedHeader({ alg: 'RS256', ...(kid !== undefined && { kid }) }).sign(privateKey)
}

const clients = {
  ci: { tokens: [{ issuer: 'corp', claims: { sub: 'ci' } }], methods: ['GET'] },
  team: { tokens: [{ issuer: 'corp', claims: { groups: ['deployers', 'admins'], env: 'prod' } }] },
}

async function setUp(issuer: object = {}, rest: object = {}) {
  const server = await startIssuer(['one'])
  const upstream = await startUpstream()
  const tokenIssuers = { corp: { issuer: ISSUER, audience: 'sluice', jwks: server.url, ...issuer } }
  const config = harnessConfig(upstream.url, {}, { clients, tokenIssuers, ...rest })
  const gateway = await startGateway(config)
  const present = async (token: string, header = 'authorization', method = 'GET') => {
    const headers = { [header]: header === 'authorization' ? `Bearer ${token}` : token }
    const answer = await call(gateway.url, '/harness/ng/api/projects', { headers, method })
    return answer.status === 200 ? 'ok' : `${answer.status} ${answer.json().message}`
  }
  return { server, upstream, gateway, config, present }
}

describe('a signed token', () => {
  it('proves who its claims say, in every header of keys, and goes nowhere', async () => {
    const { gateway, upstream, present, server } = await setUp()
    const token = await tokenOf()
    for (const header of ['authorization', 'x-sluice-key', 'x-api-key']) expect(await present(token, header)).toBe('ok')
    expect(gateway.lines.map(({ client }) => client)).toEqual(['ci', 'ci', 'ci'])
    expect(await present(token, 'authorization', 'POST')).toMatch(/^403 the client ci may not make POST calls/)
    const member = await tokenOf({ claims: { sub: 'someone', groups: ['readers', 'admins'], env: 'prod' } })
    expect(await present(member)).toBe('ok')
    expect(gateway.lines.at(-1)).toMatchObject({ client: 'team' })
    expect(server.asked).toBe(1)
    expect(JSON.stringify(upstream.seen) + JSON.stringify(gateway.lines)).not.toContain(token.slice(-40))
  })

  it.each<[string, Wish | (() => Promise<string>), RegExp]>([
    ['of nobody', { claims: { sub: 'else' } }, /^401 the token of corp is valid, but no client has its claims$/],
    ['of somebody, but in part', { claims: { sub: 'x', groups: ['admins'] } }, /no client has its claims/],
    ['that has expired', { claims: { exp: NOW_S - 60 } }, /^401 the token is not valid: it has expired$/],
    ['without an end', { claims: { exp: undefined } }, /^401 .*claim exp/],
    ['that is not valid yet', { claims: { nbf: NOW_S + 600 } }, /^401 .*claim nbf/],
    ['for somebody else', { claims: { aud: 'other' } }, /^401 .*claim aud/],
    ['of another issuer', { claims: { iss: 'https://evil.example' } }, /^401 unknown client key/],
    ['signed with another key', { signedBy: 'two' }, /^401 .*signature is wrong$/],
    ['of a key that its issuer does not have', { kid: 'two' }, /^401 .*has no such key$/],
    ['that says it needs no signature', unsigned, /^401 (?:unknown client key|.*not allowed)/],
    ['signed with the public key as a secret', confused, /^401 .*not allowed$/],
    ['that was changed', changed, /^401 .*signature is wrong$/],
  ])('%s is refused', async (_, wish, reason) => {
    const { upstream, present } = await setUp()
    expect(await present(await (typeof wish === 'function' ? wish() : tokenOf(wish)))).toMatch(reason)
    expect(upstream.seen).toEqual([])
  })

  it('may be signed only in the ways that are configured, and by a clock that is a little wrong', async () => {
    const { present } = await setUp({ algorithms: ['ES256'], clockTolerance: '5m' })
    expect(await present(await tokenOf())).toMatch(/^401 .*not allowed$/)
    const tolerant = await setUp({ clockTolerance: '5m' })
    expect(await tolerant.present(await tokenOf({ claims: { exp: NOW_S - 60 } }))).toBe('ok')
  })

  it('is not believed longer than it is valid, nor without another look a minute later', async () => {
    const server = await startIssuer(['one'])
    const upstream = await startUpstream()
    const clock = new SimulatedClock(Date.now())
    const tokenIssuers = { corp: { issuer: ISSUER, audience: 'sluice', jwks: server.url, clockTolerance: '0s' } }
    const app = await startApp(harnessConfig(upstream.url, {}, { clients, tokenIssuers }), { clock })
    const token = await tokenOf({ claims: { exp: Math.floor(clock.now() / 1_000) + 90 } })
    const statusOf = async () =>
      (await call(app.url, '/harness/ng/api/x', { headers: { authorization: `Bearer ${token}` } })).status
    expect(await statusOf()).toBe(200)
    await clock.advance(70_000)
    expect(await statusOf()).toBe(200)
    await clock.advance(21_000)
    expect(await statusOf()).toBe(401)
  })

  it('goes to no vendor in the header of another one, also where the call waited for longer than the token is believed', async () => {
    const server = await startIssuer(['one'])
    const upstream = await startUpstream()
    const clock = new SimulatedClock(Date.now())
    const plain = {
      url: upstream.url,
      accounts: { main: {} },
      queue: { maxWait: '5m' },
      limits: { read: [{ requests: 1, window: '2m' }], write: [] },
    }
    const { upstreams } = harnessConfig(upstream.url) as { upstreams: object }
    const rest = {
      upstreams: { ...upstreams, plain },
      clients: { keyed: { keys: [hashKey('key')] } },
      tokenIssuers: { corp: { issuer: ISSUER, audience: 'sluice', jwks: server.url } },
    }
    const app = await startApp(harnessConfig(upstream.url, {}, rest), { clock })
    const headers = { 'x-sluice-key': 'key', 'x-api-key': await tokenOf() }
    const statuses: number[] = []
    const ask = () => call(app.url, '/plain/x', { headers }).then(({ status }) => statuses.push(status))
    await ask()
    const late = ask()
    while (statuses.length < 2) {
      await clock.advance(5_000)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    await late
    expect(statuses).toEqual([200, 200])
    expect(upstream.seen.map(({ headers: sent }) => sent['x-api-key'])).toEqual([undefined, undefined])
  })
})

describe('the keys of an issuer', () => {
  it('are asked for again because of one that is not known, but not more often than the cooldown lets', async () => {
    const { server, present } = await setUp({ cooldown: '2s' })
    expect(await present(await tokenOf())).toBe('ok')
    for (let i = 0; i < 5; i++)
      expect(await present(await tokenOf({ kid: 'two', claims: { jti: `${i}` } }))).toMatch(/no such key/)
    expect(server.asked).toBe(1)
    server.kids = ['two']
    const rotated = await tokenOf({ kid: 'two' })
    await expect.poll(() => present(rotated), { interval: 300 }).toBe('ok')
    expect(server.asked).toBe(2)
    expect(await present(await tokenOf({ claims: { jti: 'later' } }))).toMatch(/no such key/)
  })

  it('go on while it can’t be asked, and say so where they were never had', async () => {
    const { server, present } = await setUp({ refresh: '1s', cooldown: '1s' })
    server.isAway = true
    expect(await present(await tokenOf())).toMatch(/^503 the keys of the token issuer corp can’t be had/)
    server.isAway = false
    await expect.poll(async () => present(await tokenOf({ claims: { jti: crypto.randomUUID() } }))).toBe('ok')
    server.isAway = true
    const before = server.asked
    await expect
      .poll(async () => {
        expect(await present(await tokenOf({ claims: { jti: crypto.randomUUID() } }))).toBe('ok')
        return server.asked
      })
      .toBeGreaterThan(before)
    expect(await present(await tokenOf({ claims: { jti: 'after' } }))).toBe('ok')
    // It may have a new key by now.
    expect(await present(await tokenOf({ kid: 'two' }))).toMatch(/^503 the keys of the token issuer corp can’t be had/)
  })

  it('are tried one by one for a token that does not say which of them has signed it', async () => {
    const { server, present } = await setUp()
    server.kids = ['two', 'one']
    expect(await present(await tokenOf({ kid: undefined, signedBy: 'one' }))).toBe('ok')
    expect(await present(await tokenOf({ kid: undefined, signedBy: 'two', claims: { exp: NOW_S - 60 } }))).toMatch(
      /expired/,
    )
    expect(await present(await tokenOf({ kid: undefined, signedBy: 'three' }))).toMatch(/signature is wrong/)
  })

  it('are not asked for at a private address that a name stands for, unless that is configured', async () => {
    const dns = await startDnsServer(() => ['127.0.0.1'])
    const server = await startIssuer(['one'])
    const jwks = server.url.replace('127.0.0.1', 'login.example')
    const { config } = await setUp({ jwks })
    const gateway = await startGateway(config, { lookup: dns.lookup })
    const headers = { authorization: `Bearer ${await tokenOf()}` }
    expect((await call(gateway.url, '/harness/ng/api/x', { headers })).status).toBe(503)
    expect([dns.asked, server.asked]).toEqual([['login.example'], 0])
    const allowed = await setUp({ jwks, privateAddresses: 'allow' })
    const other = await startGateway(allowed.config, { lookup: dns.lookup })
    expect((await call(other.url, '/harness/ng/api/x', { headers })).status).toBe(200)
    expect(server.asked).toBe(1)
  })
})

describe('a client of the admin API', () => {
  it('may have tokens', async () => {
    const { gateway, present } = await setUp({}, { admin: { port: 0, token: ADMIN_TOKEN } })
    const token = await tokenOf({ claims: { sub: 'new-tool' } })
    expect(await present(token)).toMatch(/no client has its claims/)
    const tokens = [{ issuer: 'corp', claims: { sub: 'new-tool' } }]
    const made = await ask(gateway, 'POST', '/clients', { name: 'new-tool', tokens })
    expect(made.json()).toMatchObject({ tokens })
    expect(await present(token)).toBe('ok')
    const wrong = await ask(gateway, 'POST', '/clients', { name: 'x', tokens: [{ ...tokens[0], issuer: 'crop' }] })
    expect(wrong.json().errors).toMatchObject([{ path: 'tokens[0].issuer', message: expect.stringContaining('corp') }])
  })
})

const PAYLOAD = Buffer.from(JSON.stringify({ iss: ISSUER, aud: 'sluice', sub: 'ci', exp: NOW_S + 600 })).toString(
  'base64url',
)

async function unsigned(): Promise<string> {
  return `${Buffer.from('{"alg":"none"}').toString('base64url')}.${PAYLOAD}.x`
}

/** For verifiers that let the token choose: the public key, which everyone has, as the secret of an HMAC. */
async function confused(): Promise<string> {
  const spki = await exportSPKI((await pairOf('one')).publicKey)
  const secret = Buffer.from(createPublicKey(spki).export({ type: 'spki', format: 'pem' }))
  return new SignJWT({ iss: ISSUER, aud: 'sluice', sub: 'ci', exp: NOW_S + 600 })
    .setProtectedHeader({ alg: 'HS256', kid: 'one' })
    .sign(secret)
}

async function changed(): Promise<string> {
  const [head, , signature] = (await tokenOf({ claims: { sub: 'else' } })).split('.')
  return [head, PAYLOAD, signature].join('.')
}
