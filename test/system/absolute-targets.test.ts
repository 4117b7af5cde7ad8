import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2'
import { once } from 'node:events'
import { createConnection } from 'node:net'
import { describe, expect, it } from 'vitest'
import { harnessConfig, startGateway, startUpstream } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'

const PATH = '/ng/api/projects'

/** Two upstreams, one of which is the default and would answer for whatever names no other. */
async function setUp(server: object = {}) {
  const [upstream, tickets] = [await startUpstream(), await startUpstream()]
  const config = harnessConfig(
    upstream.url,
    {},
    { server: { port: 0, hosts: ['sluice.internal', 'Gateway.Example.'], ...server }, defaultUpstream: 'harness' },
  ) as { upstreams: Record<string, object> }
  config.upstreams['tickets'] = {
    url: tickets.url,
    hosts: ['Tickets.Internal', '[2001:DB8:0::7]', 'dotted.internal.', 'bücher.internal'],
    accounts: { main: { credential: { header: 'authorization', value: 'Bearer of-tickets' } } },
    limits: {},
  }
  const gateway = await startGateway(config)
  return { gateway, upstream, tickets, port: new URL(gateway.url).port }
}

/** A target, and who is to answer: an upstream with this path, or else a refusal. */
const targets: readonly (readonly [string, 'harness' | 'tickets' | 'unknown_upstream' | 'invalid_request', string?])[] =
  [
    // Those of the gateway, by the address at which it was reached and by its names.
    ['http://127.0.0.1:PORT/ng/api/projects', 'harness', PATH],
    ['http://127.0.0.1:PORT', 'harness', '/'],
    ['http://127.0.0.1:PORT?a=b', 'harness', '/?a=b'],
    ['HTTP://127.0.0.1:PORT/ng/api/projects', 'harness', PATH],
    ['http://localhost:PORT/ng/api/projects', 'harness', PATH],
    ['http://LocalHost.:PORT/ng/api/projects', 'harness', PATH],
    ['http://[::1]:PORT/ng/api/projects', 'harness', PATH],
    ['http://[0:0:0:0:0:0:0:1]:PORT/ng/api/projects', 'harness', PATH],
    ['http://127.0.0.1:PORT/tickets/x%2Fy?z', 'tickets', '/x%2Fy?z'],
    ['http://sluice.internal/ng/api/projects', 'harness', PATH],
    ['http://SLUICE.internal.:81/tickets/x', 'tickets', '/x'],
    ['http://gateway.example/ng/api/projects', 'harness', PATH],
    // Those of an upstream.
    ['http://tickets.internal/x', 'tickets', '/x'],
    ['http://TICKETS.INTERNAL.:8080/x', 'tickets', '/x'],
    ['https://tickets.internal/x', 'tickets', '/x'],
    ['http://tickets.internal/tickets/x', 'tickets', '/tickets/x'],
    ['http://[2001:DB8:0::7]/x', 'tickets', '/x'],
    ['http://dotted.internal/x', 'tickets', '/x'],
    ['http://xn--bcher-kva.internal/x', 'tickets', '/x'],
    // Those of others.
    ['http://example.com/', 'unknown_upstream'],
    ['http://example.com', 'unknown_upstream'],
    ['https://example.com/ng/api/projects', 'unknown_upstream'],
    ['http://example.com/tickets/x', 'unknown_upstream'],
    ['http://example.com/harness/ng/api/projects', 'unknown_upstream'],
    ['http://example.com:PORT/ng/api/projects', 'unknown_upstream'],
    ['http://harness/ng/api/projects', 'unknown_upstream'],
    ['http://127.0.0.1/ng/api/projects', 'unknown_upstream'],
    ['http://127.0.0.1:1/ng/api/projects', 'unknown_upstream'],
    ['https://127.0.0.1/ng/api/projects', 'unknown_upstream'],
    ['http://10.0.0.1:PORT/ng/api/projects', 'unknown_upstream'],
    ['http://[2001:db8::8]/x', 'unknown_upstream'],
    ['http://[::1]/x', 'unknown_upstream'],
    ['http://xtickets.internal/x', 'unknown_upstream'],
    ['http://tickets.internal.example.com/x', 'unknown_upstream'],
    ['http://169.254.169.254/latest/meta-data', 'unknown_upstream'],
    // Those that may hide their host, or have none.
    ['http://user@tickets.internal/x', 'invalid_request'],
    ['http://user:pass@127.0.0.1:PORT/x', 'invalid_request'],
    ['http://127.0.0.1:PORT@example.com/x', 'invalid_request'],
    [String.raw`http://tickets.internal\.example.com/x`, 'invalid_request'],
    ['http://tickets%2einternal/x', 'invalid_request'],
    ['http://tickets.internal:port/x', 'invalid_request'],
    ['http://tickets.internal:80:80/x', 'invalid_request'],
    ['http://[::1/x', 'invalid_request'],
    ['http:///ng/api/projects', 'invalid_request'],
    ['http:/ng/api/projects', 'invalid_request'],
    ['ftp://127.0.0.1:PORT/x', 'invalid_request'],
    ['ws://tickets.internal/x', 'invalid_request'],
    ['tickets.internal:80', 'invalid_request'],
    ['*', 'invalid_request'],
  ]

describe('a target that is a whole URL', () => {
  it('is served where its host is an upstream’s or the gateway’s, and refused where it is anybody else’s', async () => {
    const { gateway, upstream, tickets, port } = await setUp()
    const outcomes: unknown[] = []
    for (const [target, ,] of targets) {
      const before = { harness: upstream.seen.length, tickets: tickets.seen.length }
      const client = await RawClient.connect(gateway.url)
      // The target alone counts (RFC 9112 §3.2.2).
      const url = target.replaceAll('PORT', port)
      client.write(`GET ${url} HTTP/1.1\r\nHost: tickets.internal\r\nConnection: close\r\n\r\n`)
      const error = /^x-sluice-error: (\w+)/im.exec(await client.closed())?.[1]
      const seen = [...upstream.seen.slice(before.harness), ...tickets.seen.slice(before.tickets)]
      const who = tickets.seen.length > before.tickets ? 'tickets' : 'harness'
      outcomes.push(seen.length === 0 ? [target, error] : [target, who, seen[0]!.url])
    }
    expect(outcomes).toEqual(targets)
  })

  it('of another host is refused in words that say what to do, and no vendor hears of it', async () => {
    const { gateway, upstream } = await setUp()
    const answer = await call(gateway.url, 'http://example.com/', { headers: { host: 'example.com' } })
    expect(answer.status).toBe(404)
    expect(answer.json().message).toMatch(/no proxy to example\.com.*upstreams\.\*\.hosts.*server\.hosts/)
    expect(upstream.seen).toEqual([])
  })

  it('of another host begins no WebSocket, and no tunnel', async () => {
    const { gateway, upstream } = await setUp()
    const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
    for (const [line, error] of [
      ['GET http://example.com/x', 'unknown_upstream'],
      ['CONNECT example.com:443', 'invalid_request'],
    ] as const) {
      const client = await RawClient.connect(gateway.url)
      client.write(`${line} HTTP/1.1\r\nHost: example.com\r\n${upgrade}\r\n`)
      expect(await client.closed()).toMatch(new RegExp(`^x-sluice-error: ${error}`, 'im'))
    }
    expect(upstream.seen).toEqual([])
  })

  it('is none in HTTP/2, whose :authority is what Host is in HTTP/1.1', async () => {
    const { gateway, upstream, tickets } = await setUp({ http2: true })
    const client = connectHttp2(gateway.url)
    const ask = async (headers: Record<string, string>): Promise<IncomingHttpHeaders | string> => {
      const stream = client.request(headers).on('error', () => undefined)
      const answered = once(stream, 'response').then(([answer]) => answer as IncomingHttpHeaders)
      stream.resume()
      return answered.catch(() => 'reset')
    }
    await ask({ ':path': '/x', ':authority': 'Tickets.Internal.:80' })
    expect(tickets.seen.map(({ url }) => url)).toEqual(['/x'])
    for (const scheme of ['http', 'https', 'x']) {
      const answer = await ask({ ':path': 'http://example.com/x', ':authority': 'example.com', ':scheme': scheme })
      if (typeof answer === 'object') expect(answer['x-sluice-error']).toBeTypeOf('string')
    }
    expect([upstream.seen, tickets.seen.length]).toEqual([[], 1])
    client.destroy()
  })
})

it('is the gateway’s own where it is the IPv6 address at which the gateway was reached', async () => {
  const upstream = await startUpstream()
  const config = harnessConfig(upstream.url, {}, { server: { port: 0, host: '::1' }, defaultUpstream: 'harness' })
  const gateway = await startGateway(config)
  const port = Number(new URL(gateway.url).port)
  const socket = createConnection({ host: '::1', port })
  socket.write(`GET http://[0::1]:${port}${PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
  expect(Buffer.concat(await socket.toArray()).toString()).toMatch(/^HTTP\/1\.1 200/)
})

it('is an error of the configuration that a name is the gateway’s and an upstream’s', async () => {
  await expect(setUp({ hosts: ['TICKETS.internal'] })).rejects.toThrow(/server.hosts.*belongs to upstream "tickets"/s)
})

it.each(['[2001:db8::7]', '[2001:DB8:0::7]:8080', 'Tickets.internal.'])(
  'finds the upstream of a Host field in its shortest form, and as it is configured: %s',
  async (host) => {
    const { gateway, tickets } = await setUp()
    expect((await call(gateway.url, '/x', { headers: { host } })).status).toBe(200)
    expect(tickets.seen.map(({ url }) => url)).toEqual(['/x'])
  },
)
