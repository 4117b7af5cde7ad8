import { connect } from 'node:http2'
import { type IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fitsCertificate } from '../../src/clients/certificates.ts'
import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { harnessConfig, startGateway, startUpstream } from '../support/gateway.ts'

const PATH = '/harness/ng/api/projects'

let own: Certificates
/** Of an authority that nobody believes. */
let foreign: Certificates
beforeAll(() => {
  own = makeCertificates(['localhost', 'bot', 'named', 'nobody'])
  foreign = makeCertificates(['bot'])
})
afterAll(() => {
  own.remove()
  foreign.remove()
})

const clients = {
  bot: { certificates: [{ subject: { CN: 'bot' }, san: 'DNS:bot' }], methods: ['GET'] },
  named: { certificates: [{ san: 'DNS:named' }] },
  keyed: { keys: [hashKey('key')] },
}

async function setUp(tls: object = {}, server: object = {}) {
  const upstream = await startUpstream()
  const pems = { cert: own.read('localhost.pem'), key: own.read('localhost.key'), clientCa: own.read('ca.pem') }
  const config = harnessConfig(upstream.url, {}, { clients, server: { port: 0, tls: { ...pems, ...tls }, ...server } })
  const gateway = await startGateway(config)
  return { upstream, gateway }
}

const certificate = (name: string, from = own) => ({ cert: from.read(`${name}.pem`), key: from.read(`${name}.key`) })

/** The status of an answer, and what it says went wrong. */
function get(url: string, pair: object, headers: Record<string, string> = {}, method = 'GET'): Promise<string> {
  const { port } = new URL(url)
  return new Promise((resolve, reject) => {
    const options = {
      host: 'localhost',
      port,
      path: PATH,
      method,
      headers,
      ca: own.read('ca.pem'),
      agent: false,
      ...pair,
    }
    const answered = (response: IncomingMessage): void => {
      void response.toArray().then((pieces) => {
        const text = Buffer.concat(pieces as Buffer[]).toString()
        resolve(
          text === '' ? String(response.statusCode) : `${response.statusCode} ${(JSON.parse(text) as Error).message}`,
        )
      })
    }
    request(options, answered).on('error', reject).end()
  })
}

describe('a client certificate', () => {
  it('proves who its subject or its names say', async () => {
    const { gateway } = await setUp()
    expect(await get(gateway.url, certificate('bot'))).toBe('200')
    expect(await get(gateway.url, certificate('named'))).toBe('200')
    expect(await get(gateway.url, certificate('bot'), {}, 'POST')).toMatch(
      /^403 the client bot may not make POST calls/,
    )
    expect(gateway.lines.map(({ client }) => client)).toEqual(['bot', 'named', 'bot'])
  })

  it('proves it over HTTP/2, too', async () => {
    const { gateway } = await setUp({}, { http2: true })
    const { port } = new URL(gateway.url)
    const session = connect(`https://localhost:${port}`, { ca: own.read('ca.pem'), ...certificate('bot') })
    for (let i = 0; i < 2; i++) {
      const stream = session.request({ ':path': PATH })
      const status = await new Promise((resolve) => void stream.once('response', (head) => resolve(head[':status'])))
      expect(status).toBe(200)
      stream.resume()
    }
    session.destroy()
    expect(gateway.lines.map(({ client }) => client)).toEqual(['bot', 'bot'])
  })

  it.each([
    ['of nobody', () => certificate('nobody')],
    ['of an authority that is not believed', () => certificate('bot', foreign)],
    ['that is not there', () => ({})],
  ])('%s proves nothing, and a key may come instead', async (_, pair) => {
    const { gateway, upstream } = await setUp()
    expect(await get(gateway.url, pair())).toMatch(/^401 no client key/)
    expect(upstream.seen).toEqual([])
    expect(await get(gateway.url, pair(), { 'x-sluice-key': 'key' })).toBe('200')
    expect(gateway.lines.at(-1)).toMatchObject({ client: 'keyed' })
  })

  it('gives way to a key, and does not mend a wrong one', async () => {
    const { gateway } = await setUp()
    expect(await get(gateway.url, certificate('bot'), { 'x-sluice-key': 'key' })).toBe('200')
    expect(gateway.lines.at(-1)).toMatchObject({ client: 'keyed' })
    expect(await get(gateway.url, certificate('bot'), { 'x-sluice-key': 'wrong' })).toMatch(/^401 unknown client key/)
    // A key of the vendor's, which a tool may still send.
    expect(await get(gateway.url, certificate('bot'), { 'x-api-key': 'pat.their.own.key' })).toBe('200')
    expect(gateway.lines.at(-1)).toMatchObject({ client: 'bot' })
  })

  it('can be required', async () => {
    const { gateway, upstream } = await setUp({ requireClientCertificate: true })
    expect(await get(gateway.url, certificate('bot'))).toBe('200')
    for (const pair of [{}, certificate('bot', foreign)]) {
      await expect(get(gateway.url, pair, { 'x-sluice-key': 'key' })).rejects.toThrow()
    }
    expect(upstream.seen).toHaveLength(1)
  })
})

describe('the rules about a certificate', () => {
  const presented = { subject: { CN: 'bot', OU: ['a', 'b'] }, names: ['DNS:bot', 'URI:spiffe://x/bot'] }
  it.each([
    [{ subject: { CN: 'bot' } }, true],
    [{ subject: { CN: 'Bot' } }, false],
    [{ subject: { CN: 'bot', OU: 'b' } }, true],
    [{ subject: { CN: 'bot', O: 'x' } }, false],
    [{ san: 'URI:spiffe://x/bot' }, true],
    [{ san: 'URI:spiffe://x' }, false],
    [{ subject: { CN: 'bot' }, san: 'DNS:other' }, false],
  ])('%j: %s', (rule, expected) => {
    expect(fitsCertificate(rule, presented)).toBe(expected)
  })

  it('need an authority to believe, and something to look at', () => {
    const load = (client: object) => () =>
      checkConfig(harnessConfig('https://x.example', {}, { clients: { bot: client } }), 'test')
    expect(load({ certificates: [{ san: 'DNS:bot' }] })).toThrow('server.tls.clientCa must say whose certificates')
    expect(load({ certificates: [{}] })).toThrow('needs subject or san')
    expect(load({ certificates: [{ san: 'bot' }] })).toThrow('DNS:bot.example')
  })
})
