import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import { createServer, type Server } from 'node:net'
import type { AddressInfo } from 'node:net'
import { type Duplex, Readable } from 'node:stream'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Timer } from '../../src/time/clock.ts'
import { harnessConfig, startGateway, startServer, startUpstream, type TestGateway } from '../support/gateway.ts'
import { call, open, RawClient } from '../support/http.ts'
import { startProcess } from '../support/process.ts'
import { SimulatedClock } from '../support/simulated-clock.ts'
import { startTokenServer } from '../support/token-server.ts'

const READ = '/harness/ng/api/projects'
const SECOND = 1_000
const WEB_SOCKET = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13'
const ONCE = { retry: { retries: 0 } }

/** A bare TCP server; what is connected to it is broken off when the test is finished. */
async function startTcp(serve: Parameters<Server['on']>[1]): Promise<number> {
  const server = createServer().on('connection', (socket) => {
    socket.on('error', () => undefined)
    onTestFinished(() => void socket.destroy())
    serve(socket)
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  return (server.address() as AddressInfo).port
}

async function timeoutsIn(gateway: TestGateway): Promise<Record<string, number>> {
  const lines = (await gateway.metrics()).matchAll(/^sluice_timeouts_total\{[^}]*phase="(\w+)"\} (\d+)/gm)
  return Object.fromEntries([...lines].filter(([, , n]) => n !== '0').map(([, phase, n]) => [phase, Number(n)]))
}

/** Node may run a timer up to two milliseconds before it is due. */
class EarlyClock extends SimulatedClock {
  override schedule(delayMs: number, wake: () => void): Timer {
    return super.schedule(delayMs - 2, wake)
  }
}

describe('what takes too long ends with its own words and its own count', () => {
  it('a connection that is never made is told of as one, and nothing was sent', async () => {
    const timeouts = { connect: '100ms' }
    const config = harnessConfig('http://vendor.example', { ...ONCE, timeouts })
    const gateway = await startGateway(config, { lookup: () => undefined })
    const answer = await call(gateway.url, READ, { method: 'POST', body: 'x' })
    expect(answer).toMatchObject({ status: 502, headers: { 'x-sluice-error': 'unreachable' } })
    expect(answer.json().message).toBe('a connection with harness took longer than 100 ms; nothing was sent')
    expect(await timeoutsIn(gateway)).toEqual({ connect: 1 })
  })

  it('a TLS handshake that never ends is told of as one, and nothing was sent', async () => {
    const port = await startTcp(() => undefined)
    const timeouts = { tls: '100ms' }
    const gateway = await startGateway(harnessConfig(`https://127.0.0.1:${port}`, { ...ONCE, timeouts }))
    const answer = await call(gateway.url, READ, { method: 'POST', body: 'x' })
    expect(answer).toMatchObject({ status: 502, headers: { 'x-sluice-error': 'unreachable' } })
    expect(answer.json().message).toBe('a TLS handshake with harness took longer than 100 ms; nothing was sent')
    expect(await timeoutsIn(gateway)).toEqual({ tls: 1 })
  })

  it('response headers that never come, of an upstream that has gone, are a timeout', async () => {
    const clock = new SimulatedClock()
    let received = ''
    const port = await startTcp((socket) => socket.on('data', (chunk: Buffer) => void (received += String(chunk))))
    const gateway = await startGateway(harnessConfig(`http://127.0.0.1:${port}`, ONCE), { clock })
    const answer = call(gateway.url, READ)
    await expect.poll(() => received).toContain('\r\n\r\n')
    await clock.advance(60 * SECOND)
    expect((await answer).json()).toMatchObject({
      code: 'UPSTREAM_TIMEOUT',
      message: 'harness sent no response headers for 60000 ms',
    })
    expect(await timeoutsIn(gateway)).toEqual({ headers: 1 })
  })

  it('a body that stalls in the middle: the client’s connection breaks as well', async () => {
    const url = await startServer((_, response) => void response.writeHead(200, { 'content-length': 10 }).write('half'))
    const gateway = await startGateway(harnessConfig(url, { ...ONCE, timeouts: { idle: '200ms' } }))
    await expect(call(gateway.url, READ)).rejects.toThrow('aborted')
    await expect.poll(() => gateway.lines).toMatchObject([{ outcome: 'broken_off' }])
    expect(await timeoutsIn(gateway)).toEqual({ idle: 1 })
  })

  it('all attempts together end with the time that a call may take', async () => {
    const clock = new SimulatedClock()
    let count = 0
    const upstream = await startUpstream((_, response) => {
      if (count++ === 0) response.writeHead(503).end()
    })
    const timeouts = { headers: '60s', total: '61s' }
    const retry = { retries: 1, baseDelay: '14s' }
    const gateway = await startGateway(harnessConfig(upstream.url, { retry, timeouts }), { clock, random: () => 0.5 })
    const answer = call(gateway.url, READ)
    await expect.poll(() => clock.waits).toContain(7 * SECOND)
    await clock.advance(7 * SECOND)
    await expect.poll(() => upstream.seen.length).toBe(2)
    await clock.advance(54 * SECOND)
    expect((await answer).json().message).toBe('harness did not answer in all the time that the call may take')
    expect(await timeoutsIn(gateway)).toEqual({ total: 1 })
  })

  it('an upload of which the upstream reads nothing ends', async () => {
    const clock = new SimulatedClock()
    const sockets: unknown[] = []
    const port = await startTcp((socket) => {
      socket.pause()
      sockets.push(socket)
    })
    const gateway = await startGateway(harnessConfig(`http://127.0.0.1:${port}`, ONCE), { clock })
    const endless = new Readable({ read: (size) => void endless.push(Buffer.alloc(size)) })
    const answer = call(gateway.url, READ, { method: 'PUT', body: endless })
    await expect.poll(() => sockets.length).toBe(1)
    // Once what lies between them is full, nothing moves any more.
    await expect
      .poll(async () => {
        await clock.advance(61 * SECOND)
        return gateway.lines.length
      })
      .toBe(1)
    endless.destroy()
    expect(gateway.lines).toMatchObject([{ outcome: 'timeout' }])
    await answer.catch(() => undefined)
    expect(await timeoutsIn(gateway)).toEqual({ headers: 1 })
  })
})

describe('a call that waits for one of the gateway’s own connections', () => {
  /** A gateway with one connection, which a stream holds until it is ended. */
  async function busyGateway(rest: object) {
    const clock = new SimulatedClock()
    let [end, answer]: (() => void)[] = []
    const connections = new Set<unknown>()
    const upstream = await startUpstream(({ url }, response) => {
      connections.add(response.socket)
      if (url.includes('stream')) {
        response.write('event')
        end = () => void response.end()
      } else if (url.includes('slow')) answer = () => void response.end()
      else response.end()
    })
    const config = { connections: 1, breaker: { failures: 1 }, timeouts: { headers: '59s' }, ...rest }
    const gateway = await startGateway(harnessConfig(upstream.url, config), { clock, random: () => 0.5 })
    const stream = await open(gateway.url, `${READ}?stream`)
    stream.resume()
    return {
      clock,
      gateway,
      seen: upstream.seen,
      connections,
      endStream: () => end!(),
      answer: () => answer!(),
      isAsked: () => answer !== undefined,
    }
  }

  it.each([
    ['timeouts.headers', {}, 59, 502, 'unreachable'],
    ['what its client allows', { 'x-sluice-timeout': '7s' }, 7, 504, 'timeout'],
  ])('is refused after %s, and the breaker does not count it', async (_, headers, seconds, status, kind) => {
    const { clock, gateway, seen, endStream } = await busyGateway(ONCE)
    const refused = call(gateway.url, READ, { headers })
    await expect.poll(() => clock.waits).toContain(seconds * SECOND)
    await clock.advance(seconds * SECOND)
    expect(await refused).toMatchObject({ status, headers: { 'x-sluice-error': kind } })
    const message =
      'other calls held all connections to harness (connections: 1), and none became free in time; nothing was sent'
    expect((await refused).json().message).toBe(message)
    endStream()
    expect((await call(gateway.url, READ)).status).toBe(200)
    expect(seen).toHaveLength(2)
  })

  it('leaves it to those behind that did not give up', async () => {
    const { clock, gateway, seen, connections, endStream } = await busyGateway(ONCE)
    const headers = { 'x-sluice-timeout': '7s' }
    const refused = Promise.all([1, 2, 3].map(() => call(gateway.url, READ, { headers })))
    await expect.poll(() => clock.waits.filter((ms) => ms === 7 * SECOND).length).toBe(3)
    await clock.advance(7 * SECOND)
    expect((await refused).map(({ status }) => status)).toEqual([504, 504, 504])
    const answer = call(gateway.url, READ)
    endStream()
    expect((await answer).status).toBe(200)
    expect([seen.length, connections.size]).toEqual([2, 1])
  })

  it('is one of those that sluice_connection_waiting counts', async () => {
    const { gateway, endStream } = await busyGateway(ONCE)
    const waiting = async () => /^sluice_connection_waiting\{.*\} (\d+)/m.exec(await gateway.metrics())?.[1]
    const answers = Promise.all([1, 2, 3].map(() => call(gateway.url, READ)))
    await expect.poll(waiting).toBe('3')
    endStream()
    expect((await answers).map(({ status }) => status)).toEqual([200, 200, 200])
    expect(await waiting()).toBe('0')
  })

  it('is sent again, whatever it is', async () => {
    const { clock, gateway, seen, endStream } = await busyGateway({ retry: { retries: 1, baseDelay: '2s' } })
    const answer = call(gateway.url, READ, { method: 'POST', body: 'x' })
    await expect.poll(() => clock.waits).toContain(59 * SECOND)
    await clock.advance(59 * SECOND)
    await expect.poll(() => clock.waits).toContain(SECOND)
    endStream()
    await clock.advance(SECOND)
    expect(await answer).toMatchObject({ status: 200, headers: { 'x-sluice-attempts': '2' } })
    expect(seen).toHaveLength(2)
  })

  it('gets that of an answer which nobody wants any more, and which does not end', async () => {
    const clock = new SimulatedClock()
    const upstream = await startUpstream((_, response) => {
      if (upstream.seen.length > 1) response.end('whole')
      else response.writeHead(503, { 'content-length': 10 }).write('half')
    })
    const config = { connections: 1, retry: { retries: 1, baseDelay: '100ms' } }
    const gateway = await startGateway(harnessConfig(upstream.url, config), { clock, random: () => 0.5 })
    const answer = call(gateway.url, READ)
    await expect.poll(() => clock.waits).toContain(50)
    await clock.advance(50)
    await expect.poll(() => gateway.metrics()).toMatch(/^sluice_connection_waiting\{.*\} [1-9]/m)
    await clock.advance(SECOND)
    expect(await answer).toMatchObject({ status: 200, body: 'whole' })
  })

  it('leaves the upstream all of its time when it has one', async () => {
    const { clock, gateway, endStream, answer, isAsked } = await busyGateway(ONCE)
    const slow = call(gateway.url, `${READ}?slow`)
    await expect.poll(() => clock.waits).toContain(59 * SECOND)
    await clock.advance(58 * SECOND)
    endStream()
    await expect.poll(isAsked).toBe(true)
    await clock.advance(58 * SECOND)
    answer()
    expect((await slow).status).toBe(200)
  })
})

describe('a gateway that stood still for longer than a timeout', () => {
  it('takes what came in that time for what came in time', async () => {
    let answer: (() => void) | undefined
    let uploaded = ''
    let webSocket: Duplex | undefined
    const server = createHttpServer((request, response) => {
      if (request.method === 'GET') answer = () => void response.end('an answer')
      else request.on('data', (piece) => (uploaded += String(piece))).on('end', () => response.end(uploaded))
    })
    server.on('upgrade', (_, socket) => {
      webSocket = socket.on('error', () => undefined)
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
    })
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      webSocket?.destroy()
      server.closeAllConnections()
      server.close()
    })
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const timeouts = { headers: '3s', idle: '3s' }
    const gateway = await startProcess(harnessConfig(url, { ...ONCE, timeouts }))
    const [upload, talk] = [await RawClient.connect(gateway.url), await RawClient.connect(gateway.url)]
    talk.write(
      `GET ${READ} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${WEB_SOCKET}\r\n\r\n`,
    )
    upload.write(`PUT ${READ} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n`)
    const answered = call(gateway.url, READ)
    await expect
      .poll(() => [answer === undefined, uploaded, talk.received.includes('101')])
      .toEqual([false, 'first', true])
    gateway.kill('SIGSTOP')
    // Before it stands still it could still take what comes.
    await expect.poll(() => readFileSync(`/proc/${gateway.child.pid}/stat`, 'utf8')).toMatch(/\) T /)
    answer!()
    upload.write('5\r\n last\r\n0\r\n\r\n')
    webSocket!.write(Buffer.from([0x81, 5, ...Buffer.from('hello')]))
    await new Promise((resolve) => void setTimeout(resolve, 3_500))
    gateway.kill('SIGCONT')
    expect(await answered).toMatchObject({ status: 200, body: 'an answer' })
    expect(await upload.until(/first last/)).toContain('200 OK')
    await expect.poll(() => talk.received.endsWith('hello')).toBe(true)
    for (const { socket } of [upload, talk]) socket.destroy()
  })
})

describe('X-Sluice-Timeout', () => {
  const within = (timeout: string) => ({ headers: { 'x-sluice-timeout': timeout } })

  it('counts the wait for quota, which timeouts.total does not', async () => {
    const clock = new SimulatedClock()
    let isSilent = false
    const upstream = await startUpstream((_, response) => void (isSilent || response.end()))
    const limits = { read: [{ requests: 1, window: '10s' }] }
    const rest = { limits, queue: { maxWait: '60s' }, timeouts: { total: '15s' }, ...ONCE }
    const gateway = await startGateway(harnessConfig(upstream.url, rest), { clock })
    // Its turn comes a little more than ten seconds after the call before it.
    for (const [options, from, to] of [
      [within('20s'), 19.9, 20.1],
      [{}, 24.9, 26],
    ] as const) {
      isSilent = false
      await call(gateway.url, READ)
      isSilent = true
      const { length } = upstream.seen
      const answer = call(gateway.url, READ, options)
      await expect.poll(() => gateway.metrics()).toMatch(/sluice_queue_depth\{[^}]*class="read"\} 1/)
      await clock.advance(11 * SECOND)
      await expect.poll(() => upstream.seen.length).toBe(length + 1)
      await clock.advance((from - 11) * SECOND)
      expect(gateway.lines).toHaveLength(length)
      await clock.advance((to - from) * SECOND)
      expect((await answer).headers['x-sluice-error']).toBe('timeout')
      await clock.advance(20 * SECOND)
    }
  })

  it('refuses at once a call whose turn would come later', async () => {
    const upstream = await startUpstream()
    const limits = { read: [{ requests: 1, window: '1h' }] }
    const gateway = await startGateway(harnessConfig(upstream.url, { limits, queue: { maxWait: '2h' } }))
    await call(gateway.url, READ)
    expect((await call(gateway.url, READ, within('5s'))).headers['x-sluice-error']).toBe('quota_exhausted')
  })

  it('leaves retries no more time, and is not passed on', async () => {
    const clock = new SimulatedClock()
    const upstream = await startUpstream((_, response) => response.writeHead(429, { 'retry-after': '6' }).end('slowly'))
    const gateway = await startGateway(harnessConfig(upstream.url), { clock })
    const answer = await call(gateway.url, READ, within('5s'))
    expect(answer).toMatchObject({ status: 429, body: 'slowly', headers: { 'retry-after': '6' } })
    expect(upstream.seen).toHaveLength(1)
    expect(upstream.seen[0]!.headers['x-sluice-timeout']).toBeUndefined()
  })

  it.each([
    ['counts the wait for a token', new SimulatedClock()],
    ['sends nothing without a token, though timers come a little early', new EarlyClock()],
  ])('%s', async (_, clock) => {
    const tokens = await startTokenServer()
    const held = Promise.withResolvers<void>()
    tokens.hold = held.promise
    const upstream = await startUpstream()
    const credential = { type: 'oauth2', tokenUrl: tokens.url, clientId: 'me', clientSecret: 'client-secret' }
    const accounts = { prod: { id: 'a', credential } }
    const gateway = await startGateway(harnessConfig(upstream.url, { accounts }), { clock })
    const answer = call(gateway.url, READ, within('500ms'))
    await expect.poll(() => tokens.requests.length).toBe(1)
    await clock.advance(SECOND)
    expect(await answer).toMatchObject({ status: 504, headers: { 'x-sluice-error': 'timeout' } })
    held.resolve()
    expect((await call(gateway.url, READ)).status).toBe(200)
    expect(upstream.seen).toHaveLength(1)
    expect(await timeoutsIn(gateway)).toEqual({ total: 1 })
  })

  it('ends a call whose client goes on sending', async () => {
    const clock = new SimulatedClock()
    let received = ''
    const url = await startServer((request) => void request.on('data', (chunk) => void (received += String(chunk))))
    const gateway = await startGateway(harnessConfig(url, ONCE), { clock })
    const client = await RawClient.connect(gateway.url)
    client.write(
      `PUT ${READ} HTTP/1.1\r\nHost: x\r\nX-Sluice-Timeout: 5s\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`,
    )
    await expect.poll(() => received).toBe('abc')
    await clock.advance(5 * SECOND)
    expect(await client.until(/UPSTREAM_TIMEOUT/)).toMatch(/^HTTP\/1\.1 504/)
    client.socket.destroy()
  })

  it.each(['0', '5', '-1s', '5s5s'])('is refused as "%s"', async (timeout) => {
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url))
    expect((await call(gateway.url, READ, within(timeout))).json().message).toContain('X-Sluice-Timeout must be')
  })
})

describe('a client that is slow on purpose', () => {
  it('with its head, is told so, and its connection is closed', async () => {
    const upstream = await startUpstream()
    const config = { ...harnessConfig(upstream.url), server: { port: 0, headTimeout: '300ms' } }
    const gateway = await startGateway(config)
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\nX-Slow: `)
    const drip = setInterval(() => client.write('x'), 50)
    onTestFinished(() => clearInterval(drip))
    expect(await client.closed()).toContain('the head of the request did not come within server.headTimeout')
    expect(upstream.seen).toHaveLength(0)
  })

  it('with a head of HTTP/2, has its connection closed, and one that only pings has not', async () => {
    const server = { port: 0, headTimeout: '300ms', http2: true }
    const gateway = await startGateway({ ...harnessConfig('http://127.0.0.1:9'), server })
    const session = connectHttp2(gateway.url)
    onTestFinished(() => session.destroy())
    const ping = setInterval(() => session.destroyed || session.ping(() => undefined), 50)
    onTestFinished(() => clearInterval(ping))
    await once(session, 'remoteSettings')
    const client = await RawClient.connect(gateway.url)
    client.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0')
    // The head of a HEADERS frame of 4,000 bytes, and one byte of it after the other.
    client.write('\0\x0f\xa0\x01\x05\0\0\0\x01')
    const drip = setInterval(() => client.write('x'), 50)
    onTestFinished(() => clearInterval(drip))
    await client.closed()
    expect(session.closed).toBe(false)
  })

  it.each([
    ['that is collected', 'Content-Length: 10000'],
    ['that streams', 'Transfer-Encoding: chunked'],
  ])('with a body %s, is cut off although it never pauses for long', async (_, framing) => {
    const clock = new SimulatedClock()
    const url = await startServer((request) => void request.resume())
    const gateway = await startGateway(harnessConfig(url, { timeouts: { idle: '10s', headers: '1h', total: '1h' } }), {
      clock,
    })
    const client = await RawClient.connect(gateway.url)
    client.write(`PUT ${READ} HTTP/1.1\r\nHost: x\r\n${framing}\r\n\r\n`)
    await expect.poll(() => clock.waits).toContain(10 * SECOND)
    let seconds = 0
    for (; seconds < 60 && client.received === ''; seconds += 3) {
      client.write(framing.startsWith('Content') ? 'x' : '1\r\nx\r\n')
      // Real time, for the byte to arrive before the clock is stepped.
      await new Promise((resolve) => void setTimeout(resolve, 20))
      await clock.advance(3 * SECOND)
    }
    expect(await client.until(/INVALID_REQUEST/)).toContain('more slowly than 100 bytes a second')
    expect(seconds).toBeLessThan(20)
    expect(await timeoutsIn(gateway)).toEqual({ client: 1 })
    client.socket.destroy()
  })

  it('of whose body as much comes as should, may take as long as it likes', async () => {
    const clock = new SimulatedClock()
    const upstream = await startUpstream()
    const gateway = await startGateway(harnessConfig(upstream.url, { timeouts: { idle: '10s' } }), { clock })
    const client = await RawClient.connect(gateway.url)
    client.write(`PUT ${READ} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n`)
    await expect.poll(() => clock.waits).toContain(10 * SECOND)
    for (let i = 0; i < 20; i++) {
      client.write('x'.repeat(500))
      await new Promise((resolve) => void setTimeout(resolve, 20))
      await clock.advance(5 * SECOND)
    }
    expect(await client.until(/200 OK/)).toMatch(/^HTTP\/1\.1 200/)
    client.socket.destroy()
  })

  it('that closes its side of the connection before it has its answer has gone: its call ends upstream, too', async () => {
    let isCancelled = false
    let isReached = false
    const url = await startServer((request) => {
      isReached = true
      request.on('close', () => (isCancelled = true))
    })
    const gateway = await startGateway(harnessConfig(url))
    const client = await RawClient.connect(gateway.url)
    client.write(`GET ${READ} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await expect.poll(() => isReached).toBe(true)
    client.socket.end()
    await client.closed()
    await expect.poll(() => isCancelled).toBe(true)
    expect(gateway.lines).toMatchObject([{ outcome: 'client_gone' }])
  })
})
