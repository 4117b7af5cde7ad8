import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import WebSocket, { WebSocketServer } from 'ws'
import { hashKey } from '../../src/clients/keys.ts'
import { ACCOUNT, harnessConfig, startGateway, TOKEN, type TestGateway } from '../support/gateway.ts'
import { call, RawClient } from '../support/http.ts'
import { startProcess } from '../support/process.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'

const PATH = '/harness/ng/api/stream'
const HANDSHAKE = [
  `GET ${PATH} HTTP/1.1`,
  ...['Host: localhost', 'Connection: Upgrade', 'Upgrade: websocket'],
  ...['Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13', '', ''],
].join('\r\n')
const GET = `GET ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n`

describe('a WebSocket', () => {
  it('carries messages both ways, of any size and kind, and closes in order', async () => {
    const { url } = await startEcho()
    const gateway = await startGateway(harnessConfig(url))
    const client = await connected(gateway, { 'x-correlation-id': 'ws-1' })
    const large = Buffer.alloc(3_000_000, 7)
    for (const message of ['hello', 'x'.repeat(200), 'y'.repeat(70_000), large, '']) {
      client.send(message)
      const [data, isBinary] = (await once(client, 'message')) as [Buffer, boolean]
      expect(isBinary).toBe(typeof message !== 'string')
      expect(Buffer.from(message).equals(data)).toBe(true)
    }
    client.close(4_001, 'enough')
    expect(((await once(client, 'close')) as [number])[0]).toBe(4_001)
    await expect
      .poll(() => gateway.lines)
      .toMatchObject([
        { correlationId: 'ws-1', status: '101', outcome: 'delivered', class: 'read', account: 'prod', attempts: 1 },
      ])
    const metrics = await gateway.metrics()
    expect(metrics).toMatch(/^sluice_requests_total\{.*status="101",outcome="delivered"\} 1/m)
    expect(metrics).toMatch(/^sluice_websockets\{upstream="harness"\} 0$/m)
    expect(metrics).toMatch(/^sluice_in_flight\{.*class="read"\} 0$/m)
    // How long it was open would be taken for a latency.
    expect(metrics).toMatch(/^sluice_request_duration_seconds_count\{.*class="read"\} 0/m)
  })

  it('goes to the account with its credential, without what was meant for the gateway, and is charged once', async () => {
    const { url, handshakes } = await startEcho()
    const gateway = await startGateway(
      harnessConfig(url, {}, { clients: { tool: { keys: [hashKey('slk_tool')], classes: ['read'] } } }),
    )
    const client = await connected(gateway, { 'x-sluice-key': 'slk_tool', 'x-api-key': 'slk_tool' }, '?a=%2F&b')
    const { headers, url: path } = handshakes[0]!
    expect(path).toBe('/ng/api/stream?a=%2F&b')
    expect(headers).toMatchObject({ 'x-api-key': TOKEN, 'harness-account': ACCOUNT, upgrade: 'websocket' })
    expect(JSON.stringify(headers)).not.toContain('slk_tool')
    expect(Object.keys(headers).filter((name) => name.startsWith('x-sluice'))).toEqual([])
    for (let i = 0; i < 5; i++) {
      client.send('x')
      await once(client, 'message')
    }
    const metrics = await gateway.metrics()
    expect(metrics).toMatch(/^sluice_quota_used\{.*class="read".*\} 1$/m)
    expect(metrics).toMatch(/^sluice_websockets\{upstream="harness"\} 1$/m)
    // It has been answered: who counts calls in flight counts it no more.
    expect(metrics).toMatch(/^sluice_in_flight\{.*class="read"\} 0$/m)
    client.terminate()
    await expect.poll(() => gateway.lines).toMatchObject([{ client: 'tool', outcome: 'client_gone', status: '101' }])
  })

  it('tells its client the gateway’s own fields with the 101, and the subprotocol', async () => {
    const { url } = await startEcho()
    const gateway = await startGateway(harnessConfig(url))
    const client = new WebSocket(`${gateway.url.replace('http', 'ws')}${PATH}`, ['one', 'two'])
    const opened = once(client, 'open')
    const [{ headers, statusCode }] = (await once(client, 'upgrade')) as [IncomingMessage]
    expect(statusCode).toBe(101)
    expect(headers).toMatchObject({ 'x-ratelimit-remaining': '999', via: '1.1 sluice' })
    expect(headers['x-correlation-id']).toBeTypeOf('string')
    await opened
    expect(client.protocol).toBe('one')
    client.terminate()
  })

  it.each<[string, object, string, number]>([
    ['without a key', {}, 'unauthenticated', 401],
    ['with a key of a client that may not', { 'x-sluice-key': 'slk_writer' }, 'forbidden', 403],
    ['for another account', { 'x-sluice-key': 'slk_tool', 'harness-account': 'other' }, 'account_mismatch', 403],
  ])('is refused as any call %s', async (_, headers, kind, status) => {
    const { url, handshakes } = await startEcho()
    const gateway = await startGateway(
      harnessConfig(
        url,
        {},
        {
          clients: {
            tool: { keys: [hashKey('slk_tool')] },
            writer: { keys: [hashKey('slk_writer')], classes: ['write'] },
          },
        },
      ),
    )
    const response = await refused(gateway, headers)
    expect(response.statusCode).toBe(status)
    expect(response.headers['x-sluice-error']).toBe(kind)
    expect(handshakes).toHaveLength(0)
  })

  it('is refused where the quota is used up', async () => {
    const { url } = await startEcho()
    const gateway = await startGateway(harnessConfig(url, { limits: { read: [{ requests: 1, window: '1h' }] } }))
    const first = await connected(gateway)
    const response = await refused(gateway, { 'x-sluice-max-wait': '0' })
    expect(response.statusCode).toBe(429)
    expect(Number(response.headers['retry-after'])).toBeGreaterThan(0)
    first.terminate()
  })

  it('is one of a few, and its place is free when it has ended', async () => {
    const { url } = await startEcho()
    const gateway = await startGateway(harnessConfig(url, { maxWebSockets: 2 }))
    const [first, second] = [await connected(gateway), await connected(gateway)]
    const response = await refused(gateway)
    expect(response.statusCode).toBe(429)
    expect(response.headers['x-sluice-error']).toBe('quota_exhausted')
    expect((await call(gateway.url, PATH)).status).toBe(426)
    first.terminate()
    await expect.poll(async () => (await connected(gateway).catch(() => undefined))?.terminate()).not.toBe(null)
    second.terminate()
  })

  it('gets the upstream’s own answer where that does not agree', async () => {
    const { url } = await startEcho({ refuseWith: 403 })
    const gateway = await startGateway(harnessConfig(url))
    const response = await refused(gateway)
    expect(response.statusCode).toBe(403)
    expect((await response.toArray()).join('')).toBe('no')
    await expect.poll(() => gateway.lines).toMatchObject([{ status: '403', outcome: 'delivered' }])
    expect(await gateway.metrics()).toMatch(/^sluice_websockets\{upstream="harness"\} 0$/m)
  })

  it.each([
    [
      'ends the trial of a new credential that is refused',
      { credential: { value: TOKEN, next: { value: 'refused' }, canary: '100%' } },
      /^sluice_credential_rollbacks_total\{.*\} 1$/m,
    ],
    [
      'leaves out a credential of a pool that is refused',
      {
        credentials: ['refused', TOKEN].map((value, i) => ({ name: `c${i}`, value })),
        pool: { choose: 'round-robin' },
      },
      /^sluice_credential_quarantined\{.*\} 1$/m,
    ],
  ])('%s, where another one is taken', async (_, credential, expected) => {
    const { url, handshakes } = await startEcho({ refuseWith: 403, refusedKey: 'refused' })
    const accounts = { prod: { id: ACCOUNT, ...credential } }
    const gateway = await startGateway(harnessConfig(url, { accounts }))
    await connected(gateway)
    expect(handshakes.map(({ headers }) => headers['x-api-key'])).toEqual(['refused', TOKEN])
    expect(await gateway.metrics()).toMatch(expected)
  })

  it('is refused where the upstream can not be reached', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:9', { retry: { retries: 0 } }))
    const response = await refused(gateway)
    expect(response.headers['x-sluice-error']).toBe('unreachable')
  })

  it('that its upstream breaks off is broken off for its client, too, and the other way round', async () => {
    const { url, server } = await startEcho()
    const gateway = await startGateway(harnessConfig(url))
    const client = await connected(gateway)
    for (const one of server.clients) one.terminate()
    expect(((await once(client, 'close')) as [number])[0]).toBe(1_006)
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'broken_off' }])
    const second = await connected(gateway)
    const [peer] = server.clients
    const closed = once(peer!, 'close')
    second.terminate()
    expect(((await closed) as [number])[0]).toBe(1_006)
    await expect.poll(() => gateway.lines.map(({ outcome }) => outcome)).toEqual(['broken_off', 'client_gone'])
  })

  it('is ended upstream when its client leaves before the upstream has answered', async () => {
    const arrived = Promise.withResolvers<Socket>()
    const upstream = createServer().on('upgrade', (_, socket: Socket) => arrived.resolve(socket))
    await once(upstream.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => void upstream.close())
    const gateway = await startGateway(harnessConfig(`http://127.0.0.1:${(upstream.address() as AddressInfo).port}`))
    const client = await RawClient.connect(gateway.url)
    client.write(HANDSHAKE)
    const socket = await arrived.promise
    socket.on('error', () => undefined).resume()
    const ended = once(socket, 'end')
    client.socket.end()
    await ended
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'client_gone', status: 'none' }])
    expect(await gateway.metrics()).toMatch(/^sluice_websockets\{upstream="harness"\} 0$/m)
  })

  it('is not read faster than its receiver takes it', async () => {
    const { url, server } = await startEcho()
    const gateway = await startGateway(harnessConfig(url))
    const client = await connected(gateway)
    client.pause()
    const [peer] = server.clients
    for (let i = 0; i < 200; i++) peer!.send(Buffer.alloc(1_048_576))
    const before = peer!.bufferedAmount
    await expect.poll(() => peer!.bufferedAmount).toBeLessThan(before)
    await new Promise((resolve) => void setTimeout(resolve, 100))
    expect(peer!.bufferedAmount).toBeGreaterThan(150 * 1_048_576)
    let received = 0
    client.on('message', () => received++)
    client.resume()
    await expect.poll(() => received).toBe(200)
    client.terminate()
  })

  it('may send at once what its client does not wait to send, within bounds', async () => {
    const { url } = await startEcho()
    const gateway = await startGateway(harnessConfig(url))
    const client = await RawClient.connect(gateway.url)
    client.write(`${HANDSHAKE}\x81\x82\0\0\0\0hi`)
    expect(await client.until(frame('\x81\x02hi'))).toMatch(/^HTTP\/1\.1 101/)
    client.socket.destroy()
  })

  it('without a byte in either direction for too long is closed with 1001 on both sides', async () => {
    const clock = new SimulatedClock()
    const { url, server } = await startEcho()
    const gateway = await startGateway(harnessConfig(url, { timeouts: { idle: '300s' } }), { clock })
    const client = await connected(gateway)
    await clock.advance(200_000)
    client.send('still here')
    await once(client, 'message')
    await clock.advance(299_000)
    expect(client.readyState).toBe(WebSocket.OPEN)
    const peerClosed = once([...server.clients][0]!, 'close')
    const closed = once(client, 'close')
    await clock.advance(1_000)
    expect(((await closed) as [number])[0]).toBe(1_001)
    expect(((await peerClosed) as [number])[0]).toBe(1_001)
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'delivered' }])
    await expect.poll(() => clock.waits.filter((ms) => ms === 300_000)).toEqual([])
  })

  it('is told 1001 when the gateway drains, behind the frame that is under way, even if its client never closes', async () => {
    const { url, server } = await startEcho()
    const gateway = await startProcess(harnessConfig(url))
    const [client, silent] = [await connected(gateway), await RawClient.connect(gateway.url)]
    silent.write(HANDSHAKE)
    await silent.until(/\r\n\r\n/)
    await expect.poll(() => server.clients.size).toBe(2)
    // A frame of which half has come: a Close in its middle would be taken for a part of it.
    silent.write('\x82\x84\0\0\0\0ab')
    const peerClosed = once([...server.clients][0]!, 'close')
    const closed = once(client, 'close')
    gateway.kill('SIGTERM')
    expect(((await closed) as [number])[0]).toBe(1_001)
    expect(((await peerClosed) as [number])[0]).toBe(1_001)
    await silent.until(frame('\x88\x02\x03\xe9'))
    silent.write('cd')
    await silent.until(frame('\x82\x04abcd'))
    expect(await gateway.ended).toEqual({ code: 0, signal: null })
    expect(silent.isClosed).toBe(true)
  })
})

describe('an upgrade', () => {
  it.each([
    ['without a key of its own', 'GET', 'Connection: Upgrade\r\nUpgrade: websocket'],
    ['to another protocol besides, without a key', 'GET', 'Connection: Upgrade\r\nUpgrade: websocket, foo'],
    ['by another method', 'POST', 'Connection: Upgrade\r\nUpgrade: websocket'],
    ['with a body', 'GET', 'Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5'],
  ])('%s is refused, and nothing is sent upstream', async (_, method, fields) => {
    const { url, handshakes } = await startEcho()
    const gateway = await startGateway(harnessConfig(url))
    const client = await RawClient.connect(gateway.url)
    client.write(`${method} ${PATH} HTTP/1.1\r\nHost: x\r\n${fields}\r\n\r\n`)
    const answer = await client.closed()
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    expect(answer).toMatch(/\r\nX-Sluice-Error: invalid_request\r\n/)
    expect(JSON.parse(answer.split('\r\n\r\n')[1] ?? '')).toMatchObject({ code: 'INVALID_REQUEST' })
    expect(handshakes).toHaveLength(0)
    expect(gateway.lines).toMatchObject([{ outcome: 'invalid_request' }])
  })

  it('that offers other protocols besides is one to a WebSocket', async () => {
    const { url, handshakes } = await startEcho()
    const gateway = await startGateway(harnessConfig(url))
    const client = await RawClient.connect(gateway.url)
    client.write(HANDSHAKE.replace('Upgrade: websocket', 'Upgrade: h2c, WebSocket'))
    expect(await client.until(/\r\n\r\n/)).toMatch(/^HTTP\/1\.1 101 /)
    expect(handshakes.map(({ headers }) => headers.upgrade)).toEqual(['websocket'])
    client.socket.destroy()
  })

  it('by CONNECT is refused in the same way', async () => {
    const gateway = await startGateway(harnessConfig('http://127.0.0.1:9'))
    const client = await RawClient.connect(gateway.url)
    client.write('CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n')
    expect(await client.closed()).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n[^]*X-Sluice-Error: invalid_request/)
  })

  it.each([
    ['a WebSocket', `${HANDSHAKE}\x81\x82\0\0\0\0hi`, /HTTP\/1\.1 101 [^]*\r\n\r\n..hi/],
    ['a CONNECT', 'CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n', /HTTP\/1\.1 400 [^]*CONNECT is not forwarded/],
  ])('behind calls of its connection that are under way takes its turn: %s', async (_, bytes, answer) => {
    const held: ServerResponse[] = []
    const gateway = await startGateway(harnessConfig((await startEcho({ held })).url))
    const client = await RawClient.connect(gateway.url)
    client.write(`${GET}${GET}${bytes}`)
    await expect.poll(() => held.length).toBe(2)
    held[1]!.end('second')
    held[0]!.end('first')
    expect(await client.until(answer)).toMatch(/^HTTP\/1\.1 200 [^]*first[^]*HTTP\/1\.1 200 [^]*second[^]*/)
    expect(client.received).toMatch(answer)
    client.socket.destroy()
  })

  it('behind calls that are under way holds none of them if the client leaves', async () => {
    const held: ServerResponse[] = []
    const gateway = await startGateway(harnessConfig((await startEcho({ held })).url))
    const client = await RawClient.connect(gateway.url)
    client.write(`${GET}${GET}${HANDSHAKE}`)
    await expect.poll(() => held.length).toBe(2)
    client.socket.end()
    await expect.poll(() => gateway.lines.map(({ outcome }) => outcome)).toEqual(['client_gone', 'client_gone'])
    expect(await gateway.metrics()).toMatch(/^sluice_in_flight\{.*class="read"\} 0$/m)
  })

  it('behind another call counts once, so that a reload closes nothing under a call', async () => {
    const held: ServerResponse[] = []
    const { url } = await startEcho({ held })
    const gateway = await startGateway(harnessConfig(url))
    const client = await RawClient.connect(gateway.url)
    client.write(`${GET}CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n`)
    await expect.poll(() => held.length).toBe(1)
    held[0]!.end('first')
    expect(await client.closed()).toMatch(/HTTP\/1\.1 400 /)
    const running = call(gateway.url, PATH)
    await expect.poll(() => held.length).toBe(2)
    expect(await gateway.reloadWith(harnessConfig(url, { timeouts: { idle: '77s' } }))).toMatchObject({
      result: 'applied',
    })
    held[1]!.end('second')
    expect(await running).toMatchObject({ status: 200, body: 'second' })
  })

  it('lets the client take its time for a large answer before it', async () => {
    const held: ServerResponse[] = []
    const gateway = await startGateway(harnessConfig((await startEcho({ held })).url))
    const client = await RawClient.connect(gateway.url)
    client.write(`${GET}${HANDSHAKE}`)
    await expect.poll(() => held.length).toBe(1)
    client.socket.pause()
    held[0]!.end(Buffer.alloc(30_000_000, 'x'))
    // Nothing goes on any more before the client reads.
    let before = NaN
    await expect
      .poll(
        () => {
          const { writableLength = 0 } = held[0]!.socket ?? {}
          const stands = writableLength > 0 && writableLength === before
          before = writableLength
          return stands
        },
        { interval: 300 },
      )
      .toBe(true)
    client.socket.resume()
    await expect.poll(() => client.received.length).toBeGreaterThan(30_000_000)
    expect(await client.until(/HTTP\/1\.1 101 /)).toMatch(/HTTP\/1\.1 101 /)
    client.socket.destroy()
  })

  it('that is answered otherwise has the whole of a large answer', async () => {
    const { url } = await startEcho({ refuseWith: 426, body: 'x'.repeat(30_000_000) })
    const gateway = await startGateway(harnessConfig(url))
    const response = await refused(gateway)
    let bytes = 0
    for await (const piece of response) bytes += (piece as Buffer).length
    expect(bytes).toBe(30_000_000)
  })

  it('that the upstream was not asked for is no answer', async () => {
    const url = await startEcho({ switchUnasked: true }).then((echo) => echo.url)
    const gateway = await startGateway(harnessConfig(url, { retry: { retries: 0 } }))
    expect((await call(gateway.url, PATH)).headers['x-sluice-error']).toBe('interrupted')
  })
})

interface EchoOptions {
  readonly refuseWith?: number
  /** Only what comes with this credential is refused. */
  readonly refusedKey?: string
  readonly body?: string
  readonly switchUnasked?: boolean
  /** Takes the responses to what asks for no WebSocket. */
  readonly held?: ServerResponse[]
}

/** An upstream whose WebSockets send everything back; what asks for none gets 426. */
async function startEcho({ refuseWith, refusedKey, body = 'no', switchUnasked = false, held }: EchoOptions = {}) {
  const handshakes: IncomingMessage[] = []
  const http = createServer((request, response) => {
    if (switchUnasked)
      return void request.socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n')
    if (held !== undefined) return void held.push(response)
    return void response.writeHead(426).end()
  })
  const server = new WebSocketServer({ noServer: true, handleProtocols: (names) => [...names][0] ?? false })
  http.on('upgrade', (request, socket, head) => {
    handshakes.push(request)
    if (refuseWith !== undefined && (refusedKey === undefined || request.headers['x-api-key'] === refusedKey))
      return void socket.end(`HTTP/1.1 ${refuseWith} No\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    server.handleUpgrade(request, socket, head, (peer) => {
      peer.on('error', () => undefined)
      peer.on('message', (data, isBinary) => peer.send(data, { binary: isBinary }))
    })
  })
  await once(http.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => {
    for (const client of server.clients) client.terminate()
    http.closeAllConnections()
    http.close()
  })
  return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`, server, handshakes }
}

async function connected({ url }: Pick<TestGateway, 'url'>, headers: object = {}, query = ''): Promise<WebSocket> {
  const client = new WebSocket(`${url.replace('http', 'ws')}${PATH}${query}`, { headers: { ...headers } })
  client.on('error', () => undefined)
  onTestFinished(() => client.terminate())
  await once(client, 'open')
  return client
}

/** The answer to a handshake that is no 101. */
async function refused({ url }: TestGateway, headers: object = {}): Promise<IncomingMessage> {
  const client = new WebSocket(`${url.replace('http', 'ws')}${PATH}`, { headers: { ...headers } })
  client.on('error', () => undefined)
  const [, response] = (await once(client, 'unexpected-response')) as [unknown, IncomingMessage]
  return response
}

/** Finds the bytes of a frame. */
function frame(bytes: string): RegExp {
  return new RegExp(RegExp.escape(bytes))
}
