import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { hashKey } from '../../src/clients/keys.ts'
import { checkConfig } from '../../src/config/load.ts'
import { startDnsServer } from '../support/dns-server.ts'
import { harnessConfig, startGateway } from '../support/gateway.ts'
import { call } from '../support/http.ts'

const HOST = 'api.vendor.example'
/** Two addresses of this machine, for what is allowed and what is not. */
const [ALLOWED, FORBIDDEN] = ['127.0.0.2', '127.0.0.1'] as const

/** A server on the same port of both addresses; tells by which address it was reached. */
async function startVendor(): Promise<{ port: number; seen: string[] }> {
  const seen: string[] = []
  let port = 0
  // Other tests listen on the second one, so a port that is free there is free on both.
  for (const address of [FORBIDDEN, ALLOWED]) {
    const server = createServer((request, response: ServerResponse) => {
      seen.push(request.socket.localAddress ?? '')
      response.setHeader('connection', 'close').end()
    })
    await once(server.listen(port, address), 'listening')
    port = (server.address() as AddressInfo).port
    onTestFinished(() => void server.close())
  }
  return { port, seen }
}

async function setUp(answers: string[][], upstream: object = {}, rest: object = {}) {
  const vendor = await startVendor()
  const dns = await startDnsServer(() => (answers.length > 1 ? answers.shift() : answers[0]) ?? [])
  const config = harnessConfig(`http://${HOST}:${vendor.port}`, { breaker: { failures: 1 }, ...upstream }, rest)
  const gateway = await startGateway(config, { lookup: dns.lookup })
  const ask = async (path = '/ng/api/projects', headers = {}) => {
    const answer = await call(gateway.url, `/harness${path}`, { headers })
    return answer.status === 200 ? 'ok' : `${answer.status} ${answer.json().message}`
  }
  return { vendor, dns, gateway, ask }
}

const REFUSED = `403 ${HOST} has no address that the network access rules allow`

describe('an upstream whose name stands for a private address', () => {
  it('is not connected to, and that is neither retried, nor charged, nor held against it', async () => {
    const { vendor, dns, gateway, ask } = await setUp([[FORBIDDEN]])
    expect(await ask()).toBe(REFUSED)
    expect(await ask()).toBe(REFUSED)
    expect(dns.asked).toEqual([HOST, HOST])
    expect(vendor.seen).toEqual([])
    expect(gateway.lines[0]).toMatchObject({ outcome: 'forbidden', attempts: 1 })
    expect(await gateway.metrics()).toMatch(/sluice_quota_used\{[^}]*class="read"[^}]*\} 0\n/)
  })

  it('is reached if that is configured', async () => {
    const { vendor, ask } = await setUp([[FORBIDDEN]], { privateAddresses: 'allow' })
    expect(await ask()).toBe('ok')
    expect(vendor.seen).toEqual([FORBIDDEN])
  })

  it('is reached at an address that its list names, and only there', async () => {
    const networkAccess = { allowed: [HOST, ALLOWED] }
    const { vendor, ask } = await setUp([[FORBIDDEN, ALLOWED], [FORBIDDEN]], { networkAccess })
    expect(await ask()).toBe('ok')
    expect(await ask()).toBe(REFUSED)
    expect(vendor.seen).toEqual([ALLOWED])
  })

  it('is connected to at the address that was checked: one that it stands for later is checked anew', async () => {
    const networkAccess = { allowed: [HOST, ALLOWED] }
    const { vendor, dns, ask } = await setUp([[ALLOWED], [FORBIDDEN]], { networkAccess })
    expect(await ask()).toBe('ok')
    expect(dns.asked).toEqual([HOST])
    expect(await ask()).toBe(REFUSED)
    expect(dns.asked).toEqual([HOST, HOST])
    expect(vendor.seen).toEqual([ALLOWED])
  })

  it('is not connected to at an address that is blocked, whatever is allowed', async () => {
    const networkAccess = { blocked: [FORBIDDEN] }
    const { vendor, ask } = await setUp([[FORBIDDEN]], { privateAddresses: 'allow' }, { networkAccess })
    expect(await ask()).toBe(REFUSED)
    expect(vendor.seen).toEqual([])
  })
})

describe('network access lists', () => {
  const clients = {
    free: { keys: [hashKey('free')] },
    bound: { keys: [hashKey('bound')], networkAccess: { allowed: [`http://${HOST}/`] } },
  }

  it('of the gateway, the upstream and the client are all kept', async () => {
    const { vendor, ask } = await setUp(
      [[ALLOWED]],
      { privateAddresses: 'allow', networkAccess: { allowed: ['*.vendor.example'] } },
      { clients, networkAccess: { allowed: [HOST, 'other.example'], blocked: [`http://${HOST}:1/`] } },
    )
    expect(await ask('/ng/api/projects', { 'x-sluice-key': 'free' })).toBe('ok')
    // Another port than the one of the prefix.
    expect(await ask('/ng/api/projects', { 'x-sluice-key': 'bound' })).toMatch(/^403 .* of bound does not allow/)
    expect(vendor.seen).toHaveLength(1)
  })

  it.each([
    ['of the gateway', {}, { networkAccess: { allowed: ['other.example'] } }],
    ['of the upstream', { networkAccess: { blocked: ['*.vendor.example'] } }, {}],
    [
      'of the gateway, where the upstream’s allows it',
      { networkAccess: { allowed: [HOST] } },
      { networkAccess: { blocked: [HOST] } },
    ],
  ])('%s refuse before anything is asked', async (_, upstream, rest) => {
    const { vendor, dns, ask } = await setUp([[ALLOWED]], { privateAddresses: 'allow', ...upstream }, rest)
    expect(await ask()).toBe('403 the network access lists do not allow this address')
    expect([vendor.seen, dns.asked]).toEqual([[], []])
  })
})

describe('the URL of an upstream', () => {
  it.each([
    ['http://127.0.0.1:1', true],
    ['http://[::1]:1', true],
    ['http://localhost:1', true],
    ['https://10.0.0.1', true],
    ['https://1.1.1.1', false],
    ['https://api.vendor.example', false],
  ])('%s names a private address itself: %s', (url, isPrivate) => {
    const load = () => checkConfig(harnessConfig(url, { privateAddresses: 'deny' }), 'test')
    if (isPrivate) expect(load).toThrow('upstreams.harness.privateAddresses: the url names a private address itself')
    else expect(load).not.toThrow()
  })
})
