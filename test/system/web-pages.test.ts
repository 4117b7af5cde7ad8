import { describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { hashKey } from '../../src/clients/keys.ts'
import { harnessConfig, startGateway, startUpstream } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'

const PATH = '/harness/ng/api/projects'
/** What a browser adds to a request of a page of another site. */
const EVIL = { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' }

/** A gateway before a vendor whose answers every page may read, as those of many are. */
async function setUp(rest: object = {}) {
  const upstream = await startUpstream((_, response) =>
    response.writeHead(200, { 'access-control-allow-origin': '*' }).end('private'),
  )
  const config = harnessConfig(upstream.url, { hosts: ['harness.internal'] }, rest)
  const gateway = await startGateway(config)
  const from = async (headers: Record<string, string>, method = 'GET', path = PATH) => {
    const answer = await call(gateway.url, path, { method, headers })
    if (answer.status !== 200) {
      expect(answer.headers['x-sluice-error']).toBe('forbidden')
      expect(answer.headers['access-control-allow-origin']).toBeUndefined()
    }
    return answer.status
  }
  return { upstream, gateway, from }
}

describe('a gateway that wants no key', () => {
  it('refuses what a page of another site sends, whatever its method', async () => {
    const { upstream, gateway, from } = await setUp()
    for (const method of ['GET', 'OPTIONS', 'POST', 'DELETE']) expect(await from(EVIL, method), method).toBe(403)
    expect(await from({ origin: 'null' })).toBe(403)
    expect(await from({ origin: 'https://evil.example, http://localhost' })).toBe(403)
    // A page of another program of this machine is no program, either.
    expect(await from({ origin: 'http://localhost:1', 'sec-fetch-site': 'same-site' })).toBe(403)
    // An image, which has no Origin.
    expect(await from({ 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' })).toBe(403)
    const socket = new WebSocket(gateway.url.replace('http', 'ws') + PATH, { origin: 'https://evil.example' })
    const [error] = await new Promise<[Error]>((resolve) => socket.once('error', (...event) => resolve(event)))
    expect(error.message).toContain('403')
    expect(upstream.seen).toEqual([])
    const { body } = await call(gateway.url, PATH, { headers: EVIL })
    expect(body).toContain('configure clients')
  })

  it('refuses a name that is none of its own, which a page had changed to 127.0.0.1', async () => {
    const { upstream, gateway, from } = await setUp()
    const { port } = new URL(gateway.url)
    for (const host of [
      'evil.example',
      `evil.example:${port}`,
      '127.0.0.1.evil.example',
      'localhost.evil.example',
      'a.b.',
    ])
      expect(await from({ host, origin: `http://${host}`, 'sec-fetch-site': 'same-origin' }), host).toBe(403)
    expect(await from({ host: 'evil.example' })).toBe(403)
    // Not even the names of the upstreams are told.
    expect(await from({ host: 'evil.example' }, 'GET', '/nowhere')).toBe(403)
    expect(upstream.seen).toEqual([])
    const { body } = await call(gateway.url, PATH, { headers: { host: 'tool.example:8080' } })
    expect(body).toMatch(/tool\.example:8080 .*server\.hosts/)
  })

  it('serves programs of this machine, by its addresses and names, and what these names serve themselves', async () => {
    const { gateway, from } = await setUp({ server: { port: 0, hosts: ['gw.example', 'app.example'] } })
    const { host, port } = new URL(gateway.url)
    for (const name of [
      'localhost',
      'LocalHost.',
      `localhost:${port}`,
      'a.localhost',
      '127.0.0.2',
      '[::1]:80',
      '10.0.0.7:8080',
    ])
      expect(await from({ host: name }), name).toBe(200)
    expect(await from({ host: `GW.example:${port}` })).toBe(200)
    expect(await from({ host: 'harness.internal' }, 'GET', '/ng/api/projects')).toBe(200)
    expect(await from({ origin: `http://${host}`, 'sec-fetch-site': 'same-origin' })).toBe(200)
    expect(await from({ origin: 'https://app.example:8443', 'sec-fetch-site': 'cross-site' })).toBe(200)
    // Somebody typed the address.
    expect(await from({ 'sec-fetch-site': 'none' })).toBe(200)
    const nameless = await RawClient.connect(gateway.url)
    nameless.write(`GET ${PATH} HTTP/1.0\r\n\r\n`)
    expect(await nameless.closed()).toMatch(/^HTTP\/1\.1 200/)
  })

  it('passes on what pages send once it wants a key, which they do not have', async () => {
    const { from } = await setUp({ clients: { tool: { keys: [hashKey('right')] } } })
    expect(await from({ ...EVIL, host: 'any.example', 'x-sluice-key': 'right' })).toBe(200)
  })
})
